"""Matrix products: c = op(a) op(b), packed for the micro-kernel.

::

    for each DEPTH-deep slice of k          in order, so every element is summed in one fixed order
        pack op(a)[:, slice]  into panels [k, ROWS]        in parallel
        pack op(b)[slice, :]  into panels [k, columns]     in parallel
        for each (panel of b, group of panels of a)        in parallel: each owns its tiles of c
            for each panel of a in the group: micro-kernel

Packing makes every load of the micro-kernel contiguous whatever the transposition, and pads ragged
edges with zeros. Results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange, workspace
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile

#: Panels of a that one job takes: with DEPTH they fill a part of the second-level cache.
GROUP = 16


def gemm(
    a: Array,
    b: Array,
    c: Array,
    transpose_a: bool = False,
    transpose_b: bool = False,
    accumulate: bool = False,
) -> None:
    """c = op(a) op(b), or c += op(a) op(b) where ``accumulate``; op transposes where asked.

    All three are 2-D, C-contiguous and of one float type; op(a) is m x k, op(b) k x n, c m x n.
    """
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    if a.size != m * k or b.size != k * n:
        raise ValueError(f"cannot multiply {a.shape} by {b.shape} into {c.shape}")
    if m == 0 or n == 0:
        return
    if k == 0:
        if not accumulate:
            c.fill(0)
        return
    depth = min(k, DEPTH)
    rows = -(-m // ROWS) * ROWS
    wide = columns_of(c.itemsize)
    width = -(-n // wide) * wide
    work = workspace(depth * (rows + width), c.dtype)
    _gemm(a, b, c, transpose_a, transpose_b, accumulate, work)


@kernel
def _gemm(
    a: Any, b: Any, c: Any, transpose_a: Any, transpose_b: Any, accumulate: Any, work: Any
) -> None:
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    like = work[0]
    wide = columns(like)
    a_panels = (m + ROWS - 1) // ROWS
    b_panels = (n + wide - 1) // wide
    groups = (a_panels + GROUP - 1) // GROUP
    a_flat = a.reshape(-1)
    b_flat = b.reshape(-1)
    c_flat = c.reshape(-1)
    # Strides of op(a) and op(b): along their first and second axis.
    a_row, a_column = (1, m) if transpose_a else (k, 1)
    b_row, b_column = (1, k) if transpose_b else (n, 1)
    for k0 in range(0, k, DEPTH):
        depth = min(DEPTH, k - k0)
        b_start = a_panels * ROWS * depth
        for p in prange(a_panels):
            first = p * ROWS
            pack(
                a_flat,
                first * a_row + k0 * a_column,
                a_row,
                a_column,
                min(ROWS, m - first),
                depth,
                ROWS,
                work,
                p * ROWS * depth,
            )
        for p in prange(b_panels):
            first = p * wide
            pack(
                b_flat,
                first * b_column + k0 * b_row,
                b_column,
                b_row,
                min(wide, n - first),
                depth,
                wide,
                work,
                b_start + p * wide * depth,
            )
        add = 1 if accumulate or k0 > 0 else 0
        for job in prange(b_panels * groups):
            q = job // groups
            first_panel = (job % groups) * GROUP
            for p in range(first_panel, min(first_panel + GROUP, a_panels)):
                store_tile(
                    work,
                    p * ROWS * depth,
                    work,
                    b_start + q * wide * depth,
                    depth,
                    c_flat,
                    p * ROWS * n + q * wide,
                    n,
                    min(ROWS, m - p * ROWS),
                    min(wide, n - q * wide),
                    add,
                )


@inline
def pack(
    source: Any,
    start: Any,
    lane_stride: Any,
    depth_stride: Any,
    lanes: Any,
    depth: Any,
    panel: Any,
    out: Any,
    at: Any,
) -> None:
    """Copy ``lanes`` lines of ``depth`` numbers into a [depth, panel] panel, zeros beyond."""
    zero = source.dtype.type(0)
    if lane_stride == 1:
        for d in range(depth):
            line = start + d * depth_stride
            target = at + d * panel
            for i in range(lanes):
                out[target + i] = source[line + i]
            for i in range(lanes, panel):
                out[target + i] = zero
    else:
        for i in range(lanes):
            line = start + i * lane_stride
            for d in range(depth):
                out[at + d * panel + i] = source[line + d * depth_stride]
        for i in range(lanes, panel):
            for d in range(depth):
                out[at + d * panel + i] = zero


@inline
def store_tile(
    a: Any,
    a_at: Any,
    b: Any,
    b_at: Any,
    depth: Any,
    c: Any,
    c_at: Any,
    stride: Any,
    rows: Any,
    wide: Any,
    add: Any,
) -> None:
    """One tile of c, at ``c[c_at]``, from the packed panels at ``a[a_at]`` and ``b[b_at]``.

    ``rows`` and ``wide`` are what of the tile lies inside c; a ragged tile goes through a whole
    one. Offsets, not slices: a slice counts references, and threads would contend for the counter.
    """
    like = c.dtype.type(0)
    size = c.itemsize
    full = columns(like)
    panel_a = a.ctypes.data + a_at * size
    panel_b = b.ctypes.data + b_at * size
    if rows == ROWS and wide == full:
        multiply_tile(like, depth, panel_a, panel_b, c.ctypes.data + c_at * size, stride, add)
        return
    tile = np.empty(ROWS * full, c.dtype)
    multiply_tile(like, depth, panel_a, panel_b, tile.ctypes.data, full, 0)
    for i in range(rows):
        row = c_at + i * stride
        for j in range(wide):
            if add != 0:
                c[row + j] += tile[i * full + j]
            else:
                c[row + j] = tile[i * full + j]
