"""The gradient of a convolution with respect to its weights.

    dw[m, t] += sum over images n, positions p of  dy[n, m, p] column[n, t, p]

is a matrix product over positions. The left factor, dy, is read in place; of the right one,
column^T, a job makes the panels it needs: it gathers a few taps at DEPTH positions, as the forward
product does, and transposes them in registers::

                                    taps, in panels
                                   +---+---+---+
      slice of DEPTH positions     |   |   |   |   gathered, transposed; used for all outputs
                                   +---+---+---+
      outputs, ROWS    +-------+   +---+---+---+
      at a time        |  dy   |   |dw |   |   |   added to, slice after slice, image after image
                       +-------+   +---+---+---+

The sum over images is not shared among threads: that would change its order. Few taps are few jobs,
though; then each image gets a sum of its own, and these are added in order.
"""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.geometry import Geometry
from netdef.kernels.im2col import gather
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile
from netdef.kernels.vectors import lanes, transpose_block

#: A gradient of fewer panels of this many taps than JOBS is summed image by image. Counted in taps,
#: so that sums are the same on every vector width.
PANEL, JOBS = 32, 4

#: Sums of single images, in elements: a batch is taken in chunks that fit.
SCRATCH = 1 << 22

#: Elements of dw that a job goes through for each slice of positions: a part of its second-level
#: cache.
SLAB = 1 << 16

#: Distance between the rows that are gathered: longer by one line of the cache than a power of two,
#: or all would fall on the same place in it.
GATHERED = DEPTH + 16


def add(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient, from images x and the output gradient dy; all arrays are flat."""
    e = g.extents
    image = e.groups * e.outputs * e.positions
    count = dy.size // image if image else 0
    if not count or not dweight.size:
        return
    # Room for every worker: gathered rows, a panel.
    wide = columns_of(x.itemsize)
    panels = num_threads() * (wide * GATHERED + DEPTH * wide)
    if count == 1 or -(-e.channels * e.window // PANEL) * e.groups >= JOBS:
        work = workspace(panels, x.dtype)
        _add(e, g.source, g.taps, x, dy, count, False, dweight, work, num_threads())
        return
    chunk = min(count, max(1, SCRATCH // dweight.size))
    work = workspace(panels + chunk * dweight.size, x.dtype)
    sums, work = work[panels : panels + chunk * dweight.size], work[:panels]
    x_image = e.groups * e.channels * e.plane
    for first in range(0, count, chunk):
        size = min(chunk, count - first)
        images = x[first * x_image : (first + size) * x_image]
        gradient = dy[first * image : (first + size) * image]
        _add(e, g.source, g.taps, images, gradient, size, True, sums, work, num_threads())
        _add_parts(sums, size, dweight)


@kernel
def _add(
    e: Any,
    source: Any,
    taps: Any,
    x: Any,
    dy: Any,
    count: Any,
    own_sums: Any,
    sums: Any,
    work: Any,
    workers: Any,
) -> None:
    """Write one sum per image where ``own_sums``, else add all images to the one in ``sums``."""
    like = x.dtype.type(0)
    size = x.itemsize
    wide = columns(like)
    width = e.channels * e.window
    panels = (width + wide - 1) // wide
    parts = count if own_sums else 1
    each = 1 if own_sums else count
    row_tiles = (e.outputs + ROWS - 1) // ROWS
    # Jobs are ranges of panels, and of outputs where those are too few for all workers.
    most = max(1, SLAB // (e.outputs * wide))
    ranges = (panels + most - 1) // most
    ranges = min(panels, (ranges + workers - 1) // workers * workers)
    shares = 1
    if parts * e.groups * ranges < workers:
        ways = parts * e.groups * ranges
        shares = min(row_tiles, (workers + ways - 1) // ways)
    jobs = parts * e.groups * ranges * shares
    for worker in prange(workers):
        gathered = worker * (GATHERED + DEPTH) * wide
        panel = gathered + GATHERED * wide
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            part = job // (e.groups * ranges * shares)
            group = job // (ranges * shares) % e.groups
            first_panel = job // shares % ranges * panels // ranges
            end_panel = (job // shares % ranges + 1) * panels // ranges
            share = job % shares
            first_row = share * row_tiles // shares * ROWS
            end_row = min(e.outputs, (share + 1) * row_tiles // shares * ROWS)
            for n in range(part * each, (part + 1) * each):
                gradient = (n * e.groups + group) * e.outputs * e.positions
                for p in range(0, e.positions, DEPTH):
                    steps = min(DEPTH, e.positions - p)
                    for t in range(first_panel * wide, min(width, end_panel * wide), wide):
                        count_t = min(wide, width - t)
                        gather(
                            e,
                            source,
                            taps,
                            x,
                            group,
                            t,
                            count_t,
                            n * e.positions + p,
                            steps,
                            work,
                            gathered,
                            GATHERED,
                        )
                        _transpose(work, gathered, count_t, steps, panel, wide)
                        for row in range(first_row, end_row, ROWS):
                            c = ((part * e.groups + group) * e.outputs + row) * width + t
                            multiply_tile(
                                like,
                                steps,
                                dy.ctypes.data + (gradient + row * e.positions + p) * size,
                                e.positions,
                                1,
                                work.ctypes.data + panel * size,
                                wide,
                                sums.ctypes.data + c * size,
                                width,
                                min(ROWS, end_row - row),
                                count_t,
                                0 if own_sums and p == 0 else 1,
                            )


@inline
def _transpose(work: Any, gathered: Any, rows: Any, columns: Any, panel: Any, wide: Any) -> None:
    """The gathered rows of taps as a panel: rows of positions."""
    like = work.dtype.type(0)
    size = work.itemsize
    for i in range(0, rows, lanes(like)):
        for j in range(0, columns, lanes(like)):
            transpose_block(
                like,
                work.ctypes.data + (panel + j * wide + i) * size,
                wide,
                work.ctypes.data + (gathered + i * GATHERED + j) * size,
                GATHERED,
                rows - i,
                columns - j,
            )


@kernel
def _add_parts(sums: Any, parts: Any, total: Any) -> None:
    """total += the sum over parts, in order."""
    for i in prange(total.size):
        value = total[i]
        for part in range(parts):
            value += sums[part * total.size + i]
        total[i] = value
