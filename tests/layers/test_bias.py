"""Bias: learned and given biases, axes, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from netdef.blob import Shape
from netdef.testing import Case, Mistake

X = (2, 3, 4, 5)
LONGER = (3, 3, 4, 5)


def biased(axis: int = 1) -> Any:
    return lambda x, b: x + b.reshape(*b.shape, *(1,) * (x.ndim - axis - b.ndim))


def case(
    options: str, bottoms: Sequence[Shape], expected: Any, other: Sequence[Shape] | None = None
) -> Case:
    return Case(f'type: "Bias" bias_param {{ {options} }}', bottoms, expected, other=other)


CASES = [
    case("", [X], biased()),
    case("axis: -2", [X], biased(2)),
    case("axis: -1", [X], biased(3)),
    case("axis: 0 num_axes: 2", [X], biased(0), [(2, 3, 1, 7)]),
    case("axis: 1 num_axes: -1", [X], biased()),
    case("num_axes: 0", [X], lambda x, b: x + b),
    case("", [(0, 3)], biased()),
    case("", [(1, 3)], biased()),
    case("", [X, (3,)], biased(), [LONGER, (3,)]),
    case("", [X, (3, 4)], biased(), [LONGER, (3, 4)]),
    case("axis: 0 num_axes: -1", [X, X], biased(0)),
    case("axis: -1", [X, (5,)], biased(3), [LONGER, (5,)]),
    case("axis: 9", [X, ()], lambda x, b: x + b, [LONGER, ()]),
]

MISTAKES = [
    Mistake('type: "Bias"', [], "takes 1 to 2 bottom blobs, but 0 given", "layer"),
    Mistake('type: "Bias" bias_param { axis: 4 }', [X], "axis is 4, but the bottom", "4"),
    Mistake(
        'type: "Bias" bias_param { num_axes: -2 }',
        [X],
        "num_axes is -2, but must be at least 0, or -1 for all axes from axis on",
        "-2",
    ),
    Mistake(
        'type: "Bias" bias_param { num_axes: 4 }',
        [X],
        "num_axes is 4 from axis 1 on, but the bottom is 2x3x4x5 (4 axes)",
        "4",
    ),
    Mistake(
        'type: "Bias"',
        [X, (2,)],
        "its second bottom is 2, but from axis 1 on the first, 2x3x4x5, is 3",
        '"x1"',
    ),
]


@pytest.mark.parametrize(
    ("options", "shape"),
    [("", (3,)), ("num_axes: 0", ()), ("axis: -3 num_axes: 2", (3, 4)), ("num_axes: -1", X[1:])],
)
def test_the_bias_has_the_axes_that_are_asked_for(options: str, shape: Shape) -> None:
    [param] = case(options, [X], biased()).layer().params(X)
    assert param.shape == shape
    assert (param.filler.type, param.filler.value) == ("constant", 0)
    assert not list(case(options, [X, X], biased()).layer().params(X, X))
