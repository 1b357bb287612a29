"""Add: the sum of two blobs, one of them repeated where it is smaller."""

from __future__ import annotations

import numpy as np

from netdef.blob import Array, Blob
from netdef.layer import register
from netdef.layers.common.broadcast import Broadcast


@register("Add")
class Add(Broadcast):
    """Adds two blobs; axes of length 1, and axes that are missing in front, are repeated.

        y = a + b

        bottom  a  any shape
                b  any shape whose axes, counted from the last, are those of a or 1, or the other
                   way round
        top     y  of each axis the longer one

    Example::

        layer {
          name: "shifted"
          type: "Add"
          bottom: "features"  # 16x72x28x28
          bottom: "shift"     # 72x1x1
          top: "shifted"
        }

    Source: TensorFlow's add; Synopsys' Caffe.
    """

    backward_reads = ()

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.add(bottom[0].data, bottom[1].data, out=top[0].data)

    def slope(self, bottom: list[Blob], index: int, dy: Array, out: Array) -> None:
        np.copyto(out, dy)
