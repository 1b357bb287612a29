"""The columns of a convolution: what each tap sees at each position, gathered and given back.

``gather`` fills the panels that every convolution is multiplied from. ``im2col`` and ``col2im``
make and take whole matrices of columns, for the layer that shows them.
"""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, prange
from netdef.kernels.geometry import Geometry
from netdef.kernels.vectors import copy_every_fourth, copy_every_second, copy_lanes, lanes


@inline
def gather(
    e: Any,
    source: Any,
    taps: Any,
    x: Any,
    group: Any,
    first_tap: Any,
    tap_count: Any,
    first: Any,
    count: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
) -> None:
    """out[t, j] = what tap ``first_tap + t`` of a group sees at position ``first + j`` of a batch.

    ``x`` is a flat batch of images; taps count over (channel, window), positions over (image,
    output). ``out`` is flat: row t begins at ``out_at + t * out_row``. Each run of positions on one
    line is as many vectors long as it needs, for all channels of the same tap of the window.
    """
    like = x.dtype.type(0)
    size = x.itemsize
    wide = lanes(like)
    # From which channel to which one each tap of the window is wanted. This and the counting below
    # stand in for divisions, which would take longer than the copies between them.
    first_channel = first_tap // e.window
    first_w = first_tap - first_channel * e.window
    last_channel = (first_tap + tap_count) // e.window
    last_w = first_tap + tap_count - last_channel * e.window
    lane = 0
    while lane < count:
        position = first + lane
        n = position // e.positions
        place = position - n * e.positions
        line = place // e.width
        o = place - line * e.width
        run = min(min(e.width - o, count - lane), wide)
        image = (n * e.groups + group) * e.channels * e.plane
        outer = 0
        tap = -1
        for w in range(e.window):
            tap += 1
            if tap == e.reach:
                tap = 0
                outer += 1
            channel = first_channel + (1 if w < first_w else 0)
            end = last_channel + (1 if w < last_w else 0)
            if channel >= end:
                continue
            begin = source[line, outer]
            low = max(0, taps[1, tap] - o)
            high = min(run, taps[2, tap] - o) if begin >= 0 else 0
            at = image + channel * e.plane + begin + taps[0, tap] + o * e.stride
            address = x.ctypes.data + at * size
            target = out.ctypes.data
            target += (out_at + (channel * e.window + w - first_tap) * out_row + lane) * size
            step = e.plane * size
            target_step = e.window * out_row * size
            if high <= low:
                # Nothing but padding; no address in the image stands for it.
                for _ in range(channel, end):
                    copy_lanes(like, target, address, 0, 0, run)
                    target += target_step
            elif e.stride == 1:
                for _ in range(channel, end):
                    copy_lanes(like, target, address, low, high, run)
                    address += step
                    target += target_step
            elif e.stride == 2:
                for _ in range(channel, end):
                    copy_every_second(like, target, address, low, high, run)
                    address += step
                    target += target_step
            elif e.stride == 4:
                for _ in range(channel, end):
                    copy_every_fourth(like, target, address, low, high, run)
                    address += step
                    target += target_step
            else:
                for c in range(channel, end):
                    row = out_at + (c * e.window + w - first_tap) * out_row + lane
                    begin_c = at + (c - channel) * e.plane
                    for i in range(run):
                        inside = low <= i and i < high
                        out[row + i] = x[begin_c + i * e.stride] if inside else like
        lane += run


def im2col(g: Geometry, x: Array, columns: Array) -> None:
    """columns[n, t, p] = what tap t sees of image n at output position p; for one group."""
    _im2col(g.extents, g.source, g.taps, x.reshape(-1), columns.reshape(-1))


def col2im(g: Geometry, columns: Array, x: Array) -> None:
    """x = the sum of what its pixels are in ``columns``: the transpose of :func:`im2col`."""
    _col2im(g.extents, g.source, g.taps, columns.reshape(-1), x.reshape(-1))


@kernel
def _im2col(e: Any, source: Any, taps: Any, x: Any, columns: Any) -> None:
    zero = x.dtype.type(0)
    for row in prange(columns.size // e.positions):
        w = row % e.window
        tap = w % e.reach
        image = row // e.window * e.plane
        for line in range(source.shape[0]):
            at = row * e.positions + line * e.width
            begin = source[line, w // e.reach]
            low = taps[1, tap]
            high = taps[2, tap] if begin >= 0 else low
            for o in range(low):
                columns[at + o] = zero
            for o in range(low, high):
                columns[at + o] = x[image + begin + taps[0, tap] + o * e.stride]
            for o in range(high, e.width):
                columns[at + o] = zero


@kernel
def _col2im(e: Any, source: Any, taps: Any, columns: Any, x: Any) -> None:
    """Pixels sum their taps in ascending order."""
    zero = x.dtype.type(0)
    for channel in prange(x.size // e.plane):
        image = channel * e.plane
        for i in range(image, image + e.plane):
            x[i] = zero
        for w in range(e.window):
            tap = w % e.reach
            for line in range(source.shape[0]):
                at = (channel * e.window + w) * e.positions + line * e.width
                begin = source[line, w // e.reach]
                if begin >= 0:
                    for o in range(taps[1, tap], taps[2, tap]):
                        x[image + begin + taps[0, tap] + o * e.stride] += columns[at + o]
