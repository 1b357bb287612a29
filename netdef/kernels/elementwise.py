"""Arithmetic on flat arrays that several rooms share."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange

#: Values that one job of a sum takes: fixed, so that sums do not depend on the number of threads.
BLOCK = 4096


@kernel
def add(x: Any, y: Any) -> None:
    """y += x"""
    for i in prange(y.size):
        y[i] += x[i]


@kernel
def scale_into(x: Any, factor: Any, y: Any) -> None:
    """y = factor * x"""
    for i in prange(y.size):
        y[i] = factor * x[i]


@kernel
def multiply(x: Any, y: Any, z: Any) -> None:
    """z = x * y"""
    for i in prange(z.size):
        z[i] = x[i] * y[i]


def sum_of_squares(x: Array) -> float:
    """The sum of the squares of a flat array, in float64."""
    blocks = np.empty(-(-x.size // BLOCK))
    _sums_of_squares(x, blocks)
    return float(blocks.sum())


@kernel
def _sums_of_squares(x: Any, blocks: Any) -> None:
    for block in prange(blocks.size):
        total = 0.0
        for i in range(block * BLOCK, min(x.size, (block + 1) * BLOCK)):
            value = np.float64(x[i])
            total += value * value
        blocks[block] = total


@kernel
def tanh(x: Any, y: Any) -> None:
    """y = tanh(x); ``y`` may be ``x``"""
    for i in prange(x.size):
        y[i] = np.tanh(x[i])


@kernel
def tanh_backward(y: Any, dy: Any, dx: Any) -> None:
    """dx = dy (1 - y^2), the gradient of y = tanh(x); ``dx`` may be ``dy``"""
    one = y.dtype.type(1)
    for i in prange(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


@inline
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) by way of tanh, as Caffe's Sigmoid computes it."""
    half = type(x)(0.5)
    return half * np.tanh(half * x) + half
