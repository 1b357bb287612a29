"""The program of a plan: arrays, and the steps that compute on them.

``Program(plan, memory)`` allocates; ``forward`` and ``backward`` run. No blob is allocated per
pass. The seam for another device is here: it would bind the same plan to its own arrays and its own
implementations of the layers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netdef import fillers, rng
from netdef.arena import Arena
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import NetdefError, NetError
from netdef.events import DebugLine, Event
from netdef.kernels.elementwise import add
from netdef.layer import Layer
from netdef.memory import Ends, Memory, arrange
from netdef.parameters import side_by_side
from netdef.plan import LayerPlan, ParamPlan, Plan, reshape


@dataclass
class Learnable:
    """A parameter that owns its memory, as the update rule sees it."""

    blob: Blob
    lr_mult: float
    decay_mult: float
    layer: str
    name: str


@dataclass
class Step:
    """One layer with the blobs it works on."""

    number: int
    layer: Layer
    plan: LayerPlan
    ends: Ends
    bottom: list[Blob] = field(default_factory=list)
    top: list[Blob] = field(default_factory=list)
    #: Its tops in backward: as in Caffe, what layers in place have made of them by then.
    final_top: list[Blob] = field(default_factory=list)
    #: All arrays of its blobs, to tell when it has to be bound anew.
    arrays: list[Array | None] = field(default_factory=list)
    #: (blob, weight) of each top that is part of the loss
    losses: list[tuple[Blob, float]] = field(default_factory=list)
    #: Parameters to whose gradient no other layer has added before, when backward comes here.
    first: list[int] = field(default_factory=list)
    #: (gradient of the blob, what this layer adds to it)
    additions: list[tuple[Array, Array]] = field(default_factory=list)

    def forward(self) -> None:
        if not self.ends.free_forward:
            self.layer.forward(self.bottom, self.top)

    def backward(self, fresh: bool = False) -> None:
        """With ``fresh`` the gradients of parameters begin anew, as if they had been cleared."""
        if not self.plan.needs_backward or self.ends.free_backward:
            return
        layer = self.layer
        if fresh:
            for i in self.first:
                if i in layer.writes_gradients:
                    layer.adds[i] = False
                else:
                    layer.blobs[i].diff.fill(0)
        layer.backward(self.final_top, self.bottom)
        if fresh:
            for i in self.first:
                layer.adds[i] = True
        for target, addition in self.additions:
            add(addition, target)


class Program:
    """A net that runs: ``blobs`` and ``params`` by name, ``learnable`` in order."""

    def __init__(
        self,
        plan: Plan,
        memory: Memory | None = None,
        dtype: type[Any] = np.float32,
        seed: int | None = None,
        share: Program | None = None,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        """Allocate ``plan`` and fill its parameters.

        ``memory``: how it is arranged; by default every blob can be looked at after a pass.
        ``dtype``: float32, or float64 to check gradients. ``seed``: of every random number in the
        net.
        ``share``: use the parameters of this program's layers where names agree, as a test net
        does.
        """
        self.plan = plan
        self.memory = memory = arrange(plan) if memory is None else memory
        self.dtype = dtype
        self.seed = rng.fresh_seed() if seed is None else seed
        self.emit = emit
        self.debug = bool(plan.net.debug_info)
        self._nothing = np.empty(0, dtype)
        #: Forward passes so far; random layers draw from this, so a resumed run sets it.
        self.passes = 0
        self.blobs: dict[str, Blob] = {}
        self.params: dict[str, list[Blob]] = {}
        #: The array of each blob when it was last bound: users reshape blobs, too.
        self._bound: dict[str, Array] = {}
        self.learnable: list[Learnable] = []
        self.steps = [
            Step(number, planned.layer, planned, ends)
            for number, (planned, ends) in enumerate(zip(plan.layers, memory.layers, strict=True))
        ]
        #: Steps from here on do not know yet what changed before them: see ``_follow``.
        self._planned = len(self.steps)
        #: Tops that are not what their blob shows in the end: see ``Memory.superseded``.
        self._hidden: dict[tuple[int, int], Blob] = {}
        for planned in plan.layers:
            for name in planned.tops:
                self.blobs.setdefault(name, Blob(self._nothing, None, name))
        lender = share._arena if share is not None and share.memory.reused else None
        self._arena: Arena = Arena(memory, dtype, lender if memory.reused else None)
        self._make_params(share)
        self._bind()

    # -- allocation -----------------------------------------------------------------------------

    def _make_params(self, share: Program | None) -> None:
        shared = share.params if share is not None else {}
        data, diffs = self._parameter_arrays(shared)
        made: list[Blob] = []
        for number, planned in enumerate(self.plan.params):
            if planned.layer in shared:
                # As in Caffe, the other net's layer of this name counts before sharing in this net.
                values = _shared_data(planned, shared[planned.layer])
                blob = Blob(values, diffs[number], planned.name)
            elif planned.owner != number:
                owner = made[planned.owner]
                blob = Blob(
                    owner.data.reshape(planned.shape),
                    owner.diff.reshape(planned.shape),
                    planned.name,
                )
            else:
                key = rng.key(self.seed, f"filler/{planned.layer}/{planned.index}")
                self._fill(number, data[number], key)
                blob = Blob(data[number], diffs[number], planned.name)
            made.append(blob)
            if planned.owner == number:
                self.learnable.append(
                    Learnable(
                        blob, planned.lr_mult, planned.decay_mult, planned.layer, planned.name
                    )
                )
        if share is not None:
            _check_same_number(self.plan, share)
        for step in self.steps:
            layer = step.layer
            layer.dtype = self.dtype
            layer.key = layer.draw_key(self.seed)
            layer.emit = self._tell
            runs = step.plan.needs_backward and self.memory.backward
            layer.learn = [learns and runs for learns in step.plan.learn]
            layer.adds = [True] * len(step.plan.params)
            layer.blobs = [made[i] for i in step.plan.params]
            if layer.blobs:
                self.params[layer.name] = layer.blobs
        self._find_first_gradients()

    def _parameter_arrays(
        self, shared: Mapping[str, list[Blob]]
    ) -> tuple[dict[int, Array], dict[int, Array]]:
        """Values and gradients by number, side by side where they learn at the same rate.

        Of parameters that are shared there are no values; they have gradients of their own.
        """
        params = self.plan.params
        owners = {n for n, param in enumerate(params) if param.owner == n}
        elsewhere = {n for n, param in enumerate(params) if param.layer in shared}
        found = []
        for numbers in (owners - elsewhere, owners | elsewhere):
            order = sorted(numbers, key=lambda n: (params[n].lr_mult, params[n].decay_mult, n))
            try:
                arrays = side_by_side([params[n].shape for n in order], self.dtype)
            except MemoryError as error:
                largest = max(order, key=lambda n: math.prod(params[n].shape))
                raise _no_memory(self._layer_of(largest), error) from error
            found.append(dict(zip(order, arrays, strict=True)))
        return found[0], found[1]

    def _find_first_gradients(self) -> None:
        """Which layer is the first in backward to add to the gradient of each parameter."""

        def memory_of(blob: Blob) -> tuple[int, int]:
            return blob.diff.ctypes.data, blob.diff.nbytes

        waiting = {memory_of(blob): blob for step in self.steps for blob in step.layer.blobs}
        for step in reversed(self.steps):
            step.first = [
                i
                for i, blob in enumerate(step.layer.blobs)
                if step.layer.learn[i] and waiting.pop(memory_of(blob), None) is not None
            ]
        #: Gradients that no layer computes: they stay 0.
        self._idle = list(waiting.values())

    def _fill(self, number: int, data: Array, key: np.uint64) -> None:
        planned = self.plan.params[number]
        if isinstance(planned.filler, np.ndarray):
            data[...] = planned.filler
            return
        try:
            fillers.fill(planned.filler, data, key)
        except NetError as error:
            layer = self._layer_of(number)
            # Layers call it weight_filler, bias_filler or filler: it is the one that says this.
            names = [
                field.name for field, said in layer.config.ListFields() if said == planned.filler
            ]
            path = [layer.config_field or "", *names[:1], "type"]
            raise layer.located(error, *path) from error

    def _layer_of(self, number: int) -> Layer:
        """The layer of a parameter."""
        return next(step.layer for step in self.steps if number in step.plan.params)

    def _bind(self, first: int = 0, stop: int | None = None) -> None:
        """Give layers ``first`` to ``stop - 1`` their blobs, and their tops arrays.

        Arrays of unchanged shape stay, and so does what layers keep from forward for backward.
        """
        try:
            self._arena.follow(self.plan)
        except MemoryError as error:
            largest = self.memory.buffers[self._arena.largest].layer
            raise _no_memory(self.steps[largest].layer, error) from error
        for step in self.steps[first:stop]:
            try:
                self._bind_tops(step)
                self._bind_step(step)
            except MemoryError as error:
                raise _no_memory(step.layer, error) from error
        self._planned = len(self.steps) if stop is None else stop

    def _bind_tops(self, step: Step) -> None:
        planned, ends, shown = step.plan, step.ends, self.memory.blobs
        step.top = []
        for j, (name, shape) in enumerate(zip(planned.tops, planned.top_shapes, strict=True)):
            blob, buffers = self.blobs[name], (ends.top_data[j], ends.top_diff[j])
            if buffers == shown[name]:
                if blob.shape == shape and blob.data is not self._bound.get(name, blob.data):
                    # The user has reshaped it to what it is now planned to be: that is kept.
                    self._adopt(step.number, j, buffers[0], blob.data)
                    self._adopt(step.number, j, buffers[1], blob.diff)
                self._bind_blob(blob, buffers, shape)
                self._bound[name] = blob.data
                step.top.append(blob)
                continue
            hidden = self._hidden.setdefault((step.number, j), Blob(self._nothing, None, name))
            self._bind_blob(hidden, buffers, shape)
            if buffers[0] == shown[name][0]:
                self._bind_blob(blob, shown[name], shape)
                self._bound[name] = blob.data
            step.top.append(hidden)

    def _bind_blob(self, blob: Blob, buffers: tuple[int | None, int | None], shape: Shape) -> None:
        data, diff = (self._array(buffer, shape) for buffer in buffers)
        if data is None:
            data = self._nothing
        if blob.data is not data or blob.diff is not diff:
            blob.bind(data, diff)

    def _adopt(self, layer: int, top: int, buffer: int | None, array: Array | None) -> None:
        """Let the buffer that begins with this top be the array of a user."""
        if buffer is None or array is None:
            return
        begins = self.memory.buffers[buffer]
        if begins.own and (begins.layer, begins.index) == (layer, top):
            self._arena.adopt(buffer, array)

    def _array(self, buffer: int | None, shape: Shape) -> Any:
        return None if buffer is None else self._arena.array(self.plan, buffer, shape)

    def _bind_step(self, step: Step, anew: bool = False) -> None:
        """Give a step its present arrays; with ``anew`` also where they are those that it has."""
        planned, ends, layer = step.plan, step.ends, step.layer
        values, gradients, addends = (
            [self._array(n, s) for n, s in zip(numbers, planned.bottom_shapes, strict=True)]
            for numbers in (ends.bottom_data, ends.bottom_diff, ends.addend)
        )
        wanted = layer.work(*planned.bottom_shapes)
        work = [self._array(n, w.shape) for n, w in zip(ends.work, wanted, strict=True)]
        tops = [array for blob in step.top for array in (blob.data, blob.diff)]
        finals = [
            self._array(self.memory.blobs[name][0], shape)
            for name, shape in zip(planned.tops, planned.top_shapes, strict=True)
        ]
        arrays = [*values, *gradients, *addends, *work, *tops, *finals]
        same = len(arrays) == len(step.arrays) and all(map(operator.is_, arrays, step.arrays))
        if same and not anew:
            return
        step.arrays = arrays
        # A layer gets a handle of its own: what it may write differs from reader to reader.
        step.bottom = [
            Blob(self._nothing if data is None else data, diff if addend is None else addend, name)
            for data, diff, addend, name in zip(
                values, gradients, addends, planned.bottoms, strict=True
            )
        ]
        step.final_top = [
            blob if data is blob.data or data is None else Blob(data, blob.diff, blob.name)
            for blob, data in zip(step.top, finals, strict=True)
        ]
        step.additions = [
            (diff.reshape(-1), addend.reshape(-1))
            for diff, addend in zip(gradients, addends, strict=True)
            if addend is not None
        ]
        step.losses = []
        for blob, weight in zip(step.top, planned.loss_weights, strict=True):
            if weight:
                step.losses.append((blob, weight))
                if blob.diff is not None:
                    blob.diff.fill(weight)
        layer.work_arrays = work
        if not ends.free_forward:
            layer.setup(step.bottom, step.top)

    def reshape(self, shapes: Mapping[str, Shape]) -> None:
        """Take other shapes for tops of inputs or data layers; everything after them follows."""
        self._plan_again(shapes, 0, len(self.steps))

    def _plan_again(self, shapes: Mapping[str, Shape], first: int, stop: int) -> None:
        self.plan = reshape(self.plan, shapes, first, stop)
        for step, planned in zip(self.steps, self.plan.layers, strict=True):
            step.plan = planned
        self._bind(first, stop)

    def rebind(self) -> None:
        """Let every layer see the present arrays; to be called after a parameter was bound anew."""
        for step in self.steps:
            self._bind_step(step, anew=True)

    def set_seed(self, seed: int) -> None:
        """Draw random numbers from ``seed`` from now on; parameters stay."""
        self.seed = seed
        for step in self.steps:
            step.layer.key = step.layer.draw_key(seed)

    # -- computation ----------------------------------------------------------------------------

    def forward(self, start: int = 0, end: int | None = None) -> float:
        """Run layers ``start`` to ``end`` (inclusive) and return their weighted loss."""
        loss = 0.0
        iteration = np.uint64(self.passes)
        last = len(self.steps) - 1 if end is None else end
        if start >= self._planned:
            # The pass before ended between a layer whose shapes changed and the next dynamic one.
            self._plan_again({}, self._planned, len(self.steps))
        if start:
            self._enter(start)
        for step in self.steps[start : last + 1]:
            layer = step.layer
            layer.iteration = iteration
            if layer.dynamic:
                self._follow(step.number)
            step.forward()
            for blob, weight in step.losses:
                loss += _weighted(blob.data, weight)
            if self.debug:
                self._debug_forward(step)
        if last < len(self.steps) - 1:
            self._leave(start, last)
        self.passes += 1
        return float(loss)

    def _enter(self, start: int) -> None:
        """Begin in the middle: a layer in place works on what its blob shows."""
        for layer, top, reader in self.memory.superseded:
            if layer < start <= reader:
                blob = self._hidden[layer, top]
                np.copyto(blob.flat, self.blobs[blob.name].flat)

    def _leave(self, start: int, last: int) -> None:
        """End in the middle: a blob shows what it held before the next layer in place."""
        for layer, top, reader in self.memory.superseded:
            if start <= layer <= last < reader:
                blob = self._hidden[layer, top]
                np.copyto(self.blobs[blob.name].flat, blob.flat)

    def backward(self, start: int | None = None, end: int = 0, *, fresh: bool = False) -> None:
        """Run layers ``start`` down to ``end`` (inclusive) backward; parameter gradients add up.

        ``fresh``, only for a whole pass: they begin anew, quicker than if they were cleared before.
        Raises ValueError where the memory was arranged for forward passes alone.
        """
        if not self.memory.backward:
            raise ValueError("this net was made for forward passes alone")
        first = len(self.steps) if start is None else start + 1
        if start is not None:
            self._clear_unwritten(first, end)
        if fresh:
            for blob in self._idle:
                blob.diff.fill(0)
        for step in reversed(self.steps[end:first]):
            step.backward(fresh)
            if self.debug and step.plan.needs_backward:
                self._debug_backward(step)
        if self.debug:
            self._debug_norms()

    def _clear_unwritten(self, first: int, end: int) -> None:
        """Zero the gradients that layers ``end`` to ``first - 1`` add to but none of them writes.

        In a whole backward pass the first layer to reach a gradient writes it and the next ones
        add; a pass that begins in the middle may begin behind the one that writes.
        """
        written: set[int] = set()
        for step in reversed(self.steps[end:first]):
            if not step.plan.needs_backward or step.ends.free_backward:
                continue
            # The last bottom of a layer is the first to be written.
            for k in reversed(range(len(step.bottom))):
                buffer = step.ends.bottom_diff[k]
                if buffer is None:
                    continue
                if step.ends.addend[k] is not None and buffer not in written:
                    self._arena.array(self.plan, buffer, step.plan.bottom_shapes[k]).fill(0)
                written.add(buffer)

    def clear_param_diffs(self) -> None:
        """Set every parameter gradient to zero."""
        for param in self.learnable:
            param.blob.diff.fill(0)

    def _follow(self, number: int) -> None:
        """Let a layer whose top shapes depend on data announce them; plan again if they changed.

        But only up to the next such layer, itself included, which goes on from there: what stands
        behind both may be unable to take the new shapes of one with the old shapes of the other.
        """
        step = self.steps[number]
        shapes = step.layer.next_shapes(step.bottom)
        changed = {
            name: shape
            for name, shape, old in zip(step.plan.tops, shapes, step.plan.top_shapes, strict=True)
            if shape != old
        }
        if changed or self._planned < len(self.steps):
            later = (k for k in range(number + 1, len(self.steps)) if self.steps[k].layer.dynamic)
            stop = next((k + 1 for k in later), len(self.steps))
            self._plan_again(changed, number, stop)

    # -- data -----------------------------------------------------------------------------------

    @property
    def sources(self) -> list[Any]:
        """The layers that bring records."""
        return [step.layer for step in self.steps if step.layer.source]

    def close(self) -> None:
        """Stop prefetch threads and close files."""
        for step in self.steps:
            step.layer.close()

    def _tell(self, event: Event) -> None:
        if self.emit is not None:
            self.emit(event)

    # -- debug_info -----------------------------------------------------------------------------

    def _debug_forward(self, step: Step) -> None:
        for blob in step.top:
            self._tell(
                DebugLine(
                    f"    [Forward] Layer {step.layer.name}, top blob {blob.name} "
                    f"data: {_mean_abs(blob.data)}",
                    "net.cpp:573",
                )
            )
        for param in step.layer.blobs:
            self._tell(
                DebugLine(
                    f"    [Forward] Layer {step.layer.name}, param blob {param.name} "
                    f"data: {_mean_abs(param.data)}",
                    "net.cpp:584",
                )
            )

    def _debug_backward(self, step: Step) -> None:
        for blob in step.bottom:
            if blob.diff is not None:
                self._tell(
                    DebugLine(
                        f"    [Backward] Layer {step.layer.name}, bottom blob {blob.name} "
                        f"diff: {_mean_abs(blob.diff)}",
                        "net.cpp:598",
                    )
                )
        for i, param in enumerate(step.layer.blobs):
            if step.layer.learn[i]:
                self._tell(
                    DebugLine(
                        f"    [Backward] Layer {step.layer.name}, param blob {i} "
                        f"diff: {_mean_abs(param.diff)}",
                        "net.cpp:609",
                    )
                )

    def _debug_norms(self) -> None:
        data = [p.blob.flat.astype(np.float64) for p in self.learnable]
        diff = [p.blob.flat_diff.astype(np.float64) for p in self.learnable]
        l1 = [sum(float(np.abs(x).sum()) for x in arrays) for arrays in (data, diff)]
        l2 = [math.sqrt(sum(float(x @ x) for x in arrays)) for arrays in (data, diff)]
        self._tell(
            DebugLine(
                "    [Backward] All net params (data, diff): "
                f"L1 norm = ({l1[0]:g}, {l1[1]:g}); L2 norm = ({l2[0]:g}, {l2[1]:g})",
                "net.cpp:667",
            )
        )


def _no_memory(layer: Layer, error: MemoryError) -> NetdefError:
    """Says which layer it is whose arrays there is no memory for."""
    # Numpy says how much it asked for.
    return layer.error(f"not enough memory: {error}")


def _shared_data(planned: ParamPlan, theirs: list[Blob]) -> Array:
    """The values of a parameter that another net's layer of this name holds."""
    if planned.index >= len(theirs) or theirs[planned.index].shape != planned.shape:
        there = [shape_text(blob.shape) for blob in theirs]
        raise NetError(
            f'layer "{planned.layer}": parameter {planned.index} is {shape_text(planned.shape)} '
            f"here, but {', '.join(there[planned.index :][:1]) or 'missing'} in the net whose "
            "parameters it shares",
            code="E130",
        )
    return theirs[planned.index].data


def _check_same_number(plan: Plan, share: Program) -> None:
    """Raise where a layer has fewer parameters than the one it shares with, as Caffe does."""
    for layer in plan.layers:
        theirs = share.params.get(layer.name, [])
        if layer.params and len(theirs) > len(layer.params):
            raise NetError(
                f'layer "{layer.name}" has {len(layer.params)} parameters, but {len(theirs)} in '
                "the net whose parameters it shares",
                code="E130",
            )


def _weighted(x: Array, weight: float) -> float:
    """What a top adds to the loss. Of a net that diverges it is infinite or NaN, as in Caffe."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(weight * (x.item() if x.size == 1 else x.sum()))


def _mean_abs(x: Array) -> str:
    with np.errstate(over="ignore"):
        return f"{float(np.abs(x).mean()) if x.size else 0.0:g}"
