"""ELU: alpha of either sign and 0, the kink, far below 0, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, curve, off_zero

X = (2, 3, 4, 5)


def elu(alpha: float) -> Callable[..., Any]:
    return lambda x: np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1))


def case(alpha: float, x: tuple[int, ...] = X) -> Case:
    return Case(f'type: "ELU" elu_param {{ alpha: {alpha} }}', [x], elu(alpha), off_zero)


CASES = [
    Case('type: "ELU"', [X], elu(1), off_zero),
    case(0.5),
    case(2, (1, 2, 3, 4, 2)),
    case(0),
    case(-0.5),
    case(0.5, (1,)),
    case(0.5, (0, 3)),
]

MISTAKES = [
    Mistake('type: "ELU"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "ELU" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "ELU"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("alpha", [0, 0.5, -0.5])
def test_the_slope_at_zero_is_alpha(alpha: float) -> None:
    y, slope = curve(f'type: "ELU" elu_param {{ alpha: {alpha} }}', [-0.0, 0])
    np.testing.assert_array_equal(y, [0, 0])
    np.testing.assert_array_equal(slope, [alpha, alpha])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_saturates(dtype: type[Any]) -> None:
    y, slope = curve('type: "ELU" elu_param { alpha: 0.5 }', [-np.inf, -1e30, 1e30, np.inf], dtype)
    np.testing.assert_array_equal(y, np.array([-0.5, -0.5, 1e30, np.inf], np.float32))
    np.testing.assert_array_equal(slope, [0, 0, 1, 1])


def test_small_values_are_not_rounded_away() -> None:
    """e^-1e-9 is 1 in float32."""
    y, slope = curve('type: "ELU" elu_param { alpha: 2 }', [-1e-9, 1e-9], np.float32)
    np.testing.assert_allclose(y, [-2e-9, 1e-9], rtol=1e-6)
    np.testing.assert_array_equal(slope, [2, 1])


def test_nan_stays_nan() -> None:
    y, slope = curve('type: "ELU"', [np.nan])
    assert np.isnan(y).all()
    assert np.isnan(slope).all()
