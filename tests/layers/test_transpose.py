"""Transpose: orders of two, three and four axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake

X = (2, 3, 4, 5)


def transposed(*order: int) -> Callable[..., Any]:
    """One value after the other."""

    def expected(x: Any) -> Any:
        y = np.empty([x.shape[axis] for axis in order])
        for index in np.ndindex(x.shape):
            y[tuple(index[axis] for axis in order)] = x[index]
        return y

    return expected


def case(*order: int, x: tuple[int, ...] = X) -> Case:
    dims = " ".join(f"dim: {axis}" for axis in order)
    return Case(f'type: "Transpose" transpose_param {{ {dims} }}', [x], transposed(*order))


CASES = [
    case(3, 2, 0, 1),
    case(2, 0, 3, 1),
    case(0, 1, 2, 3),
    case(1, 0, x=(3, 7)),
    case(2, 0, 1, x=(0, 3, 2)),
    case(0, x=(5,)),
]


def mistake(options: str, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Transpose" transpose_param {{ {options} }}', [X], message, at)


MISTAKES = [
    mistake(
        "dim: 0 dim: 1",
        "2 dim are given, but the bottom 2x3x4x5 has 4 axes: name each of them once",
        "transpose_param",
    ),
    mistake("dim: 0 dim: 1 dim: 2 dim: 1", "dim 1 is given twice", "1 }"),
    mistake(
        "dim: 0 dim: 1 dim: 2 dim: 4",
        "dim is 4, but the bottom 2x3x4x5 has only axes 0 to 3",
        "4",
    ),
    mistake("dim: -1 dim: 0 dim: 1 dim: 2", "dim is -1", "-1"),
]
