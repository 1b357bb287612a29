"""Columns that are copied, rows that are taken and given back: of sizes around a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.kernels.elementwise import BLOCK
from netdef.kernels.parts import add_rows, copy_columns, take_rows
from netdef.testing import threads

pytestmark = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def matrix(rows: int, columns: int, dtype: type[Any]) -> Any:
    return np.random.default_rng(rows + columns).standard_normal((rows, columns)).astype(dtype)


@pytest.mark.parametrize("count", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_copy_columns(rows: int, count: int, dtype: type[Any]) -> None:
    x, y = matrix(rows, count + 5, dtype), matrix(rows, count + 4, dtype)
    expected = y.copy()
    expected[:, 3 : 3 + count] = x[:, 2 : 2 + count]
    with threads(None):
        copy_columns(x, 2, y, 3, count)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("columns", [0, 1, 63, 64, 65, 130])
def test_take_rows(columns: int, dtype: type[Any]) -> None:
    x = matrix(5, columns, dtype)
    index = np.array([4, 0, 0, 2, 4, 4, 1])
    y = np.full((7, columns), np.nan, dtype)
    with threads(None):
        take_rows(x, index, y)
    np.testing.assert_array_equal(y, x[index])


@pytest.mark.parametrize("columns", [0, 1, 63, 64, 65, 130])
def test_add_rows(columns: int, dtype: type[Any]) -> None:
    x, y = matrix(7, columns, dtype), matrix(5, columns, dtype)
    index = np.array([4, 0, 0, 2, 4, 4, 1])
    expected = y.copy()
    for row, n in zip(x, index, strict=True):
        expected[n] += row
    with threads(None):
        add_rows(x, index, y)
    np.testing.assert_array_equal(y, expected)
