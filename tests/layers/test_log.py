"""Log: bases, scale and shift, where there is no logarithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def positive(random: np.random.Generator, shape: Shape) -> Array:
    return random.uniform(0.2, 3, shape)


def log(base: float, scale: float = 1, shift: float = 0) -> Callable[..., Any]:
    return lambda x: np.log2(shift + scale * x) / np.log2(base)


def case(options: str, expected: Callable[..., Any], x: tuple[int, ...] = X) -> Case:
    return Case(f'type: "Log" log_param {{ {options} }}', [x], expected, positive)


CASES = [
    Case('type: "Log"', [X], log(np.e), positive),
    case("scale: 0.5 shift: 0.25", log(np.e, 0.5, 0.25)),
    case("base: -1 scale: -1 shift: 4", log(np.e, -1, 4), (1, 2, 3, 4, 2)),
    case("base: 2 scale: 3 shift: 1", log(2, 3, 1)),
    case("base: 10", log(10)),
    case("base: 0.5", log(0.5)),
    case("base: 2 scale: 0 shift: 8", lambda x: np.full(x.shape, 3.0)),
    case("base: 2", log(2), (0, 3)),
]


def mistake(base: str, message: str) -> Mistake:
    return Mistake(f'type: "Log" log_param {{ base: {base} }}', [X], message, base)


MISTAKES = [
    mistake("0", "base is 0, but must be above 0, or -1 for e"),
    mistake("-2", "base is -2, but must be above 0, or -1 for e"),
    mistake("nan", "base is nan, but must be above 0, or -1 for e"),
    mistake("inf", "base is inf, but must be above 0, or -1 for e"),
    mistake("1", "there is no logarithm to base 1"),
    Mistake('type: "Log"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
]


def test_where_there_is_no_logarithm() -> None:
    y, slope = curve('type: "Log" log_param { base: 2 }', [-1, 0, 1, np.inf, np.nan])
    np.testing.assert_array_equal(y, [np.nan, -np.inf, 0, np.inf, np.nan])
    np.testing.assert_allclose(slope, np.array([-1, np.inf, 1, 0, np.nan]) / np.log(2))
