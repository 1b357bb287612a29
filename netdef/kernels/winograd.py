"""Convolution with windows of 3 x 3 or 5 x 5 and stride 1 by Winograd's minimal filtering.

A tile of 4 x 4 outputs sees 6 x 6 inputs with a window of 3 x 3, which is F(4 x 4, 3 x 3), and 8 x
8 with one of 5 x 5, F(4 x 4, 5 x 5). With d the inputs, g the window and @ the product of matrices,
element by element where it is *::

    Y = A^T @ ( (G @ g @ G^T) * (B^T @ d @ B) ) @ A    36 multiplications in place of 144,
                                                       64 in place of 400

The product in the middle is summed over channels, so it is a matrix product for each of the 36 or
64 places; around it, inputs, weights and sums are transformed, with additions and small factors::

    images  --B^T d B-->  V [places, channels, tiles]   a panel of tiles at a time
    weights --G g G^T-->  U [outputs, places, channels] once per call
                          M [places, outputs, tiles]  = U @ V, one product for each place
    M       --A^T M A-->  y, with bias, scale, addition and ReLU on the way

Tiles stand in the lanes of vectors: neighbours on a line of tiles, line after line, image after
image. Rounding errors are a few times those of the plain sum: some 1e-6 of the largest value with
windows of 3 x 3, some 5e-6 with 5 x 5.

The weights' gradient is that of the formula above::

    images     --B^T d B-->  V [places, channels, tiles]    for as many tiles as memory holds
    gradients  --A dY A^T--> W [places, outputs, tiles]
                             dU [outputs, places, channels] += W @ V^T, a product for each place
    dU         --G^T dU G--> dweight

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for
convolutional neural networks", CVPR 2016. The transforms are those of ``winograd_transforms``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.blocks import transpose
from netdef.kernels.geometry import Geometry
from netdef.kernels.microkernel import APART, DEPTH, ROWS, columns, columns_of, multiply_tile
from netdef.kernels.vectors import lanes, lanes_of
from netdef.kernels.winograd_transforms import (
    POINTS,
    TILE,
    add_windows,
    transform_gradients,
    transform_inputs,
    transform_sums,
    transform_windows,
)

#: Below so many channels or outputs the transforms cost what the saved multiplications bring, or
#: more. (LeNet's twenty channels would gain a little, but leave the order of Caffe's sums.)
FEWEST = 24

#: The weights are transformed in every call: for fewer tiles than this, that is not worth it.
FEWEST_TILES = 32

#: Bounds of a chunk of transformed tiles for a weight gradient, in elements. Small chunks stay in
#: the cache from the transform to the product; but each goes through all of dU, so they are twice
#: as large as that.
LEAST_SCRATCH, MOST_SCRATCH = 1 << 19, 1 << 23

#: Channels that are summed at once, by the taps of a window along an axis. What five taps take to
#: reach a result is larger than that result, so their rounding errors are kept from adding up.
CHANNELS_AT_ONCE = {3: DEPTH, 5: DEPTH // 4}


class _Sizes(NamedTuple):
    """Of the image and the output in two axes; the inputs that a tile sees; and the elements from
    one output to the next in U and dU.

    That row, and the steps from place to place in V, M and W, are APART elements longer than what
    they hold: else the rows of a tile, or all its places, would share lines of the cache wherever
    channels are a power of two.
    """

    image_height: int
    image_width: int
    height: int
    width: int
    pad_y: int
    pad_x: int
    places: int
    u_row: int


def suits(g: Geometry, count: int, itemsize: int) -> bool:
    """Whether a batch of ``count`` images is convolved faster this way."""
    e = g.extents
    if g.window not in [(taps, taps) for taps in POINTS]:
        return False
    return (
        g.stride == (1, 1)
        and g.dilation == (1, 1)
        and min(e.channels, e.outputs) >= FEWEST
        and count * _tiles_of(g) >= FEWEST_TILES
        # A line of tiles is taken apart by vectors of as many elements as a tile is wide, or more.
        and lanes_of(itemsize) >= TILE
    )


def _tiles_of(g: Geometry) -> int:
    """Tiles of an image."""
    return math.prod(-(-n // TILE) for n in g.output)


def _sizes_of(g: Geometry) -> _Sizes:
    places = math.prod(TILE + taps - 1 for taps in g.window)
    (image_height, image_width), (height, width), (pad_y, pad_x) = g.image, g.output, g.pad
    u_row = places * g.extents.channels + APART
    return _Sizes(image_height, image_width, height, width, pad_y, pad_x, places, u_row)


def multiply(g: Geometry, x: Array, weight: Array, y: Array, epilogue: Any, turned: bool) -> None:
    """y = the convolution of x with weight; all arrays are flat.

    With ``turned`` the weights are those of the convolution whose ``flipped`` geometry this is: so
    y is its data gradient.
    """
    e, sizes = g.extents, _sizes_of(g)
    if not y.size:
        return
    transformed = e.groups * e.outputs * sizes.u_row
    panel = sizes.places * ((e.channels + e.outputs) * columns_of(y.itemsize) + 2 * APART)
    # The last row of sums is read by whole vectors.
    work = workspace(transformed + num_threads() * panel + columns_of(y.itemsize), y.dtype)
    _transform_weights(e, sizes, weight, turned, work)
    at_once = CHANNELS_AT_ONCE[e.reach]
    _multiply(e, sizes, at_once, x, y, epilogue, work, transformed, num_threads())


@kernel
def _transform_weights(e: Any, sizes: Any, weight: Any, turned: Any, transformed: Any) -> None:
    """U = G g G^T of every window, [groups, outputs, places, channels]."""
    like = weight.dtype.type(0)
    size = weight.itemsize
    window = e.window
    row_step = window if turned else e.channels * window
    column_step = e.outputs * window if turned else window
    for row in prange(e.groups * e.outputs):
        first = row // e.outputs * e.outputs * e.channels * window + row % e.outputs * row_step
        target = row * sizes.u_row
        for column in range(0, e.channels, lanes(like)):
            transform_windows(
                like,
                e.reach,
                weight.ctypes.data + (first + column * column_step) * size,
                column_step,
                1 if turned else 0,
                transformed.ctypes.data + (target + column) * size,
                e.channels,
                e.channels - column,
            )


@kernel
def _multiply(
    e: Any,
    sizes: Any,
    at_once: Any,
    x: Any,
    y: Any,
    epilogue: Any,
    work: Any,
    transformed: Any,
    workers: Any,
) -> None:
    """``work``: U, then V and M of each worker's panel."""
    like = y.dtype.type(0)
    size = y.itemsize
    wide = columns(like)
    count = y.size // (e.groups * e.outputs * e.positions)
    tall, across = _lines_of_tiles(sizes)
    total = count * tall * across
    panels = (total + wide - 1) // wide
    row_tiles = (e.outputs + ROWS - 1) // ROWS
    shares = 1
    if panels * e.groups < workers:
        shares = min(row_tiles, (workers + panels * e.groups - 1) // (panels * e.groups))
    jobs = e.groups * panels * shares
    v_step, m_step = e.channels * wide + APART, e.outputs * wide + APART
    for worker in prange(workers):
        v = transformed + worker * sizes.places * (v_step + m_step)
        m = v + sizes.places * v_step
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            group = job // (panels * shares)
            share = job % shares
            first_row = share * row_tiles // shares * ROWS
            end_row = min(e.outputs, (share + 1) * row_tiles // shares * ROWS)
            first = job // shares % panels * wide
            tiles = min(wide, total - first)

            lane = 0
            while lane < tiles:
                run = _run(sizes, like, first + lane, tiles - lane)
                _inputs(e, sizes, x, group, run, work, v + lane, wide, v_step)
                lane += run.tiles

            for place in range(sizes.places):
                u = group * e.outputs * sizes.u_row + place * e.channels
                for c in range(0, e.channels, at_once):
                    for row in range(first_row, end_row, ROWS):
                        a = u + row * sizes.u_row + c
                        multiply_tile(
                            like,
                            min(at_once, e.channels - c),
                            work.ctypes.data + a * size,
                            sizes.u_row,
                            1,
                            work.ctypes.data + (v + place * v_step + c * wide) * size,
                            wide,
                            work.ctypes.data + (m + place * m_step + row * wide) * size,
                            wide,
                            min(ROWS, end_row - row),
                            tiles,
                            c,
                        )

            lane = 0
            while lane < tiles:
                run = _run(sizes, like, first + lane, tiles - lane)
                for row in range(first_row, end_row):
                    _sums(
                        e, sizes, work, m + row * wide + lane, m_step, group, row, run, y, epilogue
                    )
                lane += run.tiles


def add_weights(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient, from images x and the output gradient dy; all arrays are flat."""
    e, sizes = g.extents, _sizes_of(g)
    wide = columns_of(x.itemsize)
    total = dy.size // (e.groups * e.outputs * e.positions) * _tiles_of(g)
    sums = e.outputs * sizes.u_row
    each = sizes.places * (e.outputs + e.channels)
    scratch = min(max(2 * sums, LEAST_SCRATCH), MOST_SCRATCH)
    chunk = min(total, max(wide, scratch // each // wide * wide))
    # A distance between rows that is no power of two: those would share a place in the cache.
    row = -(-chunk // wide) * wide + wide // 2
    transformed = each * row + 2 * sizes.places * APART
    work = workspace(sums + transformed + num_threads() * DEPTH * wide, x.dtype)
    for group in range(e.groups):
        for first in range(0, total, chunk):
            tiles = min(chunk, total - first)
            _transform_tiles(e, sizes, group, first, tiles, row, x, dy, work, sums)
            _add_products(e, sizes, first, tiles, row, work, sums, num_threads())
        _add_windows(e, sizes, group, work, dweight)


@kernel
def _transform_tiles(
    e: Any,
    sizes: Any,
    group: Any,
    first: Any,
    tiles: Any,
    row: Any,
    x: Any,
    dy: Any,
    work: Any,
    sums: Any,
) -> None:
    """V [places, channels, row] and W [places, outputs, row], which stand behind dU in ``work``."""
    like = x.dtype.type(0)
    wide = columns(like)
    v_step, w_step = e.channels * row + APART, e.outputs * row + APART
    w = sums + sizes.places * v_step
    for panel in prange((tiles + wide - 1) // wide):
        lane = panel * wide
        end = min(tiles, lane + wide)
        while lane < end:
            run = _run(sizes, like, first + lane, end - lane)
            _inputs(e, sizes, x, group, run, work, sums + lane, row, v_step)
            _gradients(e, sizes, dy, group, run, work, w + lane, row, w_step)
            lane += run.tiles


@kernel
def _add_products(
    e: Any,
    sizes: Any,
    first: Any,
    tiles: Any,
    row: Any,
    work: Any,
    sums: Any,
    workers: Any,
) -> None:
    """dU += W V^T for every place; for the first tiles dU = W V^T."""
    like = work.dtype.type(0)
    size = work.itemsize
    wide = columns(like)
    panels = (e.channels + wide - 1) // wide
    jobs = sizes.places * panels
    v_step, w_step = e.channels * row + APART, e.outputs * row + APART
    w = sums + sizes.places * v_step
    for worker in prange(workers):
        panel = w + sizes.places * w_step + worker * DEPTH * wide
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            place = job // panels
            channel = job % panels * wide
            count = min(wide, e.channels - channel)
            for tile in range(0, tiles, DEPTH):
                steps = min(DEPTH, tiles - tile)
                v = sums + place * v_step + channel * row + tile
                transpose(
                    like,
                    work.ctypes.data + panel * size,
                    wide,
                    work.ctypes.data + v * size,
                    row,
                    count,
                    steps,
                )
                for output in range(0, e.outputs, ROWS):
                    a = w + place * w_step + output * row + tile
                    c = output * sizes.u_row + place * e.channels + channel
                    multiply_tile(
                        like,
                        steps,
                        work.ctypes.data + a * size,
                        row,
                        1,
                        work.ctypes.data + panel * size,
                        wide,
                        work.ctypes.data + c * size,
                        sizes.u_row,
                        min(ROWS, e.outputs - output),
                        count,
                        first + tile,
                    )


@kernel
def _add_windows(e: Any, sizes: Any, group: Any, work: Any, dweight: Any) -> None:
    """dweight += G^T dU G of every window of a group."""
    like = work.dtype.type(0)
    size = work.itemsize
    for output in prange(e.outputs):
        for channel in range(0, e.channels, lanes(like)):
            target = ((group * e.outputs + output) * e.channels + channel) * e.window
            add_windows(
                like,
                e.reach,
                work.ctypes.data + (output * sizes.u_row + channel) * size,
                e.channels,
                dweight.ctypes.data + target * size,
                e.channels - channel,
            )


class _Run(NamedTuple):
    """Neighbouring tiles on a line of them."""

    image: int
    line: int
    column: int
    tiles: int


@inline
def _lines_of_tiles(sizes: Any) -> Any:
    """Lines of tiles in an image, and tiles on each."""
    return (sizes.height + TILE - 1) // TILE, (sizes.width + TILE - 1) // TILE


@inline
def _run(sizes: Any, like: Any, tile: Any, most: Any) -> Any:
    """The tiles from one on that share its line, a vector of them or ``most``."""
    tall, across = _lines_of_tiles(sizes)
    line = tile // across
    column = tile - line * across
    image = line // tall
    return _Run(image, line - image * tall, column, min(min(across - column, most), lanes(like)))


@inline
def _narrow(sizes: Any, like: Any) -> Any:
    """1 where half a vector of four lanes or more holds a line of tiles, else 0."""
    _, across = _lines_of_tiles(sizes)
    return 1 if lanes(like) >= 2 * TILE and 2 * across <= lanes(like) else 0


@inline
def _inputs(
    e: Any,
    sizes: Any,
    x: Any,
    group: Any,
    run: Any,
    work: Any,
    target: Any,
    target_row: Any,
    target_step: Any,
) -> None:
    """The columns of V, from ``target`` on, that a run of tiles has."""
    like = x.dtype.type(0)
    size = x.itemsize
    top = TILE * run.line - sizes.pad_y
    left = TILE * run.column - sizes.pad_x
    plane = (run.image * e.groups + group) * e.channels * e.plane
    transform_inputs(
        like,
        e.reach,
        _narrow(sizes, like),
        x.ctypes.data + (plane + top * sizes.image_width + left) * size,
        sizes.image_width,
        e.plane,
        -top,
        sizes.image_height - top,
        -left,
        min(sizes.image_width - left, TILE * run.tiles + e.reach - 1),
        work.ctypes.data + target * size,
        target_row,
        target_step,
        e.channels,
        run.tiles,
    )


@inline
def _gradients(
    e: Any,
    sizes: Any,
    dy: Any,
    group: Any,
    run: Any,
    work: Any,
    target: Any,
    target_row: Any,
    target_step: Any,
) -> None:
    """The columns of W, from ``target`` on, that a run of tiles has."""
    like = dy.dtype.type(0)
    size = dy.itemsize
    plane = (run.image * e.groups + group) * e.outputs * e.positions
    transform_gradients(
        like,
        e.reach,
        _narrow(sizes, like),
        dy.ctypes.data + (plane + TILE * (run.line * sizes.width + run.column)) * size,
        sizes.width,
        e.positions,
        sizes.height - TILE * run.line,
        min(sizes.width - TILE * run.column, TILE * run.tiles),
        work.ctypes.data + target * size,
        target_row,
        target_step,
        e.outputs,
        run.tiles,
    )


@inline
def _sums(
    e: Any,
    sizes: Any,
    work: Any,
    source: Any,
    source_step: Any,
    group: Any,
    row: Any,
    run: Any,
    y: Any,
    epilogue: Any,
) -> None:
    """What a run of tiles has of one output of a group, from the columns of M at ``source``."""
    like = y.dtype.type(0)
    size = y.itemsize
    output = group * e.outputs + row
    at = (run.image * e.groups * e.outputs + output) * e.positions
    at += TILE * (run.line * sizes.width + run.column)
    adds = epilogue.addend.size > 0
    addend = epilogue.addend if adds else y
    transform_sums(
        like,
        e.reach,
        _narrow(sizes, like),
        work.ctypes.data + source * size,
        source_step,
        y.ctypes.data + at * size,
        sizes.width,
        sizes.height - TILE * run.line,
        min(sizes.width - TILE * run.column, TILE * run.tiles),
        epilogue.scale[output] if epilogue.scale.size > 0 else y.dtype.type(1),
        epilogue.bias[output] if epilogue.bias.size > 0 else like,
        like if epilogue.rectify else y.dtype.type(-np.inf),
        addend.ctypes.data + at * size,
        1 if adds else 0,
    )
