"""Convolution with 3 x 3 windows and stride 1 by Winograd's minimal filtering, F(4 x 4, 3 x 3).

A tile of 4 x 4 outputs sees 6 x 6 inputs. With d the inputs, g the window and @ the product of
matrices, element by element where it is *::

    Y = A^T @ ( (G @ g @ G^T) * (B^T @ d @ B) ) @ A           36 multiplications in place of 144

The product in the middle is summed over channels, so it is a matrix product for each of the 36
places; around it, inputs, weights and sums are transformed, with additions and small factors::

    images  --B^T d B-->  V [36, channels, tiles]   a panel of tiles at a time, in a job's scratch
    weights --G g G^T-->  U [outputs, 36, channels] once per call
                          M [36, outputs, tiles]  = U @ V, one product for each place
    M       --A^T M A-->  y, with bias, scale, addition and ReLU on the way

Tiles stand in the lanes of vectors: neighbours on a line of tiles, line after line, image after
image. Rounding errors are some ten times those of the plain sum: about 1e-6 of the largest value.

The weights' gradient is that of the formula above::

    images     --B^T d B-->  V [36, channels, tiles]    for as many tiles as scratch memory holds
    gradients  --A dY A^T--> W [36, outputs, tiles]
                             dU [outputs, 36, channels] += W @ V^T, one product for each place
    dU         --G^T dU G--> dweight

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for
convolutional neural networks", CVPR 2016, whose matrices these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.blob import Array
from netdef.jit import inline, kernel, num_threads, prange, workspace
from netdef.kernels.geometry import Geometry
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of, multiply_tile
from netdef.kernels.vectors import Vectors, lanes, transpose_block

#: Outputs of a tile, inputs it sees, and their number, per axis and in the plane.
TILE, SEEN, PLACES = 4, 6, 36

#: Below so many channels or outputs the transforms cost more than the multiplications they save.
FEWEST = 32

#: The weights are transformed in every call: for fewer tiles than this, that is not worth it.
FEWEST_TILES = 32

#: Scratch for transformed tiles of a weight gradient, in elements: a batch is taken in chunks that
#: fit.
SCRATCH = 1 << 23


def suits(g: Geometry, count: int) -> bool:
    """Whether a batch of ``count`` images is convolved faster this way."""
    e = g.extents
    return (
        g.window == (3, 3)
        and g.stride == (1, 1)
        and g.dilation == (1, 1)
        and min(e.channels, e.outputs) >= FEWEST
        and count * -(-g.output[0] // TILE) * -(-g.output[1] // TILE) >= FEWEST_TILES
    )


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
    _multiply(e, (*g.image, *g.output, *g.pad), x, y, epilogue, work, transformed, num_threads())


@kernel
def _transform_weights(e: Any, weight: Any, turned: Any, transformed: Any) -> None:
    """U = G g G^T of every window, [groups, outputs, places, channels]."""
    like = weight.dtype.type(0)
    size = weight.itemsize
    wide = lanes(like)
    row_step, column_step = (9, e.outputs * 9) if turned else (e.channels * 9, 9)
    for row in prange(e.groups * e.outputs):
        first = row // e.outputs * e.outputs * e.channels * 9 + row % e.outputs * row_step
        target = row * 36 * e.channels
        for column in range(0, e.channels, wide):
            transform_windows(
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
    image_height, image_width, height, width, pad_y, pad_x = sizes
    tall, across = (height + 3) // 4, (width + 3) // 4
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
        v = transformed + worker * 36 * (e.channels + e.outputs) * wide
        m = v + 36 * e.channels * wide
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
                top = 4 * line - pad_y
                left = 4 * column - pad_x
                plane = (n * e.groups + group) * e.channels * e.plane
                source = x.ctypes.data + (plane + top * image_width + left) * size
                target = work.ctypes.data + (v + lane) * size
                for _ in range(e.channels):
                    transform_inputs(
                        like,
                        source,
                        image_width,
                        -top,
                        image_height - top,
                        -left,
                        min(image_width - left, 4 * run + 2),
                        target,
                        e.channels * wide,
                        run,
                    )
                    source += e.plane * size
                    target += wide * size
                lane += run

            for place in range(36):
                u = (group * e.outputs * 36 + place) * e.channels
                for c in range(0, e.channels, DEPTH):
                    for row in range(first_row, end_row, ROWS):
                        multiply_tile(
                            like,
                            min(DEPTH, e.channels - c),
                            work.ctypes.data + (u + row * 36 * e.channels + c) * size,
                            36 * e.channels,
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
                    at += 4 * line * width + 4 * column
                    adds = epilogue.addend.size > 0
                    addend = epilogue.addend if adds else y
                    transform_sums(
                        like,
                        work.ctypes.data + (m + row * wide + lane) * size,
                        e.outputs * wide,
                        y.ctypes.data + at * size,
                        width,
                        height - 4 * line,
                        min(width - 4 * column, 4 * run),
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
    total = count * -(-g.output[0] // TILE) * -(-g.output[1] // TILE)
    sums = PLACES * e.outputs * e.channels
    each = PLACES * (e.outputs + e.channels)
    chunk = min(total, max(wide, SCRATCH // each // wide * wide))
    # A distance between rows that is no power of two: those would share a place in the cache.
    row = -(-chunk // wide) * wide + wide // 2
    work = workspace(sums + each * row + num_threads() * DEPTH * wide, x.dtype)
    sizes = (*g.image, *g.output, *g.pad)
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
    image_height, image_width, height, width, pad_y, pad_x = sizes
    tall, across = (height + 3) // 4, (width + 3) // 4
    for panel in prange((tiles + wide - 1) // wide):
        lane = panel * wide
        end = min(tiles, lane + wide)
        while lane < end:
            n, line, column, run = _run(first + lane, end - lane, tall, across, lanes(like))
            top = 4 * line - pad_y
            left = 4 * column - pad_x
            plane = (n * e.groups + group) * e.channels * e.plane
            source = x.ctypes.data + (plane + top * image_width + left) * size
            target = work.ctypes.data + (sums + lane) * size
            for _ in range(e.channels):
                transform_inputs(
                    like,
                    source,
                    image_width,
                    -top,
                    image_height - top,
                    -left,
                    min(image_width - left, 4 * run + 2),
                    target,
                    e.channels * row,
                    run,
                )
                source += e.plane * size
                target += row * size
            plane = (n * e.groups + group) * e.outputs * e.positions
            source = dy.ctypes.data + (plane + 4 * line * width + 4 * column) * size
            target = work.ctypes.data + (sums + 36 * e.channels * row + lane) * size
            for _ in range(e.outputs):
                transform_gradients(
                    like,
                    source,
                    width,
                    height - 4 * line,
                    min(width - 4 * column, 4 * run),
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
    jobs = 36 * panels
    w = sums + 36 * e.channels * row
    for worker in prange(workers):
        panel = w + 36 * e.outputs * row + worker * DEPTH * wide
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
                    c = (output * 36 + place) * e.channels + channel
                    multiply_tile(
                        like,
                        steps,
                        work.ctypes.data + a * size,
                        row,
                        1,
                        work.ctypes.data + panel * size,
                        wide,
                        work.ctypes.data + c * size,
                        36 * e.channels,
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
            target = ((group * e.outputs + output) * e.channels + channel) * 9
            add_windows(
                like,
                work.ctypes.data + (output * 36 * e.channels + channel) * size,
                e.channels,
                dweight.ctypes.data + target * size,
                e.channels - channel,
            )


@inline
def _run(tile: Any, most: Any, tall: Any, across: Any, wide: Any) -> Any:
    """(image, line of tiles, first column, how many) of neighbours from a tile on."""
    line = tile // across
    column = tile - line * across
    n = line // tall
    return n, line - n * tall, column, min(min(across - column, most), wide)


# -- transforms, in registers ----------------------------------------------------------------------


def _sum(builder: Any, vectors: Vectors, terms: list[tuple[float, Any]]) -> Any:
    """The sum of factors times vectors."""
    total = None
    for factor, value in terms:
        if total is None:
            total = value if factor == 1 else builder.fmul(_all(vectors, factor), value)
        elif factor == 1:
            total = builder.fadd(total, value)
        elif factor == -1:
            total = builder.fsub(total, value)
        else:
            total = vectors.fma(builder, _all(vectors, factor), value, total)
    return total


def _all(vectors: Vectors, number: float) -> Any:
    return ir.Constant(vectors.type, [number] * vectors.lanes)


def _inputs(builder: Any, vectors: Vectors, d: list[Any]) -> list[Any]:
    """B^T d, for six vectors."""

    def total(*terms: tuple[float, Any]) -> Any:
        return _sum(builder, vectors, list(terms))

    even, odd = total((1, d[4]), (-4, d[2])), total((1, d[3]), (-4, d[1]))
    near, far = total((1, d[4]), (-1, d[2])), total((2, d[3]), (-2, d[1]))
    return [
        total((1, d[4]), (4, d[0]), (-5, d[2])),
        builder.fadd(even, odd),
        builder.fsub(even, odd),
        builder.fadd(near, far),
        builder.fsub(near, far),
        total((1, d[5]), (4, d[1]), (-5, d[3])),
    ]


def _sums(builder: Any, vectors: Vectors, m: list[Any]) -> list[Any]:
    """A^T m, for six vectors."""

    def total(*terms: tuple[float, Any]) -> Any:
        return _sum(builder, vectors, list(terms))

    near, near_odd = builder.fadd(m[1], m[2]), builder.fsub(m[1], m[2])
    far, far_odd = builder.fadd(m[3], m[4]), builder.fsub(m[3], m[4])
    return [
        total((1, m[0]), (1, near), (1, far)),
        total((1, near_odd), (2, far_odd)),
        total((1, near), (4, far)),
        total((1, near_odd), (8, far_odd), (1, m[5])),
    ]


def _windows(builder: Any, vectors: Vectors, g: list[Any]) -> list[Any]:
    """G g, for three vectors."""

    def total(*terms: tuple[float, Any]) -> Any:
        return _sum(builder, vectors, list(terms))

    outer, far = builder.fadd(g[0], g[2]), total((1 / 24, g[0]), (1 / 6, g[2]))
    return [
        total((1 / 4, g[0])),
        total((-1 / 6, outer), (-1 / 6, g[1])),
        total((-1 / 6, outer), (1 / 6, g[1])),
        total((1, far), (1 / 12, g[1])),
        total((1, far), (-1 / 12, g[1])),
        g[2],
    ]


def _gradients(builder: Any, vectors: Vectors, y: list[Any]) -> list[Any]:
    """A y, for four vectors."""

    def total(*terms: tuple[float, Any]) -> Any:
        return _sum(builder, vectors, list(terms))

    near, near_odd = builder.fadd(y[0], y[2]), builder.fadd(y[1], y[3])
    far, far_odd = total((1, y[0]), (4, y[2])), total((2, y[1]), (8, y[3]))
    return [
        y[0],
        builder.fadd(near, near_odd),
        builder.fsub(near, near_odd),
        builder.fadd(far, far_odd),
        builder.fsub(far, far_odd),
        y[3],
    ]


def _window_sums(builder: Any, vectors: Vectors, u: list[Any]) -> list[Any]:
    """G^T u, for six vectors."""

    def total(*terms: tuple[float, Any]) -> Any:
        return _sum(builder, vectors, list(terms))

    near, near_odd = builder.fadd(u[1], u[2]), builder.fsub(u[2], u[1])
    far, far_odd = builder.fadd(u[3], u[4]), builder.fsub(u[3], u[4])
    return [
        total((1 / 4, u[0]), (-1 / 6, near), (1 / 24, far)),
        total((1 / 6, near_odd), (1 / 12, far_odd)),
        total((1, u[5]), (-1 / 6, near), (1 / 6, far)),
    ]


def _every(vectors: Vectors, first: int) -> list[int]:
    """Every second lane of two vectors, from 0 or 1."""
    return list(range(first, 2 * vectors.lanes, 2))


@intrinsic  # type: ignore[untyped-decorator]
def transform_windows(
    typingctx: Any,
    like: Any,
    source: Any,
    source_step: Any,
    turned: Any,
    target: Any,
    target_step: Any,
    count: Any,
) -> Any:
    """U = G g G^T of ``count`` windows, or as many as a vector has lanes.

    ``source`` is the address of the first window's nine weights, ``source_step`` elements before
    the next one's; they are turned round where ``turned`` is not 0. The 36 vectors go to
    ``target``, ``target_step`` elements apart.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        _, source, source_step, turned, target, target_step, count = args

        def number(n: int) -> Any:
            return ir.Constant(ir.IntType(64), n)

        origin = vectors.pointer(builder, source)
        turns = builder.icmp_signed("!=", turned, number(0))
        taps = [builder.select(turns, number(8 - w), number(w)) for w in range(9)]
        windows = [ir.Constant(vectors.type, ir.Undefined) for _ in taps]
        last = builder.sub(count, number(1))
        for lane in range(vectors.lanes):
            # Lanes behind the last window see it once more.
            exists = builder.icmp_signed("<", number(lane), last)
            window = builder.mul(builder.select(exists, number(lane), last), source_step)
            for w, tap in enumerate(taps):
                value = builder.load(builder.gep(origin, [builder.add(window, tap)]))
                at = ir.Constant(ir.IntType(32), lane)
                windows[w] = builder.insert_element(windows[w], value, at)
        columns = [_windows(builder, vectors, windows[j::3]) for j in range(3)]
        mask = vectors.mask(builder, number(0), count)
        origin = vectors.pointer(builder, target)
        for i in range(SEEN):
            for j, value in enumerate(_windows(builder, vectors, [c[i] for c in columns])):
                offset = builder.mul(target_step, number(i * SEEN + j))
                vectors.store(builder, value, builder.gep(origin, [offset]), mask)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), codegen


@intrinsic  # type: ignore[untyped-decorator]
def transform_inputs(
    typingctx: Any,
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
) -> Any:
    """V = B^T d B of ``count`` neighbouring tiles of one channel, in lanes.

    ``source`` is the address of the first input of the first tile. Of its rows those from ``top``
    to below ``bottom`` exist, of a row's elements those from ``low`` to below ``high``; others are
    0. The 36 vectors go to ``target``, ``target_step`` elements apart.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        _, source, source_row, top, bottom, low, high, target, target_step, count = args
        wide = vectors.lanes

        def number(n: int) -> Any:
            return ir.Constant(ir.IntType(64), n)

        row_bytes = builder.mul(source_row, number(vectors.size))
        rows = []
        for i in range(SEEN):
            exists = builder.and_(
                builder.icmp_signed(">=", number(i), top),
                builder.icmp_signed("<", number(i), bottom),
            )
            end = builder.select(exists, high, low)
            line = builder.add(source, builder.mul(row_bytes, number(i)))
            pieces = _line(builder, vectors, line, low, end, TILE + 1)
            phases = _phases(builder, vectors, pieces)
            # The last two inputs of a tile are the first two of the next one.
            for j in (0, 1):
                following = [*range(1, wide), wide + j]
                phases.append(vectors.shuffle(builder, phases[j], pieces[TILE], following))
            rows.append(_inputs(builder, vectors, phases))
        mask = vectors.mask(builder, number(0), count)
        origin = vectors.pointer(builder, target)
        for j in range(SEEN):
            column = _inputs(builder, vectors, [row[j] for row in rows])
            for i in range(SEEN):
                offset = builder.mul(target_step, number(i * SEEN + j))
                vectors.store(builder, column[i], builder.gep(origin, [offset]), mask)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 9), codegen


def _phases(builder: Any, vectors: Vectors, pieces: list[Any]) -> list[Any]:
    """Of a line in four vectors: lane t of the j-th result is element 4 t + j."""
    halves = [
        [vectors.shuffle(builder, pieces[k], pieces[k + 1], _every(vectors, odd)) for k in (0, 2)]
        for odd in (0, 1)
    ]
    phases = []
    for j in range(TILE):
        first, second = halves[j % 2]
        phases.append(vectors.shuffle(builder, first, second, _every(vectors, j // 2)))
    return phases


@intrinsic  # type: ignore[untyped-decorator]
def transform_gradients(
    typingctx: Any,
    like: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
    target: Any,
    target_step: Any,
    count: Any,
) -> Any:
    """W = A dY A^T of ``count`` neighbouring tiles of one output, in lanes.

    ``source`` is the address of the first tile's first value; ``rows`` and ``columns`` exist behind
    it, or more. The 36 vectors go to ``target``, ``target_step`` elements apart.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        _, source, source_row, rows, columns, target, target_step, count = args

        def number(n: int) -> Any:
            return ir.Constant(ir.IntType(64), n)

        row_bytes = builder.mul(source_row, number(vectors.size))
        tiles = []
        for i in range(TILE):
            exists = builder.icmp_signed("<", number(i), rows)
            end = builder.select(exists, columns, number(0))
            line = builder.add(source, builder.mul(row_bytes, number(i)))
            pieces = _line(builder, vectors, line, number(0), end, TILE)
            tiles.append(_gradients(builder, vectors, _phases(builder, vectors, pieces)))
        mask = vectors.mask(builder, number(0), count)
        origin = vectors.pointer(builder, target)
        for j in range(SEEN):
            for i, value in enumerate(_gradients(builder, vectors, [row[j] for row in tiles])):
                offset = builder.mul(target_step, number(i * SEEN + j))
                vectors.store(builder, value, builder.gep(origin, [offset]), mask)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 7), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_windows(
    typingctx: Any, like: Any, source: Any, source_step: Any, target: Any, count: Any
) -> Any:
    """Add G^T dU G to ``count`` windows, or as many as a vector has lanes.

    ``source`` is the address of the first of 36 vectors, ``source_step`` elements apart; the nine
    weights of each window follow one another at ``target``.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        _, source, source_step, target, count = args

        def number(n: int) -> Any:
            return ir.Constant(ir.IntType(64), n)

        mask = vectors.mask(builder, number(0), count)
        origin = vectors.pointer(builder, source)
        half = []
        for j in range(SEEN):
            column = []
            for i in range(SEEN):
                place = builder.gep(origin, [builder.mul(source_step, number(i * SEEN + j))])
                column.append(vectors.load(builder, place, mask))
            half.append(_window_sums(builder, vectors, column))
        windows = []
        for i in range(3):
            windows += _window_sums(builder, vectors, [column[i] for column in half])
        origin = vectors.pointer(builder, target)
        for lane in range(vectors.lanes):
            with builder.if_then(builder.icmp_signed("<", number(lane), count)):
                for w, value in enumerate(windows):
                    place = builder.gep(origin, [number(9 * lane + w)])
                    own = builder.extract_element(value, ir.Constant(ir.IntType(32), lane))
                    builder.store(builder.fadd(builder.load(place), own), place)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 4), codegen


def _line(builder: Any, vectors: Vectors, at: Any, low: Any, high: Any, count: int) -> list[Any]:
    """So many vectors from an address on; of their elements exist those from low to below high."""
    pieces = []
    for k in range(count):
        before = ir.Constant(ir.IntType(64), k * vectors.lanes)
        mask = vectors.mask(builder, builder.sub(low, before), builder.sub(high, before))
        address = builder.add(at, builder.mul(before, ir.Constant(ir.IntType(64), vectors.size)))
        pieces.append(vectors.load(builder, vectors.pointer(builder, address), mask))
    return pieces


@intrinsic  # type: ignore[untyped-decorator]
def transform_sums(
    typingctx: Any,
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
) -> Any:
    """y = max(A^T m A scale + bias + addend, floor) of neighbouring tiles of one output.

    ``source`` is the address of the first of 36 vectors, ``source_step`` elements apart; ``target``
    that of the first tile's first value. ``rows`` and ``columns`` of y exist behind it, or more.
    ``addend`` is an address like ``target``, read where ``adds`` is not 0. A NaN stays one.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        _, source, source_step, target, target_row, rows, columns = args[:7]
        scale, bias, floor = (vectors.broadcast(builder, scalar) for scalar in args[7:10])
        addend, adds = args[10:]
        wide = vectors.lanes

        def number(n: int) -> Any:
            return ir.Constant(ir.IntType(64), n)

        origin = vectors.pointer(builder, source)
        half = []
        for j in range(SEEN):
            column = []
            for i in range(SEEN):
                offset = builder.mul(source_step, number(i * SEEN + j))
                column.append(vectors.load(builder, builder.gep(origin, [offset])))
            half.append(_sums(builder, vectors, column))
        row_bytes = builder.mul(target_row, number(vectors.size))
        for i in range(TILE):
            exists = builder.icmp_signed("<", number(i), rows)
            end = builder.select(exists, columns, number(0))
            read = builder.select(builder.icmp_signed("!=", adds, number(0)), end, number(0))
            values = _sums(builder, vectors, [half[j][i] for j in range(SEEN)])
            for k, value in enumerate(_interleaved(builder, vectors, values)):
                offset = builder.add(
                    builder.mul(row_bytes, number(i)), number(k * wide * vectors.size)
                )
                behind = number(k * wide)
                mask = vectors.mask(builder, number(0), builder.sub(end, behind))
                also = vectors.mask(builder, number(0), builder.sub(read, behind))
                place = vectors.pointer(builder, builder.add(addend, offset))
                result = vectors.fma(builder, value, scale, bias)
                result = builder.fadd(result, vectors.load(builder, place, also))
                low = builder.fcmp_ordered("<", result, floor)
                result = builder.select(low, floor, result)
                place = vectors.pointer(builder, builder.add(target, offset))
                vectors.store(builder, result, place, mask)
        return context.get_dummy_value()

    scalars = [types.int64] * 6 + [like] * 3 + [types.int64] * 2
    return types.void(like, *scalars), codegen


def _interleaved(builder: Any, vectors: Vectors, phases: list[Any]) -> list[Any]:
    """Four vectors as a line of four: element 4 t + j is lane t of the j-th."""

    def merged(a: Any, b: Any) -> list[Any]:
        wide = vectors.lanes
        lower = [half for i in range(wide // 2) for half in (i, wide + i)]
        upper = [i + wide // 2 for i in lower]
        return [vectors.shuffle(builder, a, b, order) for order in (lower, upper)]

    even, odd = merged(phases[0], phases[2]), merged(phases[1], phases[3])
    return [*merged(even[0], odd[0]), *merged(even[1], odd[1])]
