"""Sums over each channel, and arithmetic with one value for each: blobs are [N, C, S] here.

All arithmetic is one affine function of each channel, straight or rectified, and its gradient::

    y  = (x - centre[c]) slope[c] + offset[c]            or 0 where it ``rectifies`` and that is < 0
    dx = (dy' - constant[c] - (x - centre[c]) linear[c]) slope[c]       dy' is 0 where y is made 0

Scale, Bias, BatchNorm and MVN are cases of it, and so are BatchNorm, Scale and ReLU as one step:
``moments``, then ``affine`` with centre = mean, slope = factor * scale and offset = bias; backward
``affine_dots``, ``through_statistics``, ``affine_backward``. Where y was made 0 is computed anew
from x, with the same rounding, so the gradient never reads y.

In memory, for each x: ``moments`` reads 1 value, ``affine`` reads 1 and writes 1, ``affine_dots``
reads 2, ``affine_backward`` reads 2 and writes 1. The three layers as one step thus move 3 values
forward and 5 backward; one after the other they move 7 and 12.

Sums are taken in float64, over pieces of a size that depends on the shape alone, and then over the
pieces. So they are right for millions of values, all threads share the work even where there is a
single channel, and the result does not depend on how many threads there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange, serial, workspace
from netdef.kernels import lanes
from netdef.kernels.elementwise import BLOCK, add
from netdef.kernels.fma import fma
from netdef.kernels.lanes import LANES

#: What ``add_sums`` adds up: the values, or how far they are from 0.
SIGNED, ABSOLUTE = 0, 1

#: So many values of a channel make up for the sum over lanes behind them.
LONG = 1024

#: Rows of [N, C, 1] that one job of a sum takes, and columns.
ROWS, COLUMNS = 64, 512

#: A coefficient that is the same in every channel: a slope of 1, anything else of 0.
NONE = np.empty(0)


# -- sums ------------------------------------------------------------------------------------------


def add_sums(x: Array, total: Array, of: int = SIGNED) -> None:
    """total[c] += sum over n and s of x[n, c, s], or of |x[n, c, s]|"""
    if of == SIGNED and x.size == total.size:
        add(x.reshape(-1), total)
        return
    split = _split(x)
    (partial,) = _partial(x, split, 1)
    (_sums if x.shape[2] > 1 else _sums_of_rows)(x, of, *split, partial)
    _collect(partial, total)


def add_dots(dy: Array, x: Array, sums: Array | None, dots: Array) -> None:
    """sums[c] += sum of dy[n, c, s], if asked for; dots[c] += sum of dy[n, c, s] x[n, c, s]"""
    if x.size == dots.size:
        if sums is not None:
            add(dy.reshape(-1), sums)
        _add_products(dy.reshape(-1), x.reshape(-1), dots)
        return
    affine_dots(dy, x, NONE, NONE, NONE, False, sums, dots)


def affine_dots(
    dy: Array,
    x: Array,
    centre: Array,
    slope: Array,
    offset: Array,
    rectifies: bool,
    sums: Array | None,
    dots: Array,
) -> None:
    """sums[c] += sum of dy', if asked for; dots[c] += sum of dy' (x - centre[c])

    dy' is dy, or where it ``rectifies``, 0 for an x that ``affine`` makes 0. Of BatchNorm and Scale
    the sums are the gradient of the bias, and dots times the factor are that of the scale.
    """
    p, a, b = _full(x, centre, slope, offset)
    split = _split(x)
    partial_sums, partial_dots = _partial(x, split, 2)
    run = _dots if x.shape[2] > 1 else _dots_of_rows
    run(dy, x, p, a, b, rectifies, *split, partial_sums, partial_dots)
    if sums is not None:
        _collect(partial_sums, sums)
    _collect(partial_dots, dots)


def moments(x: Array, mean: Array, variance: Array) -> None:
    """The mean and the (biased) variance of each channel, both float64, in one pass.

    Squares are taken of the distance to a channel's first value, which is about as far from the
    mean as any: so little is lost when the square of the mean is subtracted.
    """
    split = _split(x)
    sums, squares = _partial(x, split, 2)
    (_squares if x.shape[2] > 1 else _squares_of_rows)(x, *split, sums, squares)
    _moments(x, sums, squares, mean, variance)


@serial
def through_statistics(
    factor: Any, count: Any, sums: Any, dots: Any, constant: Any, linear: Any
) -> None:
    """What ``affine_backward`` subtracts where centre and slope come from x itself.

    constant = sums / count, linear = dots factor^2 / count: of ``count`` values in each channel,
    whose mean is the centre and whose 1 / deviation is ``factor``. All are float64.
    """
    for c in range(factor.size):
        constant[c] = sums[c] / count
        linear[c] = dots[c] * factor[c] * factor[c] / count


def _split(x: Array) -> tuple[int, int, int]:
    """(images, channels, values) that one job of a sum takes.

    About BLOCK values; those of one channel first, as long as a line of it is short.
    """
    _, channels, inner = x.shape
    if inner <= 1:
        return ROWS, COLUMNS, 1
    values = min(inner, BLOCK)
    images = -(-LONG // values)
    return images, min(channels, -(-BLOCK // (images * values))), values


def _partial(x: Array, split: tuple[int, int, int], count: int) -> Array:
    """Workspace for ``count`` sums of each piece of each channel: [count, pieces, C]."""
    images, _, values = split
    total, channels, inner = x.shape
    pieces = -(-total // images) * -(-inner // values)
    size = count * pieces * channels
    return workspace(size, np.float64)[:size].reshape(count, pieces, channels)


def _full(x: Array, *coefficients: Array) -> Any:
    """Coefficients, of which the second is a slope, in the type of x and for each channel."""
    channels = x.shape[1]
    return [
        np.asarray(values, x.dtype) if values.size else np.full(channels, float(i == 1), x.dtype)
        for i, values in enumerate(coefficients)
    ]


@inline
def _jobs(x: Any, partial: Any, channels: Any) -> Any:
    return partial.shape[0] * ((x.shape[1] + channels - 1) // channels)


@inline
def _job(job: Any, x: Any, images: Any, channels: Any, values: Any) -> Any:
    """(piece, first image, its end, first channel, its end, first value, count) of one job."""
    segments = (x.shape[2] + values - 1) // values
    groups = (x.shape[1] + channels - 1) // channels
    c = job % groups * channels
    piece = job // groups
    n = piece // segments * images
    first = piece % segments * values
    count = min(values, x.shape[2] - first)
    return piece, n, min(x.shape[0], n + images), c, min(x.shape[1], c + channels), first, count


@inline
def _at(x: Any, n: Any, c: Any, first: Any) -> Any:
    return (n * x.shape[1] + c) * x.shape[2] + first


@kernel
def _sums(x: Any, of: Any, images: Any, channels: Any, values: Any, partial: Any) -> None:
    for job in prange(_jobs(x, partial, channels)):
        piece, n0, n1, c0, c1, first, count = _job(job, x, images, channels, values)
        for c in range(c0, c1):
            total = lanes.fill(0.0)
            for n in range(n0, n1):
                total = _sum(x, _at(x, n, c, first), count, of, total)
            partial[piece, c] = lanes.total(total)


@kernel
def _squares(x: Any, images: Any, channels: Any, values: Any, sums: Any, squares: Any) -> None:
    """Sums of x - p and of (x - p)^2, where p is a channel's first x."""
    for job in prange(_jobs(x, sums, channels)):
        piece, n0, n1, c0, c1, first, count = _job(job, x, images, channels, values)
        for c in range(c0, c1):
            pivot = x[0, c, 0]
            total, square = lanes.fill(0.0), lanes.fill(0.0)
            for n in range(n0, n1):
                total, square = _square(x, _at(x, n, c, first), count, pivot, total, square)
            sums[piece, c] = lanes.total(total)
            squares[piece, c] = lanes.total(square)


@kernel
def _dots(
    dy: Any,
    x: Any,
    centre: Any,
    slope: Any,
    offset: Any,
    rectifies: Any,
    images: Any,
    channels: Any,
    values: Any,
    sums: Any,
    dots: Any,
) -> None:
    for job in prange(_jobs(x, sums, channels)):
        piece, n0, n1, c0, c1, first, count = _job(job, x, images, channels, values)
        for c in range(c0, c1):
            p, a, b = centre[c], slope[c], offset[c]
            total, dot = lanes.fill(0.0), lanes.fill(0.0)
            for n in range(n0, n1):
                at = _at(x, n, c, first)
                total, dot = _dot(dy, x, at, count, p, a, b, rectifies, total, dot)
            sums[piece, c] = lanes.total(total)
            dots[piece, c] = lanes.total(dot)


@kernel
def _sums_of_rows(x: Any, of: Any, images: Any, channels: Any, values: Any, partial: Any) -> None:
    """For S = 1: neighbours belong to different channels."""
    for job in prange(_jobs(x, partial, channels)):
        piece, n0, n1, c0, c1, _, _ = _job(job, x, images, channels, values)
        partial[piece, c0:c1] = 0.0
        for n in range(n0, n1):
            for c in range(np.uint64(c0), np.uint64(c1)):
                value = np.float64(x[n, c, 0])
                partial[piece, c] += abs(value) if of == ABSOLUTE else value


@kernel
def _squares_of_rows(
    x: Any, images: Any, channels: Any, values: Any, sums: Any, squares: Any
) -> None:
    for job in prange(_jobs(x, sums, channels)):
        piece, n0, n1, c0, c1, _, _ = _job(job, x, images, channels, values)
        sums[piece, c0:c1] = 0.0
        squares[piece, c0:c1] = 0.0
        for n in range(n0, n1):
            for c in range(np.uint64(c0), np.uint64(c1)):
                d = np.float64(x[n, c, 0]) - np.float64(x[0, c, 0])
                sums[piece, c] += d
                squares[piece, c] += d * d


@kernel
def _dots_of_rows(
    dy: Any,
    x: Any,
    centre: Any,
    slope: Any,
    offset: Any,
    rectifies: Any,
    images: Any,
    channels: Any,
    values: Any,
    sums: Any,
    dots: Any,
) -> None:
    for job in prange(_jobs(x, sums, channels)):
        piece, n0, n1, c0, c1, _, _ = _job(job, x, images, channels, values)
        sums[piece, c0:c1] = 0.0
        dots[piece, c0:c1] = 0.0
        for n in range(n0, n1):
            for c in range(np.uint64(c0), np.uint64(c1)):
                value = _affine_of(x[n, c, 0], centre[c], slope[c], offset[c])
                slant = np.float64(_slope_of(dy[n, c, 0], value, rectifies))
                sums[piece, c] += slant
                dots[piece, c] += slant * np.float64(x[n, c, 0] - centre[c])


@kernel
def _add_products(x: Any, z: Any, total: Any) -> None:
    """What sums of one value each come to, without workspace for each."""
    for i in prange(total.size):
        total[i] += np.float64(x[i]) * np.float64(z[i])


@serial
def _collect(partial: Any, total: Any) -> None:
    """total[c] += the sum of its pieces, which are gathered in the first."""
    for piece in range(1, partial.shape[0]):
        for c in range(partial.shape[1]):
            partial[0, c] += partial[piece, c]
    if partial.shape[0]:
        for c in range(total.size):
            total[c] += partial[0, c]


@serial
def _moments(x: Any, sums: Any, squares: Any, mean: Any, variance: Any) -> None:
    count = x.shape[0] * x.shape[2]
    mean[:] = 0.0
    variance[:] = 0.0
    if count == 0:
        return
    for piece in range(sums.shape[0]):
        for c in range(mean.size):
            mean[c] += sums[piece, c]
            variance[c] += squares[piece, c]
    for c in range(mean.size):
        distance = mean[c] / count
        mean[c] = np.float64(x[0, c, 0]) + distance
        # Far from negative: the first value, whose distance is 0, keeps the two terms apart.
        variance[c] = variance[c] / count - distance * distance


# -- sums over a line: lane k takes every value k, k + LANES, ... ----------------------------------


@inline
def _term(value: Any, of: Any) -> Any:
    return lanes.double(lanes.magnitude(value) if of == ABSOLUTE else value)


@inline
def _sum(x: Any, first: Any, count: Any, of: Any, sums: Any) -> Any:
    """sums + ``count`` values of x, or their absolutes"""
    end = first + count
    last = end - count % LANES
    for i in range(first, last, LANES):
        sums = sums + _term(lanes.load(x, i), of)
    if last < end:
        sums = sums + _term(lanes.load_part(x, last, last, end, x.dtype.type(0)), of)
    return sums


@inline
def _square(x: Any, first: Any, count: Any, pivot: Any, sums: Any, squares: Any) -> Any:
    """(sums + (x - pivot), squares + (x - pivot)^2)"""
    end = first + count
    last = end - count % LANES
    p = lanes.fill(np.float64(pivot))
    for i in range(first, last, LANES):
        d = lanes.double(lanes.load(x, i)) - p
        sums, squares = sums + d, lanes.fma(d, d, squares)
    if last < end:
        d = lanes.double(lanes.load_part(x, last, last, end, pivot)) - p
        sums, squares = sums + d, lanes.fma(d, d, squares)
    return sums, squares


@inline
def _dot(
    dy: Any,
    x: Any,
    first: Any,
    count: Any,
    centre: Any,
    slope: Any,
    offset: Any,
    rectifies: Any,
    sums: Any,
    dots: Any,
) -> Any:
    """(sums + dy', dots + dy' (x - centre))"""
    zero = x.dtype.type(0)
    end = first + count
    last = end - count % LANES
    p, a, b, nothing = lanes.fill(centre), lanes.fill(slope), lanes.fill(offset), lanes.fill(zero)
    for i in range(first, last, LANES):
        d = lanes.load(x, i) - p
        slant = lanes.load(dy, i)
        if rectifies:
            slant = lanes.choose(lanes.fma(d, a, b) > nothing, slant, nothing)
        wide = lanes.double(slant)
        sums, dots = sums + wide, lanes.fma(wide, lanes.double(d), dots)
    if last < end:
        d = lanes.load_part(x, last, last, end, centre) - p
        slant = lanes.load_part(dy, last, last, end, zero)
        if rectifies:
            slant = lanes.choose(lanes.fma(d, a, b) > nothing, slant, nothing)
        wide = lanes.double(slant)
        sums, dots = sums + wide, lanes.fma(wide, lanes.double(d), dots)
    return sums, dots


# -- arithmetic ------------------------------------------------------------------------------------


def affine(x: Array, centre: Array, slope: Array, offset: Array, rectifies: bool, y: Array) -> None:
    """y = (x - centre[c]) slope[c] + offset[c], or 0 where it ``rectifies`` and that is below 0

    ``y`` may be ``x``. Coefficients may be NONE.
    """
    p, a, b = _full(x, centre, slope, offset)
    if x.shape[2] == 1:
        rows = x.reshape(x.shape[:2])
        _affine_rows(rows, p, a, b, rectifies, y.reshape(rows.shape))
    else:
        _affine(x.reshape(-1), p, a, b, rectifies, x.shape[2], y.reshape(-1))


def affine_backward(
    dy: Array,
    x: Array,
    centre: Array,
    slope: Array,
    offset: Array,
    rectifies: bool,
    constant: Array,
    linear: Array,
    dx: Array,
) -> None:
    """dx = (dy' - constant[c] - (x - centre[c]) linear[c]) slope[c]

    dy' is dy, or where it ``rectifies``, 0 for an x that ``affine`` makes 0. ``dx`` may be ``dy``.
    Coefficients may be NONE. Where all that is wanted is dy slope[c], ``scale`` reads less.
    """
    p, a, b, k, m = _full(x, centre, slope, offset, constant, linear)
    if x.shape[2] == 1:
        rows = x.reshape(x.shape[:2])
        dy, dx = dy.reshape(rows.shape), dx.reshape(rows.shape)
        _affine_backward_rows(dy, rows, p, a, b, k, m, rectifies, dx)
    else:
        dy, x, dx, inner = dy.reshape(-1), x.reshape(-1), dx.reshape(-1), x.shape[2]
        _affine_backward(dy, x, p, a, b, k, m, rectifies, inner, dx)


def standardize_backward(
    dy: Array, x: Array, mean: Array, factor: Array, sums: Array, dx: Array
) -> None:
    """dx = (dy - mean(dy) - y mean(dy y)) factor, where y = (x - mean) factor; ``dx`` may be ``dy``

    So the gradient passes ``affine`` where centre and slope are mean and 1 / deviation of its x.
    ``sums`` is workspace, float64 [4, C].
    """
    totals, dots, constant, linear = sums
    totals.fill(0)
    dots.fill(0)
    affine_dots(dy, x, mean, factor, NONE, False, totals, dots)
    through_statistics(factor, x.shape[0] * x.shape[2], totals, dots, constant, linear)
    affine_backward(dy, x, mean, factor, NONE, False, constant, linear, dx)


def scale(x: Array, slope: Array, y: Array) -> None:
    """y = x slope[c]; ``y`` may be ``x``"""
    affine(x, NONE, slope, NONE, False, y)


@inline
def _affine_of(x: Any, centre: Any, slope: Any, offset: Any) -> Any:
    # Rounded in one way wherever it is computed, in ``_dot`` too: so all agree where y is 0.
    return fma(x - centre, slope, offset)


@inline
def _rectified(value: Any, rectifies: Any) -> Any:
    # A NaN is not below 0: it stays.
    return type(value)(0) if rectifies and value < 0 else value


@inline
def _slope_of(dy: Any, value: Any, rectifies: Any) -> Any:
    return dy if not rectifies or value > 0 else type(dy)(0)


@kernel
def _affine(
    x: Any, centre: Any, slope: Any, offset: Any, rectifies: Any, inner: Any, y: Any
) -> None:
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, slope.size)
            p, a, b = centre[c], slope[c], offset[c]
            # An unsigned index cannot count from the back: only so the loop is vectorised.
            for i in range(np.uint64(at), np.uint64(stop)):
                y[i] = _rectified(_affine_of(x[i], p, a, b), rectifies)
            at = stop


@kernel
def _affine_rows(x: Any, centre: Any, slope: Any, offset: Any, rectifies: Any, y: Any) -> None:
    """For S = 1: neighbours belong to different channels."""
    for n in prange(x.shape[0]):
        for c in range(x.shape[1]):
            value = _affine_of(x[n, c], centre[c], slope[c], offset[c])
            y[n, c] = _rectified(value, rectifies)


@kernel
def _affine_backward(
    dy: Any,
    x: Any,
    centre: Any,
    slope: Any,
    offset: Any,
    constant: Any,
    linear: Any,
    rectifies: Any,
    inner: Any,
    dx: Any,
) -> None:
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, slope.size)
            p, a, b, k, m = centre[c], slope[c], offset[c], constant[c], linear[c]
            for i in range(np.uint64(at), np.uint64(stop)):
                slant = _slope_of(dy[i], _affine_of(x[i], p, a, b), rectifies)
                dx[i] = (slant - k - (x[i] - p) * m) * a
            at = stop


@kernel
def _affine_backward_rows(
    dy: Any,
    x: Any,
    centre: Any,
    slope: Any,
    offset: Any,
    constant: Any,
    linear: Any,
    rectifies: Any,
    dx: Any,
) -> None:
    for n in prange(x.shape[0]):
        for c in range(x.shape[1]):
            value = _affine_of(x[n, c], centre[c], slope[c], offset[c])
            slant = _slope_of(dy[n, c], value, rectifies)
            bent = (x[n, c] - centre[c]) * linear[c]
            dx[n, c] = (slant - constant[c] - bent) * slope[c]


@inline
def run_of(at: Any, end: Any, inner: Any, channels: Any) -> Any:
    """(stop, channel): where the run that index ``at`` lies in ends, at the latest ``end``.

    Of an array whose channels have runs of ``inner`` values, seen as one axis.
    """
    run = at // inner
    return min(end, (run + 1) * inner), run % channels
