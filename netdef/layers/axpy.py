"""Axpy: z = a * x + y, with one a for each channel of each item."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.kernels.channels import add_dots, scale
from netdef.layer import Layer, register


@register("Axpy")
class Axpy(Layer):
    """Multiplies each channel by a number of its own and adds another blob: a gated shortcut.

        z[n, c, ...] = a[n, c] * x[n, c, ...] + y[n, c, ...]

        bottom  a  [N, C], or with further axes of length 1
                x  [N, C, ...]
                y  shape of x
        top     z  shape of x

    It is what Scale and Eltwise do one after the other in a block that squeezes and excites. All
    bottoms have a gradient.

    Example::

        layer {
          name: "conv2_1"
          type: "Axpy"
          bottom: "conv2_1_1x1_up"        # 16x256x1x1
          bottom: "conv2_1_1x1_increase"  # 16x256x56x56
          bottom: "conv2_1_1x1_proj"      # 16x256x56x56
          top: "conv2_1"
        }

    Source: Hu, Shen & Sun, "Squeeze-and-excitation networks", CVPR 2018; SENet's Caffe.
    """

    bottoms = 3
    backward_reads = ("bottom",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        a, x, y = bottoms
        if len(x) < 2:
            raise self.error(
                f"x must have at least 2 axes (N, C, ...), but it is {shape_text(x)}", "bottom", 1
            )
        if a[:2] != x[:2] or math.prod(a) != math.prod(x[:2]):
            raise self.error(
                f"a must have one value for each channel of x, {shape_text(x[:2])} for "
                f"{shape_text(x)}, but it is {shape_text(a)}",
                "bottom",
                0,
            )
        if y != x:
            raise self.error(
                f"y must have the shape of x, {shape_text(x)}, but it is {shape_text(y)}",
                "bottom",
                2,
            )
        return [x]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[1].shape
        # Every channel of every item is a row.
        self._rows = x[0] * x[1], math.prod(x[2:])

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y, z = (blob.data.reshape(self._rows) for blob in (bottom[1], bottom[2], top[0]))
        _axpy(bottom[0].flat, x, y, z)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        a, x, y = bottom
        dz = self._as_channels(top[0].diff)
        if a.diff is not None:
            a.diff.fill(0)
            add_dots(dz, self._as_channels(x.data), None, a.flat_diff)
        if x.diff is not None:
            scale(dz, a.flat, self._as_channels(x.diff))
        if y.diff is not None:
            np.copyto(y.diff, top[0].diff)

    def _as_channels(self, values: Array) -> Array:
        """[1, rows, inner]: to sums over channels, each row is a channel of one item."""
        channels: Array = values.reshape(1, *self._rows)
        return channels


@kernel
def _axpy(a: Any, x: Any, y: Any, z: Any) -> None:
    for row in prange(x.shape[0]):
        for i in range(x.shape[1]):
            z[row, i] = a[row] * x[row, i] + y[row, i]
