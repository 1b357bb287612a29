"""Channels brought to mean 0 and variance 1, and then to a learned scale and shift."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Blob
from netdef.jit import serial
from netdef.kernels import channels
from netdef.kernels.channels import NONE, affine, affine_backward, affine_dots, through_statistics
from netdef.layers.common.arrays import Kept, scratch
from netdef.layers.common.axes import around


class Standardize:
    """y = (x - mean) factor scale + shift for each channel, where factor = 1 / deviation.

    A layer makes it in ``setup``. It fills ``mean`` and ``variance``, or has ``measure`` do that
    from x itself, asks for the ``factor`` that follows, and has it applied.
    """

    def __init__(self, bottom: Blob, top: Blob, reads_x: bool) -> None:
        """``reads_x`` says whether backward will need the values of the bottom."""
        self._view = _, count, _ = around(bottom.shape, 1)
        #: The statistics that are used, float64.
        self.mean: Array
        self.variance: Array
        self.mean, self.variance = scratch((2, count), np.float64)
        self._factor: Array
        self._slope: Array
        self._factor, self._slope = scratch((2, count), np.float64)
        self._sums = scratch((4, count), np.float64)
        self._kept = Kept(bottom, top, reads_x)

    @property
    def count(self) -> int:
        """How many values each channel has."""
        return self._view[0] * self._view[2]

    def measure(self, x: Array) -> None:
        """Take the statistics of x: its mean and its (biased) variance."""
        channels.moments(x.reshape(self._view), self.mean, self.variance)

    def keep(self) -> None:
        """To be called before y is computed, which may overwrite x."""
        self._kept.keep()

    def factor(self, eps: float) -> Array:
        """1 / deviation of each channel, float64; ``eps`` is added to its square before."""
        _invert(self.variance, eps, self._factor)
        return self._factor

    def apply(
        self, x: Array, factor: Array, scale: Array | None, shift: Array | None, y: Array
    ) -> None:
        """Compute y, which may be x."""
        np.multiply(factor, 1.0 if scale is None else scale, out=self._slope)
        x, y = x.reshape(self._view), y.reshape(self._view)
        affine(x, self.mean, self._slope, NONE if shift is None else shift, False, y)

    def backward(
        self,
        dy: Array,
        measured: bool,
        dx: Array | None,
        d_scale: Array | None = None,
        d_shift: Array | None = None,
    ) -> None:
        """dx = the gradient, and d_scale and d_shift gain theirs; each as far as it is asked for.

        ``measured`` says that the statistics are those of x. ``dx`` may be ``dy``.
        """
        dy = dy.reshape(self._view)
        dx = None if dx is None else dx.reshape(self._view)
        x = self._kept.flat.reshape(self._view)
        sums, dots, constant, linear = self._sums
        through = measured and dx is not None
        if through or d_scale is not None or d_shift is not None:
            sums.fill(0)
            dots.fill(0)
            if through or d_scale is not None:
                affine_dots(dy, x, self.mean, self._factor, NONE, False, sums, dots)
            else:
                channels.add_sums(dy, sums)
        if d_scale is not None:
            d_scale += dots * self._factor
        if d_shift is not None:
            d_shift += sums
        if dx is None:
            return
        if not measured:
            channels.scale(dy, self._slope, dx)
            return
        through_statistics(self._factor, self.count, sums, dots, constant, linear)
        affine_backward(dy, x, self.mean, self._slope, NONE, False, constant, linear, dx)


@serial
def _invert(variance: Any, eps: Any, factor: Any) -> None:
    for c in range(factor.size):
        power = variance[c] + eps
        # No factor makes a channel vary that does not; a negative variance is NaN, as in Caffe.
        still = variance[c] >= 0 and power <= 0
        factor[c] = 0.0 if still else 1 / np.sqrt(power)
