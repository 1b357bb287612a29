"""Sums over rows and columns, of every small size and of sizes beyond a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.kernels.sums import add_channel_sums, add_column_sums
from netdef.testing import threads

TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}

pytestmark = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 16, 100])
@pytest.mark.parametrize("images", [0, 1, 3])
def test_channel_sums(images: int, count: int, dtype: type[Any]) -> None:
    x = np.random.default_rng(1).standard_normal((images, 5, count)).astype(dtype)
    total = np.arange(5, dtype=dtype)
    add_channel_sums(x, total)
    expected = np.arange(5) + x.astype(np.float64).sum(axis=(0, 2))
    np.testing.assert_allclose(total, expected, rtol=0, atol=20 * TOLERANCE[dtype])
    with threads(None):
        together = np.arange(5, dtype=dtype)
        add_channel_sums(x, together)
    np.testing.assert_array_equal(total, together)


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("count", [63, 64, 200])
def test_channels_are_summed_one_value_after_the_other(
    channels: int, count: int, dtype: type[Any]
) -> None:
    x = np.random.default_rng(1).standard_normal((3, channels, count)).astype(dtype)
    total = np.ones(channels, dtype)
    add_channel_sums(x, total)
    lines = np.cumsum(x, axis=2, dtype=dtype)[:, :, -1]
    expected = np.cumsum(np.concatenate([np.ones((1, channels), dtype), lines]), axis=0)[-1]
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 100])
@pytest.mark.parametrize("columns", [0, 1, 5, 300])
def test_column_sums(rows: int, columns: int, dtype: type[Any]) -> None:
    x = np.random.default_rng(1).standard_normal((rows, columns)).astype(dtype)
    start = np.arange(columns).astype(dtype) / 8
    total = start.copy()
    add_column_sums(x, total)
    expected = start + x.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(total, expected, rtol=0, atol=50 * TOLERANCE[dtype])
    with threads(None):
        together = start.copy()
        add_column_sums(x, together)
    np.testing.assert_array_equal(total, together)
