"""The gradient of a convolution with respect to its weights.

    dw[m, t] += sum over images n, positions p of  dy[n, m, p] column[n, t, p]

is a matrix product over positions. The micro-kernel reads its left factor number by number, from
anywhere; only the right one has to stand in panels of vectors. So dy is transposed into panels, and
what the taps see is read from the images, through the tables of ``taps``. Nothing is unrolled::

                                       outputs, in panels
                                      +---+---+---+
      slice of DEPTH positions        |   dy^T    |   transposed; used for all taps of the job
                                      +---+---+---+
      taps, ROWS         +-------+    +---+---+---+
      at a time          | image |    |   dw^T    |   added to, slice after slice, image after image
                         +-------+    +---+---+---+

A pointwise convolution may exchange its factors: its channels stand in the panels where they are
fewer than the outputs.

The sum over images is not shared among threads: that would change its order. Few taps are few jobs,
though; then each image gets a sum of its own, and these are added in order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from netdef.blob import Array
from netdef.jit import kernel, num_threads, prange, workspace
from netdef.kernels.blocks import transpose
from netdef.kernels.geometry import Geometry
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile_apart
from netdef.kernels.taps import Places, copied_size, places_of, readable

#: A gradient of fewer panels of this many taps than JOBS is summed image by image. Counted in taps,
#: so that sums are the same on every vector width.
PANEL, JOBS = 32, 4

#: Sums of single images, and copies of images, in elements: a batch is taken in chunks that fit.
SCRATCH = 1 << 22

#: Panels of a job, and elements of dw that it goes through for each slice of positions: both take a
#: part of its second-level cache.
PANELS, SLAB = 4, 1 << 16

#: Rows of a matrix that are transposed at a time: whole vectors.
STRIP = 16


class _Jobs(NamedTuple):
    """What is summed, and how that is cut: jobs are parts x groups x tap_blocks x panel_blocks."""

    groups: int
    outputs: int
    image: int  # elements of a group of a left image
    parts: int  # sums, each of ``each`` images
    each: int
    tap_blocks: int
    panel_blocks: int


def add(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient, from images x and the output gradient dy; all arrays are flat."""
    e = g.extents
    image = e.groups * e.outputs * e.positions
    count = dy.size // image if image else 0
    if not count or not dweight.size:
        return
    taps = e.channels * e.window
    own_sums = count > 1 and -(-taps // PANEL) * e.groups < JOBS
    if g.pointwise and e.channels < e.outputs:
        back = g._replace(extents=e._replace(channels=e.outputs, outputs=e.channels))
        _add_transposed(back, dy, x, count, own_sums, dweight, 0)
        return
    transposed = workspace(dweight.size, x.dtype)[: dweight.size]
    _transpose(dweight, e.groups, e.outputs, taps, transposed)
    _add_transposed(g, x, dy, count, own_sums, transposed, dweight.size)
    _transpose(transposed, e.groups, taps, e.outputs, dweight)


def _add_transposed(
    g: Geometry, x: Array, dy: Array, count: int, own_sums: bool, total: Array, skip: int
) -> None:
    """total [groups, taps, outputs] += the gradient, of ``count`` images.

    The first ``skip`` elements of scratch memory are in use.
    """
    workers = num_threads()
    places = places_of(g, x.itemsize)
    copied = copied_size(g, places)
    sums = total.size if own_sums else 0
    chunk = min(count, max(1, SCRATCH // max(1, copied, sums)))
    panels = workers * PANELS * DEPTH * columns_of(x.itemsize)
    work = workspace(skip + panels + chunk * (copied + sums), x.dtype)[skip:]
    copies, parts = work[panels : panels + chunk * copied], work[panels + chunk * copied :]
    for first in range(0, count, chunk):
        size = min(chunk, count - first)
        images = x[first * x.size // count : (first + size) * x.size // count]
        gradient = dy[first * dy.size // count : (first + size) * dy.size // count]
        images = readable(g, places, images, copies)
        sizes = (size, 1) if own_sums else (1, size)
        jobs = _jobs(g, places, *sizes, x.itemsize)
        target = parts if own_sums else total
        _add(jobs, places.taps, places.positions, images, gradient, own_sums, target, work, workers)
        if own_sums:
            _add_parts(parts, size, total)


def _jobs(g: Geometry, places: Places, parts: int, each: int, itemsize: int) -> _Jobs:
    """Jobs that go through little memory for each image, and share the work equally."""
    e, workers = g.extents, num_threads()
    wide = columns_of(itemsize)
    panels = -(-e.outputs // wide)
    least = -(-panels // PANELS)
    sums = parts * e.groups
    # Panels are shared where that comes out even: then none is transposed twice.
    even = (
        blocks
        for blocks in range(least, panels + 1)
        if panels % blocks == 0 and sums * blocks % workers == 0
    )
    panel_blocks = next(even, least)
    tap_blocks = -(-places.taps.size * min(panels, PANELS) * wide // SLAB)
    while sums * panel_blocks * tap_blocks % workers and tap_blocks * ROWS < places.taps.size:
        tap_blocks += 1
    image = e.channels * places.plane
    return _Jobs(e.groups, e.outputs, image, parts, each, tap_blocks, panel_blocks)


@kernel
def _add(
    jobs: Any,
    taps: Any,
    positions: Any,
    images: Any,
    dy: Any,
    own_sums: Any,
    sums: Any,
    work: Any,
    workers: Any,
) -> None:
    """Write one sum per image where ``own_sums``, else add all images to the one in ``sums``.

    ``work`` begins with the panels of each worker.
    """
    like = dy.dtype.type(0)
    size = dy.itemsize
    wide = columns(like)
    panels = (jobs.outputs + wide - 1) // wide
    tap_tiles = (taps.size + ROWS - 1) // ROWS
    blocks = jobs.tap_blocks * jobs.panel_blocks
    count = jobs.parts * jobs.groups * blocks
    for worker in prange(workers):
        panel_at = worker * PANELS * DEPTH * wide
        for job in range(count * worker // workers, count * (worker + 1) // workers):
            part = job // (jobs.groups * blocks)
            group = job // blocks % jobs.groups
            tap_block = job // jobs.panel_blocks % jobs.tap_blocks
            first_tap = tap_block * tap_tiles // jobs.tap_blocks * ROWS
            end_tap = min(taps.size, (tap_block + 1) * tap_tiles // jobs.tap_blocks * ROWS)
            panel_block = job % jobs.panel_blocks
            first = panel_block * panels // jobs.panel_blocks * wide
            end = min(jobs.outputs, (panel_block + 1) * panels // jobs.panel_blocks * wide)
            for n in range(part * jobs.each, (part + 1) * jobs.each):
                image = (n * jobs.groups + group) * jobs.image
                gradient = (n * jobs.groups + group) * jobs.outputs * positions.size
                for p in range(0, positions.size, DEPTH):
                    steps = min(DEPTH, positions.size - p)
                    for output in range(first, end, wide):
                        row = gradient + output * positions.size + p
                        transpose(
                            like,
                            work.ctypes.data + (panel_at + (output - first) * DEPTH) * size,
                            wide,
                            dy.ctypes.data + row * size,
                            positions.size,
                            min(wide, end - output),
                            steps,
                        )
                    for tap in range(first_tap, end_tap, ROWS):
                        for output in range(first, end, wide):
                            c = (part * jobs.groups + group) * taps.size + tap
                            c = c * jobs.outputs + output
                            multiply_tile_apart(
                                like,
                                steps,
                                images.ctypes.data + image * size,
                                taps.ctypes.data + tap * taps.itemsize,
                                positions.ctypes.data + p * positions.itemsize,
                                work.ctypes.data + (panel_at + (output - first) * DEPTH) * size,
                                wide,
                                sums.ctypes.data + c * size,
                                jobs.outputs,
                                min(ROWS, end_tap - tap),
                                min(wide, end - output),
                                0 if own_sums and p == 0 else 1,
                            )


@kernel
def _add_parts(sums: Any, parts: Any, total: Any) -> None:
    """total += the sums of parts, one after the other."""
    block = 64  # neighbours of a sum are one load
    for job in prange((total.size + block - 1) // block):
        end = min(total.size, (job + 1) * block)
        for part in range(parts):
            at = part * total.size
            for i in range(job * block, end):
                total[i] += sums[at + i]


@kernel
def _transpose(x: Any, groups: Any, rows: Any, columns: Any, y: Any) -> None:
    """y [groups, columns, rows] = x [groups, rows, columns]"""
    like = x.dtype.type(0)
    size = x.itemsize
    strips = (rows + STRIP - 1) // STRIP
    for job in prange(groups * strips):
        group = job // strips * rows * columns
        first = job % strips * STRIP
        transpose(
            like,
            y.ctypes.data + (group + first) * size,
            rows,
            x.ctypes.data + (group + first * columns) * size,
            columns,
            min(STRIP, rows - first),
            columns,
        )
