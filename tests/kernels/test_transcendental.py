"""exp, log, tanh and their kin in float32, on bit patterns from all over, against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels import transcendental

#: Every so many-th of all float32, subnormal numbers, infinities and NaN among them.
STEP = 1021


@kernel
def _exp(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.exp(x[i])


@kernel
def _expm1(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.expm1(x[i])


@kernel
def _log(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.log(x[i])


@kernel
def _softplus(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.softplus(x[i])


@kernel
def _sigmoid(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.sigmoid(x[i])


@kernel
def _tanh(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.tanh(x[i])


@kernel
def _power(x: Any, exponent: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = transcendental.power(x[i], exponent)


def softplus(x: Array) -> Array:
    y: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return y


def sigmoid(x: Array) -> Array:
    # By e^x where x is below 0: 1 + e^-x would overflow.
    e = np.exp(-np.abs(x))
    y: Array = np.where(x < 0, e, 1) / (1 + e)
    return y


FUNCTIONS: list[tuple[Callable[..., None], Callable[..., Array]]] = [
    (_exp, np.exp),
    (_expm1, np.expm1),
    (_log, np.log),
    (_softplus, softplus),
    (_sigmoid, sigmoid),
    (_tanh, np.tanh),
]
functions = pytest.mark.parametrize(
    ("ours", "true"), FUNCTIONS, ids=[true.__name__ for _, true in FUNCTIONS]
)


def ulps(a: Array, b: Array) -> Array:
    """How many float32 lie between the one and the other; NaN is next to nothing but NaN."""
    assert a.dtype == b.dtype == np.float32
    lines = [x.view(np.int32).astype(np.int64) for x in (a, b)]
    one, other = (np.where(n < 0, -(2**31) - n, n) for n in lines)
    nan = [np.isnan(x) for x in (a, b)]
    apart = np.where(nan[0] == nan[1], 0, 2**32)
    return np.where(nan[0] | nan[1], apart, np.abs(one - other))


@pytest.fixture(scope="module")
def numbers() -> Array:
    patterns = np.arange(0, 2**32, STEP, dtype=np.uint64).astype(np.uint32)
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0], np.float32)
    return np.concatenate([patterns.view(np.float32), special])


@functions
def test_nearly_all_are_the_nearest(
    ours: Callable[..., None], true: Callable[[Array], Array], numbers: Array
) -> None:
    y = np.zeros_like(numbers)
    ours(numbers, y)
    with np.errstate(all="ignore"):
        expected = true(numbers.astype(np.float64)).astype(np.float32)
    apart = ulps(y, expected)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 2e-5 * numbers.size


@functions
def test_where_most_numbers_are(ours: Callable[..., None], true: Callable[[Array], Array]) -> None:
    """A million from -20 to 20, and as many close to 0 and to 1."""
    x = np.linspace(-20, 20, 10**6, dtype=np.float32)
    for values in (x, x / 1000, 1 + x / 1000):
        y = np.zeros_like(values)
        ours(values, y)
        with np.errstate(all="ignore"):
            expected = true(values.astype(np.float64)).astype(np.float32)
        apart = ulps(y, expected)
        assert apart.max() <= 1
        assert np.count_nonzero(apart) <= 2e-5 * values.size


@functions
def test_the_sign_of_zero(ours: Callable[..., None], true: Callable[[Array], Array]) -> None:
    x, y = np.array([0.0, -0.0], np.float32), np.zeros(2, np.float32)
    ours(x, y)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(np.signbit(y), np.signbit(true(x)))


@functions
def test_float64_is_that_of_the_library(
    ours: Callable[..., None], true: Callable[[Array], Array]
) -> None:
    x = np.linspace(-30, 30, 1001)
    y = np.zeros_like(x)
    ours(x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(y, true(x), rtol=4e-15)


@pytest.mark.parametrize("exponent", [0.75, -0.75, 2.5, -3, 0.1, 20])
def test_power(exponent: float, numbers: Array) -> None:
    x = numbers[(numbers > 0) & np.isfinite(numbers)]
    y = np.zeros_like(x)
    _power(x, np.float32(exponent), y)
    with np.errstate(all="ignore"):
        expected = (x.astype(np.float64) ** np.float64(np.float32(exponent))).astype(np.float32)
    apart = ulps(y, expected)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 2e-4 * x.size
