"""Convolution over any number of spatial axes as a matrix product without an im2col buffer.

An image, padded with zeros, is one flat array. With ``taps[t]`` the offset in it of kernel tap t
(channel, then place in the window) and ``positions[p]`` the offset of output position p, the matrix
that im2col would make is ::

    column[t, p] = image[taps[t] + positions[p]]

whatever the number of axes, the stride or the dilation. So panels for the micro-kernel are gathered
straight from the image through the two tables (Chellapilla, Puri & Simard 2006 give the product;
Goto & van de Geijn 2008 the packing):

    forward     y[m, p]   = sum_t  w[m, t] column[t, p]      jobs: images x groups x panels of p
    weights     dw[m, t] += sum_np dy[m, p] column[t, p]     jobs: (images x) panels of t
    data        dimage[taps[t] + positions[p]] += sum_m w[m, t] dy[m, p]
                                                             jobs: images x blocks of channels

Every job owns what it writes, and what it sums it sums in one fixed order, so results do not depend
on the number of threads. Images that need padding are padded a few at a time into scratch memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange, workspace
from netdef.kernels.gemm import pack, store_tile
from netdef.kernels.microkernel import DEPTH, ROWS, columns, columns_of
from netdef.kernels.quads import OCTET, QUAD, add_run, copy_octet, copy_quad

#: Scratch for padded images and packed gradients, in elements: a batch is taken in chunks that fit.
SCRATCH = 1 << 22

#: Positions whose gradients are scattered together: a whole number of tiles on any machine, and the
#: same on all, so that the order of the sums is too.
SCATTER = 32

#: A weight gradient of fewer panels than this is summed image by image, to have jobs for all
#: threads.
JOBS = 16


class Extents(NamedTuple):
    """The numbers a kernel needs, per group where there are groups."""

    groups: int
    channels: int
    outputs: int
    window: int  # taps per channel
    plane: int  # of one channel of a padded image
    width: int  # of the last axis, unpadded
    block: int  # channels that one job of the data gradient takes


class Runs(NamedTuple):
    """Neighbours in a table of offsets, panel by panel.

    ``runs`` has a row (lane, offset, count) for each; those of panel q are ``starts[q]`` to
    ``starts[q + 1]``.
    """

    runs: Array
    starts: Array


class Along(NamedTuple):
    """The runs of both tables, for panels as wide as the tile of one float type."""

    positions: Runs
    taps: Runs


class Geometry(NamedTuple):
    """A convolution: its extents, and its tables of offsets into a padded image."""

    extents: Extents
    image_size: int
    padded_size: int
    padding: bool
    taps: Array  # of one group
    positions: Array
    lines: Array  # of each line of the last axis: its offset in a channel, unpadded and padded
    runs: dict[int, Along]  # by size of an element
    scattered: Runs  # of the positions, SCATTER at a time


def geometry(
    channels: int,
    outputs: int,
    groups: int,
    image: Sequence[int],
    output: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
) -> Geometry:
    """The geometry of a convolution of ``channels`` x ``image`` to ``outputs`` x ``output``."""
    padded = padded_image(image, output, window, stride, pad, dilation)
    steps = [math.prod(padded[i + 1 :]) for i in range(len(padded))]
    plane = math.prod(padded)

    def offsets(counts: Sequence[int], strides: Sequence[int]) -> Array:
        total = np.zeros(1, np.int64)
        for count, by, step in zip(counts, strides, steps, strict=True):
            total = (total[:, None] + np.arange(count, dtype=np.int64) * (by * step)).reshape(-1)
        return total

    per_group = channels // groups
    taps = np.arange(per_group, dtype=np.int64)[:, None] * plane + offsets(window, dilation)
    corner = sum(p * step for p, step in zip(pad, steps, strict=True))
    padded_lines = offsets([*image[:-1], 1], [1] * len(image)) + corner
    lines = np.stack([np.arange(padded_lines.size) * image[-1], padded_lines], axis=1)
    size = math.prod(window)
    places = offsets(output, stride)
    return Geometry(
        extents=Extents(
            groups,
            per_group,
            outputs // groups,
            size,
            plane,
            image[-1],
            _block(per_group, size),
        ),
        image_size=channels * math.prod(image),
        padded_size=channels * plane,
        padding=padded != list(image),
        taps=taps.reshape(-1),
        positions=places,
        lines=np.ascontiguousarray(lines, np.int64),
        runs={
            itemsize: Along(
                _runs(places, columns_of(itemsize)), _runs(taps.reshape(-1), columns_of(itemsize))
            )
            for itemsize in (4, 8)
        },
        scattered=_runs(places, SCATTER),
    )


def padded_image(
    image: Sequence[int],
    output: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """The extents of an image with its padding, and with what its last windows see beyond that."""
    axes = zip(image, output, window, stride, pad, dilation, strict=True)
    return [max(n + 2 * p, (o - 1) * s + d * (k - 1) + 1) for n, o, k, s, p, d in axes]


def _block(channels: int, window: int) -> int:
    """How many channels one job of the data gradient takes: those that waste the fewest rows."""

    def panels(block: int) -> int:
        whole, rest = divmod(channels, block)
        return whole * -(-block * window // ROWS) + -(-rest * window // ROWS)

    most = min(channels, max(1, 16 * ROWS // window))
    return min(range(1, most + 1), key=lambda block: (panels(block), -block))


def _runs(offsets: Array, wide: int) -> Runs:
    """Cut ``offsets`` into panels of ``wide`` lanes, and those into runs of neighbours."""
    lane = np.arange(offsets.size) % wide
    begins = np.flatnonzero((lane == 0) | (np.diff(offsets, prepend=-2) != 1))
    counts = np.diff(begins, append=offsets.size)
    runs = np.stack([lane[begins], offsets[begins], counts], axis=1)
    panels = np.arange(0, offsets.size + wide, wide).clip(max=offsets.size)
    starts = np.searchsorted(begins, panels)
    return Runs(np.ascontiguousarray(runs, np.int64), starts.astype(np.int64))


def forward(g: Geometry, x: Array, weight: Array, bias: Array, y: Array) -> None:
    """y = convolution of x with weight, plus bias where that is not empty.

    x [N, C, ...], weight [M, C / groups, ...], bias [M] or [0], y [N, M, ...]; all of one float
    type.
    """
    count = x.shape[0]
    if count == 0:
        return
    along = g.runs[x.itemsize]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    y_image = y.size // count
    packed_size = _padded(g.extents.outputs, ROWS) * g.extents.groups * g.taps.size
    chunk = min(count, max(1, SCRATCH // g.padded_size)) if g.padding else count
    work = workspace(packed_size + (chunk * g.padded_size if g.padding else 0), x.dtype)
    packed, scratch = work[:packed_size], work[packed_size:]
    _pack_weights(g.extents, weight.reshape(-1), packed)
    for first in range(0, count, chunk):
        size = min(chunk, count - first)
        images = _padded_images(g, flat_x, first, size, scratch)
        target = flat_y[first * y_image : (first + size) * y_image]
        _forward(
            g.extents, g.taps, g.positions.size, *along.positions, images, packed, bias, target
        )


def backward_weights(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient with respect to the weights, of a batch x and its output gradient dy.

    The images are added one after the other, as Caffe adds them: rounding then agrees with Caffe's.
    """
    count = x.shape[0]
    if count == 0:
        return
    e, along = g.extents, g.runs[x.itemsize]
    flat_x, flat_dy, flat_dw = x.reshape(-1), dy.reshape(-1), dweight.reshape(-1)
    dy_image = dy.size // count
    # Counted in panels of one size, so that sums are the same on every vector width.
    panels = -(-g.taps.size // SCATTER) * e.groups
    # Few panels are few jobs: then each image gets a sum of its own, and the sums are added in
    # order.
    own_sums = panels < JOBS and count > 1
    packed_image = _padded(e.outputs, ROWS) * e.groups * g.positions.size
    per_image = packed_image + (g.padded_size if g.padding else 0)
    sums_image = dweight.size if own_sums else 0
    chunk = min(count, max(1, SCRATCH // (per_image + sums_image)))
    work = workspace(chunk * (per_image + sums_image), x.dtype)
    sums, rest = work[: chunk * sums_image], work[chunk * sums_image :]
    packed, scratch = rest[: chunk * packed_image], rest[chunk * packed_image :]
    for first in range(0, count, chunk):
        size = min(chunk, count - first)
        images = _padded_images(g, flat_x, first, size, scratch)
        gradient = flat_dy[first * dy_image : (first + size) * dy_image]
        _pack_rows(e, g.positions.size, gradient, packed)
        target = sums if own_sums else flat_dw
        _backward_weights(
            e, g.positions, g.taps.size, *along.taps, images, packed, size, own_sums, target
        )
        if own_sums:
            _add_parts(sums, size, flat_dw)


def backward_data(g: Geometry, weight: Array, dy: Array, dx: Array) -> None:
    """dx = the gradient with respect to the input, from the output gradient dy."""
    count = dx.shape[0]
    if count == 0:
        return
    e = g.extents
    flat_dy, flat_dx = dy.reshape(-1), dx.reshape(-1)
    dy_image = dy.size // count
    blocks = -(-e.channels // e.block)
    weight_size = e.groups * blocks * _padded(e.block * e.window, ROWS) * e.outputs
    packed_image = _padded(g.positions.size, columns_of(dx.itemsize)) * e.groups * e.outputs
    per_image = packed_image + (g.padded_size if g.padding else 0)
    chunk = min(count, max(1, SCRATCH // per_image))
    work = workspace(weight_size + chunk * per_image, dx.dtype)
    packed_weight, rest = work[:weight_size], work[weight_size:]
    packed, scratch = rest[: chunk * packed_image], rest[chunk * packed_image :]
    _pack_weights_transposed(e, weight.reshape(-1), packed_weight)
    for first in range(0, count, chunk):
        size = min(chunk, count - first)
        gradient = flat_dy[first * dy_image : (first + size) * dy_image]
        _pack_columns(e, g.positions.size, gradient, packed)
        inside = flat_dx[first * g.image_size : (first + size) * g.image_size]
        target = scratch if g.padding else inside
        _backward_data(
            e, g.taps, g.positions.size, *g.scattered, packed_weight, packed, size, target
        )
        if g.padding:
            _unpad(e, g.lines, scratch, inside)


def im2col(g: Geometry, x: Array, columns: Array) -> None:
    """columns[n, t, p] = what tap t sees of image n at output position p; for one group."""
    flat_x, flat_columns = x.reshape(-1), columns.reshape(-1)
    size = g.taps.size * g.positions.size
    for first, count, scratch in _chunks(g, x):
        images = _padded_images(g, flat_x, first, count, scratch)
        target = flat_columns[first * size : (first + count) * size]
        _gather_columns(g.padded_size, g.taps, g.positions, images, target)


def col2im(g: Geometry, columns: Array, x: Array) -> None:
    """x = the sum of what its pixels are in ``columns``: the transpose of :func:`im2col`."""
    flat_x, flat_columns = x.reshape(-1), columns.reshape(-1)
    size = g.taps.size * g.positions.size
    for first, count, scratch in _chunks(g, x):
        inside = flat_x[first * g.image_size : (first + count) * g.image_size]
        source = flat_columns[first * size : (first + count) * size]
        target = scratch if g.padding else inside
        _add_columns(g.extents, g.taps, g.positions, source, count, target)
        if g.padding:
            _unpad(g.extents, g.lines, scratch, inside)


def _chunks(g: Geometry, x: Array) -> Iterator[tuple[int, int, Array]]:
    """(first, count, scratch) of parts of a batch whose padded images fit the scratch memory."""
    images = x.shape[0]
    chunk = min(images, max(1, SCRATCH // g.padded_size)) if g.padding else images
    scratch = workspace(chunk * g.padded_size if g.padding else 0, x.dtype)
    for first in range(0, images, max(1, chunk)):
        yield first, min(chunk, images - first), scratch


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _padded_images(g: Geometry, x: Array, first: int, count: int, scratch: Array) -> Array:
    """Images ``first`` to ``first + count`` of x with zero borders, in scratch if they need any."""
    inside = x[first * g.image_size : (first + count) * g.image_size]
    if not g.padding:
        return inside
    _pad(g.extents, g.lines, inside, scratch)
    return scratch


@kernel
def _pad(e: Any, lines: Any, x: Any, padded: Any) -> None:
    """Copy every channel of ``x`` into a zero-padded one."""
    zero = x.dtype.type(0)
    count = lines.shape[0]
    for channel in prange(x.size // (count * e.width)):
        source = channel * count * e.width
        target = channel * e.plane
        for i in range(target, target + e.plane):
            padded[i] = zero
        for line in range(count):
            a = source + lines[line, 0]
            b = target + lines[line, 1]
            for i in range(e.width):
                padded[b + i] = x[a + i]


@kernel
def _unpad(e: Any, lines: Any, padded: Any, x: Any) -> None:
    """Copy the inside of every padded channel to ``x``."""
    count = lines.shape[0]
    for channel in prange(x.size // (count * e.width)):
        target = channel * count * e.width
        source = channel * e.plane
        for line in range(count):
            a = target + lines[line, 0]
            b = source + lines[line, 1]
            for i in range(e.width):
                x[a + i] = padded[b + i]


@kernel
def _pack_weights(e: Any, weight: Any, packed: Any) -> None:
    """w [groups, outputs, taps] -> panels [groups, panel, taps, ROWS]."""
    taps = e.channels * e.window
    panels = (e.outputs + ROWS - 1) // ROWS
    for job in prange(e.groups * panels):
        m = (job % panels) * ROWS
        start = ((job // panels) * e.outputs + m) * taps
        lanes = min(ROWS, e.outputs - m)
        pack(weight, start, taps, 1, lanes, taps, ROWS, packed, job * taps * ROWS)


@kernel
def _pack_weights_transposed(e: Any, weight: Any, packed: Any) -> None:
    """w [groups, outputs, taps] -> panels [groups, block, panel, outputs, ROWS] with taps as lanes.

    Each block of channels is padded to whole panels.
    """
    taps = e.channels * e.window
    blocks = (e.channels + e.block - 1) // e.block
    panels = (e.block * e.window + ROWS - 1) // ROWS
    for job in prange(e.groups * blocks * panels):
        block = (job // panels) % blocks
        t = block * e.block * e.window + (job % panels) * ROWS
        end = min((block + 1) * e.block, e.channels) * e.window
        start = (job // (panels * blocks)) * e.outputs * taps + t
        lanes = max(0, min(ROWS, end - t))
        pack(weight, start, 1, taps, lanes, e.outputs, ROWS, packed, job * e.outputs * ROWS)


@kernel
def _pack_rows(e: Any, positions: Any, dy: Any, packed: Any) -> None:
    """dy [n, groups, outputs, positions] -> panels [n, groups, panel, positions, ROWS]."""
    panels = (e.outputs + ROWS - 1) // ROWS
    for job in prange(dy.size // (e.outputs * positions) * panels):
        m = (job % panels) * ROWS
        start = ((job // panels) * e.outputs + m) * positions
        lanes = min(ROWS, e.outputs - m)
        pack(dy, start, positions, 1, lanes, positions, ROWS, packed, job * positions * ROWS)


@kernel
def _pack_columns(e: Any, positions: Any, dy: Any, packed: Any) -> None:
    """dy [n, groups, outputs, positions] -> panels [n, groups, panel, outputs, columns]."""
    wide = columns(dy[0])
    panels = (positions + wide - 1) // wide
    for job in prange(dy.size // (e.outputs * positions) * panels):
        p = (job % panels) * wide
        start = (job // panels) * e.outputs * positions + p
        lanes = min(wide, positions - p)
        pack(dy, start, 1, positions, lanes, e.outputs, wide, packed, job * e.outputs * wide)


@inline
def _gather(
    image: Any,
    at: Any,
    outer: Any,
    first: Any,
    depth: Any,
    runs: Any,
    start: Any,
    end: Any,
    panel: Any,
    out: Any,
) -> None:
    """A panel of columns: out[d, lane...] = image[at + outer[first + d] + offset...], run by run.

    Lanes that no run covers keep what they held: they belong to a ragged tile, which is cut.
    """
    # A run is as short as the kernel is wide: the long loop, over depth, goes inside.
    like = image.dtype.type(0)
    size = image.itemsize
    for r in range(start, end):
        lane, offset, count = runs[r, 0], runs[r, 1], runs[r, 2]
        i = 0
        while i < count:
            source = image.ctypes.data + (at + offset + i) * size
            target = out.ctypes.data + (lane + i) * size
            if i + OCTET <= count:
                for d in range(depth):
                    copy_octet(like, target + d * panel * size, source + outer[first + d] * size)
                i += OCTET
            elif i + QUAD <= count:
                for d in range(depth):
                    copy_quad(like, target + d * panel * size, source + outer[first + d] * size)
                i += QUAD
            else:
                for d in range(depth):
                    out[d * panel + lane + i] = image[at + offset + i + outer[first + d]]
                i += 1


@kernel
def _forward(
    e: Any,
    taps: Any,
    width: Any,
    runs: Any,
    starts: Any,
    images: Any,
    packed: Any,
    bias: Any,
    y: Any,
) -> None:
    wide = columns(images[0])
    depth = taps.size
    p_panels = (width + wide - 1) // wide
    m_panels = (e.outputs + ROWS - 1) // ROWS
    group_size = e.channels * e.plane
    for job in prange(y.size // (e.outputs * width) * p_panels):
        p = (job % p_panels) * wide
        lanes = min(wide, width - p)
        member = job // p_panels  # image and group
        first = (member % e.groups) * e.outputs
        start = member * e.outputs * width + p
        start_run, end_run = starts[job % p_panels], starts[job % p_panels + 1]
        panel = np.zeros(min(depth, DEPTH) * wide, images.dtype)
        for t in range(0, depth, DEPTH):
            steps = min(DEPTH, depth - t)
            add = 1 if t > 0 else 0
            _gather(
                images, member * group_size, taps, t, steps, runs, start_run, end_run, wide, panel
            )
            for m in range(m_panels):
                weights = (((member % e.groups) * m_panels + m) * depth + t) * ROWS
                rows = min(ROWS, e.outputs - m * ROWS)
                target = start + m * ROWS * width
                store_tile(packed, weights, panel, 0, steps, y, target, width, rows, lanes, add)
        if bias.size > 0:
            for m in range(e.outputs):
                row = start + m * width
                for i in range(lanes):
                    y[row + i] += bias[first + m]


@kernel
def _backward_weights(
    e: Any,
    positions: Any,
    width: Any,
    runs: Any,
    starts: Any,
    images: Any,
    packed: Any,
    count: Any,
    own_sums: Any,
    sums: Any,
) -> None:
    """Write one sum per image where ``own_sums``, else add all images to the one in ``sums``."""
    wide = columns(images[0])
    depth = positions.size
    t_panels = (width + wide - 1) // wide
    m_panels = (e.outputs + ROWS - 1) // ROWS
    group_size = e.channels * e.plane
    parts = count if own_sums else 1
    each = 1 if own_sums else count
    for job in prange(parts * e.groups * t_panels):
        t = (job % t_panels) * wide
        group = (job // t_panels) % e.groups
        part = job // (t_panels * e.groups)
        lanes = min(wide, width - t)
        panel = np.zeros(min(depth, DEPTH) * wide, images.dtype)
        for n in range(part * each, (part + 1) * each):
            member = n * e.groups + group
            for p in range(0, depth, DEPTH):
                steps = min(DEPTH, depth - p)
                add = 0 if own_sums and p == 0 else 1
                _gather(
                    images,
                    member * group_size,
                    positions,
                    p,
                    steps,
                    runs,
                    starts[job % t_panels],
                    starts[job % t_panels + 1],
                    wide,
                    panel,
                )
                for m in range(m_panels):
                    gradient = ((member * m_panels + m) * depth + p) * ROWS
                    rows = min(ROWS, e.outputs - m * ROWS)
                    target = ((part * e.groups + group) * e.outputs + m * ROWS) * width + t
                    store_tile(
                        packed, gradient, panel, 0, steps, sums, target, width, rows, lanes, add
                    )


@kernel
def _add_parts(sums: Any, parts: Any, total: Any) -> None:
    """total += the sum over parts, in order."""
    for i in prange(total.size):
        value = total[i]
        for part in range(parts):
            value += sums[part * total.size + i]
        total[i] = value


@kernel
def _backward_data(
    e: Any,
    taps: Any,
    positions: Any,
    runs: Any,
    starts: Any,
    packed_weight: Any,
    packed: Any,
    count: Any,
    images: Any,
) -> None:
    wide = columns(images[0])
    depth = e.outputs
    p_panels = (positions + wide - 1) // wide
    blocks = (e.channels + e.block - 1) // e.block
    panels = (e.block * e.window + ROWS - 1) // ROWS
    zero = images.dtype.type(0)
    for job in prange(count * e.groups * blocks):
        block = job % blocks
        member = job // blocks  # image and group
        first = block * e.block
        channels = min(e.block, e.channels - first)
        image = member * e.channels * e.plane
        for i in range(image + first * e.plane, image + (first + channels) * e.plane):
            images[i] = zero
        tile = np.empty(ROWS * SCATTER, images.dtype)
        # Pixels sum their taps in ascending order, over SCATTER positions at a time.
        for q in range(starts.size - 1):
            for r in range(panels):
                t = first * e.window + r * ROWS
                rows = min(ROWS, (first + channels) * e.window - t)
                if rows <= 0:
                    continue
                panel = (((member % e.groups) * blocks + block) * panels + r) * depth * ROWS
                for lane in range(0, min(SCATTER, positions - q * SCATTER), wide):
                    p = (q * SCATTER + lane) // wide
                    gradient = (member * p_panels + p) * depth * wide
                    for k in range(0, depth, DEPTH):
                        store_tile(
                            packed_weight,
                            panel + k * ROWS,
                            packed,
                            gradient + k * wide,
                            min(DEPTH, depth - k),
                            tile,
                            lane,
                            SCATTER,
                            ROWS,
                            wide,
                            1 if k > 0 else 0,
                        )
                for i in range(rows):
                    target = image + taps[t + i]
                    row = i * SCATTER
                    for s in range(starts[q], starts[q + 1]):
                        add_run(tile, row + runs[s, 0], images, target + runs[s, 1], runs[s, 2])


@kernel
def _gather_columns(padded_size: Any, taps: Any, positions: Any, images: Any, columns: Any) -> None:
    for row in prange(columns.size // positions.size):
        start = row // taps.size * padded_size + taps[row % taps.size]
        at = row * positions.size
        for p in range(positions.size):
            columns[at + p] = images[start + positions[p]]


@kernel
def _add_columns(e: Any, taps: Any, positions: Any, columns: Any, count: Any, images: Any) -> None:
    """Pixels sum their taps in ascending order."""
    zero = images.dtype.type(0)
    for channel in prange(count * e.channels):
        first = channel * e.plane
        for i in range(first, first + e.plane):
            images[i] = zero
        image = channel // e.channels * e.channels * e.plane
        for t in range(channel * e.window, (channel + 1) * e.window):
            start = image + taps[t % taps.size]
            at = t * positions.size
            for p in range(positions.size):
                images[start + positions[p]] += columns[at + p]
