"""Parameters side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.parameters import follows, joined, runs, side_by_side


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_lie_one_behind_the_other(dtype: type[Any]) -> None:
    arrays = side_by_side([(3, 5), (), (0,), (64,), (1,)], dtype)
    assert [array.shape for array in arrays] == [(3, 5), (), (0,), (64,), (1,)]
    assert all(array.dtype == dtype and not array.any() for array in arrays)
    assert all(array.ctypes.data % 64 == 0 for array in arrays if array.size)
    for number, array in enumerate(arrays, 1):
        array.fill(number)
    assert [set(array.reshape(-1).tolist()) for array in arrays] == [{1}, {2}, set(), {4}, {5}]


def test_what_follows() -> None:
    a, b, c = side_by_side([(3,), (5,), (7,)], np.float32)
    other = side_by_side([(3,)], np.float32)[0]
    assert follows(b, a)
    assert follows(c, b)
    assert not follows(c, a)
    assert not follows(a, b)
    assert not follows(other, c)
    assert follows(b.reshape(5, 1), a)
    assert not follows(np.zeros(3), np.zeros(3))
    x, nothing, y = side_by_side([(3,), (0,), (3,)], np.float32)
    assert not follows(nothing, x)
    assert not follows(y, nothing)


def test_joined_arrays_are_one_memory() -> None:
    a, b, c = side_by_side([(3,), (2, 2), (7,)], np.float32)
    whole = joined([a, b, c])
    whole.fill(1)
    assert all((array == 1).all() for array in (a, b, c))
    assert whole.size == 2 * 16 + 7, "whole cache lines but for the last"
    assert joined([b]).tolist() == [1] * 4


def test_runs_end_where_the_value_changes_or_the_memory() -> None:
    one, two = side_by_side([(3,)] * 4, np.float32), side_by_side([(3,)] * 4, np.float32)
    assert list(runs([one, two], "aaaa")) == [(0, 4)]
    assert list(runs([one, two], "aaba")) == [(0, 2), (2, 3), (3, 4)]
    assert list(runs([one, [*two[:2], one[2], two[3]]], "aaaa")) == [(0, 2), (2, 3), (3, 4)]
    assert list(runs([], "")) == []
