"""Reduction: the sum of all values from an axis on, of their absolutes or squares, or the mean."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.kernels.channels import ABSOLUTE, SIGNED, add_dots, add_sums, run_of, scale
from netdef.kernels.elementwise import BLOCK, scale_into
from netdef.layer import Layer, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import axis_of
from netdef.proto import netdef_pb2 as pb


@register("Reduction", config="reduction_param")
class Reduction(Layer):
    """Reduces all values from ``axis`` on to one number: their sum, or their mean.

        y = coeff * sum x      SUM
        y = coeff * sum |x|    ASUM
        y = coeff * sum x^2    SUMSQ
        y = coeff * sum x / n  MEAN, of n values

        bottom  x  any shape of at least one axis
        top     y  the axes of x before ``axis``; a scalar with ``axis`` 0

    At x == 0 the slope of ASUM is 0, as in Caffe.

    Example::

        layer {
          name: "mean1"
          type: "Reduction"
          bottom: "ip1"  # 64x10
          top: "mean1"
          reduction_param {
            operation: MEAN
            axis: 1
          }
        }

    Source: Caffe 1.0.
    """

    @property
    def backward_reads(self) -> Collection[str]:
        linear = (pb.ReductionParameter.SUM, pb.ReductionParameter.MEAN)
        return () if self.config.operation in linear else ("bottom",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        axis = axis_of(self, x, self.config.axis, "reduction_param", "axis")
        if self.config.operation == pb.ReductionParameter.MEAN and 0 in x[axis:]:
            raise self.error(
                f"the bottom {shape_text(x)} has no values from axis {axis} on to take the mean of",
                "bottom",
                0,
            )
        return [x[:axis]]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        axis = self.config.axis % len(x)
        # For the kernels each sum is over a channel of one image.
        self._view = (1, math.prod(x[:axis]), math.prod(x[axis:]))
        self._coeff = float(self.config.coeff)
        if self.config.operation == pb.ReductionParameter.MEAN:
            self._coeff /= self._view[2]
        self._sums = scratch((top[0].count,), np.float64)
        self._slopes = scratch((top[0].count,), self.dtype)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        operation, x = self.config.operation, bottom[0].data.reshape(self._view)
        self._sums.fill(0)
        if operation == pb.ReductionParameter.SUMSQ:
            add_dots(x, x, None, self._sums)
        else:
            absolute = operation == pb.ReductionParameter.ASUM
            add_sums(x, self._sums, ABSOLUTE if absolute else SIGNED)
        scale_into(self._sums, self._coeff, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        operation, inner = self.config.operation, self._view[2]
        x, dx = bottom[0].flat, bottom[0].flat_diff
        square = operation == pb.ReductionParameter.SUMSQ
        scale_into(top[0].flat_diff, 2 * self._coeff if square else self._coeff, self._slopes)
        if square:
            scale(x.reshape(self._view), self._slopes, dx.reshape(self._view))
        elif operation == pb.ReductionParameter.ASUM:
            _scale_sign(x, self._slopes, inner, dx)
        else:
            _repeat(self._slopes, inner, dx)


@kernel
def _repeat(slope: Any, inner: Any, dx: Any) -> None:
    for piece in prange((dx.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(dx.size, at + BLOCK)
        while at < end:
            stop, row = run_of(at, end, inner, slope.size)
            value = slope[row]
            for i in range(np.uint64(at), np.uint64(stop)):
                dx[i] = value
            at = stop


@kernel
def _scale_sign(x: Any, slope: Any, inner: Any, dx: Any) -> None:
    zero = dx.dtype.type(0)
    for piece in prange((dx.size + BLOCK - 1) // BLOCK):
        at = piece * BLOCK
        end = min(dx.size, at + BLOCK)
        while at < end:
            stop, row = run_of(at, end, inner, slope.size)
            value = slope[row]
            for i in range(np.uint64(at), np.uint64(stop)):
                side = -value if x[i] < zero else zero
                dx[i] = value if x[i] > zero else side
            at = stop
