"""The gradient of a convolution with respect to its images, where strides make it no convolution.

    dx[source + shift + stride o] += sum over m of  w[m, t] dy[m, p]        for every tap t

The product over outputs is made a few taps and SCATTER positions at a time, into a tile that stays
in the first-level cache, and each of its rows is added to where its tap sees the image::

       positions, SCATTER at a time
                   +-------+
        outputs    |  dy   |   packed once per job and SCATTER positions
                   +-------+
         +-----+   +-------+
    taps | w^T |   | tile  |   each row is added to a line of dx, tap after tap
         +-----+   +-------+

So pixels sum their taps in ascending order, over SCATTER positions at a time. A job is a block of
channels of an image, whose gradient it alone writes.
"""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.geometry import Geometry
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile
from netdef.kernels.vectors import add_lanes, copy_lanes, lanes

#: Positions whose gradients are scattered together: a whole number of tiles on any machine, and the
#: same on all, so that the order of the sums is too.
SCATTER = 32


def scatter(g: Geometry, weight: Array, dy: Array, dx: Array) -> None:
    """dx = the data gradient, from weights and the output gradient dy; all arrays are flat."""
    e = g.extents
    if dx.size:
        size = num_threads() * (e.outputs + ROWS) * _padded(SCATTER, columns_of(dx.itemsize))
        work = workspace(size, dx.dtype)
        _scatter(e, g.source, g.taps, weight, dy, dx, work, num_threads())


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@kernel
def _scatter(
    e: Any, source: Any, taps: Any, weight: Any, dy: Any, dx: Any, work: Any, workers: Any
) -> None:
    like = dx.dtype.type(0)
    size = dx.itemsize
    wide = columns(like)
    across = (SCATTER + wide - 1) // wide * wide
    width = e.channels * e.window
    members = dx.size // (e.channels * e.plane)  # images and groups
    blocks = 1
    if members < 4 * workers:
        blocks = min(e.channels, (4 * workers + members - 1) // members)
    jobs = members * blocks
    for worker in prange(workers):
        packed = worker * (e.outputs + ROWS) * across
        tile = packed + e.outputs * across
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            member = job // blocks
            group = member % e.groups
            first_channel = job % blocks * e.channels // blocks
            end_channel = (job % blocks + 1) * e.channels // blocks
            image = member * e.channels * e.plane
            for i in range(image + first_channel * e.plane, image + end_channel * e.plane):
                dx[i] = like
            for p in range(0, e.positions, SCATTER):
                count = min(SCATTER, e.positions - p)
                _pack(e, dy, member * e.outputs * e.positions + p, count, work, packed, across)
                channel = image + first_channel * e.plane
                outer, tap = 0, 0
                for t in range(first_channel * e.window, end_channel * e.window, ROWS):
                    rows = min(ROWS, end_channel * e.window - t)
                    for lane in range(0, count, wide):
                        for m in range(0, e.outputs, DEPTH):
                            multiply_tile(
                                like,
                                min(DEPTH, e.outputs - m),
                                weight.ctypes.data + ((group * e.outputs + m) * width + t) * size,
                                1,
                                width,
                                work.ctypes.data + (packed + m * across + lane) * size,
                                across,
                                work.ctypes.data + (tile + lane) * size,
                                across,
                                rows,
                                min(wide, count - lane),
                                m,
                            )
                    for i in range(rows):
                        row = tile + i * across
                        _add_row(e, source, taps, work, row, p, count, outer, tap, dx, channel)
                        # Counted on, since a division would take longer than the row.
                        tap += 1
                        if tap == e.reach:
                            tap = 0
                            outer += 1
                        if outer == source.shape[1]:
                            outer = 0
                            channel += e.plane


@inline
def _pack(e: Any, dy: Any, at: Any, count: Any, work: Any, packed: Any, across: Any) -> None:
    """Columns ``at`` to ``at + count`` of dy, [outputs, positions], as [outputs, across]."""
    like = dy.dtype.type(0)
    size = dy.itemsize
    for lane in range(0, count, lanes(like)):
        source_address = dy.ctypes.data + (at + lane) * size
        target = work.ctypes.data + (packed + lane) * size
        for _ in range(e.outputs):
            copy_lanes(like, target, source_address, 0, count - lane, lanes(like))
            source_address += e.positions * size
            target += across * size


@inline
def _add_row(
    e: Any,
    source: Any,
    taps: Any,
    tile: Any,
    tile_at: Any,
    first: Any,
    count: Any,
    outer: Any,
    tap: Any,
    dx: Any,
    channel: Any,
) -> None:
    """Add what a tap of the window gives at positions ``first`` on to a channel of dx.

    ``outer`` counts the window's lines, ``tap`` along its last axis.
    """
    like = dx.dtype.type(0)
    size = dx.itemsize
    wide = lanes(like)
    line = first // e.width
    o = first - line * e.width
    lane = 0
    while lane < count:
        run = min(e.width - o, count - lane)
        begin = source[line, outer]
        if begin >= 0:
            low = max(0, taps[1, tap] - o)
            high = min(run, taps[2, tap] - o)
            at = channel + begin + taps[0, tap] + o * e.stride
            if e.stride == 1:
                for i in range(0, high, wide):
                    add_lanes(
                        like,
                        dx.ctypes.data + (at + i) * size,
                        tile.ctypes.data + (tile_at + lane + i) * size,
                        low - i,
                        high - i,
                    )
            else:
                for i in range(low, high):
                    dx[at + i * e.stride] += tile[tile_at + lane + i]
        lane += run
        line += 1
        o = 0
