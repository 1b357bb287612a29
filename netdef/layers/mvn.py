"""MVN: y = (x - mean) / (deviation + eps) for each channel of each image, or for each image."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import serial
from netdef.kernels.channels import NONE, affine, moments, standardize_backward
from netdef.layer import Layer, register
from netdef.layers.common.arrays import Kept, scratch
from netdef.layers.common.axes import to_four_axes


@register("MVN", config="mvn_param")
class MVN(Layer):
    """Mean-variance normalization: mean 0 and variance 1 for each channel of each image.

        y = (x - mean) / (sqrt(variance) + eps)  with normalize_variance
        y = x - mean                             without

        bottom  x  [N, C, H, W], or fewer axes: those that are missing count as 1
        top     y  [N, C, H, W]; may be x itself, whose axes then stay as they are

    ``across_channels`` takes mean and (biased) variance over [C, H, W], else over [H, W]. The
    gradient is that for eps = 0, as in Caffe. With ``eps: 0`` what does not vary is 0.

    Example::

        layer {
          name: "norm1"
          type: "MVN"
          bottom: "data"  # 64x3x24x24
          top: "norm1"
          mvn_param {
            across_channels: true
          }
        }

    Deviations: where the deviation + eps is 0, Caffe divides 0 by 0. In place, Caffe computes a
    wrong gradient, and gives x further axes.

    Source: Caffe 1.0.
    """

    in_place = True

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom",) if self.config.normalize_variance else ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        if len(x) > 4:
            raise self.error(
                f"needs a bottom of at most 4 axes (N, C, H, W), but it is {shape_text(x)}",
                "bottom",
                0,
            )
        in_place = self.message.bottom[0] == self.message.top[0]
        return [x if in_place else to_four_axes(x)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        n, c, h, w = to_four_axes(bottom[0].shape)
        # For the kernels each set of values with a mean of its own is a channel of one image.
        self._view = (1, n, c * h * w) if self.config.across_channels else (1, n * c, h * w)
        sets = self._view[1]
        self._mean, self._variance, self._factor = scratch((3, sets), np.float64)
        self._sums = scratch((4, sets), np.float64)
        needs_x = bottom[0].diff is not None and self.config.normalize_variance
        self._kept = Kept(bottom[0], top[0], needs_x)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._kept.keep()
        x, y = (blob.data.reshape(self._view) for blob in (bottom[0], top[0]))
        moments(x, self._mean, self._variance)
        if self.config.normalize_variance:
            _invert(self._variance, float(self.config.eps), self._factor)
        else:
            self._factor.fill(1)
        affine(x, self._mean, self._factor, NONE, False, y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        dy, dx = (diff.reshape(self._view) for diff in (top[0].diff, bottom[0].diff))
        if self.config.normalize_variance:
            x = self._kept.flat.reshape(self._view)
            standardize_backward(dy, x, self._mean, self._factor, self._sums, dx)
            return
        mean, variance, *_ = self._sums
        moments(dy, mean, variance)
        affine(dy, mean, NONE, NONE, False, dx)


@serial
def _invert(variance: Any, eps: Any, factor: Any) -> None:
    for c in range(factor.size):
        divisor = np.sqrt(variance[c]) + eps
        factor[c] = 0.0 if divisor == 0 else 1 / divisor
