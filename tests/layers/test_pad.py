"""Pad: margins of other extents on every side, of any value, and none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.testing import Case, Mistake

X = (2, 3, 4)


def padded(margins: list[int], value: float) -> Callable[..., Any]:
    pairs = list(zip(margins[::2], margins[1::2], strict=True))
    return lambda x: np.pad(x, pairs, constant_values=value)


def case(margins: list[int], value: float = 0.0, x: Shape = X) -> Case:
    options = f"paddings: {margins} constant_values: {value}"
    return Case(f'type: "Pad" pad_param {{ {options} }}', [x], padded(margins, value))


CASES = [
    case([0, 0, 0, 1, 0, 1]),
    case([1, 2, 3, 4, 5, 6], -2.5),
    case([0, 0, 0, 0, 0, 0]),
    case([3, 0], 1.0, (5,)),
    case([0, 0, 2, 1], 0.5, (2, 0)),
    case([0, 0, 0, 0, 0, 1, 2, 0], -64.0, (1, 2, 3, 3)),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Pad" pad_param {{ {options} }}', bottoms, message, at)


MISTAKES = [
    mistake("paddings: [1, 1]", [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake("", [X], "needs two paddings for each of 3 axes, but has 0", "pad_param"),
    mistake("paddings: [1, 2, 3]", [X], "needs two paddings for each of 3 axes, but has 3", "3"),
    mistake(
        "paddings: [0, 0, 0, 0, 0, 4294967295]",
        [X],
        'top "y0" would be 2x3x4294967299: more than 2^31 - 1 values',
        "layer",
    ),
]
