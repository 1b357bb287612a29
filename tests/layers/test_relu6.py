"""ReLU6: slopes of every sign, the gradient at 0 and at 6, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def relu6(slope: float = 0) -> Callable[..., Any]:
    return lambda x: np.minimum(np.where(x > 0, x, slope * x), 6)


def off_the_kinks(random: np.random.Generator, shape: Shape) -> Array:
    """Values on both sides of 0, 6 and -6, but not near any."""
    return np.asarray(random.choice([-9, -3, 3, 9], shape) + random.uniform(-2, 2, shape))


def case(slope: float, x: tuple[int, ...] = X) -> Case:
    text = f'type: "ReLU6" relu6_param {{ negative_slope: {slope} }}'
    return Case(text, [x], relu6(slope), off_the_kinks)


CASES = [
    Case('type: "ReLU6"', [X], relu6(), off_the_kinks),
    case(0.25),
    case(-1),
    case(0, (7,)),
    case(0.1, (0, 3)),
]

MISTAKES = [
    Mistake('type: "ReLU6"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "ReLU6" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "ReLU6"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


def test_limits_and_nan() -> None:
    y, slope = curve('type: "ReLU6"', [-np.inf, -1, 0, 3, 6, 7, np.inf, np.nan])
    np.testing.assert_array_equal(y[1:], [0, 0, 3, 6, 6, 6, np.nan])
    np.testing.assert_array_equal(slope[:7], [0, 0, 0, 1, 0, 0, 0])
