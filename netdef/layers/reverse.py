"""Reverse: the values along an axis from the last to the first."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape
from netdef.layer import Layer, register
from netdef.layers.common.axes import axis_of


@register("Reverse", config="reverse_param")
class Reverse(Layer):
    """Turns an axis round: what came first comes last.

        y[..., i, ...] = x[..., size - 1 - i, ...]

        bottom  x  any shape but that of a scalar
        top     y  shape of x

    ``axis`` may be given more than once; each is turned round. Without it, it is axis 0: time, for
    the second direction of a bidirectional recurrent net.

    Example::

        layer {
          name: "backwards"
          type: "Reverse"
          bottom: "words"  # 20x16x50
          top: "backwards"
          reverse_param {
            axis: 0
          }
        }

    Source: CTPN's Caffe.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        self._axes(*bottoms)
        return [bottoms[0]]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._turned = self._axes(bottom[0].shape)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, np.flip(bottom[0].data, self._turned))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            np.copyto(bottom[0].diff, np.flip(top[0].diff, self._turned))

    def _axes(self, x: Shape) -> tuple[int, ...]:
        given = list(self.config.axis)
        if not given:
            return (axis_of(self, x, 0, "bottom", 0),)
        axes = [axis_of(self, x, a, "reverse_param", "axis", i) for i, a in enumerate(given)]
        for i, axis in enumerate(axes):
            if axis in axes[:i]:
                raise self.error(f"axis {given[i]} is given twice", "reverse_param", "axis", i)
        return tuple(axes)
