"""Convolution with windows of 3 x 3 or 5 x 5 and stride 1 by Winograd's minimal filtering.

A tile of outputs sees 6 x 6 inputs: 4 x 4 outputs of a 3 x 3 window, which is F(4 x 4, 3 x 3), or
2 x 2 of a 5 x 5 one, F(2 x 2, 5 x 5). With d the inputs, g the window and @ the product of
matrices, element by element where it is *::

    Y = A^T @ ( (G @ g @ G^T) * (B^T @ d @ B) ) @ A    36 multiplications in place of 144, or of 100

The product in the middle is summed over channels, so it is a matrix product for each of the 36
places; around it, inputs, weights and sums are transformed, with additions and small factors::

    images  --B^T d B-->  V [36, channels, tiles]   a panel of tiles at a time, in a job's scratch
    weights --G g G^T-->  U [outputs, 36, channels] once per call
                          M [36, outputs, tiles]  = U @ V, one product for each place
    M       --A^T M A-->  y, with bias, scale, addition and ReLU on the way

Tiles stand in the lanes of vectors: neighbours on a line of tiles, line after line, image after
image. Rounding errors are a few times those of the plain sum: some 1e-6 of the largest value.

The weights' gradient is that of the formula above::

    images     --B^T d B-->  V [36, channels, tiles]    for as many tiles as scratch memory holds
    gradients  --A dY A^T--> W [36, outputs, tiles]
                             dU [outputs, 36, channels] += W @ V^T, one product for each place
    dU         --G^T dU G--> dweight

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for
convolutional neural networks", CVPR 2016. The transforms are those of ``winograd_transforms``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.geometry import Geometry
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile
from netdef.kernels.vectors import lanes, lanes_of, transpose_block
from netdef.kernels.winograd_transforms import (
    PLACES,
    SEEN,
    add_windows_3,
    add_windows_5,
    transform_gradients_2,
    transform_gradients_2_half,
    transform_gradients_4,
    transform_gradients_4_half,
    transform_inputs_2,
    transform_inputs_2_half,
    transform_inputs_4,
    transform_inputs_4_half,
    transform_sums_2,
    transform_sums_2_half,
    transform_sums_4,
    transform_sums_4_half,
    transform_windows_3,
    transform_windows_5,
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


def suits(g: Geometry, count: int, itemsize: int) -> bool:
    """Whether a batch of ``count`` images is convolved faster this way."""
    e = g.extents
    if g.window not in ((3, 3), (5, 5)) or g.stride != (1, 1) or g.dilation != (1, 1):
        return False
    tiles = count * math.prod(-(-n // tile_of(g)) for n in g.output)
    return (
        min(e.channels, e.outputs) >= FEWEST
        and tiles >= FEWEST_TILES
        # A line of tiles is taken apart by vectors of four elements or more.
        and lanes_of(itemsize) >= 4
    )


def tile_of(g: Geometry) -> int:
    """Outputs of a tile along an axis."""
    return SEEN + 1 - g.window[0]


def multiply(g: Geometry, x: Array, weight: Array, y: Array, epilogue: Any, turned: bool) -> None:
    """y = the convolution of x with weight; all arrays are flat.

    With ``turned`` the weights are those of the convolution whose ``flipped`` geometry this is: so
    y is its data gradient.
    """
    e = g.extents
    if not y.size:
        return
    transformed = PLACES * e.groups * e.outputs * e.channels
    panel = PLACES * (e.channels + e.outputs) * columns_of(y.itemsize)
    # The last row of sums is read by whole vectors.
    work = workspace(transformed + num_threads() * panel + columns_of(y.itemsize), y.dtype)
    _transform_weights(e, weight, turned, work)
    sizes = (*g.image, *g.output, *g.pad, tile_of(g))
    _multiply(e, sizes, x, y, epilogue, work, transformed, num_threads())


@kernel
def _transform_weights(e: Any, weight: Any, turned: Any, transformed: Any) -> None:
    """U = G g G^T of every window, [groups, outputs, places, channels]."""
    like = weight.dtype.type(0)
    size = weight.itemsize
    wide = lanes(like)
    window = e.window
    row_step = window if turned else e.channels * window
    column_step = e.outputs * window if turned else window
    for row in prange(e.groups * e.outputs):
        first = row // e.outputs * e.outputs * e.channels * window + row % e.outputs * row_step
        target = row * PLACES * e.channels
        for column in range(0, e.channels, wide):
            _windows(
                window,
                like,
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
    image_height, image_width, height, width, pad_y, pad_x, side = sizes
    tall, across = (height + side - 1) // side, (width + side - 1) // side
    narrow = _fits_half(like, across)
    count = y.size // (e.groups * e.outputs * e.positions)
    total = count * tall * across
    panels = (total + wide - 1) // wide
    row_tiles = (e.outputs + ROWS - 1) // ROWS
    shares = 1
    if panels * e.groups < workers:
        shares = min(row_tiles, (workers + panels * e.groups - 1) // (panels * e.groups))
    jobs = e.groups * panels * shares
    floor = like if epilogue.rectify else y.dtype.type(-np.inf)
    for worker in prange(workers):
        v = transformed + worker * PLACES * (e.channels + e.outputs) * wide
        m = v + PLACES * e.channels * wide
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            group = job // (panels * shares)
            share = job % shares
            first_row = share * row_tiles // shares * ROWS
            end_row = min(e.outputs, (share + 1) * row_tiles // shares * ROWS)
            first = job // shares % panels * wide
            tiles = min(wide, total - first)

            lane = 0
            while lane < tiles:
                n, line, column, run = _run(first + lane, tiles - lane, tall, across, lanes(like))
                top = side * line - pad_y
                left = side * column - pad_x
                plane = (n * e.groups + group) * e.channels * e.plane
                source = x.ctypes.data + (plane + top * image_width + left) * size
                target = work.ctypes.data + (v + lane) * size
                for _ in range(e.channels):
                    _inputs(
                        side,
                        narrow,
                        like,
                        source,
                        image_width,
                        -top,
                        image_height - top,
                        -left,
                        min(image_width - left, side * (run - 1) + SEEN),
                        target,
                        e.channels * wide,
                        run,
                    )
                    source += e.plane * size
                    target += wide * size
                lane += run

            for place in range(PLACES):
                u = (group * e.outputs * PLACES + place) * e.channels
                for c in range(0, e.channels, DEPTH):
                    for row in range(first_row, end_row, ROWS):
                        multiply_tile(
                            like,
                            min(DEPTH, e.channels - c),
                            work.ctypes.data + (u + row * PLACES * e.channels + c) * size,
                            PLACES * e.channels,
                            1,
                            work.ctypes.data + (v + (place * e.channels + c) * wide) * size,
                            wide,
                            work.ctypes.data + (m + (place * e.outputs + row) * wide) * size,
                            wide,
                            min(ROWS, end_row - row),
                            tiles,
                            c,
                        )

            lane = 0
            while lane < tiles:
                n, line, column, run = _run(first + lane, tiles - lane, tall, across, lanes(like))
                for row in range(first_row, end_row):
                    output = group * e.outputs + row
                    at = (n * e.groups * e.outputs + output) * e.positions
                    at += side * (line * width + column)
                    adds = epilogue.addend.size > 0
                    addend = epilogue.addend if adds else y
                    _sums(
                        side,
                        narrow,
                        like,
                        work.ctypes.data + (m + row * wide + lane) * size,
                        e.outputs * wide,
                        y.ctypes.data + at * size,
                        width,
                        height - side * line,
                        min(width - side * column, side * run),
                        epilogue.scale[output] if epilogue.scale.size > 0 else y.dtype.type(1),
                        epilogue.bias[output] if epilogue.bias.size > 0 else like,
                        floor,
                        addend.ctypes.data + at * size,
                        1 if adds else 0,
                    )
                lane += run


def add_weights(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient, from images x and the output gradient dy; all arrays are flat."""
    e = g.extents
    wide = columns_of(x.itemsize)
    count = dy.size // (e.groups * e.outputs * e.positions)
    total = count * math.prod(-(-n // tile_of(g)) for n in g.output)
    sums = PLACES * e.outputs * e.channels
    each = PLACES * (e.outputs + e.channels)
    scratch = min(max(2 * sums, LEAST_SCRATCH), MOST_SCRATCH)
    chunk = min(total, max(wide, scratch // each // wide * wide))
    # A distance between rows that is no power of two: those would share a place in the cache.
    row = -(-chunk // wide) * wide + wide // 2
    work = workspace(sums + each * row + num_threads() * DEPTH * wide, x.dtype)
    sizes = (*g.image, *g.output, *g.pad, tile_of(g))
    for group in range(e.groups):
        for first in range(0, total, chunk):
            tiles = min(chunk, total - first)
            _transform_tiles(e, sizes, group, first, tiles, row, x, dy, work, sums)
            _add_products(e, first, tiles, row, work, sums, num_threads())
        _add_windows(e, group, work, dweight)


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
    """V [36, channels, row] and W [36, outputs, row], which stand behind dU in ``work``."""
    like = x.dtype.type(0)
    size = x.itemsize
    wide = columns(like)
    image_height, image_width, height, width, pad_y, pad_x, side = sizes
    tall, across = (height + side - 1) // side, (width + side - 1) // side
    narrow = _fits_half(like, across)
    for panel in prange((tiles + wide - 1) // wide):
        lane = panel * wide
        end = min(tiles, lane + wide)
        while lane < end:
            n, line, column, run = _run(first + lane, end - lane, tall, across, lanes(like))
            top = side * line - pad_y
            left = side * column - pad_x
            plane = (n * e.groups + group) * e.channels * e.plane
            source = x.ctypes.data + (plane + top * image_width + left) * size
            target = work.ctypes.data + (sums + lane) * size
            for _ in range(e.channels):
                _inputs(
                    side,
                    narrow,
                    like,
                    source,
                    image_width,
                    -top,
                    image_height - top,
                    -left,
                    min(image_width - left, side * (run - 1) + SEEN),
                    target,
                    e.channels * row,
                    run,
                )
                source += e.plane * size
                target += row * size
            plane = (n * e.groups + group) * e.outputs * e.positions
            source = dy.ctypes.data + (plane + side * (line * width + column)) * size
            target = work.ctypes.data + (sums + PLACES * e.channels * row + lane) * size
            for _ in range(e.outputs):
                _gradients(
                    side,
                    narrow,
                    like,
                    source,
                    width,
                    height - side * line,
                    min(width - side * column, side * run),
                    target,
                    e.outputs * row,
                    run,
                )
                source += e.positions * size
                target += row * size
            lane += run


@kernel
def _add_products(
    e: Any, first: Any, tiles: Any, row: Any, work: Any, sums: Any, workers: Any
) -> None:
    """dU += W V^T for every place; for the first tiles dU = W V^T."""
    like = work.dtype.type(0)
    size = work.itemsize
    wide = columns(like)
    panels = (e.channels + wide - 1) // wide
    jobs = PLACES * panels
    w = sums + PLACES * e.channels * row
    for worker in prange(workers):
        panel = w + PLACES * e.outputs * row + worker * DEPTH * wide
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            place = job // panels
            channel = job % panels * wide
            count = min(wide, e.channels - channel)
            for tile in range(0, tiles, DEPTH):
                steps = min(DEPTH, tiles - tile)
                v = sums + (place * e.channels + channel) * row + tile
                for i in range(0, count, lanes(like)):
                    for j in range(0, steps, lanes(like)):
                        transpose_block(
                            like,
                            work.ctypes.data + (panel + j * wide + i) * size,
                            wide,
                            work.ctypes.data + (v + i * row + j) * size,
                            row,
                            count - i,
                            steps - j,
                        )
                for output in range(0, e.outputs, ROWS):
                    a = w + (place * e.outputs + output) * row + tile
                    c = (output * PLACES + place) * e.channels + channel
                    multiply_tile(
                        like,
                        steps,
                        work.ctypes.data + a * size,
                        row,
                        1,
                        work.ctypes.data + panel * size,
                        wide,
                        work.ctypes.data + c * size,
                        PLACES * e.channels,
                        min(ROWS, e.outputs - output),
                        count,
                        first + tile,
                    )


@kernel
def _add_windows(e: Any, group: Any, work: Any, dweight: Any) -> None:
    """dweight += G^T dU G of every window of a group."""
    like = work.dtype.type(0)
    size = work.itemsize
    wide = lanes(like)
    for output in prange(e.outputs):
        for channel in range(0, e.channels, wide):
            target = ((group * e.outputs + output) * e.channels + channel) * e.window
            _add(
                e.window,
                like,
                work.ctypes.data + (output * PLACES * e.channels + channel) * size,
                e.channels,
                dweight.ctypes.data + target * size,
                e.channels - channel,
            )


@inline
def _fits_half(like: Any, across: Any) -> Any:
    """Whether half a vector, if it has four lanes, holds a line of tiles."""
    return lanes(like) >= 8 and 2 * across <= lanes(like)


@inline
def _run(tile: Any, most: Any, tall: Any, across: Any, wide: Any) -> Any:
    """(image, line of tiles, first column, how many) of neighbours from a tile on."""
    line = tile // across
    column = tile - line * across
    n = line // tall
    return n, line - n * tall, column, min(min(across - column, most), wide)


# The transforms of either size: tiles of 4 x 4 belong to windows of 3 x 3, of 2 x 2 to 5 x 5.


@inline
def _windows(
    window: Any,
    like: Any,
    source: Any,
    source_step: Any,
    turned: Any,
    target: Any,
    target_step: Any,
    count: Any,
) -> None:
    """See ``transform_windows``."""
    if window == 9:
        transform_windows_3(like, source, source_step, turned, target, target_step, count)
    else:
        transform_windows_5(like, source, source_step, turned, target, target_step, count)


@inline
def _inputs(
    side: Any,
    narrow: Any,
    like: Any,
    source: Any,
    source_row: Any,
    top: Any,
    bottom: Any,
    low: Any,
    high: Any,
    target: Any,
    target_step: Any,
    count: Any,
) -> None:
    """See ``transform_inputs``."""
    if narrow:
        if side == 4:
            transform_inputs_4_half(
                like, source, source_row, top, bottom, low, high, target, target_step, count
            )
        else:
            transform_inputs_2_half(
                like, source, source_row, top, bottom, low, high, target, target_step, count
            )
    elif side == 4:
        transform_inputs_4(
            like, source, source_row, top, bottom, low, high, target, target_step, count
        )
    else:
        transform_inputs_2(
            like, source, source_row, top, bottom, low, high, target, target_step, count
        )


@inline
def _sums(
    side: Any,
    narrow: Any,
    like: Any,
    source: Any,
    source_step: Any,
    target: Any,
    target_row: Any,
    rows: Any,
    columns: Any,
    scale: Any,
    bias: Any,
    floor: Any,
    addend: Any,
    adds: Any,
) -> None:
    """See ``transform_sums``."""
    if narrow:
        if side == 4:
            transform_sums_4_half(
                like,
                source,
                source_step,
                target,
                target_row,
                rows,
                columns,
                scale,
                bias,
                floor,
                addend,
                adds,
            )
        else:
            transform_sums_2_half(
                like,
                source,
                source_step,
                target,
                target_row,
                rows,
                columns,
                scale,
                bias,
                floor,
                addend,
                adds,
            )
    elif side == 4:
        transform_sums_4(
            like,
            source,
            source_step,
            target,
            target_row,
            rows,
            columns,
            scale,
            bias,
            floor,
            addend,
            adds,
        )
    else:
        transform_sums_2(
            like,
            source,
            source_step,
            target,
            target_row,
            rows,
            columns,
            scale,
            bias,
            floor,
            addend,
            adds,
        )


@inline
def _gradients(
    side: Any,
    narrow: Any,
    like: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
    target: Any,
    target_step: Any,
    count: Any,
) -> None:
    """See ``transform_gradients``."""
    if narrow:
        if side == 4:
            transform_gradients_4_half(
                like, source, source_row, rows, columns, target, target_step, count
            )
        else:
            transform_gradients_2_half(
                like, source, source_row, rows, columns, target, target_step, count
            )
    elif side == 4:
        transform_gradients_4(like, source, source_row, rows, columns, target, target_step, count)
    else:
        transform_gradients_2(like, source, source_row, rows, columns, target, target_step, count)


@inline
def _add(window: Any, like: Any, source: Any, source_step: Any, target: Any, count: Any) -> None:
    """See ``add_windows``."""
    if window == 9:
        add_windows_3(like, source, source_step, target, count)
    else:
        add_windows_5(like, source, source_step, target, count)
