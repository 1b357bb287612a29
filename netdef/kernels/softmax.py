"""Softmax over one axis: y = exp(x - max) / sum exp(x - max)."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import kernel, prange


@kernel
def softmax(x: Any, y: Any) -> None:
    """x and y are [outer, classes, inner]; the sum over classes is 1."""
    classes = x.shape[1]
    for job in prange(x.shape[0] * x.shape[2]):
        i = job // x.shape[2]
        j = job % x.shape[2]
        largest = x[i, 0, j]
        for c in range(1, classes):
            largest = max(largest, x[i, c, j])
        total = x.dtype.type(0)
        for c in range(classes):
            value = np.exp(x[i, c, j] - largest)
            y[i, c, j] = value
            total += value
        for c in range(classes):
            y[i, c, j] /= total


@kernel
def softmax_backward(y: Any, dy: Any, dx: Any) -> None:
    """dx = (dy - <dy, y>) y, each [outer, classes, inner]."""
    for job in prange(y.shape[0] * y.shape[2]):
        i = job // y.shape[2]
        j = job % y.shape[2]
        dot = y.dtype.type(0)
        for c in range(y.shape[1]):
            dot += y[i, c, j] * dy[i, c, j]
        for c in range(y.shape[1]):
            dx[i, c, j] = (dy[i, c, j] - dot) * y[i, c, j]
