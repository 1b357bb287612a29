"""SmoothL1Loss: a squared distance near 0, an absolute one beyond."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import inline, kernel, prange
from netdef.kernels.elementwise import BLOCK
from netdef.layer import register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import check_same_items
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.loss import Loss


@register("SmoothL1Loss", config="smooth_l1_loss_param")
class SmoothL1Loss(Loss):
    """The distance between predictions and targets, of which one that is far off weighs less.

        d    = inside (a - b)
        f(d) = (sigma d)^2 / 2          where |d| < 1 / sigma^2
               |d| - 1 / (2 sigma^2)    elsewhere
        loss = sum of outside f(d) / N

        bottom  a        [N, ...]
                b        [N, ...] with as many values per item
                inside   optional: a weight for each value
                outside  optional: another, behind f
        top     loss     scalar

    Weights have no gradient. With three bottoms the third is ``inside``. ``loss_param`` is not
    read. All as in Fast R-CNN's fork of Caffe.

    Example::

        layer {
          name: "loss_bbox"
          type: "SmoothL1Loss"
          bottom: "bbox_pred"             # 128x84
          bottom: "bbox_targets"          # 128x84
          bottom: "bbox_inside_weights"   # 128x84
          bottom: "bbox_outside_weights"  # 128x84
          top: "loss_bbox"
        }

    Source: Girshick, "Fast R-CNN", ICCV 2015.
    """

    bottoms = (2, 4)
    no_gradient = frozenset({2, 3})
    backward_reads = ("bottom",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        a, b, *weights = bottoms
        refuse_fields(self, "smooth_l1_loss_param", "Synopsys' fork", "abssum")
        check_same_items(self, a, b)
        for i, shape in enumerate(weights):
            if math.prod(shape) != math.prod(a):
                raise self.error(
                    f"needs a weight for each value of {shape_text(a)}, but bottom {i + 2} is "
                    f"{shape_text(shape)}",
                    "bottom",
                    i + 2,
                )
        sigma = self.config.sigma
        if not 0 < sigma < math.inf:
            raise self.error(
                f"sigma is {sigma:g}, but must be above 0", "smooth_l1_loss_param", "sigma"
            )
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._sums = scratch((-(-bottom[0].count // BLOCK),), np.float64)
        self._none = np.empty(0, self.dtype)
        self._square = float(self.config.sigma) ** 2

    def _weights(self, bottom: list[Blob]) -> tuple[Array, Array]:
        """Inside and outside weights, flat; nothing where there are none."""
        inside, outside, *_ = *(blob.flat for blob in bottom[2:]), self._none, self._none
        return inside, outside

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        a, b = bottom[0].flat, bottom[1].flat
        _sum_losses(a, b, *self._weights(bottom), self._square, self._sums)
        return float(self._sums.sum()), max(1, bottom[0].shape[0])

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        a, b, dx = bottom[0].flat, bottom[1].flat, bottom[index].flat_diff
        sign = 1 if index == 0 else -1
        _slopes(a, b, *self._weights(bottom), self._square, sign * scale, dx)


@inline
def smooth_l1(d: Any, square: Any) -> Any:
    """f(d), where ``square`` is that of sigma; a NaN stays one."""
    size = abs(d)
    return 0.5 * square * d * d if size < 1 / square else size - 0.5 / square


@inline
def smooth_l1_slope(d: Any, square: Any) -> Any:
    """f'(d)"""
    return square * d if abs(d) < 1 / square else np.sign(d)


@kernel
def _sum_losses(a: Any, b: Any, inside: Any, outside: Any, square: Any, sums: Any) -> None:
    for block in prange(sums.size):
        total = 0.0
        for i in range(block * BLOCK, min(a.size, (block + 1) * BLOCK)):
            d = np.float64(a[i]) - np.float64(b[i])
            if inside.size:
                d *= inside[i]
            loss = smooth_l1(d, square)
            if outside.size:
                loss *= outside[i]
            total += loss
        sums[block] = total


@kernel
def _slopes(a: Any, b: Any, inside: Any, outside: Any, square: Any, scale: Any, dx: Any) -> None:
    for i in prange(dx.size):
        d = np.float64(a[i]) - np.float64(b[i])
        if inside.size:
            d *= inside[i]
        slope = scale * smooth_l1_slope(d, square)
        if inside.size:
            slope *= inside[i]
        if outside.size:
            slope *= outside[i]
        dx[i] = slope
