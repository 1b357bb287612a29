"""The geometry of a convolution over any number of spatial axes, as tables for kernels.

With the last axis set apart from the others, a line of the output reads from lines of the image::

    y[line, o]  sees  x[source[line, place] + shift[tap] + stride o]     low[tap] <= o < high[tap]

``line`` counts the output's lines and ``place`` the window's, both over all axes but the last;
``tap`` counts along the last axis of the window. ``source`` is where in a channel of the image that
line begins, or -1 where it lies in the padding. Where o is not within its bounds, the tap sees
padding. So nothing has to be padded, whatever the number of axes, the stride or the dilation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netdef.blob import Array


class Extents(NamedTuple):
    """The numbers a kernel needs; channels and outputs are those of one group."""

    groups: int
    channels: int
    outputs: int
    plane: int  # values of one channel of the image
    positions: int  # values of one channel of the output
    width: int  # of the output's last axis
    window: int  # taps of one channel
    reach: int  # taps along the last axis
    stride: int  # along the last axis


class Geometry(NamedTuple):
    """A convolution: its extents, and the tables that this module's text describes."""

    extents: Extents
    source: Array  # int64 [lines, places]
    taps: Array  # int64 [3, reach]: shift, low, high
    #: Kernel, stride, pad and dilation of each axis, and the extents of image and output.
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    image: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def pointwise(self) -> bool:
        """Whether every output value sees one value of each channel, at its own place."""
        return self.extents.window == 1 and self.image == self.output and not any(self.pad)


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
    """The geometry of a convolution of ``channels`` x ``image`` to ``outputs`` x ``output``.

    ``pad`` may be negative: so much of the image is then left out.
    """
    sizes = tuple(map(tuple, (window, stride, pad, dilation, image, output)))
    axes = list(zip(*sizes, strict=True))
    if not axes or all(size[:3] == (1, 1, 0) and size[4] == size[5] for size in axes):
        # Values meet one by one: their planes may as well be one line.
        axes = [(1, 1, 0, 1, math.prod(image), math.prod(output))]
    *outer, (reach, step, margin, dilated, across, width) = axes
    source = np.zeros((1, 1), np.int64)
    exists = np.ones((1, 1), np.bool_)
    for kernel, by, padding, apart, length, count in outer:
        at = np.arange(count)[:, None] * by + np.arange(kernel)[None, :] * apart - padding
        inside = (at >= 0) & (at < length)
        shape = (len(source) * count, source.shape[1] * kernel)
        source = (source[:, None, :, None] * length + at[None, :, None, :]).reshape(shape)
        exists = (exists[:, None, :, None] & inside[None, :, None, :]).reshape(shape)
    shift = np.arange(reach, dtype=np.int64) * dilated - margin
    low = np.maximum(0, -(shift // step))
    high = np.minimum(width, (across - 1 - shift) // step + 1)
    return Geometry(
        Extents(
            groups,
            channels // groups,
            outputs // groups,
            math.prod(image),
            math.prod(output),
            width,
            math.prod(window),
            reach,
            step,
        ),
        np.where(exists, source * across, -1),
        np.stack([shift, low, np.maximum(low, high)]),
        *sizes,
    )


def flipped(g: Geometry) -> Geometry | None:
    """The convolution, of the output's gradient to the image's, that is the gradient of this one.

    Its weights are those of this one with channels for outputs and every axis of the window turned
    round. None where strides make it something else.
    """
    if any(step != 1 for step in g.stride):
        return None
    e = g.extents
    spans = [d * (k - 1) for k, d in zip(g.window, g.dilation, strict=True)]
    return geometry(
        e.groups * e.outputs,
        e.groups * e.channels,
        e.groups,
        g.output,
        g.image,
        g.window,
        g.stride,
        [span - pad for span, pad in zip(spans, g.pad, strict=True)],
        g.dilation,
    )
