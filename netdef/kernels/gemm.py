"""Matrix products: c = op(a) op(b), on the micro-kernel.

::

                               group of panels
                              +---+---+---+---+
                      slice k |   |   |   |   |  right factor, packed: [k, columns] panels
                              +---+---+---+---+
        block of rows  +---+  +---+---+---+---+
                       |   |  |   |   |   |   |  one job: a block of rows of c times a group of
                       |   |  |   |   |   |   |  panels, slice by slice of k
                       +---+  +---+---+---+---+
                  left factor,
               read where it is

The micro-kernel takes its left factor from anywhere and wants the right one in panels. So one
factor is packed, whole, before the product; the other is never copied. Which one is right is free
to choose, since c = l r is also c^T = r^T l^T: it is the one that costs less, a few images rather
than the weights of a layer. The transposed tiles of c then take a detour through scratch memory.

Every element of c is summed in the order of k, ``DEPTH`` terms at a time, whatever is chosen.
Results do not depend on the number of threads. A right factor that many products share, such as the
weights that every step of a sequence is multiplied by, is ``Packed`` once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, num_threads, prange, workspace
from netdef.kernels.blocks import copy_rows, transpose
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile

#: Panels that a job takes at once: with DEPTH they fill a part of the second-level cache.
GROUP = 8

#: Tiles of rows that a job takes at most.
BLOCK = 8


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
    if _empty(m, n, k, c, accumulate):
        return
    # Distances between the rows and between the columns of op(a) and op(b).
    a_row, a_column = (1, m) if transpose_a else (k, 1)
    b_row, b_column = (1, k) if transpose_b else (n, 1)
    flat_a, flat_b, workers = a.reshape(-1), b.reshape(-1), num_threads()
    # What each choice copies: the right factor, and c where it comes out transposed.
    if n * k <= m * k + m * n:
        packed = workspace(k * _width(n, c.itemsize), c.dtype)
        _pack(flat_b, b_row, b_column, k, n, packed)
        _multiply(flat_a, a_row, a_column, packed, m, n, k, c, False, accumulate, workers)
    else:
        packed = workspace(k * _width(m, c.itemsize) + _detour(m, c.itemsize), c.dtype)
        _pack(flat_a, a_column, a_row, k, m, packed)
        _multiply(flat_b, b_column, b_row, packed, n, m, k, c, True, accumulate, workers)


class Packed:
    """A right factor, k x n, packed once for products with many left ones."""

    def __init__(self, k: int, n: int, dtype: Any) -> None:
        self._shape = k, n
        self._panels = np.empty(k * _width(n, np.dtype(dtype).itemsize), dtype)

    def pack(self, b: Array, transpose_b: bool = False) -> None:
        """Take the values of op(b)."""
        k, n = self._shape
        if b.size != k * n:
            raise ValueError(f"cannot pack {b.shape} as {k} x {n}")
        if b.size:
            row, column = (1, k) if transpose_b else (n, 1)
            _pack(b.reshape(-1), row, column, k, n, self._panels)

    def multiply(self, a: Array, c: Array, accumulate: bool = False) -> None:
        """c = a op(b), or c += a op(b): the bits that ``gemm`` gives."""
        k, n = self._shape
        m = len(a)
        if a.shape != (m, k) or c.shape != (m, n):
            raise ValueError(f"cannot multiply {a.shape} by {k} x {n} into {c.shape}")
        if _empty(m, n, k, c, accumulate):
            return
        flat = a.reshape(-1)
        _multiply(flat, k, 1, self._panels, m, n, k, c, False, accumulate, num_threads())


def _empty(m: int, n: int, k: int, c: Array, accumulate: bool) -> bool:
    """Whether there is nothing to multiply; c is then what a sum of nothing makes it."""
    if m and n and k:
        return False
    if not accumulate:
        c.fill(0)
    return True


def _width(n: int, itemsize: int) -> int:
    """n columns as whole panels."""
    wide = columns_of(itemsize)
    return -(-n // wide) * wide


def _detour(n: int, itemsize: int) -> int:
    """Scratch memory, behind the panels, for the tiles of a product that comes out transposed."""
    return num_threads() * BLOCK * ROWS * min(GROUP * columns_of(itemsize), _width(n, itemsize))


@kernel
def _pack(b: Any, row: Any, column: Any, k: Any, n: Any, packed: Any) -> None:
    """The panels of all slices of k, one slice after the other: [slice, panel, depth, columns]."""
    like = b.dtype.type(0)
    size = b.itemsize
    wide = columns(like)
    panels = (n + wide - 1) // wide
    slices = (k + DEPTH - 1) // DEPTH
    for job in prange(slices * panels):
        k0 = job // panels * DEPTH
        first = job % panels * wide
        depth = min(DEPTH, k - k0)
        target = (k0 * panels + job % panels * depth) * wide
        count = min(wide, n - first)
        panel = packed.ctypes.data + target * size
        if column == 1:
            source = b.ctypes.data + (k0 * row + first) * size
            copy_rows(like, panel, wide, source, row, depth, count)
        else:
            # The factor is transposed: its columns are rows, whose elements are neighbours.
            source = b.ctypes.data + (k0 + first * column) * size
            transpose(like, panel, wide, source, column, count, depth)


@kernel
def _multiply(
    a: Any,
    a_row: Any,
    a_column: Any,
    packed: Any,
    m: Any,
    n: Any,
    k: Any,
    c: Any,
    transposed: Any,
    accumulate: Any,
    workers: Any,
) -> None:
    """The product of a [m, k] and packed [k, n], into c [m, n] or, ``transposed``, c [n, m]."""
    c_flat = c.reshape(-1)
    like = c_flat[0]
    size = c.itemsize
    wide = columns(like)
    panels = (n + wide - 1) // wide
    row_tiles = (m + ROWS - 1) // ROWS
    groups = (panels + GROUP - 1) // GROUP
    # As many blocks of rows as share the work equally.
    blocks = (row_tiles + BLOCK - 1) // BLOCK
    blocks = min(row_tiles, (blocks * groups + workers - 1) // workers * workers // groups)
    blocks = max(blocks, (row_tiles + BLOCK - 1) // BLOCK)
    scratch_row = min(GROUP, panels) * wide
    scratch_size = BLOCK * ROWS * scratch_row
    for worker in prange(workers):
        scratch = k * panels * wide + worker * scratch_size
        for job in range(
            blocks * groups * worker // workers, blocks * groups * (worker + 1) // workers
        ):
            block = job // groups
            first_row = block * row_tiles // blocks * ROWS
            end_row = min(m, (block + 1) * row_tiles // blocks * ROWS)
            first_panel = job % groups * panels // groups
            end_panel = (job % groups + 1) * panels // groups
            count = min(n, end_panel * wide) - first_panel * wide
            if transposed:
                at = scratch
                c_row = scratch_row
                base = packed.ctypes.data
                if accumulate:
                    transpose(
                        like,
                        packed.ctypes.data + at * size,
                        c_row,
                        c_flat.ctypes.data + (first_panel * wide * m + first_row) * size,
                        m,
                        count,
                        end_row - first_row,
                    )
            else:
                at = first_row * n + first_panel * wide
                c_row = n
                base = c_flat.ctypes.data
            for k0 in range(0, k, DEPTH):
                depth = min(DEPTH, k - k0)
                add = 1 if accumulate or k0 > 0 else 0
                for row in range(first_row, end_row, ROWS):
                    for panel in range(first_panel, end_panel):
                        column = (panel - first_panel) * wide
                        multiply_tile(
                            like,
                            depth,
                            a.ctypes.data + (row * a_row + k0 * a_column) * size,
                            a_row,
                            a_column,
                            packed.ctypes.data + (k0 * panels + panel * depth) * wide * size,
                            wide,
                            base + (at + (row - first_row) * c_row + column) * size,
                            c_row,
                            min(ROWS, end_row - row),
                            min(wide, count - column),
                            add,
                        )
            if transposed:
                transpose(
                    like,
                    c_flat.ctypes.data + (first_panel * wide * m + first_row) * size,
                    m,
                    packed.ctypes.data + at * size,
                    c_row,
                    end_row - first_row,
                    count,
                )
