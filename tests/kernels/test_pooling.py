"""Pooling against plain loops: windows within the image, over its edges, with and without lanes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array
from netdef.kernels import pooling
from netdef.kernels.pooling import LOWEST, Windows
from netdef.testing import threads

#: Image, kernel, stride, pad: each of height and width.
GEOMETRIES: list[tuple[tuple[int, int], ...]] = [
    *(((h, w), (2, 2), (2, 2), (0, 0)) for h, w in [(8, 8), (6, 32), (4, 34), (2, 70), (9, 11)]),
    *(((7, w), (3, 3), (2, 2), (0, 0)) for w in [7, 8, 9, 13, 32, 33, 35, 66]),
    *(((5, w), (3, 3), (1, 1), (1, 1)) for w in [4, 7, 14, 16, 17, 33]),
    *(((7, 12), k, s, p) for k, s, p in [((5, 5), (2, 2), (2, 1)), ((2, 3), (3, 1), (1, 0))]),
    ((7, 9), (3, 3), (3, 3), (0, 0)),
    ((6, 13), (1, 3), (2, 2), (0, 0)),
    ((4, 6), (1, 1), (3, 3), (0, 0)),
    ((4, 40), (2, 9), (1, 2), (0, 0)),
    ((7, 7), (7, 7), (1, 1), (0, 0)),
    ((6, 7), (8, 9), (4, 4), (0, 0)),
    ((100, 400), (100, 2), (1, 2), (0, 0)),
]

pytestmark = [
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
    pytest.mark.parametrize("geometry", GEOMETRIES, ids=str),
]

PLANES = 3


class Case:
    """Images of small integers, so that many are equal, and the windows over them."""

    def __init__(self, geometry: tuple[tuple[int, int], ...], dtype: type[Any]) -> None:
        self.image, *rest = geometry
        self.window = np.array(rest)
        kernel, stride, pad = self.window
        self.output = tuple(
            int(-(-(n + 2 * p - k) // s) + 1) - bool(p and (-(-(n + 2 * p - k) // s)) * s >= n + p)
            for n, k, s, p in zip(self.image, kernel, stride, pad, strict=True)
        )
        self.windows = Windows(self.window, self.image, self.output, dtype)
        random = np.random.default_rng(len(str(geometry)))
        self.x = random.integers(-3, 4, (PLANES, *self.image)).astype(dtype)
        self.dy = random.integers(-3, 4, (PLANES, *self.output)).astype(dtype)

    def places(self, i: int, j: int) -> list[tuple[int, int]]:
        """The places of a window, those in the padding too, row by row."""
        kernel, stride, pad = self.window
        rows, columns = (
            range(n * s - p, min(n * s - p + k, size + p))
            for n, k, s, p, size in zip((i, j), kernel, stride, pad, self.image, strict=True)
        )
        return list(product(rows, columns))

    def inside(self, i: int, j: int) -> list[tuple[int, int]]:
        height, width = self.image
        return [(h, w) for h, w in self.places(i, j) if 0 <= h < height and 0 <= w < width]

    def maximum(self) -> tuple[Array, Array]:
        """The maxima, and where in their images they are."""
        y = np.full((PLANES, *self.output), LOWEST, self.x.dtype)
        at = np.full(y.shape, -1)
        for plane, i, j in np.ndindex(*y.shape):
            for h, w in self.inside(i, j):
                if self.x[plane, h, w] > y[plane, i, j]:
                    y[plane, i, j] = self.x[plane, h, w]
                    at[plane, i, j] = h * self.image[1] + w
        return y, at

    def on_all_threads(self, run: Any, *outputs: Array) -> None:
        """Run, and see that all threads give what one gives."""
        before = [y.copy() for y in outputs]
        run()
        alone = [y.copy() for y in outputs]
        for y, old in zip(outputs, before, strict=True):
            y[...] = old
        with threads(None):
            run()
        for y, mine in zip(outputs, alone, strict=True):
            np.testing.assert_array_equal(y, mine)


def test_maximum(geometry: tuple[tuple[int, int], ...], dtype: type[Any]) -> None:
    case = Case(geometry, dtype)
    case.x[0, ::2, 1] = np.nan
    case.x[1, 1, :] = -np.inf
    case.x[2, 0, ::3] = LOWEST
    expected, places = case.maximum()
    y, chosen = np.zeros_like(expected), np.zeros(expected.shape, case.windows.choice_type)
    case.on_all_threads(lambda: pooling.maximum(case.windows, case.x, y, chosen), y, chosen)
    np.testing.assert_array_equal(y, expected)
    found = np.zeros_like(expected)
    pooling.places(case.windows, chosen, found)
    np.testing.assert_array_equal(found, places)


@pytest.mark.parametrize("add", [False, True])
def test_route(geometry: tuple[tuple[int, int], ...], dtype: type[Any], add: bool) -> None:
    case = Case(geometry, dtype)
    case.x[0, ::2, 1] = np.nan
    y, chosen = np.zeros_like(case.dy), np.zeros(case.dy.shape, case.windows.choice_type)
    pooling.maximum(case.windows, case.x, y, chosen)
    dx = np.full_like(case.x, 5 if add else np.nan)
    expected = np.full_like(case.x, 5 if add else 0).reshape(PLANES, -1)
    for (plane, i, j), place in np.ndenumerate(case.maximum()[1]):
        if place >= 0:
            expected[plane, place] += case.dy[plane, i, j]
    case.on_all_threads(lambda: pooling.route(case.windows, case.dy, chosen, add, dx), dx)
    np.testing.assert_array_equal(dx.reshape(PLANES, -1), expected)


def test_mean(geometry: tuple[tuple[int, int], ...], dtype: type[Any]) -> None:
    case = Case(geometry, dtype)
    y = np.zeros_like(case.dy)
    expected = np.zeros(y.shape)
    for plane, i, j in np.ndindex(*y.shape):
        total = sum(float(case.x[plane, h, w]) for h, w in case.inside(i, j))
        expected[plane, i, j] = total / (len(case.places(i, j)) or np.nan)
    case.on_all_threads(lambda: pooling.mean(case.windows, case.x, y), y)
    np.testing.assert_allclose(y, expected, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("add", [False, True])
def test_spread(geometry: tuple[tuple[int, int], ...], dtype: type[Any], add: bool) -> None:
    case = Case(geometry, dtype)
    dx = np.full_like(case.x, 5 if add else np.nan)
    expected = np.full(dx.shape, 5.0 if add else 0.0)
    for plane, i, j in np.ndindex(*case.dy.shape):
        for h, w in case.inside(i, j):
            expected[plane, h, w] += case.dy[plane, i, j] / len(case.places(i, j))
    case.on_all_threads(lambda: pooling.spread(case.windows, case.dy, add, dx), dx)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=20 * np.finfo(dtype).eps)
