"""Slice: equal parts and stated ones, axes by either field, parts of length 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.testing import Case, Mistake


def cut(axis: int, *points: int) -> Callable[..., Any]:
    return lambda x: tuple(np.split(x, points, axis))


def tops(count: int) -> str:
    return " ".join(f'top: "y{k}"' for k in range(count))


def case(options: str, count: int, x: Shape, expected: Callable[..., Any], **more: Any) -> Case:
    text = f'type: "Slice" slice_param {{ {options} }} {tops(count)}'
    return Case(text, [x], expected, **more)


X = (2, 6, 4)

CASES = [
    case("", 2, X, cut(1, 3)),
    case("", 3, (2, 6, 2, 3), cut(1, 2, 4)),
    case("", 6, X, cut(1, 1, 2, 3, 4, 5)),
    case("", 1, X, cut(1)),
    case("axis: 0", 2, X, cut(0, 1), other=[(4, 6, 4)]),
    case("axis: 2", 2, X, cut(2, 2)),
    case("axis: -1", 4, X, cut(2, 1, 2, 3)),
    case("axis: -3", 2, (6,) * 3, cut(0, 3), other=[(2, 1, 1)]),
    case("slice_point: 1", 2, X, cut(1, 1)),
    case("slice_point: 2 slice_point: 3", 3, X, cut(1, 2, 3), other=[(2, 9, 4)]),
    case("slice_point: 5 axis: -2", 2, X, cut(1, 5)),
    case("slice_dim: 2", 2, X, cut(2, 2)),
    case("slice_dim: 0 slice_point: 1", 2, (3,), cut(0, 1)),
    # Caffe lets a last point of all leave nothing to the last top.
    case("slice_point: 2 slice_point: 6", 3, X, cut(1, 2, 6)),
    case("", 2, (2, 0), cut(1, 0)),
    case("", 2, (0, 6), cut(1, 3)),
]


def mistake(options: str, count: int, x: Shape, message: str, at: str) -> Mistake:
    text = f'type: "Slice" slice_param {{ {options} }} {tops(count)}'
    return Mistake(text, [x], message, at)


MISTAKES = [
    Mistake(f'type: "Slice" {tops(2)}', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake(
        "",
        4,
        X,
        "cannot cut axis 1 of 2x6x4 into 4 equal tops: 6 is not a multiple of 4",
        '"x0"',
    ),
    mistake(
        "slice_point: 2",
        3,
        X,
        "has 3 tops but 1 slice_point: give 2, one for each top but the first, or none",
        "2",
    ),
    mistake("slice_point: 2", 1, X, "has 1 tops but 1 slice_point: give 0", "2"),
    mistake(
        "slice_point: 1 slice_point: 3 slice_point: 3",
        4,
        X,
        "slice_point 3 follows 3: they must ascend from above 0",
        "3 }",
    ),
    mistake("slice_point: 4 slice_point: 2", 3, X, "slice_point 2 follows 4", "2"),
    mistake("slice_point: 0", 2, X, "slice_point 0 follows 0: they must ascend from above 0", "0"),
    mistake(
        "slice_point: 7",
        2,
        X,
        "slice_point 7 is beyond the 6 of axis 1 of the bottom 2x6x4",
        "7",
    ),
    mistake("slice_point: 1", 2, (2, 1), "cannot cut axis 1 of 2x1 into 2 tops", '"x0"'),
    mistake("axis: 3", 2, X, "axis is 3, but the bottom is 2x6x4 (3 axes)", "3"),
    mistake("slice_dim: 3", 2, X, "axis is 3, but the bottom is 2x6x4", "3"),
    mistake("axis: 1 slice_dim: 1", 2, X, "give axis or slice_dim, not both", "1 }"),
    mistake("axis: 0", 1, (), "axis is 0, but the bottom is scalar (0 axes)", "0"),
]
