"""Sums over each channel, and arithmetic with one value for each: blobs are [N, C, S] here.

Sums are taken in float64, over pieces of a fixed length and then over the pieces. So they are right
for millions of values, all threads share the work even where there is a single channel, and the
result does not depend on how many threads there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange, serial, workspace
from netdef.kernels.elementwise import BLOCK, add

#: What ``add_sums`` adds up: the values, or how far they are from 0.
SIGNED, ABSOLUTE = 0, 1


def add_sums(x: Array, total: Array, of: int = SIGNED) -> None:
    """total[c] += sum over n and s of x[n, c, s], or of |x[n, c, s]|"""
    if of == SIGNED and x.size == total.size:
        add(x.reshape(-1), total)
        return
    (partial,) = _partial(x, 1)
    _sums(x, of, partial)
    _collect(partial, total)


def add_dots(dy: Array, x: Array, sums: Array | None, dots: Array) -> None:
    """sums[c] += sum of dy[n, c, s], if asked for; dots[c] += sum of dy[n, c, s] x[n, c, s]"""
    if x.size == dots.size:
        if sums is not None:
            add(dy.reshape(-1), sums)
        _add_products(dy.reshape(-1), x.reshape(-1), dots)
        return
    partial_sums, partial_dots = _partial(dy, 2)
    _dots(dy, x, False, partial_sums, partial_dots)
    if sums is not None:
        _collect(partial_sums, sums)
    _collect(partial_dots, dots)


def moments(x: Array, mean: Array, variance: Array) -> None:
    """The mean and the (biased) variance of each channel, both float64, in one pass.

    Squares are taken of the distance to a channel's first value, which is about as far from the
    mean as any: so little is lost when the square of the mean is subtracted.
    """
    sums, squares = _partial(x, 2)
    _dots(x, x, True, sums, squares)
    _moments(x, sums, squares, mean, variance)


def standardize_backward(
    dy: Array, x: Array, mean: Array, factor: Array, sums: Array, dx: Array
) -> None:
    """dx = (dy - mean(dy) - y mean(dy y)) factor, where y = (x - mean) factor; ``dx`` may be ``dy``

    So the gradient passes ``standardize`` where the factor is 1 / sqrt(variance) of its x.
    ``sums`` is workspace, float64 [2, C].
    """
    sums.fill(0)
    add_dots(dy, x, sums[0], sums[1])
    _mean_slopes(mean, factor, x.shape[0] * x.shape[2], sums)
    inner = x.shape[2]
    _standardize_backward(dy.reshape(-1), x.reshape(-1), mean, factor, sums, inner, dx.reshape(-1))


def _partial(x: Array, count: int) -> Array:
    """Workspace for ``count`` sums of each piece of each channel: [count, pieces, C]."""
    channels = x.shape[1]
    pieces = -(-x.shape[0] * x.shape[2] // BLOCK)
    size = count * pieces * channels
    return workspace(size, np.float64)[:size].reshape(count, pieces, channels)


# -- arithmetic: x and y are flat, each channel has runs of ``inner`` values -----------------------


@inline
def run_of(at: Any, end: Any, inner: Any, channels: Any) -> Any:
    """(stop, channel): where the run that index ``at`` lies in ends, at the latest ``end``."""
    run = at // inner
    return min(end, (run + 1) * inner), run % channels


@kernel
def shift(x: Any, offset: Any, inner: Any, y: Any) -> None:
    """y = x + offset[c]"""
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, offset.size)
            b = offset[c]
            for i in range(at, stop):
                y[i] = x[i] + b
            at = stop


@kernel
def scale(x: Any, factor: Any, inner: Any, y: Any) -> None:
    """y = x factor[c]"""
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, factor.size)
            a = x.dtype.type(factor[c])
            for i in range(at, stop):
                y[i] = x[i] * a
            at = stop


@kernel
def scale_shift(x: Any, factor: Any, offset: Any, inner: Any, y: Any) -> None:
    """y = x factor[c] + offset[c]"""
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, factor.size)
            a = factor[c]
            b = offset[c]
            for i in range(at, stop):
                y[i] = x[i] * a + b
            at = stop


@kernel
def standardize(x: Any, mean: Any, factor: Any, inner: Any, y: Any) -> None:
    """y = (x - mean[c]) factor[c]"""
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, mean.size)
            centre = x.dtype.type(mean[c])
            a = x.dtype.type(factor[c])
            for i in range(at, stop):
                y[i] = (x[i] - centre) * a
            at = stop


@kernel
def _standardize_backward(
    dy: Any, x: Any, mean: Any, factor: Any, slopes: Any, inner: Any, dx: Any
) -> None:
    for piece in prange((x.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(x.size, at + BLOCK)
        while at < end:
            stop, c = run_of(at, end, inner, mean.size)
            centre = x.dtype.type(mean[c])
            a = x.dtype.type(factor[c])
            constant = x.dtype.type(slopes[0, c])
            linear = x.dtype.type(slopes[1, c])
            for i in range(at, stop):
                y = (x[i] - centre) * a
                dx[i] = (dy[i] - constant - y * linear) * a
            at = stop


@serial
def _mean_slopes(mean: Any, factor: Any, count: Any, sums: Any) -> None:
    """Of the sums of dy and dy x, the means of dy and dy y."""
    for c in range(mean.size):
        dot = (sums[1, c] - mean[c] * sums[0, c]) * factor[c]
        sums[0, c] /= count
        sums[1, c] = dot / count


# -- sums: one job is one piece of one channel -----------------------------------------------------


@kernel
def _sums(x: Any, of: Any, partial: Any) -> None:
    channels, inner = x.shape[1], x.shape[2]
    count = x.shape[0] * inner
    for job in prange(partial.size):
        piece = job // channels
        c = job % channels
        at = piece * BLOCK
        end = min(count, at + BLOCK)
        total = 0.0
        while at < end:
            stop, n = run_of(at, end, inner, x.shape[0])
            first = at - n * inner
            total += _sum(x[n, c, first : first + stop - at], of)
            at = stop
        partial[piece, c] = total


@kernel
def _dots(x: Any, z: Any, centred: Any, sums: Any, dots: Any) -> None:
    """Sums of x - p and of (x - p) (z - p); p is a channel's first x if ``centred``, else 0."""
    channels, inner = x.shape[1], x.shape[2]
    count = x.shape[0] * inner
    for job in prange(sums.size):
        piece = job // channels
        c = job % channels
        at = piece * BLOCK
        end = min(count, at + BLOCK)
        pivot = np.float64(x[0, c, 0]) if centred else 0.0
        total, dot = 0.0, 0.0
        while at < end:
            stop, n = run_of(at, end, inner, x.shape[0])
            first = at - n * inner
            last = first + stop - at
            more, product = _dot(x[n, c, first:last], z[n, c, first:last], pivot)
            total += more
            dot += product
            at = stop
        sums[piece, c] = total
        dots[piece, c] = dot


@kernel
def _add_products(x: Any, z: Any, total: Any) -> None:
    """What sums of one value each come to, without workspace for each."""
    for i in prange(total.size):
        total[i] += np.float64(x[i]) * np.float64(z[i])


@serial
def _collect(partial: Any, total: Any) -> None:
    for c in range(total.size):
        value = 0.0
        for piece in range(partial.shape[0]):
            value += partial[piece, c]
        total[c] += value


@serial
def _moments(x: Any, sums: Any, squares: Any, mean: Any, variance: Any) -> None:
    count = x.shape[0] * x.shape[2]
    for c in range(mean.size):
        total, square = 0.0, 0.0
        for piece in range(sums.shape[0]):
            total += sums[piece, c]
            square += squares[piece, c]
        if count == 0:
            mean[c] = 0.0
            variance[c] = 0.0
            continue
        offset = total / count
        mean[c] = np.float64(x[0, c, 0]) + offset
        # Far from negative: the first value, whose deviation is 0, keeps the two terms apart.
        variance[c] = square / count - offset * offset


# -- sums over a line: four at a time, as each addition waits for the one before -------------------


@inline
def _term(value: Any, of: Any) -> Any:
    return abs(np.float64(value)) if of == ABSOLUTE else np.float64(value)


@inline
def _sum(line: Any, of: Any) -> Any:
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = line.size - line.size % 4
    for i in range(0, whole, 4):
        a += _term(line[i], of)
        b += _term(line[i + 1], of)
        c += _term(line[i + 2], of)
        d += _term(line[i + 3], of)
    for i in range(whole, line.size):
        a += _term(line[i], of)
    return (a + b) + (c + d)


@inline
def _dot(x: Any, z: Any, pivot: Any) -> Any:
    """(sum of x - pivot, sum of (x - pivot) (z - pivot))"""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    p, q, r, s = 0.0, 0.0, 0.0, 0.0
    whole = x.size - x.size % 4
    for i in range(0, whole, 4):
        x0 = np.float64(x[i]) - pivot
        x1 = np.float64(x[i + 1]) - pivot
        x2 = np.float64(x[i + 2]) - pivot
        x3 = np.float64(x[i + 3]) - pivot
        a += x0
        b += x1
        c += x2
        d += x3
        p += x0 * (np.float64(z[i]) - pivot)
        q += x1 * (np.float64(z[i + 1]) - pivot)
        r += x2 * (np.float64(z[i + 2]) - pivot)
        s += x3 * (np.float64(z[i + 3]) - pivot)
    for i in range(whole, x.size):
        x0 = np.float64(x[i]) - pivot
        a += x0
        p += x0 * (np.float64(z[i]) - pivot)
    return (a + b) + (c + d), (p + q) + (r + s)
