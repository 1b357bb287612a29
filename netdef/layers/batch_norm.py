"""BatchNorm: y = (x - mean) / sqrt(variance + eps) for each channel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import serial
from netdef.kernels.channels import NONE, affine, moments, scale, standardize_backward
from netdef.layer import Layer, Param, register
from netdef.layers.common.arrays import Kept, scratch
from netdef.layers.common.axes import around, check_batch
from netdef.proto import netdef_pb2 as pb


@register("BatchNorm", config="batch_norm_param")
class BatchNorm(Layer):
    """Gives each channel mean 0 and variance 1 over the batch; learns nothing itself.

        y = (x - mean) / sqrt(variance + eps)

        bottom  x  [N, C, ...]; with a single axis all values are one channel
        top     y  shape of x; may be x itself
        params  mean [C]; variance [C]; factor [1]

    The mean and the (biased) variance are those of the batch, or the stored ones where
    ``use_global_stats`` says so. A pass that takes those of the batch also stores them, in both
    phases:

        factor   = moving_average_fraction * factor + 1
        mean     = moving_average_fraction * mean + (mean of the batch)
        variance = moving_average_fraction * variance + m / (m - 1) * (variance of the batch)

    where m is how many values of a channel the batch holds. So the stored sums are to be divided by
    the factor; before the first batch it is 0, and the stored statistics count as 0.

    The layer keeps its parameters up to date itself: their ``lr_mult`` is 0, said or not. A factor
    and a bias to learn are a Scale layer with ``bias_term: true`` behind it. An empty batch stores
    nothing. With ``eps: 0`` a channel that does not vary is 0.

    Example::

        layer {
          name: "bn1"
          type: "BatchNorm"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
          batch_norm_param {
            moving_average_fraction: 0.99
          }
        }

    Deviations: where variance + eps is 0, Caffe divides 0 by 0.

    Source: Ioffe & Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015.
    """

    in_place = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_batch(self, x)
        if x[1:2] == (0,):
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        return [x]

    @property
    def backward_reads(self) -> Collection[str]:
        return () if self.uses_stored else ("bottom",)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        zero = pb.FillerParameter(type="constant", value=0)
        _, channels, _ = around(bottoms[0], 1)
        yield Param("mean", (channels,), zero, learns=False)
        yield Param("variance", (channels,), zero, learns=False)
        yield Param("factor", (1,), zero, learns=False)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._view = _, channels, _ = around(bottom[0].shape, 1)
        self._mean, self._variance, self._factor = scratch((3, channels), np.float64)
        self._sums = scratch((4, channels), np.float64)
        needs_x = bottom[0].diff is not None and not self.uses_stored
        self._kept = Kept(bottom[0], top[0], needs_x)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._kept.keep()
        x, y = (blob.data.reshape(self._view) for blob in (bottom[0], top[0]))
        mean, factor = self.statistics(x)
        affine(x, mean, factor, NONE, False, y)

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """The mean and 1 / deviation of each channel that this pass takes, float64 [C].

        Of the batch x, [N, C, S], which is then stored, or what is stored.
        """
        mean, variance, factor = (blob.flat for blob in self.blobs)
        if self.uses_stored:
            _recall(mean, variance, factor, self._mean, self._variance)
        else:
            moments(x, self._mean, self._variance)
            count = x.shape[0] * x.shape[2]
            if count:
                fraction = self.dtype(self.config.moving_average_fraction)
                _store(self._mean, self._variance, count, fraction, mean, variance, factor)
        _invert(self._variance, float(self.config.eps), self._factor)
        return self._mean, self._factor

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        dy, dx = (diff.reshape(self._view) for diff in (top[0].diff, bottom[0].diff))
        if self.uses_stored:
            scale(dy, self._factor, dx)
            return
        x = self._kept.flat.reshape(self._view)
        standardize_backward(dy, x, self._mean, self._factor, self._sums, dx)

    @property
    def uses_stored(self) -> bool:
        """Whether passes take the stored mean and variance, not those of the batch."""
        c = self.config
        return bool(c.use_global_stats if c.HasField("use_global_stats") else self.phase == pb.TEST)


@serial
def _recall(mean: Any, variance: Any, factor: Any, mean_used: Any, variance_used: Any) -> None:
    for c in range(mean.size):
        mean_used[c] = mean[c] / np.float64(factor[0]) if factor[0] != 0 else 0.0
        variance_used[c] = variance[c] / np.float64(factor[0]) if factor[0] != 0 else 0.0


@serial
def _store(
    batch_mean: Any,
    batch_variance: Any,
    count: Any,
    fraction: Any,
    mean: Any,
    variance: Any,
    factor: Any,
) -> None:
    unbiased = count / (count - 1) if count > 1 else 1.0
    for c in range(mean.size):
        mean[c] = fraction * mean[c] + batch_mean[c]
        variance[c] = fraction * variance[c] + unbiased * batch_variance[c]
    factor[0] = fraction * factor[0] + 1


@serial
def _invert(variance: Any, eps: Any, factor: Any) -> None:
    for c in range(factor.size):
        power = variance[c] + eps
        # No factor makes a channel vary that does not; a negative variance is NaN, as in Caffe.
        still = variance[c] >= 0 and power <= 0
        factor[c] = 0.0 if still else 1 / np.sqrt(power)
