"""The gradient of a convolution with respect to its images, where strides make it no convolution.

    dx[source + shift + stride o] += sum over m of  w[m, t] dy[m, p]        for every tap t

The product over outputs is made for the taps of a few channels, SCATTER positions at a time, into
a tile that stays in the cache, and its rows are added to where their taps see the image::

       positions, SCATTER at a time
                   +-------+
        outputs    |  dy   |   packed once per job and SCATTER positions
                   +-------+
         +-----+   +-------+
    taps | w^T |   | tile  |   the rows of a line of the window are added to a line of dx
         +-----+   +-------+

So pixels sum their taps in ascending order, over SCATTER positions at a time. A job is a block of
channels of an image, whose gradient it alone writes.
"""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.blocks import copy_rows
from netdef.kernels.geometry import Geometry
from netdef.kernels.lanes import LANES, load_part, store_part
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile

#: Positions whose gradients are scattered together: a whole number of tiles on any machine, and the
#: same on all, so that the order of the sums is too.
SCATTER = 32

#: Taps whose products are made before they are scattered: those of so many channels as have fewer.
TAPS = 256


def scatter(g: Geometry, weight: Array, dy: Array, dx: Array) -> None:
    """dx = the data gradient, from weights and the output gradient dy; all arrays are flat."""
    e = g.extents
    if dx.size:
        block = max(1, TAPS // e.window)
        rows = e.outputs + block * e.window
        work = workspace(num_threads() * rows * _across(dx), dx.dtype)
        width = g.image[-1]
        _scatter(e, g.source, g.taps, width, block, weight, dy, dx, work, num_threads())


def _across(dx: Array) -> int:
    """SCATTER positions as whole tiles."""
    wide = columns_of(dx.itemsize)
    return -(-SCATTER // wide) * wide


@kernel
def _scatter(
    e: Any,
    source: Any,
    taps: Any,
    image_width: Any,
    block: Any,
    weight: Any,
    dy: Any,
    dx: Any,
    work: Any,
    workers: Any,
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
        packed = worker * (e.outputs + block * e.window) * across
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
                gradient = member * e.outputs * e.positions + p
                copy_rows(
                    like,
                    work.ctypes.data + packed * size,
                    across,
                    dy.ctypes.data + gradient * size,
                    e.positions,
                    e.outputs,
                    count,
                )
                for c in range(first_channel, end_channel, block):
                    some = min(block, end_channel - c)
                    for t in range(0, some * e.window, ROWS):
                        rows = min(ROWS, some * e.window - t)
                        for lane in range(0, count, wide):
                            for m in range(0, e.outputs, DEPTH):
                                a = (group * e.outputs + m) * width + c * e.window + t
                                multiply_tile(
                                    like,
                                    min(DEPTH, e.outputs - m),
                                    weight.ctypes.data + a * size,
                                    1,
                                    width,
                                    work.ctypes.data + (packed + m * across + lane) * size,
                                    across,
                                    work.ctypes.data + (tile + t * across + lane) * size,
                                    across,
                                    rows,
                                    min(wide, count - lane),
                                    m,
                                )
                    row = tile
                    for channel in range(c, c + some):
                        at = image + channel * e.plane
                        for outer in range(source.shape[1]):
                            _add_rows(
                                e,
                                source,
                                taps,
                                image_width,
                                work,
                                row,
                                across,
                                p,
                                count,
                                outer,
                                dx,
                                at,
                            )
                            row += e.reach * across


@inline
def _add_rows(
    e: Any,
    source: Any,
    taps: Any,
    image_width: Any,
    tile: Any,
    tile_at: Any,
    tile_row: Any,
    first: Any,
    count: Any,
    outer: Any,
    dx: Any,
    channel: Any,
) -> None:
    """Add what the taps of a line of the window give at positions ``first`` on to a channel of dx.

    Where windows move by one, the taps that meet in a pixel are added in a register: to write a
    pixel and read it at once, one place further on, takes longer than many additions.
    """
    zero = dx.dtype.type(0)
    line = first // e.width
    o = first - line * e.width
    done = 0
    while done < count:
        end = min(e.width, o + count - done)
        begin = source[line, outer]
        if begin >= 0 and e.stride == 1:
            at = channel + begin
            low = at + max(0, o + taps[0, 0])
            high = at + min(image_width, end + taps[0, e.reach - 1])
            for pixels in range(low, high, LANES):
                value = load_part(dx, pixels, low, high, zero)
                row = tile_at + done - o
                for tap in range(e.reach):
                    position = row + pixels - at - taps[0, tap]
                    value = value + load_part(tile, position, row + o, row + end, zero)
                    row += tile_row
                store_part(dx, pixels, low, high, value)
        elif begin >= 0:
            row = tile_at + done - o
            for tap in range(e.reach):
                at = channel + begin + taps[0, tap]
                for i in range(max(o, taps[1, tap]), min(end, taps[2, tap])):
                    dx[at + i * e.stride] += tile[row + i]
                row += tile_row
        done += end - o
        line += 1
        o = 0
