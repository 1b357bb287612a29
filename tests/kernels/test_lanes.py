"""Lanes against numpy: every function on values of every type, and nothing beyond the bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError

from netdef.jit import serial
from netdef.kernels import lanes
from netdef.kernels.lanes import LANES

floats = pytest.mark.parametrize("dtype", [np.float32, np.float64])
kinds = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int32])

LINE = np.arange(LANES)


def drawn(dtype: type[Any], stream: int = 0, size: int = LANES) -> Any:
    return (100 * np.random.default_rng([7, stream]).standard_normal(size)).astype(dtype)


@serial
def _copy(x: Any, first: Any, y: Any) -> None:
    lanes.store(y, first, lanes.load(x, first))


@serial
def _copy_part(x: Any, first: Any, low: Any, high: Any, rest: Any, y: Any, whole: Any) -> None:
    value = lanes.load_part(x, first, low, high, rest)
    lanes.store(whole, 0, value)
    lanes.store_part(y, first, low, high, value)


@kinds
def test_an_index_counts_values_in_memory_order(dtype: type[Any]) -> None:
    x = drawn(dtype, size=60).reshape(3, 4, 5)
    y = np.zeros_like(x)
    _copy(x, 13, y)
    expected = np.zeros(60, dtype)
    expected[13 : 13 + LANES] = x.reshape(-1)[13 : 13 + LANES]
    np.testing.assert_array_equal(y.reshape(-1), expected)


@kinds
@pytest.mark.parametrize("first", [-LANES, -3, 0, 4, 40, 60])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 50), (5, 6), (5, 15), (45, 50), (0, 100)])
def test_a_part_keeps_to_its_bounds(first: int, low: int, high: int, dtype: type[Any]) -> None:
    """Lanes beyond the array are never touched, so an index may lie before its first value."""
    x, high = drawn(dtype, size=50), min(high, 50)
    y, whole = np.full(50, 9, dtype), np.zeros(LANES, dtype)
    _copy_part(x, first, low, high, dtype(7), y, whole)
    at = first + LINE
    inside = (low <= at) & (at < high)
    np.testing.assert_array_equal(whole, np.where(inside, x[np.clip(at, 0, 49)], 7))
    expected = np.full(50, 9, dtype)
    expected[at[inside]] = x[at[inside]]
    np.testing.assert_array_equal(y, expected)


@serial
def _arithmetic(x: Any, z: Any, y: Any) -> None:
    a, b, c = lanes.load(x, 0), lanes.load(z, 0), lanes.fill(x[0])
    lanes.store(y, 0, a + b)
    lanes.store(y, LANES, a - b)
    lanes.store(y, 2 * LANES, a * b)
    lanes.store(y, 3 * LANES, lanes.choose(a > b, a, b))
    lanes.store(y, 4 * LANES, lanes.choose(a == b, a, b))
    lanes.store(y, 5 * LANES, lanes.choose((a > b) & (a > c), a, b))
    lanes.store(y, 6 * LANES, lanes.choose(a <= b, a, b))


@kinds
def test_arithmetic(dtype: type[Any]) -> None:
    a, b, y = drawn(dtype), drawn(dtype, 1), np.zeros((7, LANES), dtype)
    b[::3] = a[::3]
    _arithmetic(a, b, y)
    larger, both = np.where(a > b, a, b), np.where((a > b) & (a > a[0]), a, b)
    np.testing.assert_array_equal(y, [a + b, a - b, a * b, larger, b, both, np.minimum(a, b)])


@serial
def _of_floats(x: Any, z: Any, y: Any, wide: Any, sums: Any) -> None:
    a, b = lanes.load(x, 0), lanes.load(z, 0)
    lanes.store(y, 0, a / b)
    lanes.store(y, LANES, lanes.fma(a, b, a))
    lanes.store(y, 2 * LANES, lanes.magnitude(a))
    lanes.store(y, 3 * LANES, lanes.fill(x[3]))
    lanes.store(wide, 0, lanes.double(a))
    lanes.store(y, 4 * LANES, lanes.convert(lanes.double(a), x[0]))
    sums[0] = lanes.total(a)


@floats
def test_arithmetic_of_floats(dtype: type[Any]) -> None:
    a, b, y = drawn(dtype), drawn(dtype, 1), np.zeros((5, LANES), dtype)
    wide, sums = np.zeros(LANES), np.zeros(1, dtype)
    _of_floats(a, b, y, wide, sums)
    np.testing.assert_array_equal(y[[0, 2, 3, 4]], [a / b, abs(a), np.full(LANES, a[3]), a])
    np.testing.assert_array_equal(wide, a.astype(np.float64))
    exact = a.astype(np.longdouble) * b + a
    np.testing.assert_array_equal(y[1], exact.astype(dtype))
    tree = a
    while tree.size > 1:
        tree = tree[: tree.size // 2] + tree[tree.size // 2 :]
    assert sums[0] == tree[0]


def test_nothing_compares_with_nan() -> None:
    a, y = np.full(LANES, np.nan, np.float32), np.zeros((7, LANES), np.float32)
    b = np.arange(LANES, dtype=np.float32)
    for x, z in ((a, b), (b, a), (a, a)):
        _arithmetic(x, z, y)
        np.testing.assert_array_equal(y[3], z)
        np.testing.assert_array_equal(y[4], z)
        np.testing.assert_array_equal(y[6], z)


@serial
def _shuffled(x: Any, z: Any, y: Any) -> None:
    a, b = lanes.load(x, 0), lanes.load(z, 0)
    lanes.store(y, 0, lanes.even(a, b))
    lanes.store(y, LANES, lanes.odd(a, b))
    lanes.store(y, 2 * LANES, lanes.zip_first(a, b))
    lanes.store(y, 3 * LANES, lanes.zip_second(a, b))


@kinds
def test_shuffles(dtype: type[Any]) -> None:
    a, b, y = LINE.astype(dtype), (LANES + LINE).astype(dtype), np.zeros((4, LANES), dtype)
    _shuffled(a, b, y)
    both = np.concatenate([a, b])
    zipped = np.stack([a, b], axis=1).reshape(2, LANES)
    np.testing.assert_array_equal(y, [both[::2], both[1::2], *zipped])


@serial
def _integers(first: Any, step: Any, y: Any, narrow: Any) -> None:
    value = lanes.count_up(first, step)
    lanes.store(y, 0, value)
    lanes.store(narrow, 0, lanes.convert(value, narrow[0]))
    lanes.store(y, LANES, lanes.convert(lanes.load(narrow, 0), y[0]))


def test_integers() -> None:
    y, narrow = np.zeros((2, LANES), np.int32), np.zeros(LANES, np.int8)
    _integers(np.int32(-20), np.int32(3), y.reshape(-1), narrow)
    np.testing.assert_array_equal(y, [3 * LINE - 20] * 2)
    np.testing.assert_array_equal(narrow, 3 * LINE - 20)


def test_lanes_are_of_contiguous_arrays() -> None:
    x = np.zeros((2 * LANES, 2), np.float32)
    with pytest.raises(TypingError, match="C-contiguous"):
        _copy(x[:, 0], 0, x[:, 1])


@serial
def _copy_apart(x: Any, first: Any, stride: Any, low: Any, high: Any, rest: Any, y: Any) -> None:
    lanes.store(y, 0, lanes.load_apart(x, first, stride, low, high, rest))


@kinds
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("first", [-9, 0, 5])
def test_values_apart_keep_to_their_bounds(first: int, stride: int, dtype: type[Any]) -> None:
    x, y = drawn(dtype, size=50), np.zeros(LANES, dtype)
    _copy_apart(x, first, stride, 3, 41, dtype(7), y)
    at = first + stride * LINE
    inside = (at >= 3) & (at < 41)
    np.testing.assert_array_equal(y, np.where(inside, x[np.clip(at, 0, 49)], 7))
