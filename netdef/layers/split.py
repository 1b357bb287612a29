"""Split: several layers read one blob, and their gradients add up."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape
from netdef.kernels.elementwise import add
from netdef.layer import Layer, register


@register("Split")
class Split(Layer):
    """Gives its bottom to every top; their gradients add up.

        y0 = y1 = ... = x

        bottom  x            any shape
        top     y0, y1, ...  shape of x

    netdef puts one behind each blob that several layers read. Where no layer works in place
    on the tops and nobody watches them, they use the bottom's memory, and nothing is copied.

    Example::

        layer {
          name: "split"
          type: "Split"
          bottom: "features"  # 8x16
          top: "features_0"
          top: "features_1"
        }

    Source: Caffe 1.0.
    """

    tops = (1, None)
    view = True
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [bottoms[0]] * len(self.message.top)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for blob in top:
            np.copyto(blob.data, bottom[0].data)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        np.copyto(bottom[0].diff, top[0].diff)
        for blob in top[1:]:
            add(blob.flat_diff, bottom[0].flat_diff)
