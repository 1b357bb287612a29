"""Parts of matrices: columns that are copied, rows that are taken and given back."""

from __future__ import annotations

from typing import Any

from netdef.jit import kernel, prange
from netdef.kernels.elementwise import BLOCK


@kernel
def copy_columns(x: Any, first_x: Any, y: Any, first_y: Any, count: Any) -> None:
    """y[:, first_y:first_y + count] = x[:, first_x:first_x + count]"""
    blocks = (count + BLOCK - 1) // BLOCK
    for job in prange(x.shape[0] * blocks):
        i = job // blocks
        first = job % blocks * BLOCK
        for j in range(first, min(count, first + BLOCK)):
            y[i, first_y + j] = x[i, first_x + j]


@kernel
def take_rows(x: Any, index: Any, y: Any) -> None:
    """y[m] = x[index[m]]"""
    for m in prange(index.size):
        for j in range(x.shape[1]):
            y[m, j] = x[index[m], j]


@kernel
def add_rows(x: Any, index: Any, y: Any) -> None:
    """y[index[m]] += x[m], for one m after the other: a thread has columns of its own."""
    block = 64  # neighbours in a row are one load
    for q in prange((x.shape[1] + block - 1) // block):
        end = min(x.shape[1], (q + 1) * block)
        for m in range(index.size):
            for j in range(q * block, end):
                y[index[m], j] += x[m, j]
