"""Images that are read in place: where in them each tap of a window sees each position.

What tap t sees at position p, the column of im2col, stands in an image at ``taps[t] +
positions[p]``: one table for the taps of all channels, one for all positions. A micro-kernel that
takes its left factor through such tables needs no columns, whatever the number of axes, the stride
or the dilation. Images with padding are copied with it first, which costs less than gathering
columns by as much as a window has taps; so are images whose channels would share lines of the
cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.geometry import Geometry
from netdef.kernels.microkernel import APART, WAY


class Places(NamedTuple):
    """How the columns of each image and group, [taps, positions], lie in memory."""

    taps: Array  # int64 [taps] and [positions]: a number stands at the sum of one entry of each
    positions: Array
    plane: int  # elements from one channel to the next
    #: Of a copy, int64: where in a channel of the image each of its lines begins, or -1 where it
    #: lies in the padding; the length of a line, and of the padding before it. Else no lines.
    lines: Array
    width: int
    margin: int


def places_of(g: Geometry, itemsize: int) -> Places:
    """The tables of a convolution of elements of ``itemsize`` bytes."""
    sizes = g.window, g.stride, g.pad, g.dilation, g.image, g.output
    return _places(g.extents.channels, itemsize, *sizes)


def copied_size(g: Geometry, places: Places) -> int:
    """Elements of a copy of an image: 0 where images are read as they are."""
    return g.extents.groups * g.extents.channels * places.plane if places.lines.size else 0


def readable(g: Geometry, places: Places, x: Array, copies: Array) -> Array:
    """A flat batch of images as it is, or ``copies``, which they are then written to."""
    if not places.lines.size:
        return x
    _copy(x, g.extents.plane, g.image[-1], places, x.size // g.extents.plane, copies)
    return copies


@lru_cache(maxsize=128)
def _places(
    channels: int,
    itemsize: int,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    image: tuple[int, ...],
    output: tuple[int, ...],
) -> Places:
    axes = range(len(window))
    # What windows see of each axis, from its padding on.
    seen = [(output[i] - 1) * stride[i] + (window[i] - 1) * dilation[i] + 1 for i in axes]
    inside = not any(pad) and all(seen[i] <= image[i] for i in axes)
    in_place = inside and math.prod(image) * itemsize % WAY != 0
    extents = list(image) if in_place else seen
    plane = math.prod(extents)
    if not in_place and plane * itemsize % WAY == 0:
        plane += APART
    # How far a step along each axis leads.
    steps = [math.prod(extents[i + 1 :]) for i in axes]
    taps = _grid([channels, *window], [plane, *(dilation[i] * steps[i] for i in axes)])
    positions = _grid(output, [stride[i] * steps[i] for i in axes])
    lines = np.zeros(0 if in_place else 1, np.int64)
    for i in axes[:-1]:
        at = np.arange(extents[i]) - pad[i]
        exists = (lines[:, None] >= 0) & (at >= 0) & (at < image[i])
        lines = np.where(exists, lines[:, None] * image[i] + at, -1).reshape(-1)
    lines = np.where(lines > 0, lines * image[-1], lines)
    return Places(taps, positions, plane, lines, extents[-1], pad[-1])


def _grid(counts: Sequence[int], steps: Sequence[int]) -> Array:
    """The sums of multiples of steps, of each as many as its count; the last ones change first."""
    total = np.zeros(1, np.int64)
    for count, step in zip(counts, steps, strict=True):
        total = (total[:, None] + np.arange(count) * step).reshape(-1)
    return total


@kernel
def _copy(x: Any, plane: Any, width: Any, places: Any, channels: Any, copies: Any) -> None:
    """Images with their padding: all channels, of as many images as there are."""
    zero = x.dtype.type(0)
    first = max(0, places.margin)
    end = max(first, min(places.width, places.margin + width))
    for channel in prange(channels):
        for line in range(places.lines.size):
            at = channel * places.plane + line * places.width
            begin = places.lines[line]
            if begin < 0:
                for i in range(places.width):
                    copies[at + i] = zero
            else:
                source = channel * plane + begin - places.margin
                for i in range(first):
                    copies[at + i] = zero
                for i in range(first, end):
                    copies[at + i] = x[source + i]
                for i in range(end, places.width):
                    copies[at + i] = zero
