"""Sums over rows and over positions, in one order and in the type of what is summed.

The gradients of biases are such sums, and LeNet agrees with Caffe because of their order. Sums in
float64 are in ``channels``.
"""

from __future__ import annotations

from typing import Any

from netdef.jit import kernel, prange


@kernel
def add_channel_sums(x: Any, total: Any) -> None:
    """total[c] += sum over p of x[n, c, p], for one n after the other."""
    for c in prange(x.shape[1]):
        value = total[c]
        for n in range(x.shape[0]):
            line = x.dtype.type(0)
            for p in range(x.shape[2]):
                line += x[n, c, p]
            value += line
        total[c] = value


@kernel
def add_column_sums(x: Any, total: Any) -> None:
    """total[j] += sum over i of x[i, j], one row after the other."""
    block = 64  # neighbours in a row are one load
    for q in prange((total.size + block - 1) // block):
        end = min(total.size, (q + 1) * block)
        for i in range(x.shape[0]):
            for j in range(q * block, end):
                total[j] += x[i, j]
