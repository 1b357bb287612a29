"""Reverse: one axis, several, counted from either end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake

X = (4, 2, 3, 5)


def reverse(*axes: int) -> Callable[..., Any]:
    def expected(x: Any) -> Any:
        for axis in axes:
            x = np.take(x, range(x.shape[axis] - 1, -1, -1), axis=axis)
        return x

    return expected


def case(options: str, *axes: int, x: tuple[int, ...] = X) -> Case:
    return Case(f'type: "Reverse" reverse_param {{ {options} }}', [x], reverse(*axes))


CASES = [
    Case('type: "Reverse"', [X], reverse(0)),
    case("axis: 0", 0),
    case("axis: 2", 2),
    case("axis: -1", 3),
    case("axis: 1 axis: 3", 1, 3),
    case("axis: 0", 0, x=(7,)),
    case("axis: 1", 1, x=(0, 3)),
]

MISTAKES = [
    Mistake(
        'type: "Reverse" reverse_param { axis: 4 }',
        [X],
        "axis is 4, but the bottom is 4x2x3x5",
        "4",
    ),
    Mistake(
        'type: "Reverse" reverse_param { axis: 1 axis: -3 }', [X], "axis -3 is given twice", "-3"
    ),
    Mistake('type: "Reverse"', [()], "axis is 0, but the bottom is", '"x0"'),
    Mistake('type: "Reverse"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
]
