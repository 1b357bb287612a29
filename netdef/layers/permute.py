"""Permute: the axes of a blob in another order."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.layer import Layer, register


@register("Permute", config="permute_param")
class Permute(Layer):
    """Changes the order of the axes, and moves the values accordingly: a transposition.

        axis i of y is axis order[i] of x

        bottom  x  any shape
        top     y  the axes of x in the new order

    Axes that ``order`` leaves out follow in their order.

    Example::

        layer {
          name: "conv4_3_norm_mbox_loc_perm"
          type: "Permute"
          bottom: "conv4_3_norm_mbox_loc"  # 32x16x38x38
          top: "conv4_3_norm_mbox_loc_perm"
          permute_param {
            order: 0
            order: 2
            order: 3
            order: 1
          }
        }

    Source: Liu et al., "SSD: single shot multibox detector", ECCV 2016, its fork of Caffe.
    """

    backward_reads = ()

    _order: tuple[int, ...] = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        self._order = self._whole_order(x)
        return [tuple(x[axis] for axis in self._order)]

    @property
    def view(self) -> bool:
        return self._order == tuple(range(len(self._order)))

    def _whole_order(self, x: Shape) -> tuple[int, ...]:
        given = list(self.config.order)
        for i, axis in enumerate(given):
            if axis >= len(x):
                raise self.error(
                    f"order names axis {axis}, but the bottom is {shape_text(x)} ({len(x)} axes)",
                    "permute_param",
                    "order",
                    i,
                )
            if axis in given[:i]:
                raise self.error(f"order names axis {axis} twice", "permute_param", "order", i)
        return (*given, *(axis for axis in range(len(x)) if axis not in given))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, bottom[0].data.transpose(self._order))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            np.copyto(bottom[0].diff, top[0].diff.transpose(np.argsort(self._order)))
