"""Matrix products: every transposition, sizes around every edge of the tiles, memory beside c."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdef import jit
from netdef.kernels.gemm import GROUP, Packed, gemm
from netdef.kernels.microkernel import DEPTH, ROWS, columns_of
from netdef.testing import threads

DTYPES = [np.float32, np.float64]
FLAGS = list(itertools.product([False, True], repeat=3))

WIDE = columns_of(4)
#: (m, n, k): nothing, one, less than a tile, one tile, ragged, and beyond one slice of depth.
SIZES = [
    (0, 3, 2),
    (3, 0, 2),
    (3, 2, 0),
    (1, 1, 1),
    (1, WIDE + 1, 2),
    (ROWS + 1, 1, 3),
    (ROWS - 1, WIDE - 1, 1),
    (ROWS, WIDE, DEPTH),
    (2 * ROWS, 2 * WIDE, 7),
    (2 * ROWS + 5, 3 * WIDE + 3, DEPTH + 1),
    (GROUP * ROWS + 1, WIDE + 1, 5),
    (5, 3, 2 * DEPTH + 3),
]


def check(m: int, n: int, k: int, flags: tuple[bool, bool, bool], dtype: type[Any]) -> Any:
    """Compare with numpy, in memory whose neighbours must not be written; returns c."""
    transpose_a, transpose_b, accumulate = flags
    random = np.random.default_rng([m, n, k])
    a = random.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
    b = random.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
    guard = 3 * WIDE
    memory = np.full(m * n + 2 * guard, np.pi, dtype)
    c = memory[guard : guard + m * n].reshape(m, n)
    start = random.standard_normal((m, n)).astype(dtype)
    c[...] = start if accumulate else np.nan
    # What was in the scratch memory before must not matter.
    jit.workspace(1, dtype).fill(np.nan)
    gemm(a, b, c, *flags)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    expected = (wide_a.T if transpose_a else wide_a) @ (wide_b.T if transpose_b else wide_b)
    bound = np.abs(wide_a.T if transpose_a else wide_a) @ np.abs(
        wide_b.T if transpose_b else wide_b
    )
    if accumulate:
        expected, bound = expected + start, bound + np.abs(start)
    # Each of k + 1 roundings is off by at most eps / 2 of the sum of absolute values.
    epsilon = np.finfo(dtype).eps
    assert (np.abs(c - expected) <= (k + 2) * epsilon * bound + 1e-300).all()
    assert (memory[:guard] == dtype(np.pi)).all()
    assert (memory[guard + m * n :] == dtype(np.pi)).all()
    return c


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_the_tiles(
    size: tuple[int, int, int], flags: tuple[bool, bool, bool], dtype: type[Any]
) -> None:
    check(*size, flags, dtype)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 40),
    st.integers(1, 80),
    st.integers(1, 40),
    st.sampled_from(FLAGS),
    st.sampled_from(DTYPES),
)
def test_any_size(m: int, n: int, k: int, flags: tuple[bool, bool, bool], dtype: type[Any]) -> None:
    check(m, n, k, flags, dtype)


@pytest.mark.parametrize("flags", FLAGS)
def test_threads_change_nothing(flags: tuple[bool, bool, bool]) -> None:
    size = (3 * GROUP * ROWS + 7, 5 * WIDE + 3, DEPTH + 9)
    alone = check(*size, flags, np.float32).copy()
    with threads(None):
        np.testing.assert_array_equal(check(*size, flags, np.float32), alone)


def test_nan_and_infinity_spread_to_their_row_and_column_only() -> None:
    a, b, c = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32), np.empty((3, 5), np.float32)
    a[1, 2], b[0, 3] = np.nan, np.inf
    gemm(a, b, c)
    assert np.isnan(c[1]).all()
    assert np.isinf(c[[0, 2], 3]).all()
    assert (c[[0, 2]][:, [0, 1, 2, 4]] == 4).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_packed_factor_gives_the_same_bits(size: tuple[int, int, int], dtype: type[Any]) -> None:
    m, n, k = size
    random = np.random.default_rng(size)
    packed = Packed(k, n, dtype)
    for transpose, accumulate in itertools.product([False, True], repeat=2):
        b = random.standard_normal((n, k) if transpose else (k, n)).astype(dtype)
        packed.pack(b, transpose)
        for _ in range(2):
            a = random.standard_normal((m, k)).astype(dtype)
            expected = random.standard_normal((m, n)).astype(dtype)
            found = expected.copy()
            gemm(a, b, expected, False, transpose, accumulate)
            jit.workspace(1, dtype).fill(np.nan)
            packed.multiply(a, found, accumulate)
            np.testing.assert_array_equal(found, expected)


def test_a_packed_factor_refuses_other_shapes() -> None:
    packed = Packed(3, 4, np.float32)
    with pytest.raises(ValueError, match="cannot pack"):
        packed.pack(np.zeros((3, 5), np.float32))
    a, c = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
    for wrong in ((a.T.copy(), c), (a, c.T.copy()), (a, c[:1])):
        with pytest.raises(ValueError, match="cannot multiply"):
            packed.multiply(*wrong)
