"""BatchNorm: y = (x - mean) / sqrt(variance + eps) for each channel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import serial
from netdef.layer import Layer, Param, register
from netdef.layers.common.axes import around, check_batch
from netdef.layers.common.standardize import Standardize
from netdef.proto import netdef_pb2 as pb


@register("BatchNorm", config="batch_norm_param")
class BatchNorm(Layer):
    """Gives each channel mean 0 and variance 1 over the batch; learns nothing unless asked to.

        y = (x - mean) / sqrt(variance + eps)
        y = scale * (x - mean) / sqrt(variance + eps) + bias    with ``scale_bias``

        bottom  x  [N, C, ...]; with a single axis all values are one channel
        top     y  shape of x; may be x itself
        params  mean [C]; variance [C]; factor [1]; with ``scale_bias`` scale [C]; bias [C]

    The mean and the (biased) variance are those of the batch, or the stored ones where
    ``use_global_stats`` says so. A pass that takes those of the batch also stores them, in both
    phases, unless ``update_global_stats`` is false:

        factor   = moving_average_fraction * factor + 1
        mean     = moving_average_fraction * mean + (mean of the batch)
        variance = moving_average_fraction * variance + m / (m - 1) * (variance of the batch)

    where m is how many values of a channel the batch holds. So the stored sums are to be divided by
    the factor; before the first batch it is 0, and the stored statistics count as 0.

    The layer keeps these three up to date itself: their ``lr_mult`` is 0, said or not. A factor
    and a bias to learn are a Scale layer with ``bias_term: true`` behind it, or ``scale_bias``,
    which ``scale_filler`` or ``bias_filler`` switch on too, as in NVIDIA's Caffe; the scale then
    begins at 1 and the bias at 0. An empty batch stores nothing. With ``eps: 0`` a channel that
    does not vary is 0. ``add_eps_before_sqrt: false`` adds eps to the deviation, not to the
    variance.

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

    Deviations: where variance + eps is 0, Caffe divides 0 by 0. NVIDIA's fork stores means instead
    of sums, with a factor of 1; such statistics are read rightly.

    Source: Ioffe & Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015.
    """

    in_place = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_batch(self, x)
        if x[1:2] == (0,):
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        if not (self.config.add_eps_before_sqrt or self.uses_stored):
            raise self.error(
                "add_eps_before_sqrt: false goes with stored statistics only",
                "batch_norm_param",
                "add_eps_before_sqrt",
                hint="use_global_stats: true",
            )
        return [x]

    @property
    def backward_reads(self) -> Collection[str]:
        return () if self.uses_stored and not self.scales else ("bottom",)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        zero, one = (pb.FillerParameter(type="constant", value=value) for value in (0, 1))
        c = self.config
        _, channels, _ = around(bottoms[0], 1)
        for name, count in (("mean", channels), ("variance", channels), ("factor", 1)):
            # NVIDIA's fork makes their lr_mult 0 without a word.
            yield Param(name, (count,), zero, learns=False, overrules=self.scales)
        if self.scales:
            yield Param("scale", (channels,), c.scale_filler if c.HasField("scale_filler") else one)
            yield Param("bias", (channels,), c.bias_filler if c.HasField("bias_filler") else zero)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        through = bottom[0].diff is not None and not self.uses_stored
        reads_x = through or (self.scales and bool(self.learn[3]))
        self._standardize = Standardize(bottom[0], top[0], reads_x)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        use, x = self._standardize, bottom[0].data
        use.keep()
        _, factor = self.statistics(x)
        scale, bias = (blob.flat for blob in self.blobs[3:]) if self.scales else (None, None)
        use.apply(x, factor, scale, bias, top[0].data)

    def statistics(self, x: Array) -> tuple[Array, Array]:
        """The mean and 1 / deviation of each channel that this pass takes, float64 [C].

        Of the batch x, which is then stored, or what is stored.
        """
        mean, variance, factor = (blob.flat for blob in self.blobs[:3])
        use, eps = self._standardize, float(self.config.eps)
        if self.uses_stored:
            _recall(mean, variance, factor, use.mean, use.variance)
        else:
            use.measure(x)
            if use.count and self.config.update_global_stats:
                fraction = self.dtype(self.config.moving_average_fraction)
                _store(use.mean, use.variance, use.count, fraction, mean, variance, factor)
        if not self.config.add_eps_before_sqrt:
            np.square(np.sqrt(use.variance) + eps, out=use.variance)
            eps = 0.0
        return use.mean, use.factor(eps)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        learned: list[Array | None] = [
            blob.flat_diff if learns else None
            for blob, learns in zip(self.blobs[3:], self.learn[3:], strict=True)
        ]
        self._standardize.backward(top[0].diff, not self.uses_stored, bottom[0].diff, *learned)

    @property
    def scales(self) -> bool:
        """Whether it learns a scale and a bias."""
        c = self.config
        return bool(c.scale_bias or c.HasField("scale_filler") or c.HasField("bias_filler"))

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
