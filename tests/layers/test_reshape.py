"""Reshape: lengths that are copied and inferred, a part of the axes, axes put in and appended."""

from __future__ import annotations

from netdef.blob import Shape
from netdef.testing import Case, Mistake

X = (2, 3, 4, 5)


def options(*dims: int, rest: str = "") -> str:
    stated = " ".join(f"dim: {n}" for n in dims)
    return f'type: "Reshape" reshape_param {{ shape {{ {stated} }} {rest} }}'


def case(
    dims: Shape, shape: Shape, rest: str = "", x: Shape = X, other: Shape | None = None
) -> Case:
    text = options(*dims, rest=rest)
    return Case(text, [x], lambda x: x.reshape(shape), other=[other] if other else None)


SAME = (4, 3, 2, 5)  # as many values as X

CASES = [
    case((0, -1), (2, 60)),
    case((-1,), (120,)),
    case((6, 20), (6, 20), other=SAME),
    case((0, 0, 2, -1, 5), (2, 3, 2, 2, 5)),
    case((0, 2, -1, 0), (2, 2, 6, 5)),
    case((-1, 0, 2), (20, 3, 2)),
    case((-1, 0, 0, 0), X),
    case((0, 0, 0, 0), X),
    case((120, 1, 1), (120, 1, 1), other=SAME),
    # A part of the axes.
    case((-1,), (2, 3, 20), "axis: 2"),
    case((-1, 2), (2, 6, 2, 5), "axis: 1 num_axes: 2"),
    case((6,), (6, 4, 5), "num_axes: 2", other=(6, 1, 4, 5)),
    case((0, -1), (2, 3, 20), "axis: -4"),
    case((0, -1), (2, 3, 4, 5), "axis: -4 num_axes: 2"),
    case((2, 2), (2, 3, 2, 2, 5), "axis: -3 num_axes: 1"),
    case((5, 0), (2, 3, 5, 4), "axis: -3", x=(2, 3, 5, 4)),
    # Axes that are put in, and at the end.
    case((1,), (1, *X), "num_axes: 0"),
    case((1, 1), (2, 3, 1, 1, 4, 5), "axis: 2 num_axes: 0"),
    case((1,), (*X, 1), "axis: -1"),
    case((-1, 1), (*X, 1, 1), "axis: 4 num_axes: 0"),
    # A 0 may look at an axis that stays: this one is there twice.
    case((0, 3), (1, 3, 1, 3), "num_axes: 2", x=(1, 3, 1, 3)),
    case((0,), (1, 1, 3), "num_axes: 0", x=(1, 3), other=(1, 4)),
    case((0, -1), (2, 6, 1, 3), "axis: 1 num_axes: 1", x=(2, 6, 3)),
    case((-1, 0), (2, 2, 3, 3), "axis: 1 num_axes: 1", x=(2, 6, 3)),
    # Scalars.
    case((), (), x=(1, 1), other=(1,)),
    case((1, 1), (1, 1), x=(), other=(1,)),
    case((), (2,), "axis: 1", x=(2, 1)),
    # Empty batches: -1 is what it would be for another batch.
    case((0, -1), (0, 60), x=(0, 3, 4, 5)),
    case((-1, 20), (0, 20), x=(0, 3, 4, 5)),
    case((4, -1), (0, 4, 5), "axis: 1", x=(0, 20)),
    case((0, -1), (2, 0), x=(2, 0, 4)),
]


def mistake(text: str, message: str, at: str, x: Shape = X) -> Mistake:
    return Mistake(text, [x], message, at)


MISTAKES = [
    Mistake(options(-1), [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake(
        options(7, 20),
        "the bottom 2x3x4x5 has 120 values, but the new shape 7x20 has 140",
        "shape",
    ),
    mistake('type: "Reshape"', "has 120 values, but the new shape scalar has 1", "layer"),
    mistake(options(0, -1, 3, -1), "only one dim can be -1", "-1 }"),
    mistake(
        options(7, -1),
        "cannot infer dim -1 for the bottom 2x3x4x5: 120 values are not a multiple of 7",
        "-1",
    ),
    mistake(
        options(0, 0, 7, -1),
        "cannot infer dim -1 for the bottom 2x3x4x5: 20 values are not a multiple of 7",
        "-1",
    ),
    mistake(options(1, -3), "dim is -3, but must be a length, 0 to take that of", "-3"),
    mistake(
        options(0, 0, 0, 0, 0),
        "dim is 0, to take the length of axis 4, but the bottom is 2x3x4x5 (4 axes)",
        "0 }",
    ),
    mistake(options(0, rest="axis: -1"), "dim is 0, to take the length of axis 4", "0"),
    mistake(options(1, rest="axis: 5"), "axis is 5, but the bottom is 2x3x4x5 (4 axes)", "5"),
    mistake(options(1, rest="axis: -6"), "axis is -6, but the bottom is 2x3x4x5 (4 axes)", "-6"),
    mistake(
        options(1, rest="axis: 2 num_axes: 3"),
        "num_axes is 3, but the bottom 2x3x4x5 has only 2 axes from axis 2 on",
        "3",
    ),
    mistake(options(1, rest="num_axes: -2"), "num_axes is -2, but must be at least 0", "-2"),
    mistake(
        options(0, -1, rest="num_axes: 0"),
        "cannot infer dim -1 for the bottom 0x3: 1 values are not a multiple of 0",
        "-1",
        (0, 3),
    ),
    mistake(options(2**62, 2**62), "but the new shape 4611686018427387904x461168", "shape"),
    Mistake(options(-1) + ' top: "x0"', [X], 'cannot work in place on "x0"', '"x0"'),
]
