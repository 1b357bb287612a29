"""Pooling: the maximum, the mean, or one drawn value of each window of images.

Images are [planes, height, width]. ``window`` has a row each for kernel, stride and pad, of height
and width. A mask counts positions in a plane as one axis; -1 is none.
"""

from __future__ import annotations

from typing import Any

from netdef.jit import inline, kernel, prange

#: The maximum of nothing.
LOWEST = -3.4028234663852886e38


@inline
def _window_of(index: Any, kernel: Any, stride: Any, pad: Any, size: Any) -> Any:
    """(first, end, span) of a window: its part in the image, its length in the padded image."""
    first = index * stride - pad
    end = min(first + kernel, size + pad)
    span = end - first
    return max(first, 0), min(end, size), span


@kernel
def maximum(x: Any, window: Any, y: Any, mask: Any) -> None:
    """y = the largest value of each window, the first of equal ones; a NaN is never the largest."""
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, _ = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, _ = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                best = x.dtype.type(LOWEST)
                at = -1
                for h in range(top, bottom):
                    for w in range(left, right):
                        value = x[plane, h, w]
                        if value > best:
                            best = value
                            at = h * width + w
                y[plane, i, j] = best
                mask[plane, i, j] = at


@kernel
def mean(x: Any, window: Any, y: Any) -> None:
    """y = the mean of each window, padding counted as 0."""
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, tall = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, wide = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                total = x.dtype.type(0)
                for h in range(top, bottom):
                    for w in range(left, right):
                        total += x[plane, h, w]
                y[plane, i, j] = total / (x.dtype.type(tall) * x.dtype.type(wide))


@kernel
def draw(x: Any, window: Any, unit: Any, y: Any, mask: Any) -> None:
    """y = a value of each window, drawn in proportion to it by ``unit``, uniform in [0, 1)."""
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, _ = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, _ = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                total = x.dtype.type(0)
                for h in range(top, bottom):
                    for w in range(left, right):
                        total += x[plane, h, w]
                # In (0, total], so that a 0 is drawn only where all are.
                threshold = x.dtype.type(1 - unit[plane, i, j]) * total
                at = _reach(x, plane, top, bottom, left, right, threshold)
                # A window with a NaN in it gives NaN, one that sees nothing gives 0.
                chosen = at >= 0 and total == total
                y[plane, i, j] = x[plane, at // width, at % width] if chosen else total
                mask[plane, i, j] = at


@inline
def _reach(x: Any, plane: Any, top: Any, bottom: Any, left: Any, right: Any, threshold: Any) -> Any:
    """Where the running sum reaches ``threshold``; the last position if it never does."""
    at = -1
    running = x.dtype.type(0)
    for h in range(top, bottom):
        for w in range(left, right):
            at = h * x.shape[2] + w
            running += x[plane, h, w]
            if running >= threshold:
                return at
    return at


@kernel
def expectation(x: Any, window: Any, y: Any) -> None:
    """y = the sum of squares of each window / its sum: the mean of what ``draw`` would draw."""
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, _ = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, _ = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                total, squares = _sums(x, plane, top, bottom, left, right)
                y[plane, i, j] = x.dtype.type(0) if total <= 0 else squares / total


@inline
def _sums(x: Any, plane: Any, top: Any, bottom: Any, left: Any, right: Any) -> Any:
    """The sum of a window, and the sum of its squares."""
    total = x.dtype.type(0)
    squares = x.dtype.type(0)
    for h in range(top, bottom):
        for w in range(left, right):
            total += x[plane, h, w]
            squares += x[plane, h, w] * x[plane, h, w]
    return total, squares


@kernel
def route(dy: Any, mask: Any, add: Any, dx: Any) -> None:
    """The gradient of each window goes where its value came from.

    ``dx`` is flat in each plane, as the mask counts; with ``add`` it keeps what it holds.
    """
    zero = dx.dtype.type(0)
    for plane in prange(dy.shape[0]):
        if not add:
            for i in range(dx.shape[1]):
                dx[plane, i] = zero
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                at = mask[plane, i, j]
                if at >= 0:
                    dx[plane, at] += dy[plane, i, j]


@kernel
def spread(dy: Any, window: Any, add: Any, dx: Any) -> None:
    """The gradient of ``mean``: each window shares its own equally."""
    height, width = dx.shape[1], dx.shape[2]
    for plane in prange(dy.shape[0]):
        if not add:
            _clear(dx, plane)
        for i in range(dy.shape[1]):
            top, bottom, tall = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(dy.shape[2]):
                left, right, wide = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                share = dy[plane, i, j] / (dy.dtype.type(tall) * dy.dtype.type(wide))
                for h in range(top, bottom):
                    for w in range(left, right):
                        dx[plane, h, w] += share


@kernel
def expectation_backward(x: Any, window: Any, dy: Any, add: Any, dx: Any) -> None:
    """The gradient of ``expectation``: (2 x - y) / sum."""
    height, width = dx.shape[1], dx.shape[2]
    for plane in prange(dy.shape[0]):
        if not add:
            _clear(dx, plane)
        for i in range(dy.shape[1]):
            top, bottom, _ = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(dy.shape[2]):
                left, right, _ = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                total, squares = _sums(x, plane, top, bottom, left, right)
                if not total <= 0:
                    y = squares / total
                    slope = dy[plane, i, j] / total
                    for h in range(top, bottom):
                        for w in range(left, right):
                            dx[plane, h, w] += slope * (x[plane, h, w] + x[plane, h, w] - y)


@inline
def _clear(dx: Any, plane: Any) -> None:
    for h in range(dx.shape[1]):
        for w in range(dx.shape[2]):
            dx[plane, h, w] = dx.dtype.type(0)
