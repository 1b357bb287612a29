"""Softmax and its gradient over the middle one of three axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.kernels.softmax import softmax, softmax_backward
from netdef.testing import threads

SHAPES = [(1, 1, 1), (0, 3, 4), (3, 4, 0), (2, 5, 3), (7, 10, 1), (1, 1000, 2), (5, 3, 100)]
#: A line of 1000 is summed in the type itself.
TOLERANCE = {np.float32: 5e-6, np.float64: 1e-14}

pytestmark = [
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
    pytest.mark.parametrize("shape", SHAPES),
]


def draw(shape: tuple[int, ...], dtype: type[Any]) -> Any:
    return (5 * np.random.default_rng(1).standard_normal(shape)).astype(dtype)


def reference(x: Any) -> Any:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=1, keepdims=True)


def test_softmax(shape: tuple[int, ...], dtype: type[Any]) -> None:
    x = draw(shape, dtype)
    y = np.full(shape, np.nan, dtype)
    softmax(x, y)
    np.testing.assert_allclose(y, reference(x), rtol=0, atol=TOLERANCE[dtype])
    with threads(None):
        together = np.empty(shape, dtype)
        softmax(x, together)
    np.testing.assert_array_equal(y, together)
    softmax(x, x)
    np.testing.assert_array_equal(x, y)


def test_softmax_backward(shape: tuple[int, ...], dtype: type[Any]) -> None:
    """The Jacobian of each line is diag(y) - y y^T."""
    y = reference(draw(shape, dtype)).astype(dtype)
    dy = draw(shape, dtype)[::-1].copy()
    dx = np.full(shape, np.nan, dtype)
    softmax_backward(y, dy, dx)
    p, g = y.astype(np.float64), dy.astype(np.float64)
    jacobian = np.einsum("icj,cd->ijcd", p, np.eye(shape[1])) - np.einsum("icj,idj->ijcd", p, p)
    expected = np.einsum("ijcd,idj->icj", jacobian, g)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=10 * TOLERANCE[dtype])
    softmax_backward(y, dy, dy)
    np.testing.assert_array_equal(dy, dx)
