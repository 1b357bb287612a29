"""Mul: the product of two blobs, one of them repeated where it is smaller."""

from __future__ import annotations

import numpy as np

from netdef.blob import Array, Blob
from netdef.layer import register
from netdef.layers.common.broadcast import Broadcast


@register("Mul")
class Mul(Broadcast):
    """Multiplies two blobs; axes of length 1, and axes that are missing in front, are repeated.

        y = a * b

        bottom  a  any shape
                b  any shape whose axes, counted from the last, are those of a or 1, or the other
                   way round
        top     y  of each axis the longer one

    Example::

        layer {
          name: "squeeze_excite"
          type: "Mul"
          bottom: "features"  # 16x72x28x28
          bottom: "gate"      # 16x72x1x1
          top: "squeeze_excite"
        }

    Source: TensorFlow's mul; Synopsys' Caffe.
    """

    backward_reads = ("bottom",)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.multiply(bottom[0].data, bottom[1].data, out=top[0].data)

    def slope(self, bottom: list[Blob], index: int, dy: Array, out: Array) -> None:
        np.multiply(dy, bottom[1 - index].data, out=out)
