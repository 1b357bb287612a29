"""Transpose: the axes in another order."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.layer import Layer, register


@register("Transpose", config="transpose_param")
class Transpose(Layer):
    """Puts the axes of its bottom into another order.

        shape of y = (shape of x)[dim]

        bottom  x  any shape
        top     y  axis i is axis ``dim[i]`` of x

    ``dim`` names every axis once, counted from 0.

    Example::

        layer {
          name: "time_first"
          type: "Transpose"
          bottom: "pool5"  # 16x512x1x40
          top: "time_first"
          transpose_param {
            dim: 3
            dim: 2
            dim: 0
            dim: 1
          }
        }

    Source: CTPN's Caffe.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        order = list(self.config.dim)
        for i, axis in enumerate(order):
            if not 0 <= axis < len(x):
                raise self.error(
                    f"dim is {axis}, but the bottom {shape_text(x)} has only axes 0 to "
                    f"{len(x) - 1}",
                    "transpose_param",
                    "dim",
                    i,
                )
            if axis in order[:i]:
                raise self.error(f"dim {axis} is given twice", "transpose_param", "dim", i)
        if len(order) != len(x):
            raise self.error(
                f"{len(order)} dim are given, but the bottom {shape_text(x)} has {len(x)} axes: "
                "name each of them once",
                "transpose_param",
            )
        return [tuple(x[axis] for axis in order)]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, bottom[0].data.transpose(self.config.dim))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            np.copyto(bottom[0].diff.transpose(self.config.dim), top[0].diff)
