"""Flatten: first and last axis from either end, one axis alone, an axis that is put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netdef.blob import Shape
from netdef.testing import Case, Mistake

X = (2, 3, 4, 5)


def to(*shape: int) -> Callable[..., Any]:
    return lambda x: x.reshape(shape)


def case(options: str, shape: Shape, x: Shape = X) -> Case:
    return Case(f'type: "Flatten" flatten_param {{ {options} }}', [x], to(*shape))


CASES = [
    case("", (2, 60)),
    case("", (2, 3), (2, 3)),
    case("axis: 0", (120,)),
    case("axis: 2", (2, 3, 20)),
    case("axis: -2", (2, 3, 20)),
    case("axis: 3", X),
    case("end_axis: 2", (2, 12, 5)),
    case("end_axis: -3", X),
    case("axis: 0 end_axis: 1", (6, 4, 5)),
    case("axis: -4 end_axis: -2", (24, 5)),
    case("axis: 0", (4,), (4,)),
    # Caffe joins no axes at all into one of length 1.
    case("axis: 2 end_axis: 1", (2, 3, 1, 4, 5)),
    case("axis: 1 end_axis: 0", (3, 1, 4), (3, 4)),
    case("", (0, 60), (0, 3, 4, 5)),
    case("", (2, 0), (2, 3, 0)),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Flatten" flatten_param {{ {options} }}', bottoms, message, at)


MISTAKES = [
    mistake("", [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake("axis: 4", [X], "axis is 4, but the bottom is 2x3x4x5 (4 axes)", "4"),
    mistake("end_axis: -5", [X], "axis is -5, but the bottom is 2x3x4x5 (4 axes)", "-5"),
    mistake("", [(3,)], "axis is 1, but the bottom is 3 (1 axes)", "flatten_param"),
    mistake(
        "axis: 3 end_axis: 1", [X], "end_axis 1 comes before axis 3 of the bottom 2x3x4x5", "1 }"
    ),
    mistake("axis: -1 end_axis: -3", [X], "end_axis -3 comes before axis -1 of", "-3"),
    Mistake('type: "Flatten" top: "x0"', [X], 'cannot work in place on "x0"', '"x0"'),
]
