"""Arithmetic on flat arrays that several rooms share."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels import lanes, transcendental
from netdef.kernels.lanes import LANES

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
        first = block * BLOCK
        end = min(x.size, first + BLOCK)
        whole = end - (end - first) % LANES
        total = lanes.fill(0.0)
        for i in range(first, whole, LANES):
            value = lanes.double(lanes.load(x, i))
            total = lanes.fma(value, value, total)
        if whole < end:
            value = lanes.double(lanes.load_part(x, whole, whole, end, x.dtype.type(0)))
            total = lanes.fma(value, value, total)
        blocks[block] = lanes.total(total)


@kernel
def tanh(x: Any, y: Any) -> None:
    """y = tanh(x); ``y`` may be ``x``"""
    for i in prange(x.size):
        y[i] = transcendental.tanh(x[i])


@kernel
def tanh_backward(y: Any, dy: Any, dx: Any) -> None:
    """dx = dy (1 - y^2), the gradient of y = tanh(x); ``dx`` may be ``dy``"""
    one = y.dtype.type(1)
    for i in prange(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])
