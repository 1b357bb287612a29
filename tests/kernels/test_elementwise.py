"""Arithmetic on flat arrays, of sizes around the blocks it is done in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netdef.kernels.elementwise import BLOCK, add, multiply, scale_into, sum_of_squares
from netdef.testing import threads

SIZES = [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]
pytestmark = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def draw(size: int, dtype: type[Any]) -> tuple[Any, Any]:
    random = np.random.default_rng(size)
    return random.standard_normal(size).astype(dtype), random.standard_normal(size).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_add(size: int, dtype: type[Any]) -> None:
    x, y = draw(size, dtype)
    expected = x + y
    add(x, y)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("size", SIZES)
def test_scale_into(size: int, dtype: type[Any]) -> None:
    x, y = draw(size, dtype)
    scale_into(x, dtype(-1.5), y)
    np.testing.assert_array_equal(y, dtype(-1.5) * x)
    scale_into(x, dtype(2), x)
    np.testing.assert_array_equal(y, dtype(-0.75) * x)


@pytest.mark.parametrize("size", SIZES)
def test_multiply(size: int, dtype: type[Any]) -> None:
    x, y = draw(size, dtype)
    expected, z = x * y, np.empty(size, dtype)
    multiply(x, y, z)
    np.testing.assert_array_equal(z, expected)
    multiply(x, y, x)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("size", SIZES)
def test_sum_of_squares(size: int, dtype: type[Any]) -> None:
    x, _ = draw(size, dtype)
    exact = math.fsum(float(v) ** 2 for v in x)
    assert sum_of_squares(x) == pytest.approx(exact, rel=1e-13)
    alone = sum_of_squares(x)
    with threads(None):
        assert sum_of_squares(x) == alone


def test_squares_are_summed_in_float64(dtype: type[Any]) -> None:
    """In float32 a sum of ones stops growing at 2**24, and 1e30 squared has no place."""
    assert sum_of_squares(np.ones(2**24 + 4096, dtype)) == 2**24 + 4096
    assert sum_of_squares(np.full(2, 1e30, dtype)) == pytest.approx(2e60)
