"""Clip: limits of either sign, one or no value between them, the gradient at the limits, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def limited(low: float, high: float) -> Callable[..., Any]:
    return lambda x: np.where(x < low, low, np.where(x > high, high, x))


def case(options: str, low: float, high: float, x: tuple[int, ...] = X) -> Case:
    return Case(f'type: "Clip" clip_param {{ {options} }}', [x], limited(low, high))


CASES = [
    case("min: -0.5 max: 0.75", -0.5, 0.75),
    case("min: 0 max: 6", 0, 6, (1, 2, 3, 4, 2)),
    case("min: -2 max: -0.5", -2, -0.5),
    case("min: 0.25 max: 0.25", 0.25, 0.25),
    case("min: -inf max: 0.5", -np.inf, 0.5),
    case("min: -1 max: 1", -1, 1, (0, 3)),
]


def mistake(options: str, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Clip" {options}', [X], message, at)


MISTAKES = [
    mistake("", "min and max must be given", "layer"),
    mistake(
        "clip_param { min: 1 max: 0.5 }",
        "min is 1 and max 0.5, but min must not be above max",
        "1",
    ),
    mistake("clip_param { min: nan max: 1 }", "min is nan and max 1", "nan"),
    mistake("clip_param { min: 0 max: nan }", "min is 0 and max nan", "0"),
    Mistake(
        'type: "Clip" clip_param { min: 0 max: 1 }',
        [X, X],
        "takes 1 bottom blob, but 2 given",
        '"x1"',
    ),
]


def test_the_gradient_passes_at_the_limits() -> None:
    y, slope = curve('type: "Clip" clip_param { min: -1 max: 2 }', [-1.5, -1, 0, 2, 2.5, np.inf])
    np.testing.assert_array_equal(y, [-1, -1, 0, 2, 2, 2])
    np.testing.assert_array_equal(slope, [0, 1, 1, 1, 0, 0])


def test_nan_stays_nan() -> None:
    y, slope = curve('type: "Clip" clip_param { min: -1 max: 2 }', [np.nan])
    assert np.isnan(y).all()
    assert slope == 0
