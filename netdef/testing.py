"""The contract of a layer as checks, and the cases they are run on.

A layer's test file, ``tests/layers/test_<name>.py``, lists cases. Three questions make one: what
layer, what inputs, what is expected::

    CASES = [
        Case('type: "ReLU"', [(2, 3, 4)], lambda x: np.maximum(x, 0), off_zero),
    ]

and what users get wrong, with the sentence they are to read and what it points at::

    MISTAKES = [
        Mistake('type: "ReLU"', [(2, 3), (2, 3)], "takes 1 bottom blob, but 2 given", "layer"),
    ]

``tests/test_contract.py`` finds both and crosses every case with every check of :data:`CHECKS`.
What the contract cannot know, such as the slope of ReLU at 0, is a test function beside the cases:
:class:`Trial` gives it the layer, bound to blobs as a program binds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from netdef import jit, prototxt
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import Location, NetdefError, NetError
from netdef.layer import Layer, create
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb

#: The seed of everything drawn here.
SEED = 1

#: How far a result may be from the exact one, relative to the largest value of its blob.
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}

#: Of the central difference, whose error is about STEP**2 + 1e-16 / STEP.
STEP = 1e-5

# -- inputs ----------------------------------------------------------------------------------------

#: Draws the values of an array of this shape.
Draw = Callable[[np.random.Generator, Shape], Array]


def normal(random: np.random.Generator, shape: Shape) -> Array:
    """Standard normal values."""
    return np.asarray(random.standard_normal(shape))


def off_zero(random: np.random.Generator, shape: Shape) -> Array:
    """Values of both signs, at least 0.1 from zero: for functions with a kink there."""
    return np.asarray(random.choice([-1, 1], shape) * random.uniform(0.1, 2, shape))


def distinct(random: np.random.Generator, shape: Shape) -> Array:
    """Values at least 0.01 from each other: for a maximum that must not change hands."""
    size = int(np.prod(shape))
    return 0.01 * (random.permutation(size) - size // 2).reshape(shape)


def labels(classes: int, *more: float) -> Draw:
    """Classes 0 to ``classes - 1``; each of ``more`` is drawn as often: a label to ignore."""
    choices = np.array([*range(classes), *more])
    return lambda random, shape: random.choice(choices, shape)


def values(given: Any) -> Draw:
    """These values, whatever the shape asks that they spread to."""
    return lambda random, shape: np.broadcast_to(np.asarray(given, np.float64), shape)


# -- cases -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """One layer with its inputs and the tops it must give.

    ``prototxt``  the layer without name and bottoms; without tops if it has as few as it may
    ``bottoms``   their shapes
    ``expected``  a plain numpy function of the bottoms and then the parameters, all float64; it
                  gives the top, or a tuple of all tops
    ``draw``      how the bottoms are drawn: one for all, or one for each
    """

    prototxt: str
    bottoms: Sequence[Shape]
    expected: Callable[..., Any]
    draw: Draw | Sequence[Draw] = normal
    #: How the parameters are drawn: one for all, or one for each.
    params: Draw | Sequence[Draw] = field(default=normal, kw_only=True)
    #: Shapes the layer is given in between when it is reshaped; by default the batch grows by one.
    other: Sequence[Shape] | None = field(default=None, kw_only=True)
    #: False where the layer can work in place, but not with these options.
    in_place: bool = field(default=True, kw_only=True)
    #: True for a function that has no gradient at all.
    forward_only: bool = field(default=False, kw_only=True)
    phase: int = field(default=pb.TRAIN, kw_only=True)
    #: What has to be done to the layer before it can run.
    prepare: Callable[[Any], None] = field(default=lambda layer: None, kw_only=True)
    #: Parameters that learn by a rule of their own: what backward gives them is no derivative.
    own_rule: frozenset[int] = field(default=frozenset(), kw_only=True)
    #: Factor on every tolerance; a comment beside it says why it is not 1.
    loosen: float = field(default=1.0, kw_only=True)

    def message(self) -> pb.LayerParameter:
        """The whole layer, anew."""
        return _complete(self.prototxt, len(self.bottoms))

    def layer(self) -> Layer:
        """A new layer, bound to nothing."""
        return create(self.message(), self.phase)

    @property
    def differentiable(self) -> bool:
        """Whether there is anything to compute the gradient of."""
        layer = self.layer()
        learns = any(param.learns for param in layer.params(*self.bottoms))
        moves = any(i not in layer.no_gradient for i in range(len(self.bottoms)))
        return not self.forward_only and (learns or moves)

    def __str__(self) -> str:
        shapes = " ".join(shape_text(shape) for shape in self.bottoms)
        phase = pb.Phase.Name(self.phase) if self.phase != pb.TRAIN else ""
        return " ".join(filter(None, [_short(self.prototxt), shapes, phase]))


@dataclass(frozen=True, eq=False)
class Mistake:
    """A layer that must be refused, when its net is built or in its first forward pass.

    ``message``  what the user is to read after the name of the layer, or the telling part of it
    ``at``       the text that the error points at
    """

    prototxt: str
    bottoms: Sequence[Shape]
    message: str
    at: str
    draw: Draw | Sequence[Draw] = normal
    phase: int = field(default=pb.TRAIN, kw_only=True)
    error: type[NetdefError] = field(default=NetError, kw_only=True)

    def __str__(self) -> str:
        return f"{_short(self.prototxt)} - {_short(self.message)}"


def _short(text: str) -> str:
    return " ".join(text.replace('"', "").replace("type: ", "", 1).split())


def _each(draw: Draw | Sequence[Draw], count: int) -> Sequence[Draw]:
    """One draw for each bottom."""
    if not isinstance(draw, Sequence):
        return [draw] * count
    assert len(draw) == count, f"{len(draw)} draws for {count} bottoms"
    return draw


def _complete(text: str, bottoms: int) -> pb.LayerParameter:
    """The layer with a name, its bottoms, and tops if it names none itself."""
    message = prototxt.parse(text, pb.LayerParameter).message
    message.name = "layer"
    message.bottom.extend(f"x{i}" for i in range(bottoms))
    if not message.top:
        layer = create(message)
        arity = bottoms if layer.same_number else layer.tops
        least = arity if isinstance(arity, int) else arity[0]
        message.top.extend(f"y{i}" for i in range(least))
    return message


def _draw(draw: Draw, shape: Shape, stream: int) -> Array:
    """Drawn values, rounded to float32: so every type computes on the same numbers."""
    random = np.random.default_rng([SEED, stream])
    return draw(random, shape).astype(np.float32).astype(np.float64)


#: The streams of what a trial draws; bottoms count from 0.
_GRADIENTS, _PARAMS, _DIRECTIONS = 100, 200, 300

# -- trials ----------------------------------------------------------------------------------------


class Trial:
    """One layer of a case, bound to blobs as a program binds it; to be used in a ``with``.

    A blob that is to be written holds NaN before. ``top[i].diff`` is drawn, but NaN for what
    follows the first top of a loss layer: those have no gradient to give.
    """

    def __init__(
        self,
        case: Case,
        dtype: type[Any] = np.float64,
        *,
        shapes: Sequence[Shape] | None = None,
        in_place: bool = False,
    ) -> None:
        """``shapes``: other bottoms than those of the case."""
        self.case = case
        self.dtype = dtype
        self.in_place = in_place
        message = case.message()
        if in_place:
            message.top[0] = message.bottom[0]
        bottoms = list(case.bottoms if shapes is None else shapes)
        self.layer = layer = create(message, case.phase)
        case.prepare(layer)
        tops = layer.shapes(*bottoms)
        params = list(layer.params(*bottoms))
        self.learns = [param.learns for param in params]
        layer.dtype = dtype
        layer.key = layer.draw_key(SEED)
        layer.learn = self.learns
        layer.adds = [True] * len(params)
        layer.blobs = [
            Blob(self._drawn(draw, shape, _PARAMS + i), np.zeros(shape, dtype), name)
            for i, (draw, (name, shape, *_)) in enumerate(
                zip(_each(case.params, len(params)), params, strict=True)
            )
        ]
        self._bind(bottoms, tops)

    def reshape(self, bottoms: Sequence[Shape]) -> None:
        """Give the layer new blobs, as a program does when a shape changes."""
        self._bind(bottoms, self.layer.shapes(*bottoms))

    def _bind(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> None:
        self.bottom = []
        draws = _each(self.case.draw, len(bottoms))
        for i, (draw, shape) in enumerate(zip(draws, bottoms, strict=True)):
            wanted = not self.case.forward_only and i not in self.layer.no_gradient
            diff = np.full(shape, np.nan, self.dtype) if wanted else None
            self.bottom.append(Blob(self._drawn(draw, shape, i), diff, f"bottom {i}"))
        self._bind_tops(tops)
        self._follow()

    def _bind_tops(self, shapes: Sequence[Shape]) -> None:
        self.top = []
        for i, shape in enumerate(shapes):
            draw = values(np.nan) if self.layer.loss and i else normal
            diff = self._drawn(draw, shape, _GRADIENTS + i)
            self.top.append(Blob(np.full(shape, np.nan, self.dtype), diff, f"top {i}"))
        if self.in_place:
            x, y = self.bottom[0], self.top[0]
            if x.diff is not None:
                x.diff[...] = y.diff
            y.bind(x.data, x.diff)
        self.layer.work_arrays = [
            np.full(shape, np.nan if dtype is None else 0, dtype or self.dtype)
            for shape, dtype in self.layer.work(*(blob.shape for blob in self.bottom))
        ]
        self.layer.setup(self.bottom, self.top)

    def _drawn(self, draw: Draw, shape: Shape, stream: int) -> Array:
        return _draw(draw, shape, stream).astype(self.dtype)

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *exception: object) -> None:
        self.layer.close()

    def forward(self, iteration: int = 0) -> None:
        """One forward pass, as the program makes it in this iteration."""
        self.layer.iteration = np.uint64(iteration)
        self._follow()
        self.layer.forward(self.bottom, self.top)

    def _follow(self) -> None:
        """Let a dynamic layer announce the shapes of its tops."""
        if self.layer.dynamic:
            shapes = self.layer.next_shapes(self.bottom)
            if shapes != [blob.shape for blob in self.top]:
                self._bind_tops(shapes)

    def backward(self) -> None:
        """One backward pass from the gradients of the tops."""
        self.layer.backward(self.top, self.bottom)

    def run(self) -> dict[str, Array]:
        """Forward, then backward if there is a gradient: copies of tops and gradients by name."""
        self.forward()
        if self.case.differentiable:
            self.backward()
        return {blob.name: blob.data.copy() for blob in self.top} | self.gradients()

    def gradients(self) -> dict[str, Array]:
        """Copies of the gradients of bottoms and parameters by name."""
        return {_gradient_of(leaf): leaf.diff.copy() for leaf in self.leaves}

    @property
    def leaves(self) -> list[Blob]:
        """What has a gradient: bottoms, and the parameters that learn."""
        if not self.case.differentiable:
            return []
        params = zip(self.layer.blobs, self.learns, strict=True)
        learned = [blob for blob, learns in params if learns]
        return [*(blob for blob in self.bottom if blob.diff is not None), *learned]

    @property
    def ruled(self) -> list[Blob]:
        """The parameters that learn by a rule of their own."""
        return [self.layer.blobs[i] for i in sorted(self.case.own_rule)]


def curve(prototxt: str, x: Sequence[float], dtype: type[Any] = np.float64) -> tuple[Array, Array]:
    """y and dy/dx of a layer that maps each value by itself, at these values."""
    case = Case(prototxt, [(len(x),)], lambda x: x, values(x))
    with Trial(case, dtype) as trial:
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        return trial.top[0].data, trial.bottom[0].diff


def _gradient_of(blob: Blob) -> str:
    return f"gradient of {blob.name}"


def assert_same_bits(actual: dict[str, Array], expected: dict[str, Array], when: str) -> None:
    """Fail unless both hold the same arrays, bit by bit, under the same names."""
    assert actual.keys() == expected.keys(), f"{when}: {set(actual) ^ set(expected)}"
    for name, array in actual.items():
        wanted = expected[name]
        assert array.shape == wanted.shape, (
            f"{when}: {name} is {shape_text(array.shape)}, not {shape_text(wanted.shape)}"
        )
        if array.tobytes() == wanted.tobytes():
            continue
        bits = f"u{array.itemsize}"
        different = np.argwhere(array.view(bits) != wanted.view(bits))
        first = tuple(map(int, different[0]))
        raise AssertionError(
            f"{when}: {name} differs in {len(different)} of {array.size} values; "
            f"at {first} it is {array[first]!r}, not {wanted[first]!r}"
        )


def assert_close(actual: Array, expected: Array, tolerance: float, name: str) -> None:
    """Fail where ``actual`` is off by more than ``tolerance``, relative to the largest value."""
    assert actual.shape == expected.shape, (
        f"{name} is {shape_text(actual.shape)}, but {shape_text(expected.shape)} is expected"
    )
    sizes = np.abs(expected[np.isfinite(expected)])
    atol = tolerance * float(sizes.max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


# -- checks ----------------------------------------------------------------------------------------


class Check(NamedTuple):
    """``run`` fails where a case breaks the contract; ``applies`` says which it can be asked of."""

    name: str
    run: Callable[[Case], None]
    applies: Callable[[Case], bool]


#: The contract, in the order it is best read.
CHECKS: list[Check] = []


def _check(
    applies: Callable[[Case], bool] = lambda case: True,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def add(run: Callable[[Case], None]) -> Callable[[Case], None]:
        CHECKS.append(Check(run.__name__, run, applies))
        return run

    return add


def _differentiable(case: Case) -> bool:
    return case.differentiable


def _works_in_place(case: Case) -> bool:
    return case.layer().in_place


def _has_bottoms(case: Case) -> bool:
    return len(case.bottoms) > 0


@_check()
def shapes_are_pure(case: Case) -> None:
    """Asked twice, ``shapes`` and ``params`` say the same, and leave the layer's message alone."""
    layer = case.layer()
    for ask in (layer.shapes, layer.params):
        before = layer.message.SerializeToString(deterministic=True)
        first, second = list(ask(*case.bottoms)), list(ask(*case.bottoms))
        assert first == second, f"{ask.__name__} says {first}, and then {second}"
        after = layer.message.SerializeToString(deterministic=True)
        assert after == before, f"{ask.__name__} changed the layer's message"


def _forward_agrees(case: Case, dtype: type[Any]) -> None:
    with Trial(case, dtype) as trial:
        given = [blob.data.astype(np.float64) for blob in (*trial.bottom, *trial.layer.blobs)]
        trial.forward()
        expected = case.expected(*given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        assert len(expected) == len(trial.top), f"{len(expected)} tops are expected"
        for blob, wanted in zip(trial.top, expected, strict=True):
            assert_close(blob.data, np.asarray(wanted), TOLERANCE[dtype] * case.loosen, blob.name)


@_check()
def forward_in_float32(case: Case) -> None:
    """The tops are those of the reference."""
    _forward_agrees(case, np.float32)


@_check()
def forward_in_float64(case: Case) -> None:
    """The tops are those of the reference."""
    _forward_agrees(case, np.float64)


@_check(_differentiable)
def gradient(case: Case) -> None:
    """<backward(g), v> is the central difference of <forward, g> along a random v.

    One direction for all bottoms and parameters together; element by element only when that fails.
    """
    with Trial(case) as trial:
        trial.run()
        leaves = [leaf for leaf in trial.leaves if leaf not in trial.ruled]
        for leaf in leaves:
            unwritten = np.argwhere(~np.isfinite(leaf.diff))
            assert not len(unwritten), (
                f"backward left NaN in the {_gradient_of(leaf)} at {tuple(map(int, unwritten[0]))}"
            )
        claims = [leaf.diff.copy() for leaf in leaves]
        directions = [_draw(normal, b.shape, _DIRECTIONS + i) for i, b in enumerate(leaves)]
        products = [claim * v for claim, v in zip(claims, directions, strict=True)]
        claimed = sum(float(p.sum()) for p in products)
        measured = _slope(trial, leaves, directions)
        scale = float(np.sqrt(sum((p**2).sum() for p in products)))
        assert abs(claimed - measured) <= (1e-8 * scale + 2e-9) * case.loosen, (
            f"along a random direction backward says {claimed:.9g}, "
            f"and the finite difference {measured:.9g}; {_worst(trial, leaves, claims)}"
        )


def _slope(trial: Trial, leaves: Sequence[Blob], directions: Sequence[Array]) -> float:
    """The central difference of <forward, g> when the leaves move along the directions."""
    held = [leaf.data.copy() for leaf in leaves]
    tops = trial.top[:1] if trial.layer.loss else trial.top
    found = []
    for step in (STEP, -STEP):
        for leaf, start, v in zip(leaves, held, directions, strict=True):
            leaf.data[...] = start + step * v
        trial.forward()
        found.append(sum(float((top.data * top.diff).sum()) for top in tops))
    for leaf, start in zip(leaves, held, strict=True):
        leaf.data[...] = start
    return (found[0] - found[1]) / (2 * STEP)


def _worst(trial: Trial, leaves: Sequence[Blob], claims: Sequence[Array]) -> str:
    """The element whose gradient is furthest from its finite difference, in words."""
    error, text = 0.0, "no single element is wrong"
    for leaf, claim in zip(leaves, claims, strict=True):
        for index in np.ndindex(leaf.shape):
            direction = np.zeros(leaf.shape)
            direction[index] = 1
            measured = _slope(trial, [leaf], [direction])
            if abs(claim[index] - measured) > error:
                error = abs(claim[index] - measured)
                text = (
                    f"worst is {leaf.name} at {index}: backward says {claim[index]:.9g}, "
                    f"the difference {measured:.9g}"
                )
    return text


@_check(_differentiable)
def gradient_in_float32(case: Case) -> None:
    """In float32 the gradients are those of float64 within rounding."""
    with Trial(case, np.float32) as single, Trial(case, np.float64) as double:
        found, expected = single.run(), double.run()
        for leaf in single.leaves:
            name = _gradient_of(leaf)
            tolerance = 2 * TOLERANCE[np.float32] * case.loosen
            assert_close(found[name], expected[name], tolerance, name)


@_check(_differentiable)
def bottom_gradients_are_overwritten(case: Case) -> None:
    """What stood in ``bottom.diff`` before does not matter, and nothing of it stays."""
    with Trial(case) as trial:
        expected = trial.run()
        for rubbish in (0, 7):
            for blob in trial.bottom:
                if blob.diff is not None:
                    blob.diff.fill(rubbish)
            for blob in trial.layer.blobs:
                blob.diff.fill(0)
            assert_same_bits(trial.run(), expected, f"with {rubbish} in bottom.diff, not NaN")


@_check(_differentiable)
def parameter_gradients_accumulate(case: Case) -> None:
    """A second backward pass doubles the gradients of parameters."""
    with Trial(case) as trial:
        trial.run()
        once = trial.gradients()
        trial.backward()
        for blob, learns in zip(trial.layer.blobs, trial.learns, strict=True):
            if not learns:
                continue
            name = _gradient_of(blob)
            assert_close(blob.diff, 2 * once[name], TOLERANCE[np.float64], f"{name}, twice")


def _writes_gradients(case: Case) -> bool:
    return case.differentiable and bool(case.layer().writes_gradients)


@_check(_writes_gradients)
def parameter_gradients_are_written_where_asked(case: Case) -> None:
    """Of parameters in ``writes_gradients`` the gradient is what 0 and an addition would give."""
    with Trial(case) as trial:
        expected = trial.run()
        for i in trial.layer.writes_gradients:
            if i < len(trial.layer.blobs):
                trial.layer.adds[i] = False
                trial.layer.blobs[i].diff.fill(np.nan)
        for i, blob in enumerate(trial.layer.blobs):
            if trial.layer.adds[i]:
                blob.diff.fill(0)
        assert_same_bits(trial.run(), expected, "where gradients are written")


@_check(_differentiable)
def bottoms_without_gradient_are_left_out(case: Case) -> None:
    """Where some bottoms need no gradient, all other gradients stay what they are."""
    with Trial(case) as trial:
        everything = trial.run()
        wanted = [i for i, blob in enumerate(trial.bottom) if blob.diff is not None]
    for left_out in ([], *([i] for i in wanted), wanted):
        with Trial(case) as trial:
            gone = [trial.bottom[i] for i in left_out]
            for blob in gone:
                blob.bind(blob.data, None)
            trial.layer.setup(trial.bottom, trial.top)
            found = trial.run()
            assert all(blob.diff is None for blob in gone), "backward made a diff of its own"
            rest = {key: everything[key] for key in found}
            names = " and ".join(blob.name for blob in gone)
            assert_same_bits(found, rest, f"where {names} needs no gradient")


@_check(_differentiable)
def parameters_that_do_not_learn_are_left_alone(case: Case) -> None:
    """Where ``learn[i]`` is false, the gradient of parameter i is not touched; all others stay."""
    with Trial(case) as trial:
        expected = trial.run()
        learns = trial.learns
    for i in np.flatnonzero(learns):
        with Trial(case) as trial:
            trial.layer.learn = [wanted and j != i for j, wanted in enumerate(learns)]
            param = trial.layer.blobs[i]
            param.diff.fill(7)
            kept = {_gradient_of(param): param.diff.copy()}
            assert_same_bits(trial.run(), expected | kept, f"where {param.name} does not learn")


@_check()
def inputs_are_left_alone(case: Case) -> None:
    """Neither pass changes a bottom or a parameter, and backward changes no top.

    Parameters that the layer itself keeps up to date are its own affair in forward.
    """
    with Trial(case) as trial:
        params = zip(trial.layer.blobs, trial.learns, strict=True)
        held = [*trial.bottom, *(blob for blob, learns in params if learns)]
        before = {blob.name: blob.data.copy() for blob in held}
        trial.forward()
        assert_same_bits({blob.name: blob.data for blob in held}, before, "after forward")
        if not case.differentiable:
            return
        held = [*trial.bottom, *trial.layer.blobs, *trial.top]
        before |= {blob.name: blob.data.copy() for blob in trial.layer.blobs}
        before |= {blob.name: blob.data.copy() for blob in trial.top}
        before |= {_gradient_of(blob): blob.diff.copy() for blob in trial.top}
        trial.backward()
        after = {blob.name: blob.data for blob in held}
        after |= {_gradient_of(blob): blob.diff for blob in trial.top}
        assert_same_bits(after, before, "after backward")


@_check(_differentiable)
def backward_reads_what_it_says(case: Case) -> None:
    """What ``backward_reads`` leaves out may hold anything by then."""
    with Trial(case) as trial:
        expected = trial.run()
        for blob in trial.layer.blobs:
            blob.diff.fill(0)
        trial.forward()
        reads = trial.layer.backward_reads
        for what, blobs in (("bottom", trial.bottom), ("top", trial.top)):
            for blob in blobs:
                if what not in reads:
                    blob.data.fill(np.nan)
        trial.backward()
        found = {blob.name: expected[blob.name] for blob in trial.top} | trial.gradients()
        assert_same_bits(found, expected, f"where backward may read {' and '.join(reads) or '-'}")


@_check(_works_in_place)
def in_place(case: Case) -> None:
    """With its bottom as its top, the layer gives the same bits; or says that it cannot."""
    if case.in_place:
        with Trial(case) as apart, Trial(case, in_place=True) as trial:
            expected = apart.run()
            # What is its bottom cannot have other axes than that.
            expected["top 0"] = expected["top 0"].reshape(trial.bottom[0].shape)
            assert_same_bits(trial.run(), expected, "in place")
        return
    try:
        Trial(case, in_place=True)
    except NetError:
        return
    raise AssertionError("the case says that it cannot work in place, but nothing refused it")


@_check(_has_bottoms)
def reshape(case: Case) -> None:
    """After passes with other shapes, the layer does what a new one does."""
    other = case.other or [(shape[0] + 1, *shape[1:]) for shape in case.bottoms]
    with Trial(case, shapes=other) as elsewhere, Trial(case) as fresh, Trial(case) as trial:
        params = [list(trial.layer.params(*shapes)) for shapes in (case.bottoms, other)]
        assert params[0] == params[1], "give the case `other` shapes: these need other parameters"
        expected = {"there": elsewhere.run(), "and back": fresh.run()}
        trial.run()
        for shapes, where in ((other, "there"), (case.bottoms, "and back")):
            trial.reshape(shapes)
            for blob in trial.layer.blobs:
                blob.diff.fill(0)
            assert_same_bits(trial.run(), expected[where], f"reshaped to {other} {where}")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run kernels on ``count`` threads in this block, or on all where that is None."""
    before = jit.num_threads()
    jit.set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        jit.set_num_threads(before)


@_check()
def any_number_of_threads(case: Case) -> None:
    """One thread gives the bits that all threads give."""
    with threads(1), Trial(case, np.float32) as trial:
        alone = trial.run()
    with threads(None), Trial(case, np.float32) as trial:
        assert_same_bits(trial.run(), alone, f"on {jit.num_threads()} threads, not 1")


@_check()
def in_a_net(case: Case) -> None:
    """Read from prototxt and run as part of a net, the layer does the same, bit by bit."""
    net = Net.from_text(_net_text(case), case.phase, seed=SEED)
    case.prepare(net.layer_dict["layer"])
    with Trial(case, np.float32) as trial:
        expected = trial.run()
        pairs = [
            (blob, net.blobs[name])
            for blobs, names in (
                (trial.bottom, trial.layer.message.bottom),
                (trial.top, trial.layer.message.top),
            )
            for blob, name in zip(blobs, names, strict=True)
        ]
        pairs += zip(trial.layer.blobs, net.params.get("layer", ()), strict=True)
        made = {blob.name for blob in trial.top}
        for mine, theirs in pairs:
            theirs.data[...] = np.nan if mine.name in made else mine.data
        net.program.rebind()  # what a layer writes in setup, it writes over the NaN
        try:
            net.forward()
        finally:
            net.close()
        found = {mine.name: theirs.data for mine, theirs in pairs if mine.name in made}
        if case.differentiable:
            for mine, theirs in pairs:
                if mine.name in made:
                    theirs.diff[...] = mine.diff
            net.backward()
            found |= {
                _gradient_of(mine): theirs.diff for mine, theirs in pairs if mine in trial.leaves
            }
        assert_same_bits(found, expected, "in a net")


def tops_may_be_overwritten(case: Case) -> None:
    """Backward reads no top: a layer behind may have worked on it in place. Not asked of all."""
    with Trial(case) as trial:
        expected = trial.run()
        for blob in trial.layer.blobs:
            blob.diff.fill(0)
        trial.forward()
        trial.top[0].data.fill(7)
        trial.backward()
        found = {blob.name: expected[blob.name] for blob in trial.top} | trial.gradients()
        assert_same_bits(found, expected, "with tops overwritten")


def _net_text(given: Case | Mistake) -> str:
    """A net of the layer and of an Input layer for each of its bottoms."""
    own = prototxt.parse(given.prototxt, pb.LayerParameter).message
    whole = _complete(given.prototxt, len(given.bottoms))
    text = "force_backward: true\n"
    for name, shape in zip(whole.bottom, given.bottoms, strict=True):
        dims = " ".join(f"dim: {n}" for n in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        text += f"input_param {{ shape {{ {dims} }} }} }}\n"
    text += f'layer {{\n  name: "layer"\n  {given.prototxt}\n'
    text += "".join(f'  bottom: "{name}"\n' for name in whole.bottom)
    text += "".join(f'  top: "{name}"\n' for name in whole.top if not own.top)
    return text + "}\n"


def check_mistake(mistake: Mistake) -> None:
    """The layer is refused in one sentence that names it and points at what is wrong."""
    try:
        net = Net.from_text(_net_text(mistake), mistake.phase, seed=SEED)
        try:
            for i, draw in enumerate(_each(mistake.draw, len(mistake.bottoms))):
                blob = net.blobs[f"x{i}"]
                blob.data[...] = _draw(draw, blob.shape, i)
            net.forward()
        finally:
            net.close()
    except NetdefError as error:
        said = error
    else:
        raise AssertionError("nothing was wrong with it")
    assert isinstance(said, mistake.error), f"a {type(said).__name__}: {said}"
    [diagnostic] = said.diagnostics
    assert diagnostic.message.startswith('layer "layer" ('), f"the layer is not named: {said}"
    assert mistake.message in diagnostic.message, f"it says: {diagnostic.message}"
    where = diagnostic.location
    assert where is not None, f"the error has no location: {said}"
    pointed = where.source[where.column - 1 :]
    assert pointed.startswith(mistake.at), f"it points at: {pointed}"


# -- layers by themselves --------------------------------------------------------------------------


def locate(*path: str | int) -> Location:
    """A place whose line says which path was asked for: for layers that no file describes."""
    return Location("net.prototxt", 1, 1, source="/".join(map(str, path)))


def assert_seek_continues(straight: Any, resumed: Any, records: int) -> None:
    """Fail unless a layer that seeks brings, bit by bit, what one that got there brings.

    Beyond the first hundred records both seek: to deliver so many would take too long.
    """
    if records < 100:
        while straight.records < records:
            deliver(straight)
    else:
        straight.seek(records)
    resumed.seek(records)
    assert resumed.records == straight.records == records
    for _ in range(4):
        for a, b in zip(deliver(straight), deliver(resumed), strict=True):
            np.testing.assert_array_equal(a, b)


def deliver(layer: Layer) -> list[Array]:
    """What a data layer brings in one forward pass, made as the program makes it."""
    shapes = layer.next_shapes([]) if layer.dynamic else layer.shapes()
    top = [Blob(np.full(shape, np.nan, layer.dtype)) for shape in shapes]
    layer.forward([], top)
    return [blob.data for blob in top]
