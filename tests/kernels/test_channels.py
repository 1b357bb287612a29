"""Sums over channels and arithmetic by channel, of small sizes and of sizes beyond a piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.kernels import channels
from netdef.kernels.elementwise import BLOCK
from netdef.testing import threads

TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}

#: Lines shorter than the lanes and longer; pieces that end in a line, and between lines.
SHAPES: list[Shape] = [
    *((2, 3, n) for n in range(10)),
    (0, 3, 4),
    (1, 5, 1),
    (1, BLOCK + 1, 1),
    (1, 1, BLOCK),
    (1, 2, BLOCK + 1),
    (3, 2, BLOCK - 1),
    (2, 1, 2 * BLOCK + 5),
    (BLOCK + 3, 2, 1),
    (1, BLOCK + 7, 2),
    (9, 5, 49),
    (2, 3, 131),
    (70, 600, 1),
    (70, 6, 16),
]

pytestmark = [
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
    pytest.mark.parametrize("shape", SHAPES, ids=str),
]


def drawn(shape: Shape, dtype: type[Any], stream: int = 0) -> Array:
    random = np.random.default_rng([1, stream])
    return random.standard_normal(shape).astype(np.float32).astype(dtype)


def assert_close(actual: Array, expected: Array, dtype: type[Any], scale: float = 1) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=scale * TOLERANCE[dtype])


def on_all_threads(run: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
    """What one thread gives, after seeing that all give the same."""
    alone = run()
    with threads(None):
        for mine, theirs in zip(alone, run(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    return alone


@pytest.mark.parametrize(("of", "term"), [(channels.SIGNED, np.positive), (channels.ABSOLUTE, abs)])
def test_sums(of: int, term: Callable[[Array], Array], shape: Shape, dtype: type[Any]) -> None:
    x = drawn(shape, dtype)

    def run() -> tuple[Array, ...]:
        total = np.arange(shape[1], dtype=np.float64)
        channels.add_sums(x, total, of)
        return (total,)

    (total,) = on_all_threads(run)
    expected = np.arange(shape[1]) + term(x.astype(np.float64)).sum((0, 2))
    np.testing.assert_allclose(total, expected, rtol=1e-13, atol=1e-11)


def test_dots(shape: Shape, dtype: type[Any]) -> None:
    dy, x = drawn(shape, dtype), drawn(shape, dtype, 1)

    def run() -> tuple[Array, ...]:
        sums, dots = np.ones(shape[1]), np.full(shape[1], 2.0)
        channels.add_dots(dy, x, sums, dots)
        return sums, dots

    def only_dots() -> tuple[Array, ...]:
        dots = np.full(shape[1], 2.0)
        channels.add_dots(dy, x, None, dots)
        return (dots,)

    sums, dots = on_all_threads(run)
    np.testing.assert_allclose(sums, 1 + dy.astype(np.float64).sum((0, 2)), rtol=1e-13, atol=1e-11)
    (alone,) = on_all_threads(only_dots)
    np.testing.assert_array_equal(alone, dots)
    expected = 2 + (dy.astype(np.float64) * x.astype(np.float64)).sum((0, 2))
    np.testing.assert_allclose(dots, expected, rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize("mean", [0, 1000])
def test_moments(mean: float, shape: Shape, dtype: type[Any]) -> None:
    x = drawn(shape, dtype) + dtype(mean)

    def run() -> tuple[Array, ...]:
        first, second = np.full((2, shape[1]), np.nan)
        channels.moments(x, first, second)
        return first, second

    first, second = on_all_threads(run)
    if not x.size:
        assert not first.any()
        assert not second.any()
        return
    double = x.astype(np.float64)
    np.testing.assert_allclose(first, double.mean((0, 2)), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(second, double.var((0, 2)), rtol=1e-11, atol=1e-12)


def affine(x: Array, p: Array, a: Array, b: Array) -> Array:
    """The function of each channel, in float64."""
    p, a, b = (values.astype(np.float64)[:, None] for values in (p, a, b))
    y: Array = (x.astype(np.float64) - p) * a + b
    return y


@pytest.mark.parametrize("rectifies", [False, True])
def test_affine(rectifies: bool, shape: Shape, dtype: type[Any]) -> None:
    x, (p, a, b) = drawn(shape, dtype), drawn((3, shape[1]), dtype, 1)

    def run(p: Array, a: Array, b: Array, y: Array | None = None) -> Array:
        def both() -> tuple[Array, ...]:
            out = np.full_like(x, np.nan) if y is None else y.copy()
            channels.affine(x if y is None else out, p, a, b, rectifies, out)
            return (out,)

        return on_all_threads(both)[0]

    zero, one, none = np.zeros_like(p), np.ones_like(p), channels.NONE
    given: list[tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]] = [
        ((p, a, b), (p, a, b)),
        ((none, a, none), (zero, a, zero)),
        ((none, none, b), (zero, one, b)),
        ((p, none, none), (p, one, zero)),
    ]
    for some, whole in given:
        expected = affine(x, *whole)
        assert_close(run(*some), np.maximum(expected, 0) if rectifies else expected, dtype, 16)
    np.testing.assert_array_equal(run(p, a, b, y=x), run(p, a, b))


def test_scale(shape: Shape, dtype: type[Any]) -> None:
    x, a = drawn(shape, dtype), drawn((shape[1],), dtype, 1)
    y = np.full_like(x, np.nan)
    channels.scale(x, a, y)
    np.testing.assert_array_equal(y, x * a[:, None])


@pytest.mark.parametrize("rectifies", [False, True])
def test_affine_backward(rectifies: bool, shape: Shape, dtype: type[Any]) -> None:
    dy, x = drawn(shape, dtype), drawn(shape, dtype, 1)
    p, a, b, constant, linear = drawn((5, shape[1]), dtype, 2)
    y = np.full_like(x, np.nan)
    channels.affine(x, p, a, b, rectifies, y)
    # What forward made 0, and nothing else, has no gradient: to the last bit of rounding.
    slant = np.where(y == 0, 0, dy) if rectifies else dy
    far = x.astype(np.float64) - p[:, None]

    def sums() -> tuple[Array, ...]:
        found = np.ones((2, shape[1]))
        channels.affine_dots(dy, x, p, a, b, rectifies, *found)
        return (found,)

    (found,) = on_all_threads(sums)
    scale = {np.float32: 1e-6, np.float64: 1e-13}[dtype] * max(1, x.size)
    np.testing.assert_allclose(found[0], 1 + slant.sum((0, 2), np.float64), rtol=0, atol=1e-11)
    np.testing.assert_allclose(found[1], 1 + (slant * far).sum((0, 2)), rtol=1e-13, atol=scale)

    def gradient(in_place: bool = False) -> tuple[Array, ...]:
        dx = dy.copy() if in_place else np.full_like(x, np.nan)
        given = p, a, b, rectifies, constant, linear
        channels.affine_backward(dx if in_place else dy, x, *given, dx)
        return (dx,)

    (dx,) = on_all_threads(gradient)
    expected = (slant - constant[:, None] - far * linear[:, None]) * a[:, None]
    assert_close(dx, expected, dtype, 64)
    np.testing.assert_array_equal(gradient(in_place=True)[0], dx)


def test_standardize_backward(shape: Shape, dtype: type[Any]) -> None:
    dy, x = drawn(shape, dtype), drawn(shape, dtype, 1)
    mean, factor = drawn((shape[1],), np.float64, 2), drawn((shape[1],), np.float64, 3)

    def run() -> tuple[Array, ...]:
        dx, sums = np.full_like(x, np.nan), np.full((4, shape[1]), np.nan)
        channels.standardize_backward(dy, x, mean, factor, sums, dx)
        return (dx,)

    (dx,) = on_all_threads(run)
    if not x.size:
        return
    y = (x.astype(np.float64) - mean[:, None]) * factor[:, None]
    constant, linear = dy.mean((0, 2), np.float64), (dy * y).mean((0, 2))
    expected = (dy - constant[:, None] - y * linear[:, None]) * factor[:, None]
    assert_close(dx, expected, dtype, 100)


def test_a_nan_is_not_rectified(shape: Shape, dtype: type[Any]) -> None:
    x = np.full(shape, np.nan, dtype)
    y = np.zeros_like(x)
    channels.affine(x, channels.NONE, channels.NONE, channels.NONE, True, y)
    assert np.isnan(y).all()
