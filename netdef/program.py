"""The program of a plan: arrays, and the steps that compute on them.

``Program(plan, memory)`` allocates; ``forward`` and ``backward`` run. No blob is allocated per
pass. The seam for another device is here: it would bind the same plan to its own arrays and its own
implementations of the layers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from netdef import fillers, rng
from netdef.arena import Arena
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import NetdefError, NetError
from netdef.events import DebugLine, Event
from netdef.fusion import Group
from netdef.kernels.elementwise import add
from netdef.layer import Layer
from netdef.memory import Ends, Memory, arrange
from netdef.parameters import side_by_side
from netdef.plan import LayerPlan, ParamPlan, Plan, reshape

#: What to do where a pass would cut a group.
CUT = "begin and end a pass before or behind them, or make the net with keep_all"


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

    def __post_init__(self) -> None:
        self.steps: Sequence[Step] = (self,)

    def forward(self) -> None:
        if not self.ends.free_forward:
            self.layer.forward(self.bottom, self.top)

    def backward(self, fresh: bool = False) -> None:
        """With ``fresh`` the gradients of parameters begin anew, as if they had been cleared."""
        if not self.plan.needs_backward or self.ends.free_backward:
            return
        if fresh:
            self.begin_gradients()
        self.layer.backward(self.final_top, self.bottom)
        if fresh:
            self.end_gradients()
        for target, addition in self.additions:
            add(addition, target)

    def begin_gradients(self) -> None:
        """Let the layer write the gradients to which nothing has been added, or clear them."""
        layer = self.layer
        for i in self.first:
            if i in layer.writes_gradients:
                layer.adds[i] = False
            else:
                layer.blobs[i].diff.fill(0)

    def end_gradients(self) -> None:
        for i in self.first:
            self.layer.adds[i] = True


class FusedStep:
    """A group of layers that run as one, with the blobs it works on."""

    def __init__(self, group: Group, steps: Sequence[Step]) -> None:
        self.number = group.first
        self.group = group
        self.steps = steps
        self.losses: list[tuple[Blob, float]] = []
        self.bottom: list[Blob] = []
        #: Whether the last forward pass ran it, and not its layers one by one.
        self.ran = False

    def bind(self, work: list[Array]) -> None:
        """Take the present arrays of its layers, and these of its own."""
        self.bottom = [self.steps[i - self.number].bottom[k] for i, k in self.group.bottoms]
        self.group.fused.work_arrays = work
        self.group.fused.setup(self.bottom, self.steps[-1].top)
        self.ran = False

    def forward(self) -> None:
        self.group.fused.forward(self.bottom, self.steps[-1].top)
        self.ran = True

    def backward(self, fresh: bool = False) -> None:
        if not self.steps[-1].plan.needs_backward:
            return
        if fresh:
            for step in self.steps:
                step.begin_gradients()
        self.group.fused.backward(self.steps[-1].final_top, self.bottom)
        for step in self.steps:
            if fresh:
                step.end_gradients()
            for target, addition in step.additions:
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
        groups = {
            group.first: FusedStep(group, self.steps[group.first : group.stop])
            for group in memory.groups
        }
        #: What a whole pass runs, in order: layers, and groups of layers.
        self.runs: list[Step | FusedStep] = []
        number = 0
        while number < len(self.steps):
            self.runs.append(groups.get(number) or self.steps[number])
            number += len(self.runs[-1].steps)
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
        stop = len(self.steps) if stop is None else stop
        for run in self.runs:
            if first <= run.number < stop:
                self._bind_run(run)
        self._planned = stop

    def _bind_run(self, run: Step | FusedStep) -> None:
        changed = False
        for step in run.steps:
            try:
                self._bind_tops(step)
                changed |= self._bind_step(step)
            except MemoryError as error:
                raise _no_memory(step.layer, error) from error
        if changed and isinstance(run, FusedStep):
            self._bind_group(run)

    def _bind_group(self, run: FusedStep) -> None:
        works = self.memory.works[self.memory.groups.index(run.group)]
        wanted = run.group.work(self.plan)
        run.bind([self._array(n, w.shape) for n, w in zip(works, wanted, strict=True)])

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
        data, diff = self._values(buffers[0], shape), self._array(buffers[1], shape)
        if blob.data is not data or blob.diff is not diff:
            blob.bind(data, diff)

    def _adopt(self, layer: int, top: int, buffer: int | None, array: Array | None) -> None:
        """Let the buffer that begins with this top be the array of a user."""
        if buffer is None or array is None:
            return
        begins = self.memory.buffers[buffer]
        if begins.own and (begins.layer, begins.index) == (layer, top):
            self._arena.adopt(buffer, array)

    def _values(self, buffer: int | None, shape: Shape) -> Array:
        if buffer is None:
            # What passes between the layers of a group has a shape, but no memory.
            return self._arena.placeholder(shape)
        return self._arena.array(self.plan, buffer, shape)

    def _array(self, buffer: int | None, shape: Shape) -> Any:
        return None if buffer is None else self._arena.array(self.plan, buffer, shape)

    def _bind_step(self, step: Step, anew: bool = False) -> bool:
        """Give a step its present arrays, if they are others than it has, or ``anew``; says so."""
        planned, ends, layer = step.plan, step.ends, step.layer
        shapes = planned.bottom_shapes
        values = list(map(self._values, ends.bottom_data, shapes))
        gradients = list(map(self._array, ends.bottom_diff, shapes))
        addends = list(map(self._array, ends.addend, shapes))
        work = [
            self._arena.placeholder(w.shape, w.dtype) if n is None else self._array(n, w.shape)
            for n, w in zip_longest(ends.work, layer.work(*shapes))
        ]
        tops = [array for blob in step.top for array in (blob.data, blob.diff)]
        last = [self.memory.blobs[name][0] for name in planned.tops]
        finals = list(map(self._values, last, planned.top_shapes))
        arrays = [*values, *gradients, *addends, *work, *tops, *finals]
        same = len(arrays) == len(step.arrays) and all(map(operator.is_, arrays, step.arrays))
        if same and not anew:
            return False
        step.arrays = arrays
        # A layer gets a handle of its own: what it may write differs from reader to reader.
        step.bottom = [
            Blob(data, diff if addend is None else addend, name)
            for data, diff, addend, name in zip(
                values, gradients, addends, planned.bottoms, strict=True
            )
        ]
        step.final_top = [
            blob if data is blob.data else Blob(data, blob.diff, blob.name)
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
        return True

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
        for run in self.runs:
            for step in run.steps:
                self._bind_step(step, anew=True)
            if isinstance(run, FusedStep):
                self._bind_group(run)

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
        for run in self._between(start, last):
            for step in run.steps:
                step.layer.iteration = iteration
            if run.steps[0].layer.dynamic:
                self._follow(run.number)
            run.forward()
            for blob, weight in run.losses:
                loss += _weighted(blob.data, weight)
            if self.debug:
                self._debug_forward(run)
        if last < len(self.steps) - 1:
            self._leave(start, last)
        self.passes += 1
        return float(loss)

    def _between(self, first: int, last: int) -> Iterator[Step | FusedStep]:
        """What runs for these layers: groups where they are whole, else layers one by one.

        Raises ValueError for a part of a group of which the memory has only the whole.
        """
        for run in self.runs:
            whole = first <= run.number and run.steps[-1].number <= last
            if whole and not (self.debug and not self.memory.reused):
                yield run
                continue
            cut = [step for step in run.steps if first <= step.number <= last]
            if isinstance(run, FusedStep) and cut:
                if self.memory.reused:
                    raise ValueError(f"the layers {run.group.name} run as one: {CUT}")
                run.ran = False
            yield from cut

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
        for run in self._back(first - 1, end):
            run.backward(fresh)
            if self.debug:
                self._debug_backward(run)
        if self.debug:
            self._debug_norms()

    def _back(self, last: int, first: int) -> Iterator[Step | FusedStep]:
        """What runs backward for these layers: groups where they ran forward.

        Raises ValueError for a part of such a group.
        """
        for run in reversed(self.runs):
            inside = [step for step in reversed(run.steps) if first <= step.number <= last]
            if not isinstance(run, FusedStep) or not run.ran:
                yield from inside
            elif len(inside) == len(run.steps):
                yield run
            elif inside:
                raise ValueError(f"the layers {run.group.name} ran forward as one: {CUT}")

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

    def _debug_forward(self, run: Step | FusedStep) -> None:
        for step in run.steps:
            self._debug_forward_of(step)

    def _debug_forward_of(self, step: Step) -> None:
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

    def _debug_backward(self, run: Step | FusedStep) -> None:
        for step in reversed(run.steps):
            if step.plan.needs_backward:
                self._debug_backward_of(step)

    def _debug_backward_of(self, step: Step) -> None:
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
