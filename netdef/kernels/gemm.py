"""Matrix products: c = op(a) op(b), packed for the micro-kernel.

::

    for each DEPTH-deep slice of k          in order, so every element is summed in one fixed order
        pack op(a)[:, slice]  into panels [k, ROWS]        in parallel
        pack op(b)[slice, :]  into panels [k, columns]     in parallel
        for each (panel of b, group of panels of a)        in parallel: each owns its tiles of c
            for each panel of a in the group: micro-kernel

Packing makes every load of the micro-kernel contiguous whatever the transposition, and pads ragged
edges with zeros. Results do not depend on the number of threads. A right factor that many products
share, such as the weights that every step of a sequence is multiplied by, is ``Packed`` once.
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
    width = _width(n, c.itemsize)
    work = workspace(min(k, DEPTH) * (-(-m // ROWS) * ROWS + width), c.dtype)
    _gemm(a, b, c, transpose_a, transpose_b, accumulate, work, work[:0])


class Packed:
    """A right factor, k x n, packed once for products with many left ones."""

    def __init__(self, k: int, n: int, dtype: Any) -> None:
        self._shape = k, n
        self._panels = np.empty(k * _width(n, np.dtype(dtype).itemsize), dtype)
        self._nothing = np.empty((0, 0), dtype)

    def pack(self, b: Array, transpose_b: bool = False) -> None:
        """Take the values of op(b)."""
        k, n = self._shape
        if b.size != k * n:
            raise ValueError(f"cannot pack {b.shape} as {k} x {n}")
        if b.size:
            _pack_right(b.reshape(-1), k, n, transpose_b, self._panels)

    def multiply(self, a: Array, c: Array, accumulate: bool = False) -> None:
        """c = a op(b), or c += a op(b): the bits that ``gemm`` gives."""
        k, n = self._shape
        m = len(a)
        if a.shape != (m, k) or c.shape != (m, n):
            raise ValueError(f"cannot multiply {a.shape} by {k} x {n} into {c.shape}")
        if m == 0 or n == 0:
            return
        if k == 0:
            if not accumulate:
                c.fill(0)
            return
        work = workspace(min(k, DEPTH) * -(-m // ROWS) * ROWS, c.dtype)
        _gemm(a, self._nothing, c, False, False, accumulate, work, self._panels)


def _width(n: int, itemsize: int) -> int:
    """n columns as whole panels."""
    wide = columns_of(itemsize)
    return -(-n // wide) * wide


@kernel
def _pack_right(b: Any, k: Any, n: Any, transpose_b: Any, packed: Any) -> None:
    """The panels of all slices of k, one slice after the other."""
    wide = columns(b[0])
    panels = (n + wide - 1) // wide
    b_row, b_column = (1, k) if transpose_b else (n, 1)
    for k0 in range(0, k, DEPTH):
        depth = min(DEPTH, k - k0)
        for p in prange(panels):
            first = p * wide
            pack(
                b,
                first * b_column + k0 * b_row,
                b_column,
                b_row,
                min(wide, n - first),
                depth,
                wide,
                packed,
                (k0 * panels + p * depth) * wide,
            )


@kernel
def _gemm(
    a: Any,
    b: Any,
    c: Any,
    transpose_a: Any,
    transpose_b: Any,
    accumulate: Any,
    work: Any,
    packed: Any,
) -> None:
    """``packed``: b as ``_pack_right`` packs it, or nothing; then there is room for it in work."""
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
        ready = packed.size > 0
        panels = packed if ready else work
        b_start = k0 * b_panels * wide if ready else a_panels * ROWS * depth
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
        if not ready:
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
                    panels,
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
