"""SigmoidCrossEntropyLoss: -t log s(x) - (1 - t) log(1 - s(x)), averaged over the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import inline, kernel, prange
from netdef.kernels.elementwise import BLOCK
from netdef.kernels.lanes import LANES
from netdef.kernels.transcendental import sigmoid, softplus
from netdef.layer import register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import check_same_items
from netdef.layers.common.labels import ignored_label, is_ignored
from netdef.layers.common.loss import Loss, normalization, normalizer
from netdef.proto import netdef_pb2 as pb


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """The cross entropy of independent yes-or-no predictions, in one numerically stable step.

        s(x) = 1 / (1 + e^-x)
        loss = sum of -t log s(x) - (1 - t) log(1 - s(x)) / normalizer

        bottom  x     [N, ...], scores
                t     [N, ...] with as many values per item: targets, mostly 0 or 1
        top     loss  scalar

    ``loss_param`` counts values, and its default is BATCH_SIZE: the sum over N. ``ignore_label``
    leaves out targets that are this number when their fraction is cut off: 0 leaves out 0.5 too.
    A target may be any number, none is refused. All as in Caffe.

    Example::

        layer {
          name: "loss"
          type: "SigmoidCrossEntropyLoss"
          bottom: "score"   # 16x20
          bottom: "target"  # 16x20
          top: "loss"
          loss_param {
            normalization: VALID
            ignore_label: -1
          }
        }

    Source: Caffe 1.0.
    """

    also_reads = ("loss_param",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        check_same_items(self, *bottoms)
        loss = self.message.loss_param
        if loss.weight_by_label_freqs or loss.class_weighting:
            raise self.error("only losses of classes weigh them", "loss_param")
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        blocks = -(-bottom[0].count // BLOCK)
        self._sums = scratch((blocks, LANES), np.float64)
        self._counts = scratch((blocks,), np.int64)
        self._ignored = ignored_label(self.message.loss_param)
        self._mode = normalization(self.message.loss_param, pb.LossParameter.BATCH_SIZE)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        _add_up(bottom[0].flat, bottom[1].flat, *self._ignored, self._sums, self._counts)
        outer, *rest = bottom[0].shape
        divisor = normalizer(self._mode, outer, math.prod(rest), int(self._counts.sum()))
        return float(self._sums.sum()), divisor

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        x, target = bottom
        _slopes(x.flat, target.flat, *self._ignored, self.dtype(scale), x.flat_diff)


@kernel
def _add_up(x: Any, target: Any, ignore: Any, has_ignore: Any, sums: Any, counts: Any) -> None:
    """The sums of each block of values, and how many of them are not ignored.

    Sum k is that of every LANES-th value from the k-th on: so a loop over k is vectorised.
    """
    for block in prange(sums.shape[0]):
        first = block * BLOCK
        end = min(x.size, first + BLOCK)
        count = 0
        for i in range(np.uint64(first), np.uint64(end)):
            count += 0 if is_ignored(target[i], ignore, has_ignore) else 1
        counts[block] = count
        for k in range(LANES):
            sums[block, k] = 0.0
        for group in range(first, end - LANES + 1, LANES):
            for k in range(LANES):
                i = np.uint64(group + k)
                loss = _loss(x[i], target[i])
                sums[block, k] += 0.0 if is_ignored(target[i], ignore, has_ignore) else loss
        for i in range(end - (end - first) % LANES, end):
            if not is_ignored(target[i], ignore, has_ignore):
                sums[block, i % LANES] += _loss(x[i], target[i])


@inline
def _loss(x: Any, target: Any) -> Any:
    # log(1 + e^x) - t x, without a difference of large numbers.
    return np.float64(max(x, type(x)(0)) - x * target + softplus(-abs(x)))


@kernel
def _slopes(x: Any, target: Any, ignore: Any, has_ignore: Any, scale: Any, dx: Any) -> None:
    for i in prange(x.size):
        slope = (sigmoid(x[i]) - target[i]) * scale
        dx[i] = x.dtype.type(0) if is_ignored(target[i], ignore, has_ignore) else slope
