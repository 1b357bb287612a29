"""Pooling: the maximum, the mean, or one drawn value of each window of images.

Images are [planes, height, width]. ``window`` has a row each for kernel, stride and pad, of height
and width. What was chosen from a window is noted as how far it lies behind the first place of the
window, be that in the image or in the padding, rows and columns counted as one axis; -1 is nothing.

Where windows are at most 2 apart, LANES neighbours in a row of the output are computed at once: at
a stride of 1 each place in them is a run of the image, at 2 every second value of two runs::

    x    | 0  1 | 2  3 | 4  5 | 6  7 |      first column: 0 2 4 6, second: 1 3 5 7
    y    |   0  |   1  |   2  |   3  |

The gradient of a maximum goes to one place of each window, and is sent there one by one. Only where
windows do not overlap is it quicker to ask of each place whether it was chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.jit import inline, kernel, prange
from netdef.kernels import lanes
from netdef.kernels.lanes import LANES

#: The maximum of nothing.
LOWEST = -3.4028234663852886e38

#: So many columns of windows make lanes worth while.
ENOUGH = 4

#: No kernel is compiled for windows of more columns.
WIDEST = 8


class Windows:
    """The windows over images of one size, [height, width], that make an output of one size."""

    def __init__(self, window: Array, image: Shape, output: Shape, dtype: Any) -> None:
        self.window = window
        self.image = image
        #: A type that has room for what is chosen from a window.
        self.choice_type = np.int16 if window[0, 0] * image[1] + window[0, 1] < 2**15 else np.int32
        #: How long each window is within the padded image, of rows and of columns.
        self.spans = [
            (np.minimum(i * stride - pad + extent, size + pad) - (i * stride - pad)).astype(dtype)
            for (extent, stride, pad), size, i in zip(
                window.T, image, map(np.arange, output), strict=True
            )
        ]
        #: 1 / spans; a window beyond the image sends nothing
        self.shares = [1 / np.maximum(span, 1) for span in self.spans]
        #: Tuples as long as a kernel is wide, and as its stride.
        self.lengths = (0,) * int(window[0, 1]), (0,) * int(window[1, 1])
        #: Whether lanes pay.
        self.near = bool(window[1, 1] <= 2 and window[0, 1] <= WIDEST and output[1] >= ENOUGH)
        #: Whether windows lie side by side, two pixels wide and high, and cover the image.
        self.apart = bool(
            (window[:2] == 2).all()
            and not window[2].any()
            and tuple(image) == (2 * output[0], 2 * output[1])
            and output[1] >= ENOUGH
        )
        #: Whether there is a single window, the image.
        self.whole = bool(
            tuple(output) == (1, 1) and not window[2].any() and (window[0] >= image).all()
        )


def maximum(windows: Windows, x: Array, y: Array, chosen: Array) -> None:
    """y = the largest value of each window, the first of equal ones; a NaN is never the largest."""
    if windows.near:
        _maximum_of_lanes(x, windows.window, *windows.lengths, y, chosen)
    else:
        _maximum(x, windows.window, y, chosen)


def mean(windows: Windows, x: Array, y: Array) -> None:
    """y = the mean of each window, padding counted as 0."""
    if windows.whole:
        _mean_of_planes(x.reshape(x.shape[0], -1), y.reshape(-1))
    elif windows.near:
        tall, wide = windows.spans
        _mean_of_lanes(x, windows.window, *windows.lengths, tall, wide, y)
    else:
        _mean(x, windows.window, y)


def route(windows: Windows, dy: Array, chosen: Array, add: bool, dx: Array) -> None:
    """dx = what each window's gradient sends to the place it chose; or ``add``s it."""
    if windows.apart and not add:
        _route_apart(dy, chosen, dx)
    else:
        _route(dy, chosen, windows.window, add, dx)


def spread(windows: Windows, dy: Array, add: bool, dx: Array) -> None:
    """dx = what each window's gradient sends, in equal shares, to its places; or ``add``s it."""
    if windows.whole:
        _spread_over_planes(dy.reshape(-1), add, dx.reshape(dx.shape[0], -1))
    elif windows.near:
        tall, wide = windows.shares
        _spread_of_lanes(dy, windows.window, *windows.lengths, tall, wide, add, dx)
    else:
        _spread(dy, windows.window, add, dx)


def places(windows: Windows, chosen: Array, y: Array) -> None:
    """y = where in the image lies what was chosen, rows and columns counted as one axis, or -1."""
    _places(chosen, windows.window, windows.image[1], y)


# -- lanes -----------------------------------------------------------------------------------------


@inline
def _inside(first: Any, stride: Any, size: Any) -> Any:
    """Which of the columns first, first + stride, ... a row of ``size`` values has."""
    column = lanes.count_up(np.int32(first), np.int32(stride))
    return (column > lanes.fill(np.int32(-1))) & (lanes.fill(np.int32(size)) > column)


@inline
def _pair(x: Any, at: Any, reach: Any, careful: Any) -> Any:
    """Two times LANES values from index ``at`` on, the second only if ``reach`` is 2.

    A ``careful`` one gives anything for what lies outside the array.
    """
    if careful:
        zero = x.dtype.type(0)
        first = lanes.load_part(x, at, 0, x.size, zero)
        return first, lanes.load_part(x, at + LANES, 0, x.size, zero) if reach == 2 else first
    first = lanes.load(x, at)
    return first, lanes.load(x, at + LANES) if reach == 2 else first


@inline
def _larger(best: Any, place: Any, value: Any, at: Any, inside: Any) -> Any:
    """(best, place), or (value, at) where the value is inside and larger."""
    larger = inside & (value > best)
    return lanes.choose(larger, value, best), lanes.choose(larger, at, place)


@inline
def _largest(
    x: Any, corner: Any, low: Any, high: Any, first: Any, wide: Any, stride: Any, careful: Any
) -> Any:
    """(value, place) of the maximum in rows ``low`` to ``high`` - 1 of LANES windows.

    The first of these begins in column ``first`` of the image, at index ``corner`` of ``x``.
    """
    width = x.shape[2]
    lowest, none = lanes.fill(x.dtype.type(LOWEST)), lanes.fill(np.int32(-1))
    one, rest_of_row = lanes.fill(np.int32(1)), lanes.fill(np.int32(width - wide))
    best, place = lowest, none
    at = lanes.fill(np.int32(low * width))
    anywhere = one == one
    for h in range(low, high):
        # The maximum of each row by itself: so rows do not wait for each other.
        value, there = lowest, none
        for w in range(0, wide, stride):
            a, b = _pair(x, corner + h * width + w, stride, careful)
            new = a if stride == 1 else lanes.even(a, b)
            value, there = _larger(value, there, new, at, _inside(first + w, stride, width))
            at = at + one
            if stride == 2 and w + 1 < wide:
                new, inside = lanes.odd(a, b), _inside(first + w + 1, stride, width)
                value, there = _larger(value, there, new, at, inside)
                at = at + one
        at = at + rest_of_row
        best, place = _larger(best, place, value, there, anywhere)
    return best, place


@inline
def _sum(
    x: Any, corner: Any, low: Any, high: Any, first: Any, wide: Any, stride: Any, careful: Any
) -> Any:
    """The sum over rows ``low`` to ``high`` - 1 of LANES windows, as for ``_largest``."""
    width = x.shape[2]
    nothing = lanes.fill(x.dtype.type(0))
    total = nothing
    for h in range(low, high):
        for w in range(0, wide, stride):
            a, b = _pair(x, corner + h * width + w, stride, careful)
            value = a if stride == 1 else lanes.even(a, b)
            total = total + lanes.choose(_inside(first + w, stride, width), value, nothing)
            if stride == 2 and w + 1 < wide:
                value = lanes.odd(a, b)
                total = total + lanes.choose(_inside(first + w + 1, stride, width), value, nothing)
    return total


@inline
def _store_columns(y: Any, row: Any, size: Any, first: Any, value: Any) -> None:
    """Columns from ``first`` on of the row of ``size`` values that begins at ``row`` = value."""
    if first + LANES <= size:
        lanes.store(y, row + first, value)
    else:
        lanes.store_part(y, row + first, row, row + size, value)


@kernel
def _maximum_of_lanes(x: Any, window: Any, across: Any, steps: Any, y: Any, chosen: Any) -> None:
    """The lengths of the tuples ``across`` and ``steps`` are the kernel's width and stride.

    So both are known when this is compiled, and loops over them unroll.
    """
    height, width, rows, columns = x.shape[1], x.shape[2], y.shape[1], y.shape[2]
    tall, wide, stride = window[0, 0], len(across), len(steps)
    for plane in prange(x.shape[0]):
        for i in range(rows):
            top = i * window[1, 0] - window[2, 0]
            low, high = max(0, -top), min(tall, height - top)
            row = (plane * rows + i) * columns
            for j in range(0, columns, LANES):
                first = j * stride - window[2, 1]
                corner = (plane * height + top) * width + first
                end = corner + (tall - 1) * width + wide + stride * LANES
                if corner < 0 or end > x.size:
                    best, place = _largest(x, corner, low, high, first, wide, stride, True)
                else:
                    best, place = _largest(x, corner, low, high, first, wide, stride, False)
                _store_columns(y, row, columns, j, best)
                _store_columns(chosen, row, columns, j, lanes.convert(place, chosen.dtype.type(0)))


@kernel
def _mean_of_lanes(
    x: Any, window: Any, across: Any, steps: Any, spans: Any, widths: Any, y: Any
) -> None:
    """Width and stride of the kernel are given as for ``_maximum_of_lanes``."""
    height, width, rows, columns = x.shape[1], x.shape[2], y.shape[1], y.shape[2]
    tall, wide, stride = window[0, 0], len(across), len(steps)
    for plane in prange(x.shape[0]):
        for i in range(rows):
            top = i * window[1, 0] - window[2, 0]
            low, high = max(0, -top), min(tall, height - top)
            row = (plane * rows + i) * columns
            for j in range(0, columns, LANES):
                first = j * stride - window[2, 1]
                corner = (plane * height + top) * width + first
                end = corner + (tall - 1) * width + wide + stride * LANES
                if corner < 0 or end > x.size:
                    total = _sum(x, corner, low, high, first, wide, stride, True)
                else:
                    total = _sum(x, corner, low, high, first, wide, stride, False)
                pixels = lanes.load_part(widths, j, 0, columns, x.dtype.type(1))
                _store_columns(y, row, columns, j, total / (lanes.fill(spans[i]) * pixels))


@kernel
def _spread_of_lanes(
    dy: Any, window: Any, across: Any, steps: Any, tall: Any, wide: Any, add: Any, dx: Any
) -> None:
    """Each place of the image adds up what it gets from the windows over it.

    ``tall`` and ``wide`` are 1 / the spans of the windows.
    """
    rows, columns, height, width = dy.shape[1], dy.shape[2], dx.shape[1], dx.shape[2]
    extent, down, over = window[0, 0], window[1, 0], window[2, 0]
    stride, left = len(steps), window[2, 1]
    zero = dy.dtype.type(0)
    for plane in prange(dx.shape[0]):
        for h in range(height):
            # The rows of windows over this row of the image.
            low = (h + over - extent) // down + 1 if h + over >= extent else 0
            high = min(rows, (h + over) // down + 1)
            target = (plane * height + h) * width
            for w in range(0, width, stride * LANES):
                even, odd = lanes.fill(zero), lanes.fill(zero)
                for i in range(low, high):
                    row = (plane * rows + i) * columns
                    share = lanes.fill(tall[i])
                    for t in range(len(across)):
                        # Windows whose column t is column w of the image, w + stride, ...; or else,
                        # at a stride of 2, w + 1, w + 3, ...
                        first = (w + left - t + stride - 1) >> (stride - 1)
                        value = lanes.load_part(dy, row + first, row, row + columns, zero)
                        value = value * (share * lanes.load_part(wide, first, 0, columns, zero))
                        if (left - t) & (stride - 1) == 0:
                            even = even + value
                        else:
                            odd = odd + value
                if stride == 1:
                    _put_columns(dx, target, width, w, even, add)
                else:
                    _put_columns(dx, target, width, w, lanes.zip_first(even, odd), add)
                    if w + LANES < width:
                        above = lanes.zip_second(even, odd)
                        _put_columns(dx, target, width, w + LANES, above, add)


@inline
def _put_columns(y: Any, row: Any, size: Any, first: Any, value: Any, add: Any) -> None:
    """Columns from ``first`` on of a row of ``size`` values = value; or ``add`` it."""
    if add:
        value = value + lanes.load_part(y, row + first, row, row + size, y.dtype.type(0))
    _store_columns(y, row, size, first, value)


# -- one window after the other --------------------------------------------------------------------


@inline
def _window_of(index: Any, kernel: Any, stride: Any, pad: Any, size: Any) -> Any:
    """(first, end, span) of a window: its part in the image, its length in the padded image."""
    first = index * stride - pad
    end = min(first + kernel, size + pad)
    span = end - first
    return max(first, 0), min(end, size), span


@inline
def _first_place(window: Any, i: Any, j: Any, width: Any) -> Any:
    """Where the first place of window (i, j) is, rows and columns counted as one axis."""
    row, column = i * window[1, 0] - window[2, 0], j * window[1, 1] - window[2, 1]
    return row * width + column


@kernel
def _maximum(x: Any, window: Any, y: Any, chosen: Any) -> None:
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, _ = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, _ = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                begin = _first_place(window, i, j, width)
                best = x.dtype.type(LOWEST)
                place = -1
                for h in range(top, bottom):
                    for w in range(left, right):
                        value = x[plane, h, w]
                        if value > best:
                            best = value
                            place = h * width + w - begin
                y[plane, i, j] = best
                chosen[plane, i, j] = place


@kernel
def _mean(x: Any, window: Any, y: Any) -> None:
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
def _route(dy: Any, chosen: Any, window: Any, add: Any, dx: Any) -> None:
    width, size = dx.shape[2], dx.shape[1] * dx.shape[2]
    step = window[1, 1]
    flat = dx.reshape(-1)
    zero = dx.dtype.type(0)
    for plane in prange(dy.shape[0]):
        if not add:
            for at in range(np.uint64(plane * size), np.uint64((plane + 1) * size)):
                flat[at] = zero
        for i in range(dy.shape[1]):
            begin = plane * size + _first_place(window, i, 0, width)
            for j in range(dy.shape[2]):
                place = np.int64(chosen[plane, i, j])
                if place >= 0:
                    flat[np.uint64(begin + place)] += dy[plane, i, j]
                begin += step


@kernel
def _route_apart(dy: Any, chosen: Any, dx: Any) -> None:
    """For windows of 2 x 2 side by side."""
    rows, columns, width = dy.shape[1], dy.shape[2], dx.shape[2]
    none, zero = chosen.dtype.type(-1), dy.dtype.type(0)
    nothing = lanes.fill(zero)
    for plane in prange(dy.shape[0]):
        for i in range(rows):
            row = (plane * rows + i) * columns
            for j in range(0, columns, LANES):
                slant = lanes.load_part(dy, row + j, row, row + columns, zero)
                place = lanes.load_part(chosen, row + j, row, row + columns, none)
                for h in range(2):
                    first = lanes.fill(chosen.dtype.type(h * width))
                    second = lanes.fill(chosen.dtype.type(h * width + 1))
                    # From 0 upwards, as everywhere: so no gradient is -0.
                    even = nothing + lanes.choose(place == first, slant, nothing)
                    odd = nothing + lanes.choose(place == second, slant, nothing)
                    target = (2 * (plane * rows + i) + h) * width
                    _store_columns(dx, target, width, 2 * j, lanes.zip_first(even, odd))
                    if 2 * j + LANES < width:
                        above = 2 * j + LANES
                        _store_columns(dx, target, width, above, lanes.zip_second(even, odd))


@kernel
def _spread(dy: Any, window: Any, add: Any, dx: Any) -> None:
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
def _places(chosen: Any, window: Any, width: Any, y: Any) -> None:
    for plane in prange(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                place = chosen[plane, i, j]
                y[plane, i, j] = place + _first_place(window, i, j, width) if place >= 0 else -1


# -- a single window, the image --------------------------------------------------------------------


@kernel
def _mean_of_planes(x: Any, y: Any) -> None:
    size = x.shape[1]
    for plane in prange(x.shape[0]):
        end = (plane + 1) * size
        whole = end - size % LANES
        total = lanes.fill(0.0)
        for at in range(plane * size, whole, LANES):
            total = total + lanes.double(lanes.load(x, at))
        if whole < end:
            total = total + lanes.double(lanes.load_part(x, whole, whole, end, x.dtype.type(0)))
        y[plane] = lanes.total(total) / size


@kernel
def _spread_over_planes(dy: Any, add: Any, dx: Any) -> None:
    for plane in prange(dx.shape[0]):
        share = dy[plane] / dy.dtype.type(dx.shape[1])
        for i in range(dx.shape[1]):
            dx[plane, i] = dx[plane, i] + share if add else share


# -- drawing ---------------------------------------------------------------------------------------


@kernel
def draw(x: Any, window: Any, unit: Any, y: Any, chosen: Any) -> None:
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
                drawn = at >= 0 and total == total
                y[plane, i, j] = x[plane, at // width, at % width] if drawn else total
                chosen[plane, i, j] = at - _first_place(window, i, j, width) if at >= 0 else -1


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
