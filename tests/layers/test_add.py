"""Add: equal shapes, axes that are repeated in either bottom, missing axes, scalars."""

from __future__ import annotations

from netdef.blob import Shape
from netdef.testing import Case, Mistake


def case(a: Shape, b: Shape, other: list[Shape] | None = None) -> Case:
    return Case('type: "Add"', [a, b], lambda a, b: a + b, other=other or [a, b])


X = (2, 3, 4, 5)

CASES = [
    Case('type: "Add"', [X, X], lambda a, b: a + b),
    case(X, (2, 3, 1, 1), [(1, 3, 2, 2), (1, 3, 1, 1)]),
    case((2, 3, 1, 1), X),
    case(X, (5,)),
    case(X, (3, 1, 1)),
    case((4, 1), X),
    case(X, ()),
    case((), X),
    case((2, 1, 4), (1, 3, 1)),
    case((0, 3), (1, 3), [(2, 3), (1, 3)]),
]

MISTAKES = [
    Mistake('type: "Add"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "Add"',
        [X, (2, 3, 4, 4)],
        "the bottoms 2x3x4x5 and 2x3x4x4 do not fit: counted from the last, their axes must be "
        "equal, or one of them 1",
        '"x1"',
    ),
    Mistake('type: "Add"', [X, (2, 3)], "the bottoms 2x3x4x5 and 2x3 do not fit", '"x1"'),
]
