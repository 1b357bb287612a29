"""Bias: y = x + bias, the bias repeated over the axes it does not have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netdef.blob import Blob, Shape
from netdef.kernels.channels import NONE, add_sums, affine
from netdef.layer import Layer, Param, register
from netdef.layers.common.axes import aligned, learned_axes


@register("Bias", config="bias_param")
class Bias(Layer):
    """Adds an array to its bottom, learned or a second bottom, repeated over the other axes.

        y[i, j, k] = x[i, j, k] + b[j]  with the axes of b as j

        bottom  x  any shape
                b  optional: axes of x, from ``axis`` on
        top     y  shape of x; may be x itself
        params  bias [``num_axes`` axes of x, from ``axis`` on], unless it is a second bottom

    A single value (``num_axes: 0``, or a second bottom that is a scalar) is added everywhere.

    Example::

        layer {
          name: "bias1"
          type: "Bias"
          bottom: "conv1"  # 64x20x24x24
          top: "bias1"
          bias_param {
            axis: 1
          }
        }

    Source: Caffe 1.0.
    """

    bottoms = (1, 2)
    in_place = True
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        aligned(self, bottoms[0], self._bias_shape(*bottoms), "bias_param")
        return [bottoms[0]]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        if len(bottoms) == 1:
            yield Param("bias", self._bias_shape(*bottoms), self.config.filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._bias = bottom[1] if len(bottom) == 2 else self.blobs[0]
        self._view = aligned(self, bottom[0].shape, self._bias.shape, "bias_param")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = (blob.data.reshape(self._view) for blob in (bottom[0], top[0]))
        affine(x, NONE, NONE, self._bias.flat, False, y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if len(bottom) == 2:
            if bottom[1].diff is not None:
                bottom[1].diff.fill(0)
                add_sums(top[0].diff.reshape(self._view), bottom[1].flat_diff)
        elif self.learn[0]:
            add_sums(top[0].diff.reshape(self._view), self.blobs[0].flat_diff)
        if bottom[0].diff is not None and bottom[0].diff is not top[0].diff:
            np.copyto(bottom[0].diff, top[0].diff)

    def _bias_shape(self, x: Shape, *second: Shape) -> Shape:
        return second[0] if second else learned_axes(self, x, "bias_param")
