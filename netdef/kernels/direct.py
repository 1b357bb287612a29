"""Convolution that reads images in place: for large windows.

    y[n, m, p] = sum over t of  w[m, t] column[n, t, p]

Implicit GEMM gathers the columns, which takes the longer the more taps a window has. Here the
product is made transposed, y^T = column^T w^T. Its left factor is the images, read number
by number through the tables of ``taps``; its right one the weights, which stand in panels::

                                   outputs, in panels
                                  +---+---+---+
      slice of DEPTH taps         |    w^T    |   packed once per call
                                  +---+---+---+
      positions, ROWS  +-------+  +---+---+---+
      at a time        | image |  |    y^T    |   TILES tiles high; transposed in the cache
                       +-------+  +---+---+---+

Sums are over the same slices of taps, in the same order, as in implicit GEMM: so are the bits.
"""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, num_threads, prange, workspace
from netdef.kernels.blocks import transpose
from netdef.kernels.geometry import Geometry
from netdef.kernels.implicit_gemm import Epilogue, finish
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile_apart
from netdef.kernels.taps import copied_size, places_of, readable

#: Tiles of positions that are transposed at once.
TILES = 8

#: Windows of fewer taps are gathered in less time than y is transposed; few outputs leave most
#: lanes of a panel empty; and for few positions, the weights are not worth packing.
FEWEST_TAPS, FEWEST_OUTPUTS, FEWEST_POSITIONS = 25, 8, 512

#: Copies of images, in elements: a batch is taken in chunks that fit.
SCRATCH = 1 << 22


def suits(g: Geometry, count: int) -> bool:
    """Whether a batch of ``count`` images is convolved faster this way."""
    e = g.extents
    return (
        e.window >= FEWEST_TAPS
        and e.outputs >= FEWEST_OUTPUTS
        and count * e.positions >= FEWEST_POSITIONS
    )


def multiply(g: Geometry, x: Array, weight: Array, y: Array, epilogue: Epilogue) -> None:
    """The convolution of x with weight; all arrays are flat."""
    e, workers = g.extents, num_threads()
    count = y.size // (e.groups * e.outputs * e.positions)
    if not y.size:
        return
    places = places_of(g, x.itemsize)
    wide = columns_of(x.itemsize)
    across = -(-e.outputs // wide) * wide
    packed = e.groups * e.channels * e.window * across
    tiles = workers * TILES * ROWS * across
    copied = copied_size(g, places)
    chunk = min(count, max(1, SCRATCH // max(1, copied)))
    work = workspace(packed + tiles + chunk * copied, x.dtype)
    _pack(e, weight, across, work)
    for first in range(0, count, chunk):
        size = min(chunk, count - first)
        images = x[first * x.size // count : (first + size) * x.size // count]
        images = readable(g, places, images, work[packed + tiles :])
        image = e.channels * places.plane
        _multiply(
            e,
            places.taps,
            places.positions,
            image,
            first,
            size,
            images,
            across,
            y,
            epilogue,
            work,
            packed,
            workers,
        )


@kernel
def _pack(e: Any, weight: Any, across: Any, packed: Any) -> None:
    """w [groups, outputs, taps] as [groups, slices, panels, taps of the slice, columns]."""
    like = weight.dtype.type(0)
    size = weight.itemsize
    wide = columns(like)
    taps = e.channels * e.window
    panels = across // wide
    for job in prange(e.groups * panels):
        group = job // panels
        output = job % panels * wide
        for t in range(0, taps, DEPTH):
            steps = min(DEPTH, taps - t)
            target = (group * taps + t) * across + job % panels * steps * wide
            transpose(
                like,
                packed.ctypes.data + target * size,
                wide,
                weight.ctypes.data + ((group * e.outputs + output) * taps + t) * size,
                taps,
                min(wide, e.outputs - output),
                steps,
            )


@kernel
def _multiply(
    e: Any,
    taps: Any,
    positions: Any,
    image: Any,
    first_image: Any,
    count: Any,
    images: Any,
    across: Any,
    y: Any,
    epilogue: Any,
    work: Any,
    tiles_at: Any,
    workers: Any,
) -> None:
    """``count`` images, the first of which is ``first_image`` of the batch."""
    like = y.dtype.type(0)
    size = y.itemsize
    wide = columns(like)
    high = TILES * ROWS
    blocks = (e.positions + high - 1) // high
    jobs = count * e.groups * blocks
    for worker in prange(workers):
        tile_at = tiles_at + worker * high * across
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            member = job // blocks
            group = member % e.groups
            first = job % blocks * high
            end = min(e.positions, first + high)
            for t in range(0, taps.size, DEPTH):
                steps = min(DEPTH, taps.size - t)
                for output in range(0, e.outputs, wide):
                    b = (group * taps.size + t) * across + output * steps
                    for p in range(first, end, ROWS):
                        multiply_tile_apart(
                            like,
                            steps,
                            images.ctypes.data + member * image * size,
                            positions.ctypes.data + p * positions.itemsize,
                            taps.ctypes.data + t * taps.itemsize,
                            work.ctypes.data + b * size,
                            wide,
                            work.ctypes.data + (tile_at + (p - first) * across + output) * size,
                            across,
                            min(ROWS, end - p),
                            min(wide, e.outputs - output),
                            t,
                        )
            n = first_image + member // e.groups
            row = (n * e.groups + group) * e.outputs
            transpose(
                like,
                y.ctypes.data + (row * e.positions + first) * size,
                e.positions,
                work.ctypes.data + tile_at * size,
                across,
                end - first,
                e.outputs,
            )
            at = n * e.positions
            finish(e, y, epilogue, group, 0, e.outputs, at + first, at + end)
