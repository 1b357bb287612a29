"""Matrix times vector: sizes around vectors and blocks of rows, memory beside y."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.kernels.gemv import ROWS, gemv
from netdef.kernels.vectors import lanes_of
from netdef.testing import threads

WIDE = lanes_of(4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [0, 1, 2, ROWS - 1, ROWS, 3 * ROWS + 5])
@pytest.mark.parametrize("k", [0, 1, WIDE - 1, WIDE, WIDE + 1, 10 * WIDE + 3])
def test_sizes_around_the_vectors(m: int, k: int, dtype: type[Any]) -> None:
    random = np.random.default_rng([m, k])
    a, x = random.standard_normal((m, k)).astype(dtype), random.standard_normal(k).astype(dtype)
    memory = np.full(m + 40, np.pi, dtype)
    y = memory[20 : 20 + m]
    gemv(a, x, y)
    wide_a, wide_x = a.astype(np.float64), x.astype(np.float64)
    bound = (k + 1) * np.finfo(dtype).eps * (np.abs(wide_a) @ np.abs(wide_x))
    assert (np.abs(y - wide_a @ wide_x) <= bound).all()
    assert (np.delete(memory, np.arange(20, 20 + m)) == dtype(np.pi)).all()


def test_threads_change_nothing() -> None:
    random = np.random.default_rng(0)
    a, x = random.standard_normal((500, 300)), random.standard_normal(300)
    alone, found = np.empty(500), np.empty(500)
    gemv(a, x, alone)
    with threads(None):
        gemv(a, x, found)
    np.testing.assert_array_equal(found, alone)


def test_other_shapes_are_refused() -> None:
    a, x, y = np.ones((3, 4)), np.ones(4), np.ones(3)
    for wrong in ((x, np.ones(4)), (np.ones(3), y)):
        with pytest.raises(ValueError, match="cannot multiply"):
            gemv(a, *wrong)
