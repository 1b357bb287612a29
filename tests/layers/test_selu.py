"""SeLu: its own factors and others, the slope at 0, far from 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, curve, off_zero

X = (2, 3, 4, 5)
LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(factor: float, alpha: float) -> Callable[..., Any]:
    factor, alpha = float(np.float32(factor)), float(np.float32(alpha))
    return lambda x: np.where(x > 0, factor * x, factor * alpha * np.expm1(x))


def case(options: str, factor: float, alpha: float, x: tuple[int, ...] = X) -> Case:
    text = f'type: "SeLu" selu_param {{ {options} }}'
    return Case(text, [x], selu(factor, alpha), off_zero)


CASES = [
    case("", LAMBDA, ALPHA),
    case("lambda: 0.5 alpha: 2", 0.5, 2),
    case("lambda: -1 alpha: -0.5", -1, -0.5, (7,)),
    case("", LAMBDA, ALPHA, (0, 3)),
]

MISTAKES = [
    Mistake('type: "SeLu"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "SeLu" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "SeLu"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


def test_limits_and_the_slope_at_zero() -> None:
    y, slope = curve('type: "SeLu" selu_param { lambda: 2 alpha: 3 }', [-1000, 0, 1000, np.nan])
    np.testing.assert_array_equal(y, [-6, 0, 2000, np.nan])
    np.testing.assert_array_equal(slope, [0, 6, 2, np.nan])


def test_unit_normal_values_stay_so() -> None:
    """What its factors are made for."""
    x = np.random.default_rng(1).standard_normal(100000)
    y, _ = curve('type: "SeLu"', list(x))
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.02
