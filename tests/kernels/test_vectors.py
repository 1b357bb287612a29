"""Vectors: masked copies, and blocks transposed in registers, beside memory of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.jit import serial
from netdef.kernels.vectors import (
    copy_every_fourth,
    copy_every_second,
    copy_lanes,
    lanes_of,
    transpose_block,
)

DTYPES = [np.float32, np.float64]


@serial
def _copy(x: Any, at: Any, stride: Any, low: Any, high: Any, count: Any, y: Any) -> None:
    like = x[0]
    source = x.ctypes.data + at * x.itemsize
    if stride == 1:
        copy_lanes(like, y.ctypes.data, source, low, high, count)
    elif stride == 2:
        copy_every_second(like, y.ctypes.data, source, low, high, count)
    else:
        copy_every_fourth(like, y.ctypes.data, source, low, high, count)


@serial
def _transpose(x: Any, rows: Any, columns: Any, y: Any) -> None:
    transpose_block(x[0, 0], y.ctypes.data, y.shape[1], x.ctypes.data, x.shape[1], rows, columns)


def bounds(wide: int) -> list[int]:
    return sorted({-3, 0, 1, wide // 2, wide - 1, wide, wide + 1, 4 * wide})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_lanes_are_copied_between_their_bounds(dtype: type[Any], stride: int) -> None:
    wide = lanes_of(np.dtype(dtype).itemsize)
    x = np.arange(1, 6 * 4 * wide, dtype=dtype)
    at = 4 * wide
    for low in bounds(wide):
        for high in bounds(wide):
            for count in (1, wide - 1, wide):
                y = np.full(wide + 1, np.pi, dtype)
                _copy(x, at, stride, low, high, count, y)
                expected = [x[at + stride * i] if low <= i < high else 0 for i in range(count)]
                assert y[:count].tolist() == expected, (low, high, count)
                assert (y[count:] == dtype(np.pi)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_is_transposed_and_nothing_beside_it_written(dtype: type[Any]) -> None:
    wide = lanes_of(np.dtype(dtype).itemsize)
    x = np.random.default_rng(0).standard_normal((wide + 2, wide + 3)).astype(dtype)
    for rows in (1, 2, wide - 1, wide, wide + 2):
        for columns in (1, 3, wide - 1, wide, wide + 3):
            y = np.full((wide + 1, wide + 5), np.pi, dtype)
            expected = y.copy()
            m, n = min(rows, wide), min(columns, wide)
            expected[:n, :m] = x[:m, :n].T
            _transpose(x, rows, columns, y)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_masked_is_not_read(dtype: type[Any]) -> None:
    """NaN behind the bounds would show."""
    wide = lanes_of(np.dtype(dtype).itemsize)
    x = np.full(8 * wide, np.nan, dtype)
    x[wide : wide + 3] = 1
    y = np.empty(wide, dtype)
    _copy(x, wide, 1, 0, 3, wide, y)
    assert y.tolist() == [1] * 3 + [0] * (wide - 3)
