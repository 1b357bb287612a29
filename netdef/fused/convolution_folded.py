"""Convolution with what follows it where nothing is learned: one pass for up to five layers.

With stored statistics, BatchNorm and Scale are y = x slope[m] + offset[m] for each output channel,
and a residual connection adds a blob::

    y = max(0, (x * w) slope[m] + offset[m] + z)

    slope  = coeff * gamma / deviation
    offset = coeff * ((b - mean) gamma / deviation + beta)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netdef.blob import Blob
from netdef.fused.common import adds_two, rectifies, scales_channels
from netdef.fusion import Fused, fuses
from netdef.jit import serial
from netdef.layer import Layer
from netdef.plan import LayerPlan


@fuses
class FoldedConvolution(Fused):
    """Convolution, then as far as they come in this order: BatchNorm with stored statistics, Scale,
    Eltwise that adds another blob, ReLU."""

    has_backward = False

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__(layers)
        by_type: dict[str, Any] = {layer.type: layer for layer in layers}
        self._convolution = by_type["Convolution"]
        self._norm = by_type.get("BatchNorm")
        self._scale = by_type.get("Scale")
        self._rectifies = "ReLU" in by_type
        self._coeff = 1.0
        if "Eltwise" in by_type and by_type["Eltwise"].config.coeff:
            self._coeff = by_type["Eltwise"].config.coeff[self._branch(layers)]

    @staticmethod
    def _branch(layers: Sequence[Layer]) -> int:
        """Which bottom of the Eltwise comes from the layers before it."""
        number = next(i for i, layer in enumerate(layers) if layer.type == "Eltwise")
        before = layers[number - 1].message.top[0]
        return list(layers[number].message.bottom).index(before)

    @classmethod
    def match(cls, chain: Sequence[LayerPlan]) -> int:
        first = chain[0]
        if first.type != "Convolution" or len(first.bottoms) != 1:
            return 0
        if first.layer.config.axis % len(first.bottom_shapes[0]) != 1:
            return 0
        count = 1
        for fits in (_recalls, scales_channels, _adds, rectifies):
            if count < len(chain) and fits(chain[count]):
                if fits is _adds and not _adds_plainly(chain[count - 1], chain[count]):
                    break
                count += 1
        return count

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        layer = self._convolution
        outputs = layer.config.num_output
        changes = self._norm is not None or self._scale is not None or self._coeff != 1.0
        self._slope = np.empty(outputs if changes else 0, layer.dtype)
        self._offset = np.empty(outputs if changes else 0, layer.dtype)
        self._nothing = np.empty(0)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = bottom[0].data, top[0].data
        addend = bottom[1].data if len(bottom) == 2 else None
        layer = self._convolution
        if not self._slope.size:
            layer.convolve(x, layer.bias, y, None, addend, self._rectifies)
            return
        mean = factor = self._nothing
        if self._norm is not None:
            mean, factor = self._norm.statistics(y)
        gamma = beta = self._nothing
        if self._scale is not None:
            gamma, beta = self._scale.factor, self._scale.bias
        _fold(layer.bias, mean, factor, gamma, beta, self._coeff, self._slope, self._offset)
        layer.convolve(x, self._offset, y, self._slope, addend, self._rectifies)


def _recalls(layer: LayerPlan) -> bool:
    """Whether a layer is a BatchNorm that takes stored statistics, and has no scale of its own."""
    norm: Any = layer.layer
    return layer.type == "BatchNorm" and bool(norm.uses_stored) and not norm.scales


def _adds(layer: LayerPlan) -> bool:
    return adds_two(layer)


def _adds_plainly(before: LayerPlan, layer: LayerPlan) -> bool:
    """Whether the blob that is added to what ``before`` makes is added as it is."""
    other = 1 - layer.bottoms.index(before.tops[0])
    coeff = layer.layer.config.coeff
    return not coeff or bool(coeff[other] == 1)


@serial
def _fold(
    bias: Any,
    mean: Any,
    factor: Any,
    gamma: Any,
    beta: Any,
    coeff: Any,
    slope: Any,
    offset: Any,
) -> None:
    """What is empty among the first five changes nothing."""
    for m in range(slope.size):
        a = np.float64(coeff)
        b = np.float64(bias[m]) if bias.size else 0.0
        if mean.size:
            a *= factor[m]
            b = (b - mean[m]) * factor[m]
        if gamma.size:
            a *= gamma[m]
            b *= gamma[m]
        if beta.size:
            b += beta[m]
        slope[m] = a
        offset[m] = b * coeff
