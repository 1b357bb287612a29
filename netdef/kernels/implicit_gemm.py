"""Convolution as a matrix product whose right factor is never made.

    y[m, j] = sum over t of  w[m, t] column[t, j]

t counts (channel, tap of the window), j counts (image, output position) over the whole batch, and
column[t, j] is what tap t sees at j. im2col would write that matrix to memory (Chellapilla, Puri &
Simard 2006). Here each job gathers the few panels of it that it multiplies next, straight from the
images, into memory that stays in its second-level cache::

                                   PANELS panels of positions
                                  +---+---+---+---+
             slice of DEPTH taps  |   |   |   |   |  gathered once for all outputs
                                  +---+---+---+---+
       outputs, ROWS   +-------+  +---+---+---+---+
       at a time       | w     |  | y |   |   |   |  one tile after the other; w is read in place
                       +-------+  +---+---+---+---+

Positions of neighbouring images share panels, so small planes waste no lanes. What follows the
product (bias, scale, addition, ReLU) happens to a job's part of y while it is in the cache.

Source: Goto & van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, for the
blocking.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.geometry import Geometry
from netdef.kernels.im2col import gather
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile

#: Panels that a job gathers at once: with DEPTH they take half of a second-level cache of 512 KiB.
PANELS = 8


class Epilogue(NamedTuple):
    """What happens to a product: y = rectified(y scale[m] + bias[m] + addend)."""

    scale: Array  # [M] or empty
    bias: Array  # [M] or empty
    addend: Array  # like y, flat, or empty
    rectify: bool


class _Left(NamedTuple):
    """How the left factor lies in memory: distances between its groups, rows and columns."""

    group: int
    row: int
    column: int


def multiply(g: Geometry, x: Array, weight: Array, y: Array, epilogue: Epilogue) -> None:
    """The convolution of x with weight; all arrays are flat."""
    e = g.extents
    taps = e.channels * e.window
    _run(g, x, weight, _Left(e.outputs * taps, taps, 1), y, epilogue)


def multiply_transposed(g: Geometry, dy: Array, weight: Array, dx: Array) -> None:
    """dx = the data gradient of a pointwise convolution: the product with w^T, read in place."""
    e = g.extents
    back = g._replace(extents=e._replace(channels=e.outputs, outputs=e.channels))
    _run(back, dy, weight, _Left(e.outputs * e.channels, 1, e.channels), dx, no_epilogue(dx))


def multiply_turned(turned: Geometry, dy: Array, weight: Array, dx: Array) -> None:
    """dx = the data gradient of a convolution whose ``flipped`` geometry this is."""
    e = turned.extents
    packed = workspace(weight.size + _panels_size(dx), dx.dtype)[: weight.size]
    _turn(e, weight, packed)
    taps = e.channels * e.window
    left = _Left(e.outputs * taps, taps, 1)
    _run(turned, dy, packed, left, dx, no_epilogue(dx), skip=weight.size)


def no_epilogue(y: Array) -> Epilogue:
    """The epilogue that leaves a product as it is."""
    nothing = np.empty(0, y.dtype)
    return Epilogue(nothing, nothing, nothing, False)


def _panels_size(y: Array) -> int:
    """Scratch memory for the panels, and one tile, of every worker."""
    return num_threads() * (PANELS * DEPTH + ROWS) * columns_of(y.itemsize)


def _run(
    g: Geometry, x: Array, left: Array, at: _Left, y: Array, epilogue: Epilogue, skip: int = 0
) -> None:
    if y.size:
        work = workspace(skip + _panels_size(y), y.dtype)[skip:]
        _multiply(g.extents, g.source, g.taps, x, left, at, y, epilogue, work, num_threads())


@kernel
def _turn(e: Any, weight: Any, turned: Any) -> None:
    """w [groups, channels, outputs, window] -> [groups, outputs, channels, window turned round].

    Channels and outputs are those of the convolution with the turned weights.
    """
    for row in prange(e.groups * e.outputs):
        group = row // e.outputs
        for c in range(e.channels):
            source = ((group * e.channels + c) * e.outputs + row % e.outputs) * e.window
            target = (row * e.channels + c) * e.window
            for w in range(e.window):
                turned[target + w] = weight[source + e.window - 1 - w]


@kernel
def _multiply(
    e: Any,
    source: Any,
    taps: Any,
    x: Any,
    left: Any,
    at: Any,
    y: Any,
    epilogue: Any,
    work: Any,
    workers: Any,
) -> None:
    like = y.dtype.type(0)
    size = y.itemsize
    wide = columns(like)
    depth = e.channels * e.window
    total = y.size // (e.groups * e.outputs)  # positions of all images
    panels = (total + wide - 1) // wide
    row_tiles = (e.outputs + ROWS - 1) // ROWS
    # Parts of the positions, and of the outputs where those are too few for all workers.
    parts = (panels + PANELS - 1) // PANELS
    parts = min(panels, (parts + workers - 1) // workers * workers)
    shares = 1
    if parts * e.groups < workers:
        shares = min(row_tiles, (workers + parts * e.groups - 1) // (parts * e.groups))
    jobs = e.groups * parts * shares
    for worker in prange(workers):
        panel_at = worker * (PANELS * DEPTH + ROWS) * wide
        tile_at = panel_at + PANELS * DEPTH * wide
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            group = job // (parts * shares)
            part = job // shares % parts
            share = job % shares
            first_row = share * row_tiles // shares * ROWS
            end_row = min(e.outputs, (share + 1) * row_tiles // shares * ROWS)
            first = part * panels // parts * wide
            end = min(total, (part + 1) * panels // parts * wide)
            for t in range(0, depth, DEPTH):
                steps = min(DEPTH, depth - t)
                for j in range(first, end, wide):
                    gather(
                        e,
                        source,
                        taps,
                        x,
                        group,
                        t,
                        steps,
                        j,
                        min(wide, end - j),
                        work,
                        panel_at + (j - first) * steps,
                        wide,
                    )
                for row in range(first_row, end_row, ROWS):
                    a = left.ctypes.data
                    a += (group * at.group + row * at.row + t * at.column) * size
                    rows = min(ROWS, end_row - row)
                    for j in range(first, end, wide):
                        b = work.ctypes.data + (panel_at + (j - first) * steps) * size
                        count = min(wide, end - j)
                        n = j // e.positions
                        p = j - n * e.positions
                        c = ((n * e.groups + group) * e.outputs + row) * e.positions + p
                        if p + count <= e.positions:
                            multiply_tile(
                                like,
                                steps,
                                a,
                                at.row,
                                at.column,
                                b,
                                wide,
                                y.ctypes.data + c * size,
                                e.positions,
                                rows,
                                count,
                                t,
                            )
                            continue
                        tile = work.ctypes.data + tile_at * size
                        multiply_tile(
                            like, steps, a, at.row, at.column, b, wide, tile, wide, rows, count, 0
                        )
                        _scatter_tile(e, work, tile_at, wide, y, c, p, rows, count, t > 0)
            _finish(e, y, epilogue, group, first_row, end_row, first, end)


@inline
def _scatter_tile(
    e: Any,
    tile: Any,
    tile_at: Any,
    tile_row: Any,
    y: Any,
    at: Any,
    p: Any,
    rows: Any,
    count: Any,
    add: Any,
) -> None:
    """Write or add a tile, whose first column is position p of an image, that spans images."""
    lane = 0
    while lane < count:
        run = min(e.positions - p, count - lane)
        for i in range(rows):
            row = at + i * e.positions
            source = tile_at + i * tile_row + lane
            if add:
                for j in range(run):
                    y[row + j] += tile[source + j]
            else:
                for j in range(run):
                    y[row + j] = tile[source + j]
        lane += run
        # The same outputs in the next image.
        at += e.groups * e.outputs * e.positions - p
        p = 0


@inline
def _finish(
    e: Any,
    y: Any,
    epilogue: Any,
    group: Any,
    first_row: Any,
    end_row: Any,
    first: Any,
    end: Any,
) -> None:
    """The epilogue of positions ``first`` to ``end`` of some outputs of a group.

    An unsigned index cannot count from the back: only so the loops are vectorised.
    """
    scales = epilogue.scale.size > 0
    shifts = epilogue.bias.size > 0
    adds = epilogue.addend.size > 0
    if not (scales or shifts or adds or epilogue.rectify):
        return
    zero = y.dtype.type(0)
    while first < end:
        n = first // e.positions
        p = first - n * e.positions
        run = min(e.positions - p, end - first)
        for row in range(first_row, end_row):
            m = group * e.outputs + row
            at = (n * e.groups * e.outputs + m) * e.positions + p
            if scales:
                factor = epilogue.scale[m]
                for i in range(run):
                    y[np.uint64(at + i)] *= factor
            if shifts:
                offset = epilogue.bias[m]
                for i in range(run):
                    y[np.uint64(at + i)] += offset
            if adds:
                for i in range(run):
                    y[np.uint64(at + i)] += epilogue.addend[np.uint64(at + i)]
            if epilogue.rectify:
                for i in range(run):
                    value = y[np.uint64(at + i)]
                    # A NaN stays one.
                    y[np.uint64(at + i)] = zero if value < zero else value
        first += run
