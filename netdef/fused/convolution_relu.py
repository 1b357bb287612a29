"""Convolution and ReLU: y = max(0, x * w + b), which is 0 or more before it leaves the register."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from netdef.blob import Blob
from netdef.fused.common import is_changed, rectifies
from netdef.fusion import Fused, fuses
from netdef.layer import Layer
from netdef.plan import LayerPlan


@fuses
class ConvolutionReLU(Fused):
    """Forward, one pass less over y. Backward, the gradient of y is made that of the convolution in
    place, and then passes it: bit by bit what the two layers compute."""

    changes_gradient = True

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__(layers)
        self._convolution: Any
        self._relu: Any
        self._convolution, self._relu = layers

    @classmethod
    def match(cls, chain: Sequence[LayerPlan]) -> int:
        convolution, relu, *behind = chain
        fits = convolution.type == "Convolution" and len(convolution.bottoms) == 1
        if not fits or not rectifies(relu):
            return 0
        return 0 if is_changed(behind) else 2

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom", "top")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        (x,), (y,) = bottom, top
        self._convolution.convolve(x.data, self._convolution.bias, y.data, rectify=True)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        (y,) = top
        self._relu.chain(y.flat, y.flat, y.flat_diff, y.flat_diff)
        self._convolution.backward(top, bottom)
