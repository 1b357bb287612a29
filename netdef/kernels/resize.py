"""Images of another size: each value from four of the old image, or from the nearest.

Images are [..., height, width, values of a pixel]. Both axes are resized by themselves: ``Places``
has, for each row or column of the new image, the two of the old one that it lies between, and how
near it is to the second. A gradient goes back the same way, pixel after pixel of each image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange


def between_corners(size: int, count: int) -> tuple[Array, Array]:
    """(pixel, share): ``count`` places from the first to the last of ``size`` pixels.

    The share of the pixel behind is in [0, 1). In whole numbers as long as can be: so a place that
    falls on a pixel is that pixel.
    """
    gaps = max(1, count - 1)
    before, rest = np.divmod(np.arange(count, dtype=np.int64) * (size - 1), gaps)
    return before, rest / gaps


def by_ratio(size: int, count: int) -> tuple[Array, Array]:
    """(pixel, share): place i of ``count`` is at i size / count, so the last pixel may be alone."""
    before, rest = np.divmod(np.arange(count, dtype=np.int64) * size, count)
    return before, rest / count


class Places:
    """Where the rows, or the columns, of the new image lie in the old one."""

    def __init__(self, size: int, pixel: Array, share: Array, dtype: Any, begin: int = 0) -> None:
        """Of an axis of ``size`` pixels, the first of which is pixel ``begin`` of the image."""
        self.before = begin + pixel
        # Behind the last pixel there is only that again.
        self.behind = begin + np.minimum(pixel + 1, size - 1)
        self.share = share.astype(dtype)


def interpolate(x: Array, rows: Places, columns: Places, y: Array) -> None:
    """y = x, interpolated along both axes."""
    x, y = _images(x), _images(y)
    _interpolate(x, *_arrays(rows), *_arrays(columns), y)


def spread(dy: Array, rows: Places, columns: Places, dx: Array) -> None:
    """dx = the gradient of that: each value of dy goes to the four it was made of."""
    dy, dx = _images(dy), _images(dx)
    _spread(dy, *_arrays(rows), *_arrays(columns), dx)


def pick(x: Array, rows: Array, columns: Array, y: Array) -> None:
    """y[i, j] = x[rows[i], columns[j]]"""
    _pick(_images(x), rows, columns, _images(y))


def put_back(dy: Array, rows: Array, columns: Array, dx: Array) -> None:
    """dx = the gradient of that: dx[rows[i], columns[j]] is the sum of such dy[i, j]."""
    _put_back(_images(dy), rows, columns, _images(dx))


def _images(values: Array) -> Array:
    """[images, height, width, values of a pixel]"""
    *outer, h, w, inner = values.shape
    images: Array = values.reshape(math.prod(outer), h, w, inner)
    return images


def _arrays(places: Places) -> tuple[Array, Array, Array]:
    return places.before, places.behind, places.share


@kernel
def _interpolate(
    x: Any, above: Any, below: Any, down: Any, left: Any, right: Any, across: Any, y: Any
) -> None:
    one = x.dtype.type(1)
    rows = y.shape[1]
    for job in prange(y.shape[0] * rows):
        n = job // rows
        i = job % rows
        upper, lower = x[n, above[i]], x[n, below[i]]
        for j in range(y.shape[2]):
            a, b, share = left[j], right[j], across[j]
            for k in range(y.shape[3]):
                first = (one - share) * upper[a, k] + share * upper[b, k]
                second = (one - share) * lower[a, k] + share * lower[b, k]
                y[n, i, j, k] = (one - down[i]) * first + down[i] * second


@kernel
def _spread(
    dy: Any, above: Any, below: Any, down: Any, left: Any, right: Any, across: Any, dx: Any
) -> None:
    one = dy.dtype.type(1)
    for n in prange(dx.shape[0]):
        image = dx[n].reshape(-1)
        for at in range(image.size):
            image[at] = dx.dtype.type(0)
        for i in range(dy.shape[1]):
            upper, lower = dx[n, above[i]], dx[n, below[i]]
            for j in range(dy.shape[2]):
                a, b, share = left[j], right[j], across[j]
                for k in range(dy.shape[3]):
                    up, low = (one - down[i]) * dy[n, i, j, k], down[i] * dy[n, i, j, k]
                    upper[a, k] += (one - share) * up
                    upper[b, k] += share * up
                    lower[a, k] += (one - share) * low
                    lower[b, k] += share * low


@kernel
def _pick(x: Any, rows: Any, columns: Any, y: Any) -> None:
    height = y.shape[1]
    for job in prange(y.shape[0] * height):
        n = job // height
        i = job % height
        for j in range(y.shape[2]):
            for k in range(y.shape[3]):
                y[n, i, j, k] = x[n, rows[i], columns[j], k]


@kernel
def _put_back(dy: Any, rows: Any, columns: Any, dx: Any) -> None:
    for n in prange(dx.shape[0]):
        image = dx[n].reshape(-1)
        for at in range(image.size):
            image[at] = dx.dtype.type(0)
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                for k in range(dy.shape[3]):
                    dx[n, rows[i], columns[j], k] += dy[n, i, j, k]
