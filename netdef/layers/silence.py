"""Silence: takes blobs that nothing else reads, so that they are no outputs of the net."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.layer import Layer, register


@register("Silence")
class Silence(Layer):
    """Reads its bottoms and gives nothing; their gradients are 0.

        bottom  x0, x1, ...  any shapes
        top     none

    A blob that no layer reads is an output of the net: this keeps it from being printed.

    Example::

        layer {
          name: "silence"
          type: "Silence"
          bottom: "label"  # 64
        }

    Source: Caffe 1.0.
    """

    bottoms = (1, None)
    tops = 0
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return []

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        pass

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for blob in bottom:
            if blob.diff is not None:
                blob.diff.fill(0)
