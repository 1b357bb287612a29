"""Parameters side by side: arrays that follow each other in memory can be worked on as one.

A net has many small parameters, and an update rule treats each value by itself. So parameters that
learn at one rate lie next to each other, their gradients too, and what a rule keeps for them: one
call updates them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from netdef.blob import Array, Shape

#: Where arrays begin: on whole cache lines, which are whole vectors.
LINE = 64


def side_by_side(shapes: Sequence[Shape], dtype: Any) -> list[Array]:
    """Arrays of zeros, one behind the other in one piece of memory, which they alone hold.

    Raises MemoryError.
    """
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape in shapes]
    rooms = [-(-size // LINE) * LINE for size in sizes]
    raw = np.zeros(sum(rooms) + LINE, np.uint8)
    at = -raw.ctypes.data % LINE
    arrays = []
    for shape, size, room in zip(shapes, sizes, rooms, strict=True):
        arrays.append(raw[at : at + size].view(dtype).reshape(shape))
        at += room
    return arrays


def follows(second: Array, first: Array) -> bool:
    """Whether ``second`` begins behind ``first``, with nothing between that anybody uses."""
    if not first.size or not second.size:
        return False  # numpy does not say where it is
    gap = second.ctypes.data - first.ctypes.data - first.nbytes
    return second.base is not None and second.base is first.base and 0 <= gap < LINE


def joined(arrays: Sequence[Array]) -> Array:
    """One flat array over all of these, each of which ``follows`` the one before it."""
    first, last = arrays[0], arrays[-1]
    if len(arrays) == 1:
        return first.reshape(-1)
    raw: Any = first.base
    begin = first.ctypes.data - raw.ctypes.data
    end = last.ctypes.data + last.nbytes - raw.ctypes.data
    whole: Array = raw[begin:end].view(first.dtype)
    return whole


def runs(columns: Sequence[Sequence[Array]], same: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """(first, stop) of the longest runs of indices whose arrays follow each other in each column.

    ``same`` has a value for each index; those of a run are equal.
    """
    first, count = 0, len(same)
    for i in range(1, count + 1):
        goes_on = i < count and same[i] == same[first]
        if not goes_on or not all(follows(column[i], column[i - 1]) for column in columns):
            yield first, i
            first = i
