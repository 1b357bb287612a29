"""Net: the user's handle on a program, in the shape of pycaffe.

>>> net = Net("deploy.prototxt", "lenet.caffemodel", TEST)
>>> net.blobs["data"].data[...] = images
>>> net.forward()["prob"]
"""

from __future__ import annotations

import math
import os
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netdef import forks, graph, prototxt, rng, snapshot
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import Diagnostic, Location, NetError
from netdef.events import Event, Listener, NetBuilt, Warned, WeightsLoaded
from netdef.fusion import groups
from netdef.layer import Layer
from netdef.memory import arrange
from netdef.plan import Plan, plan
from netdef.program import Program
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Positions
from netdef.upgrade import upgrade_net
from netdef.weights import CopyReport, copy_weights, read_weights

TRAIN = pb.TRAIN
TEST = pb.TEST


class _Seeds:
    """Where nets that belong to no solver get their seeds from."""

    fixed: int | None = None
    drawn = 0

    def next(self) -> int:
        if self.fixed is None:
            return rng.fresh_seed()
        self.drawn += 1
        return int(rng.key(self.fixed, f"net {self.drawn}") >> np.uint64(33))


_seeds = _Seeds()


def set_random_seed(seed: int) -> None:
    """Nets made from here on draw from ``seed``: the same nets, the same numbers."""
    _seeds.fixed = int(seed)
    _seeds.drawn = 0


class Net:
    """A net that runs.

    ``blobs``    by name, in order of the layers; ``net.blobs["conv1"].data``, ``.diff`` are arrays
    ``params``   by layer name, a list of blobs: weight, bias
    ``inputs``   names of the blobs the user fills, ``outputs`` of those that no layer reads
    ``layers``   the layers in order; ``layer_dict`` by name
    """

    program: Program

    def __init__(
        self,
        network_file: str | os.PathLike[str],
        *arguments: Any,
        phase: int | None = None,
        level: int | None = None,
        stages: Iterable[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        """``Net(file, phase)``, ``Net(file, phase, weights=...)``, or pycaffe's older
        ``Net(file, weights, phase)``.

        Raises NetdefError: PrototxtError, NetError, DataError or WeightsError, each located.
        """
        options = _options(
            arguments, {"phase": phase, "level": level, "stages": stages, "weights": weights}
        )
        document = prototxt.read(network_file, pb.NetParameter)
        state = _state(document.message, options["phase"], options["level"], options["stages"])
        self._build(document.message, state, document.positions)
        if options["weights"] is not None:
            self.copy_from(options["weights"])

    @classmethod
    def from_text(
        cls,
        text: str,
        phase: int = TRAIN,
        *,
        level: int = 0,
        stages: Iterable[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Net:
        """A net from prototxt text. ``options``: see ``from_message``."""
        document = prototxt.parse(text, pb.NetParameter)
        state = _state(document.message, phase, level, stages)
        net = cls.from_message(document.message, state, document.positions, **options)
        if weights is not None:
            net.copy_from(weights)
        return net

    @classmethod
    def from_message(
        cls,
        message: pb.NetParameter,
        state: pb.NetState,
        positions: Positions | None = None,
        **options: Any,
    ) -> Net:
        """A net from a message as it was parsed.

        ``options``: ``dtype`` (float32; float64 to check gradients), ``seed`` of random numbers,
        ``share`` (a Net whose parameters it uses where layer names agree), ``keep`` (names of the
        blobs that can be looked at after a pass, beside inputs, outputs and losses: memory of all
        others is reused, and a net in phase TEST runs forward only; by default all are kept),
        ``keep_all`` (every blob has memory of its own, split ones too), ``emit`` (is told of
        events).
        """
        net = cls.__new__(cls)
        net._build(message, state, positions, **options)
        return net

    def _build(
        self,
        message: pb.NetParameter,
        state: pb.NetState,
        positions: Positions | None,
        *,
        dtype: type[Any] = np.float32,
        seed: int | None = None,
        share: Net | None = None,
        keep: Collection[str] | None = None,
        keep_all: bool = False,
        emit: Listener | None = None,
    ) -> None:
        self._emit = emit
        doubts: list[Any] = []
        upgraded = upgrade_net(message, positions, doubts)
        for doubt in doubts:
            self._warn(str(doubt))
        kept = graph.keep(upgraded, state, positions)
        self._refuse_unread(kept, positions)
        self._warn_of_double_names(kept)
        planned = plan(graph.split(kept, positions), positions)
        keep_all |= bool(kept.debug_info)
        backward = state.phase == pb.TRAIN
        if keep_all:
            memory = arrange(planned, apart=True)
        else:
            found = groups(planned, keep=keep, backward=backward or keep is None)
            memory = arrange(planned, found, keep=keep, backward=backward)
        self.program = Program(
            planned,
            memory,
            dtype,
            _seeds.next() if seed is None else seed,
            share.program if share is not None else None,
            emit,
        )
        self._positions = positions
        self._remember_inputs()
        self._tell(NetBuilt(planned, kept, tuple(graph.unmet_rules(upgraded, state))))

    def _refuse_unread(self, net: pb.NetParameter, positions: Positions | None) -> None:
        """Options of forks that would change the result, and that nothing here reads."""
        found = [
            Diagnostic(
                "E132",
                f'layer "{layer.name}" ({layer.type}): {forks.option_name(path)} comes from a fork '
                "of Caffe; netdef does not compute it",
                graph.locate(positions, layer, *path),
                "--lenient computes without it",
            )
            for layer in net.layer
            for path in forks.unread_options(layer)
        ]
        if found and not prototxt.is_lenient():
            raise NetError(diagnostics=found)
        for each in found:
            self._warn(str(replace(each, severity="warning", hint="")))

    # -- what it is -----------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The plan it runs by, with its present shapes."""
        return self.program.plan

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def phase(self) -> int:
        return self.plan.state.phase

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name; of a net that reuses memory, those that are kept."""
        kept = self.program.memory.kept
        return OrderedDict((name, b) for name, b in self.program.blobs.items() if name in kept)

    @property
    def params(self) -> OrderedDict[str, list[Blob]]:
        return OrderedDict(self.program.params)

    @property
    def layers(self) -> list[Layer]:
        return [step.layer for step in self.program.steps]

    @property
    def layer_dict(self) -> OrderedDict[str, Layer]:
        return OrderedDict((layer.name, layer) for layer in self.layers)

    @property
    def inputs(self) -> list[str]:
        return list(self.plan.inputs)

    @property
    def outputs(self) -> list[str]:
        return list(self.plan.outputs)

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        return OrderedDict((layer.name, list(layer.tops)) for layer in self.plan.layers)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        return OrderedDict((layer.name, list(layer.bottoms)) for layer in self.plan.layers)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        weights = OrderedDict((name, 0.0) for name in self.program.blobs)
        for layer in self.plan.layers:
            weights.update(zip(layer.tops, layer.loss_weights, strict=True))
        return weights

    @property
    def _layer_names(self) -> list[str]:
        return [layer.name for layer in self.layers]

    @property
    def _blob_names(self) -> list[str]:
        return list(self.program.blobs)

    # -- running --------------------------------------------------------------------------------

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: Any,
    ) -> dict[str, Array]:
        """Fill the inputs, run, and return the outputs by name.

        ``blobs``: names to return beside the outputs. ``start``, ``end``: first and last layer to
        run.
        ``inputs``: arrays for every input blob. Raises ValueError where they do not fit.
        """
        first = self._index(start, 0)
        last = self._index(end, len(self.program.steps) - 1)
        if inputs:
            self._fill(inputs, self.inputs, "data")
        self._follow_inputs()
        self.program.forward(first, last)
        wanted = self.outputs if end is None else self.top_names[end]
        return {name: self.program.blobs[name].data for name in (*wanted, *(blobs or ()))}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **gradients: Any,
    ) -> dict[str, Array]:
        """Fill the gradients of the outputs, run backward, and return those of the inputs by name.

        ``diffs``: names to return beside the inputs. ``start``, ``end``: the last and first layer,
        as the gradient flows. ``gradients``: arrays for every output blob.
        """
        first = self._index(start, len(self.program.steps) - 1)
        last = self._index(end, 0)
        if gradients:
            wanted = self.outputs if start is None else self.top_names[start]
            self._fill(gradients, wanted, "diff")
        self.program.backward(first, last)
        returned = self.inputs if end is None else self.bottom_names[end]
        return {name: self.program.blobs[name].diff for name in (*returned, *(diffs or ()))}

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Array]:
        """Run any number of inputs, a batch at a time, and return all outputs in order."""
        collected: dict[str, list[Array]] = {}
        for batch in self._batches(inputs):
            size = len(next(iter(batch.values())))
            for name, values in self.forward(blobs, None, None, **self._padded(batch)).items():
                collected.setdefault(name, []).append(values[:size].copy())
        return {name: np.concatenate(parts) for name, parts in collected.items()}

    def set_input_arrays(self, data: Array, labels: Array) -> None:
        """Let the net's first layer, which must be MemoryData, deliver these, a batch at a time.

        ``data`` (n, channels, height, width), ``labels`` (n,) or (n, 1, 1, 1): C-contiguous arrays
        of float32, n a multiple of batch_size. They are not copied, so what is written into them
        later counts. Raises ValueError where they do not fit.
        """
        layer: Any = self.layers[0] if self.layers else None
        if layer is None or layer.type != "MemoryData":
            found = f'"{layer.name}" ({layer.type})' if layer is not None else "missing"
            raise ValueError(
                f"set_input_arrays needs a MemoryData layer as the first of the net; it is {found}"
            )
        layer.set_arrays(data, labels)
        if layer.message.HasField("transform_param"):
            self._warn(f'layer "{layer.name}" (MemoryData) does not transform its arrays')

    def _batches(self, inputs: Mapping[str, Any]) -> Iterable[dict[str, Array]]:
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
        if not self.inputs:
            raise ValueError("the net has no inputs to fill: use forward()")
        if set(arrays) != set(self.inputs):
            raise ValueError(f"the inputs are {self.inputs}, but {sorted(arrays)} were given")
        if len({len(values) for values in arrays.values()}) > 1:
            raise ValueError("all inputs must have the same length")
        size = self.program.blobs[self.inputs[0]].shape[0]
        for first in range(0, len(arrays[self.inputs[0]]), size):
            yield {name: values[first : first + size] for name, values in arrays.items()}

    def _padded(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The batch, filled up with zeros to the batch size of the net."""
        padded = {}
        for name, values in batch.items():
            missing = self.program.blobs[name].shape[0] - len(values)
            filler = np.zeros((missing, *values.shape[1:]), values.dtype)
            padded[name] = np.concatenate([values, filler]) if missing else values
        return padded

    def _index(self, name: str | None, default: int) -> int:
        if name is None:
            return default
        names = self._layer_names
        if name not in names:
            raise ValueError(f'the net has no layer "{name}"')
        return names.index(name)

    def _fill(self, given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
        if set(given) != set(names):
            raise ValueError(f"expected arrays for {list(names)}, but got {sorted(given)}")
        for name, values in given.items():
            target = getattr(self.program.blobs[name], what)
            array = np.asarray(values)
            if array.ndim and target.ndim and array.shape[0] != target.shape[0]:
                raise ValueError(
                    f'"{name}" holds a batch of {target.shape[0]}, but {array.shape[0]} were '
                    f'given: net.blobs["{name}"].reshape(...) changes that'
                )
            try:
                target[...] = array
            except ValueError as error:
                raise ValueError(
                    f'"{name}" is {shape_text(target.shape)}, '
                    f"but {shape_text(array.shape)} was given"
                ) from error

    def _follow_inputs(self) -> None:
        """Plan again where the user has given an input blob another shape."""
        if Blob.reshapes == self._seen_reshapes:
            return
        blobs = self.program.blobs
        changed: dict[str, Shape] = {
            name: blobs[name].shape
            for name in self.plan.inputs
            # Reshaped there and back, a blob has its old shape but other arrays.
            if blobs[name].data is not self._inputs[name]
        }
        # As in Caffe, every other blob has the shape its layer gives it.
        other = any(blob.shape != self.plan.blobs[name].shape for name, blob in self.blobs.items())
        if changed or other:
            self.program.reshape(changed)
        self._remember_inputs()

    def _remember_inputs(self) -> None:
        self._inputs = {name: self.program.blobs[name].data for name in self.plan.inputs}
        self._seen_reshapes = Blob.reshapes

    def reshape(self) -> None:
        """Let every layer follow the present shapes of the inputs."""
        self._follow_inputs()

    def clear_param_diffs(self) -> None:
        """Set every parameter gradient to zero."""
        self.program.clear_param_diffs()

    def close(self) -> None:
        """Stop prefetch threads and close files."""
        self.program.close()

    # -- weights --------------------------------------------------------------------------------

    def copy_from(self, weights: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
        """Copy the parameters of layers of the same name from a .caffemodel.

        Raises WeightsError for a file that is damaged, or a layer whose shape differs (unless
        ``skip_mismatch``).
        """
        report = self.load(weights, skip_mismatch)
        self._tell(
            WeightsLoaded(
                os.fspath(weights),
                report.copied,
                report.ignored,
                report.missing,
                [str(mismatch) for mismatch in report.mismatched],
                report.unused,
            )
        )

    def load(self, weights: str | os.PathLike[str], skip_mismatch: bool = False) -> CopyReport:
        """``copy_from`` that returns what was copied and what was not, and tells nobody."""
        targets = {name: [b.data for b in blobs] for name, blobs in self.program.params.items()}
        for layer in self.layers:
            targets.setdefault(layer.name, [])
        report = copy_weights(
            read_weights(weights),
            targets,
            path=weights,
            locate=self._locate_layer,
            skip_mismatch=skip_mismatch,
        )
        if not report.copied and self.program.params:
            why = report.why_nothing(self.program.params)
            self._warn(f"{os.fspath(weights)}: nothing was copied: {why}")
        if self._emit is None:  # else ``WeightsLoaded`` tells them
            for mismatch in report.mismatched:
                self._warn(f"{os.fspath(weights)}: {mismatch}; it stays as it was")
        return report

    def _locate_layer(self, name: str) -> Location | None:
        for layer in self.layers:
            if layer.name == name:
                return layer.locate()
        return None

    def save(self, path: str | os.PathLike[str], diff: bool = False) -> None:
        """Write the parameters as a .caffemodel; ``diff`` adds their gradients."""
        message, params, diffs = self.saved()
        snapshot.write_model(path, message, params, diffs if diff else None)

    def save_hdf5(self, path: str | os.PathLike[str], diff: bool = False) -> None:
        """Write the parameters as a .caffemodel.h5; ``diff`` adds their gradients."""
        message, params, diffs = self.saved()
        snapshot.write_model_hdf5(path, message, params, diffs if diff else None)

    def load_hdf5(self, path: str | os.PathLike[str]) -> None:
        """``copy_from``, which reads both forms of a .caffemodel. For pycaffe scripts."""
        self.copy_from(path)

    def saved(
        self,
    ) -> tuple[pb.NetParameter, dict[int, Sequence[Array]], dict[int, Sequence[Array]]]:
        """What a .caffemodel holds: layers as they run; by layer index data and gradients."""
        message = pb.NetParameter()
        message.CopyFrom(self.plan.net)
        for layer, planned in zip(message.layer, self.plan.layers, strict=True):
            if planned.layer.loss and not layer.loss_weight:
                layer.loss_weight.extend(planned.loss_weights[:1])
        params: dict[int, Sequence[Array]] = {}
        diffs: dict[int, Sequence[Array]] = {}
        for i, step in enumerate(self.program.steps):
            if step.layer.blobs:
                params[i] = [blob.data for blob in step.layer.blobs]
                diffs[i] = [blob.diff for blob in step.layer.blobs]
        return message, params, diffs

    def share_with(self, other: Net) -> None:
        """Use the parameters of ``other`` where layer names agree: one memory, two nets."""
        for name, blobs in self.program.params.items():
            for mine, theirs in zip(blobs, other.program.params.get(name, ()), strict=False):
                if mine.shape != theirs.shape:
                    raise NetError(
                        f'layer "{name}": a parameter is {shape_text(mine.shape)} here, '
                        f"but {shape_text(theirs.shape)} in the net it is shared with",
                        code="E130",
                    )
                mine.bind(theirs.data, mine.diff)
        self.program.rebind()

    def _warn_of_double_names(self, net: pb.NetParameter) -> None:
        names = [layer.name for layer in net.layer]
        for name in sorted({name for name in names if name and names.count(name) > 1}):
            self._warn(
                f'{names.count(name)} layers are called "{name}": weights are saved and loaded by '
                "name, so only the last of them keeps its own"
            )

    # -- telling --------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if self._emit is not None:
            self._emit(event)

    def _warn(self, text: str) -> None:
        if self._emit is not None:
            self._emit(Warned(text))
        else:
            warnings.warn(text, stacklevel=4)

    def __repr__(self) -> str:
        count = sum(math.prod(param.shape) for param in self.plan.learnable)
        return f'<Net "{self.name}": {len(self.layers)} layers, {count} parameters>'


def _options(arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Sort out ``(phase, level, stages, weights)`` and the older ``(weights, phase)``."""
    older = bool(arguments) and isinstance(arguments[0], str | os.PathLike)
    order = ("weights", "phase") if older else ("phase", "level", "stages", "weights")
    given = dict(zip(order, arguments, strict=False))
    twice = [name for name in given if named[name] is not None]
    if len(arguments) > len(order) or twice:
        raise TypeError(
            "Net takes (file, phase, level=0, stages=None, weights=None) or (file, weights, phase)"
        )
    options = {**named, **given}
    if options["phase"] not in (TRAIN, TEST):
        raise TypeError("Net needs a phase: netdef.TRAIN or netdef.TEST")
    return options


def _state(
    message: pb.NetParameter, phase: int, level: int | None, stages: Iterable[str] | None
) -> pb.NetState:
    """The state to build a net in: its own, with the phase and level of the user."""
    state = pb.NetState()
    state.CopyFrom(message.state)
    state.MergeFrom(pb.NetState(phase=pb.Phase.Name(phase), level=level or 0, stage=stages or ()))
    return state
