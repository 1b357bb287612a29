"""HardSigmoid: slopes of either sign, its corners, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.testing import Case, Draw, Mistake, curve

X = (2, 3, 4, 5)


def hard_sigmoid(alpha: float, beta: float) -> Callable[..., Any]:
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def off_the_corners(alpha: float, beta: float) -> Draw:
    """Values whose line is below 0, between 0 and 1, or above, but not near either."""

    def draw(random: np.random.Generator, shape: Shape) -> Array:
        line = random.choice([-0.7, 0.5, 1.7], shape) + random.uniform(-0.4, 0.4, shape)
        return np.asarray((line - beta) / alpha)

    return draw


def case(options: str, alpha: float, beta: float, x: tuple[int, ...] = X) -> Case:
    text = f'type: "HardSigmoid" hard_sigmoid_param {{ {options} }}'
    # alpha and beta are what float32 makes of them.
    alpha, beta = float(np.float32(alpha)), float(np.float32(beta))
    return Case(text, [x], hard_sigmoid(alpha, beta), off_the_corners(alpha, beta))


CASES = [
    case("", 0.2, 0.5),
    case("alpha: 0.16666667 beta: 0.5", 0.16666667, 0.5),
    case("alpha: -0.5 beta: 0.25", -0.5, 0.25, (7,)),
    case("", 0.2, 0.5, (0, 3)),
]

MISTAKES = [
    Mistake('type: "HardSigmoid"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "HardSigmoid" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "HardSigmoid"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


def test_corners_and_nan() -> None:
    text = 'type: "HardSigmoid" hard_sigmoid_param { alpha: 0.25 beta: 0.5 }'
    y, slope = curve(text, [-np.inf, -3, -2, 0, 2, 3, np.inf, np.nan])
    np.testing.assert_array_equal(y, [0, 0, 0, 0.5, 1, 1, 1, np.nan])
    np.testing.assert_array_equal(slope, [0, 0, 0, 0.25, 0, 0, 0, 0])
