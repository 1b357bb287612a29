"""The program of a plan: arrays, and the steps that compute on them.

``Program(plan)`` allocates; ``forward`` and ``backward`` run. No blob is allocated per pass. The
seam for another device is here: it would bind the same plan to its own arrays and its own
implementations of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netdef import fillers, rng
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import NetError
from netdef.events import DebugLine, Event
from netdef.kernels.elementwise import add
from netdef.layer import Layer
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

    layer: Layer
    plan: LayerPlan
    bottom: list[Blob] = field(default_factory=list)
    top: list[Blob] = field(default_factory=list)
    #: (blob, weight) of each top that is part of the loss
    losses: list[tuple[Blob, float]] = field(default_factory=list)
    #: (gradient of the blob, what this layer adds to it)
    additions: list[tuple[Array, Array]] = field(default_factory=list)


class Program:
    """A net that runs: ``blobs`` and ``params`` by name, ``learnable`` in order."""

    def __init__(
        self,
        plan: Plan,
        dtype: type[Any] = np.float32,
        seed: int | None = None,
        share: Program | None = None,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        """Allocate ``plan`` and fill its parameters.

        ``dtype``: float32, or float64 to check gradients. ``seed``: of every random number in the
        net.
        ``share``: use the parameters of this program's layers where names agree, as a test net
        does.
        """
        self.plan = plan
        self.dtype = dtype
        self.seed = rng.fresh_seed() if seed is None else seed
        self.emit = emit
        self.debug = bool(plan.net.debug_info)
        #: Forward passes so far; random layers draw from this, so a resumed run sets it.
        self.passes = 0
        self.blobs: dict[str, Blob] = {}
        self.params: dict[str, list[Blob]] = {}
        #: The array of each blob when it was last bound: users reshape blobs, too.
        self._bound: dict[str, Array] = {}
        self.learnable: list[Learnable] = []
        self.steps = [Step(planned.layer, planned) for planned in plan.layers]
        #: Steps from here on do not know yet what changed before them: see ``_follow``.
        self._planned = len(self.steps)
        #: Blobs that were given other arrays, until every reader was told.
        self._fresh: set[str] = set()
        self._spare: list[Array] = []
        self._make_params(share)
        self._bind()

    # -- allocation -----------------------------------------------------------------------------

    def _make_params(self, share: Program | None) -> None:
        made: list[Blob] = []
        for number, planned in enumerate(self.plan.params):
            shared = share.params.get(planned.layer) if share is not None else None
            if shared is not None:
                # As in Caffe, the other net's layer of this name counts before sharing in this net.
                data = _shared_data(planned, shared)
                blob = Blob(data, np.zeros(planned.shape, self.dtype), planned.name)
            elif planned.owner != number:
                owner = made[planned.owner]
                blob = Blob(
                    owner.data.reshape(planned.shape),
                    owner.diff.reshape(planned.shape),
                    planned.name,
                )
            else:
                with _memory_of(self._layer_of(number)):
                    data = np.empty(planned.shape, self.dtype)
                    diff = np.zeros(planned.shape, self.dtype)
                key = rng.key(self.seed, f"filler/{planned.layer}/{planned.index}")
                self._fill(number, data, key)
                blob = Blob(data, diff, planned.name)
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
            layer.learn = [learns and step.plan.needs_backward for learns in step.plan.learn]
            layer.blobs = [made[i] for i in step.plan.params]
            if layer.blobs:
                self.params[layer.name] = layer.blobs

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
        for step in self.steps[first:stop]:
            with _memory_of(step.layer):
                for name in step.plan.tops:
                    self._bind_blob(name)
                if not self._fresh.isdisjoint((*step.plan.bottoms, *step.plan.tops)):
                    self._bind_step(step)
        self._planned = len(self.steps) if stop is None else stop
        if self._planned == len(self.steps):
            self._fresh.clear()

    def _bind_blob(self, name: str) -> None:
        planned = self.plan.blobs[name]
        blob = self.blobs.setdefault(name, Blob(np.empty(0), None, name))
        shape = planned.shape
        if planned.data_of != name:
            # Memory is shared with an earlier blob, which is bound already.
            if planned.data_of in self._fresh:
                data = self.blobs[planned.data_of].data.reshape(shape)
                blob.bind(data, self.blobs[planned.diff_of].diff.reshape(shape))
        elif blob.diff is None or blob.shape != shape:
            # Untouched zeros cost no memory, so a gradient nobody computes is free.
            blob.bind(np.zeros(shape, self.dtype), np.zeros(shape, self.dtype))
        if blob.data is not self._bound.get(name):
            self._fresh.add(name)
            self._bound[name] = blob.data

    def _bind_step(self, step: Step) -> None:
        planned = step.plan
        step.top = [self.blobs[name] for name in planned.tops]
        step.bottom = []
        step.additions = []
        for name, wanted, adds in zip(
            planned.bottoms, planned.propagate, planned.accumulate, strict=True
        ):
            blob = self.blobs[name]
            diff = blob.diff if wanted and planned.needs_backward else None
            if adds:
                spare = self._spare_like(len(step.additions), blob)
                step.additions.append((blob.flat_diff, spare.reshape(-1)))
                diff = spare
            # A layer gets a handle of its own: what it may write differs from reader to reader.
            step.bottom.append(Blob(blob.data, diff, name))
        step.losses = []
        for blob, weight in zip(step.top, planned.loss_weights, strict=True):
            if weight:
                blob.diff.fill(weight)
                step.losses.append((blob, weight))
        if not planned.alias:
            step.layer.setup(step.bottom, step.top)

    def _spare_like(self, index: int, blob: Blob) -> Array:
        """Scratch of this blob's shape for the ``index``-th bottom of a layer that adds."""
        while len(self._spare) <= index:
            self._spare.append(np.empty(0, self.dtype))
        if self._spare[index].size < blob.count:
            self._spare[index] = np.empty(blob.count, self.dtype)
        return self._spare[index][: blob.count].reshape(blob.shape)

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
            self._bind_step(step)

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
        last = len(self.steps) if end is None else end + 1
        if start >= self._planned:
            # The pass before ended between a layer whose shapes changed and the next dynamic one.
            self._plan_again({}, self._planned, len(self.steps))
        for number, step in enumerate(self.steps[start:last], start):
            layer = step.layer
            layer.iteration = iteration
            if layer.dynamic:
                self._follow(number)
            if not step.plan.alias:
                layer.forward(step.bottom, step.top)
            for blob, weight in step.losses:
                loss += _weighted(blob.data, weight)
            if self.debug:
                self._debug_forward(step)
        self.passes += 1
        return float(loss)

    def backward(self, start: int | None = None, end: int = 0) -> None:
        """Run layers ``start`` down to ``end`` (inclusive) backward; parameter gradients add up."""
        first = len(self.steps) if start is None else start + 1
        if start is not None:
            self._clear_unwritten(first, end)
        for step in reversed(self.steps[end:first]):
            if not step.plan.needs_backward:
                continue
            if not step.plan.alias:
                step.layer.backward(step.top, step.bottom)
                for target, addition in step.additions:
                    add(addition, target)
            if self.debug:
                self._debug_backward(step)
        if self.debug:
            self._debug_norms()

    def _clear_unwritten(self, first: int, end: int) -> None:
        """Zero the gradients that layers ``end`` to ``first - 1`` add to but none of them writes.

        The plan lets the first layer of a whole backward pass write a gradient and the next ones
        add; a pass that begins in the middle may begin behind the one that writes.
        """
        written: set[str] = set()
        for step in reversed(self.steps[end:first]):
            for name, wanted, adds in zip(
                step.plan.bottoms, step.plan.propagate, step.plan.accumulate, strict=True
            ):
                memory = self.plan.blobs[name].diff_of
                if wanted and adds and memory not in written:
                    self.blobs[memory].diff.fill(0)
                if wanted and step.plan.needs_backward and not step.plan.alias:
                    written.add(memory)

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


@contextmanager
def _memory_of(layer: Layer) -> Iterator[None]:
    """Says which layer it is whose blobs there is no memory for."""
    try:
        yield
    except MemoryError as error:
        # Numpy says how much it asked for.
        raise layer.error(f"not enough memory: {error}") from error


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
