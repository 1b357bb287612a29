"""BNLL: values that e^x could not hold, small gradients, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


CASES = [
    Case('type: "BNLL"', [X], softplus),
    Case('type: "BNLL"', [(1, 2, 3, 4, 2)], softplus),
    Case('type: "BNLL"', [(1,)], softplus),
    Case('type: "BNLL"', [(0, 3)], softplus),
    Case('type: "BNLL"', [(6, 50)], softplus, lambda random, shape: random.uniform(-60, 60, shape)),
]

MISTAKES = [
    Mistake('type: "BNLL"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "BNLL" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "BNLL"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows(dtype: type[Any]) -> None:
    y, slope = curve('type: "BNLL"', [-np.inf, -1e30, 0, 1e30, np.inf], dtype)
    np.testing.assert_allclose(y, [0, 0, np.log(2), 1e30, np.inf], rtol=1e-7)
    np.testing.assert_array_equal(slope, [0, 0, 0.5, 1, 1])


def test_small_values_are_not_rounded_away() -> None:
    """1 + e^-30 is 1 in float32."""
    y, slope = curve('type: "BNLL"', [-30], np.float32)
    np.testing.assert_allclose(y, np.exp(-30), rtol=1e-5)
    np.testing.assert_allclose(slope, np.exp(-30), rtol=1e-5)


def test_nan_stays_nan() -> None:
    y, slope = curve('type: "BNLL"', [np.nan])
    assert np.isnan(y).all()
    assert np.isnan(slope).all()
