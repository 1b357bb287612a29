"""BatchNorm, Scale and ReLU: y = max(0, (x - mean[c]) slope[c] + offset[c]), and its gradient.

With slope = gamma / deviation and offset = beta it is one affine function of each channel, computed
in one pass after the one that takes the mean and the deviation. Backward takes two passes: one for
the sums over each channel that also are the gradients of gamma and beta, one for dx. Neither reads
y: where it is 0 is computed anew. So of all that the layers compute between them nothing is kept
but x.

Source: Ioffe & Szegedy, "Batch normalization", ICML 2015, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netdef.blob import Blob
from netdef.fused.common import is_changed, rectifies, scales_channels
from netdef.fusion import Fused, fuses
from netdef.kernels.channels import (
    NONE,
    affine,
    affine_backward,
    affine_dots,
    through_statistics,
)
from netdef.layer import Layer
from netdef.plan import LayerPlan


@fuses
class NormScaleReLU(Fused):
    """BatchNorm, then Scale or ReLU or both, with the statistics of the batch or stored ones."""

    backward_reads = ("bottom",)

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__(layers)
        by_type: dict[str, Any] = {layer.type: layer for layer in layers}
        self._norm = by_type["BatchNorm"]
        self._scale = by_type.get("Scale")
        self._rectifies = "ReLU" in by_type

    @classmethod
    def match(cls, chain: Sequence[LayerPlan]) -> int:
        first = chain[0]
        if first.type != "BatchNorm" or len(first.bottom_shapes[0]) < 2:
            return 0
        norm: Any = first.layer
        if norm.scales:  # it has a scale of its own
            return 0
        count = 1
        if count < len(chain) and scales_channels(chain[count]):
            count += 1
        if count < len(chain) and rectifies(chain[count]) and not is_changed(chain[count + 1 :]):
            count += 1
        return count

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        n, channels, *rest = bottom[0].shape
        self._view = n, channels, int(np.prod(rest))
        # float64: of each channel its mean, the slope, and what backward adds up and subtracts.
        self._centre, self._slope, self._factor = np.empty((3, channels))
        self._sums, self._dots, self._constant, self._linear = np.empty((4, channels))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = (blob.data.reshape(self._view) for blob in (bottom[0], top[0]))
        mean, factor = self._norm.statistics(x)
        self._centre[...] = mean
        self._factor[...] = factor
        self._slope[...] = factor
        if self._scale is not None:
            self._slope *= self._scale.factor
        affine(x, self._centre, self._slope, self._offset, self._rectifies, y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        x, dy = bottom[0].data.reshape(self._view), top[0].diff.reshape(self._view)
        how = self._centre, self._slope, self._offset, self._rectifies
        self._sums.fill(0)
        self._dots.fill(0)
        affine_dots(dy, x, *how, self._sums, self._dots)
        if self._scale is not None:
            factor, *bias = zip(self._scale.blobs, self._scale.learn, strict=True)
            if factor[1]:
                factor[0].flat_diff[...] += self._dots * self._factor
            for blob, learns in bias:
                if learns:
                    blob.flat_diff[...] += self._sums
        if bottom[0].diff is None:
            return
        if self._norm.uses_stored:
            self._constant.fill(0)
            self._linear.fill(0)
        else:
            count = self._view[0] * self._view[2]
            through_statistics(
                self._factor, count, self._sums, self._dots, self._constant, self._linear
            )
        dx = bottom[0].diff.reshape(self._view)
        affine_backward(dy, x, *how, self._constant, self._linear, dx)

    @property
    def _offset(self) -> Any:
        return NONE if self._scale is None else self._scale.bias
