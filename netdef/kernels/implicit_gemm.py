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

Positions of neighbouring images share panels, so small planes waste no lanes. Where there are few
positions, a panel holds several slices, so that each row of w is read once and in one go. What
follows the product (bias, scale, addition, ReLU) happens to rows of y while they are in the cache.
A pointwise convolution uses each value it gathers less often than others: the tiles it multiplies
ask for what is gathered next.

Source: Goto & van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, for the
blocking.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.blocks import copy_rows
from netdef.kernels.geometry import Geometry
from netdef.kernels.im2col import gather
from netdef.kernels.microkernel import (
    APART,
    DEPTH,
    ROWS,
    VECTORS,
    WAY,
    columns,
    columns_of,
    multiply_tile,
    multiply_tile_ahead,
)
from netdef.kernels.vectors import VECTOR_BYTES

#: Panels that a job gathers at once: with DEPTH they take half of a second-level cache of 512 KiB.
PANELS = 8

#: Rows of the left factor that share lines of the cache are copied, to this distance.
PIECE_ROW = DEPTH + APART

#: Lines of the cache of LINE_BYTES that a row of a panel can touch.
LINE_BYTES = 64
LINES = 1 + VECTORS * VECTOR_BYTES // LINE_BYTES


class Epilogue(NamedTuple):
    """What happens to a product: y = rectified(y scale[m] + bias[m] + addend)."""

    scale: Array  # [M] or empty
    bias: Array  # [M] or empty
    addend: Array  # like y, flat, or empty
    rectify: bool


#: In place of an array that an epilogue does not need.
NOTHING = {np.dtype(kind): np.empty(0, kind) for kind in (np.float32, np.float64)}


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
    packed = workspace(weight.size + num_threads() * _scratch_of(dx), dx.dtype)[: weight.size]
    _turn(e, weight, packed)
    taps = e.channels * e.window
    left = _Left(e.outputs * taps, taps, 1)
    _run(turned, dy, packed, left, dx, no_epilogue(dx), skip=weight.size)


def no_epilogue(y: Array) -> Epilogue:
    """The epilogue that leaves a product as it is."""
    nothing = NOTHING[y.dtype]
    return Epilogue(nothing, nothing, nothing, False)


def _scratch_of(y: Array) -> int:
    """Scratch memory of a worker: panels, a tile, and a piece of the left factor."""
    return (PANELS * DEPTH + ROWS) * columns_of(y.itemsize) + ROWS * PIECE_ROW


def _run(
    g: Geometry, x: Array, left: Array, at: _Left, y: Array, epilogue: Epilogue, skip: int = 0
) -> None:
    if y.size:
        each = _scratch_of(y)
        work = workspace(skip + num_threads() * each, y.dtype)[skip:]
        _multiply(g.extents, g.source, g.taps, x, left, at, y, epilogue, work, each, num_threads())


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
    each: Any,
    workers: Any,
) -> None:
    """``work`` holds ``each`` elements of scratch memory for each worker."""
    like = y.dtype.type(0)
    size = y.itemsize
    wide = columns(like)
    depth = e.channels * e.window
    total = y.size // (e.groups * e.outputs)  # positions of all images
    panels = (total + wide - 1) // wide
    row_tiles = (e.outputs + ROWS - 1) // ROWS
    # Parts of the positions. Where those are too few for all workers, either these are cut further
    # or the outputs are shared: what is longer.
    parts = (panels + PANELS - 1) // PANELS
    shares = 1
    if parts * e.groups >= workers or total > e.outputs:
        parts = min(panels, (parts + workers - 1) // workers * workers)
    if parts * e.groups < workers:
        shares = min(row_tiles, (workers + parts * e.groups - 1) // (parts * e.groups))
    # Taps gathered at once: more slices than one where the panels are few.
    most = (panels + parts - 1) // parts
    span = PANELS // most * DEPTH
    jobs = e.groups * parts * shares
    for worker in prange(workers):
        panel_at = worker * each
        tile_at = panel_at + PANELS * DEPTH * wide
        left_at = tile_at + ROWS * wide
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            group = job // (parts * shares)
            part = job // shares % parts
            share = job % shares
            first_row = share * row_tiles // shares * ROWS
            end_row = min(e.outputs, (share + 1) * row_tiles // shares * ROWS)
            first = part * panels // parts * wide
            end = min(total, (part + 1) * panels // parts * wide)
            for begin in range(0, depth, span):
                taps_here = min(span, depth - begin)
                for j in range(first, end, wide):
                    gather(
                        e,
                        source,
                        taps,
                        x,
                        group,
                        begin,
                        taps_here,
                        j,
                        min(wide, end - j),
                        work,
                        panel_at + (j - first) * taps_here,
                        wide,
                    )
                for row in range(first_row, end_row, ROWS):
                    rows = min(ROWS, end_row - row)
                    for t in range(begin, begin + taps_here, DEPTH):
                        steps = min(DEPTH, depth - t)
                        a = left.ctypes.data
                        a += (group * at.group + row * at.row + t * at.column) * size
                        a_row, a_column = at.row, at.column
                        if a_column == 1 and a_row * size % WAY == 0 and end - first > wide:
                            piece = work.ctypes.data + left_at * size
                            copy_rows(like, piece, PIECE_ROW, a, a_row, rows, steps)
                            a, a_row = piece, PIECE_ROW
                        for j in range(first, end, wide):
                            b = panel_at + (j - first) * taps_here + (t - begin) * wide
                            count = min(wide, end - j)
                            n = j // e.positions
                            p = j - n * e.positions
                            c = ((n * e.groups + group) * e.outputs + row) * e.positions + p
                            spans = p + count > e.positions
                            c_at, c_row, add = y.ctypes.data + c * size, e.positions, t
                            if spans:
                                c_at, c_row, add = work.ctypes.data + tile_at * size, wide, 0
                            # While a panel is multiplied, what its place holds next is asked for:
                            # the first tiles of rows have one line of the cache each.
                            line = (row - first_row) // ROWS
                            if e.window == 1 and e.plane == e.positions and line < LINES:
                                ahead = _seen(e, group, t + span, j)
                                if t + span >= depth:
                                    following = min(total - 1, j + end - first)
                                    ahead = _seen(e, group, t - begin, following)
                                multiply_tile_ahead(
                                    like,
                                    steps,
                                    a,
                                    a_row,
                                    a_column,
                                    work.ctypes.data + b * size,
                                    wide,
                                    c_at,
                                    c_row,
                                    rows,
                                    count,
                                    add,
                                    x.ctypes.data + ahead * size + line * LINE_BYTES,
                                    e.plane,
                                )
                            else:
                                multiply_tile(
                                    like,
                                    steps,
                                    a,
                                    a_row,
                                    a_column,
                                    work.ctypes.data + b * size,
                                    wide,
                                    c_at,
                                    c_row,
                                    rows,
                                    count,
                                    add,
                                )
                            if spans:
                                _scatter_tile(e, work, tile_at, wide, y, c, p, rows, count, t > 0)
                    if begin + taps_here == depth:
                        finish(e, y, epilogue, group, row, row + rows, first, end)


@inline
def _seen(e: Any, group: Any, channel: Any, j: Any) -> Any:
    """Where a pointwise convolution reads a channel of a group at position j of the batch."""
    n = j // e.positions
    return ((n * e.groups + group) * e.channels + channel) * e.plane + j - n * e.positions


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
def finish(
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
    if not (epilogue.scale.size or epilogue.bias.size or epilogue.addend.size or epilogue.rectify):
        return
    one = y.dtype.type(1)
    zero = y.dtype.type(0)
    floor = zero if epilogue.rectify else y.dtype.type(-np.inf)
    while first < end:
        n = first // e.positions
        p = first - n * e.positions
        run = min(e.positions - p, end - first)
        for row in range(first_row, end_row):
            m = group * e.outputs + row
            at = (n * e.groups * e.outputs + m) * e.positions + p
            factor = epilogue.scale[m] if epilogue.scale.size else one
            offset = epilogue.bias[m] if epilogue.bias.size else zero
            if epilogue.addend.size:
                for i in range(run):
                    value = y[np.uint64(at + i)] * factor + offset
                    value += epilogue.addend[np.uint64(at + i)]
                    # A NaN stays one.
                    y[np.uint64(at + i)] = floor if value < floor else value
            else:
                for i in range(run):
                    value = y[np.uint64(at + i)] * factor + offset
                    y[np.uint64(at + i)] = floor if value < floor else value
        first += run
