"""Silence: takes blobs that nothing else reads, so that they are no outputs of the net."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.layer import Layer, register


@register("Silence")
class Silence(Layer):
    """Swallows its bottoms; their gradients are 0.

    bottom  x0, x1, ...  any shapes
    top     none
    """

    bottoms = (1, None)
    tops = 0

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return []

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        pass

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for blob in bottom:
            if blob.diff is not None:
                blob.diff.fill(0)
