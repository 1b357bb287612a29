"""Blocks of matrices at addresses: copied, or transposed in registers, by vectors.

A matrix is given by the address of its first element and the distance, in elements, between its
rows; ``like`` is any scalar of the element type.
"""

from __future__ import annotations

from typing import Any

from netdef.jit import inline
from netdef.kernels.vectors import copy_lanes, lanes, size_of, transpose_block


@inline
def transpose(
    like: Any,
    target: Any,
    target_row: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
) -> None:
    """target[j, i] = source[i, j], a matrix of ``rows`` x ``columns``."""
    size = size_of(like)
    for i in range(0, rows, lanes(like)):
        for j in range(0, columns, lanes(like)):
            transpose_block(
                like,
                target + (j * target_row + i) * size,
                target_row,
                source + (i * source_row + j) * size,
                source_row,
                rows - i,
                columns - j,
            )


@inline
def copy_rows(
    like: Any,
    target: Any,
    target_row: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
) -> None:
    """target[i, j] = source[i, j]; whole vectors of the target are written, with 0 behind a row."""
    size = size_of(like)
    for j in range(0, columns, lanes(like)):
        to, at = target + j * size, source + j * size
        for _ in range(rows):
            copy_lanes(like, to, at, 0, columns - j, lanes(like))
            to += target_row * size
            at += source_row * size
