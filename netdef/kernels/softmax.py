"""Softmax over one axis: y = exp(x - max) / sum exp(x - max).

Blobs are [outer, classes, inner]; every sum goes over the classes in their order. A job takes a
block of neighbours on the inner axis through all classes, so each step is a loop over neighbours;
where there are none, it takes one line of classes.

e^x is that of the C library, value by value. It is not always the nearest float32, Caffe's is the
same, and training magnifies a difference in the last bit: with ``transcendental.exp`` LeNet would
leave Caffe's path after 76 iterations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange, workspace

#: Neighbours that one job takes: with 100 classes or so they fit the second-level cache.
BLOCK = 256


def softmax(x: Array, y: Array) -> None:
    """The sum over classes is 1; ``y`` may be ``x``."""
    if x.shape[2] == 1:
        _softmax_of_lines(x.reshape(x.shape[:2]), y.reshape(x.shape[:2]))
        return
    size = x.shape[0] * x.shape[2]
    largest, total = workspace(2 * size, x.dtype)[: 2 * size].reshape(2, x.shape[0], x.shape[2])
    _softmax(x, largest, total, y)


def softmax_backward(y: Array, dy: Array, dx: Array) -> None:
    """dx = (dy - <dy, y>) y; ``dx`` may be ``dy``"""
    if y.shape[2] == 1:
        lines = y.shape[:2]
        _softmax_backward_of_lines(y.reshape(lines), dy.reshape(lines), dx.reshape(lines))
        return
    size = y.shape[0] * y.shape[2]
    dot = workspace(size, y.dtype)[:size].reshape(y.shape[0], y.shape[2])
    _softmax_backward(y, dy, dot, dx)


@kernel
def _softmax_of_lines(x: Any, y: Any) -> None:
    for i in prange(x.shape[0]):
        largest = x[i, 0]
        for c in range(1, x.shape[1]):
            largest = max(largest, x[i, c])
        for c in range(x.shape[1]):
            y[i, c] = np.exp(x[i, c] - largest)
        total = x.dtype.type(0)
        for c in range(x.shape[1]):
            total += y[i, c]
        for c in range(x.shape[1]):
            y[i, c] /= total


@kernel
def _softmax(x: Any, largest: Any, total: Any, y: Any) -> None:
    classes, inner = x.shape[1], x.shape[2]
    blocks = (inner + BLOCK - 1) // BLOCK
    zero = x.dtype.type(0)
    for job in prange(x.shape[0] * blocks):
        i = job // blocks
        first = np.uint64(job % blocks * BLOCK)
        end = np.uint64(min(inner, job % blocks * BLOCK + BLOCK))
        for j in range(first, end):
            largest[i, j] = x[i, 0, j]
            total[i, j] = zero
        for c in range(1, classes):
            for j in range(first, end):
                largest[i, j] = max(largest[i, j], x[i, c, j])
        for c in range(classes):
            for j in range(first, end):
                value = np.exp(x[i, c, j] - largest[i, j])
                y[i, c, j] = value
                total[i, j] += value
        for c in range(classes):
            for j in range(first, end):
                y[i, c, j] /= total[i, j]


@kernel
def _softmax_backward_of_lines(y: Any, dy: Any, dx: Any) -> None:
    for i in prange(y.shape[0]):
        dot = y.dtype.type(0)
        for c in range(y.shape[1]):
            dot += y[i, c] * dy[i, c]
        for c in range(y.shape[1]):
            dx[i, c] = (dy[i, c] - dot) * y[i, c]


@kernel
def _softmax_backward(y: Any, dy: Any, dot: Any, dx: Any) -> None:
    classes, inner = y.shape[1], y.shape[2]
    blocks = (inner + BLOCK - 1) // BLOCK
    zero = y.dtype.type(0)
    for job in prange(y.shape[0] * blocks):
        i = job // blocks
        first = np.uint64(job % blocks * BLOCK)
        end = np.uint64(min(inner, job % blocks * BLOCK + BLOCK))
        for j in range(first, end):
            dot[i, j] = zero
        for c in range(classes):
            for j in range(first, end):
                dot[i, j] += y[i, c, j] * dy[i, c, j]
        for c in range(classes):
            for j in range(first, end):
                dx[i, c, j] = (dy[i, c, j] - dot[i, j]) * y[i, c, j]
