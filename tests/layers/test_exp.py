"""Exp: bases, scale and shift, values beyond the type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.errors import NetError
from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def power_of(base: float, scale: float = 1, shift: float = 0) -> Callable[..., Any]:
    return lambda x: np.power(base, shift) * np.power(np.power(base, scale), x)


def case(options: str, expected: Callable[..., Any], x: tuple[int, ...] = X) -> Case:
    return Case(f'type: "Exp" exp_param {{ {options} }}', [x], expected)


CASES = [
    Case('type: "Exp"', [X], power_of(np.e)),
    case("scale: 0.5 shift: -0.25", power_of(np.e, 0.5, -0.25)),
    case("base: -1 scale: -1.5 shift: 2", power_of(np.e, -1.5, 2), (1, 2, 3, 4, 2)),
    case("base: 2 scale: 0.5 shift: 0.75", power_of(2, 0.5, 0.75)),
    case("base: 10 shift: 1", power_of(10, 1, 1)),
    case("base: 0.5", power_of(0.5)),
    case("base: 1 scale: 3", lambda x: np.ones(x.shape)),
    case("base: 2 scale: 0 shift: 3", lambda x: np.full(x.shape, 8.0)),
    case("base: 2", power_of(2), (0, 3)),
]


def mistake(base: str) -> Mistake:
    return Mistake(
        f'type: "Exp" exp_param {{ base: {base} }}',
        [X],
        f"base is {base}, but must be above 0, or -1 for e",
        base,
    )


MISTAKES = [
    mistake("0"),
    mistake("-2"),
    mistake("nan"),
    mistake("inf"),
    Mistake('type: "Exp"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
]


def test_a_bad_base_is_found_before_anything_is_allocated() -> None:
    with pytest.raises(NetError, match="base is 0"):
        case("base: 0", power_of(1)).layer().shapes(X)


def test_values_beyond_the_type_are_infinite() -> None:
    y, slope = curve('type: "Exp"', [-np.inf, -200, 0, 200, np.nan], np.float32)
    np.testing.assert_array_equal(y, [0, 0, 1, np.inf, np.nan])
    np.testing.assert_array_equal(slope, y)


def test_a_shift_beyond_the_type_is_not_applied_alone() -> None:
    """e^100 is no float32, but e^(100 - 100) is."""
    y, _ = curve('type: "Exp" exp_param { shift: 100 }', [-100, -101], np.float32)
    np.testing.assert_allclose(y, [1, np.exp(-1)], rtol=1e-6)
