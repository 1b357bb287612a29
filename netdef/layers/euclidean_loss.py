"""EuclideanLoss: sum (a - b)^2 / (2 N)."""

from __future__ import annotations

from typing import Any

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.kernels.elementwise import scale_into, sum_of_squares
from netdef.layer import register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import check_same_items
from netdef.layers.common.loss import Loss


@register("EuclideanLoss")
class EuclideanLoss(Loss):
    """Half the squared distance between two blobs, averaged over the batch.

        loss = sum of (a - b)^2 / (2 N)

        bottom  a     [N, ...]
                b     [N, ...] with as many values per item
        top     loss  scalar

    The sum is divided by 2 N, not by the number of values, and ``loss_param`` is not read. Both
    bottoms have a gradient. All as in Caffe.

    Example::

        layer {
          name: "loss"
          type: "EuclideanLoss"
          bottom: "box"     # 64x4
          bottom: "target"  # 64x4
          top: "loss"
        }

    Source: Caffe 1.0.
    """

    no_gradient = frozenset()
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        a, b = bottoms
        check_same_items(self, a, b)
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._difference = scratch((bottom[0].count,), self.dtype)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        _subtract(bottom[0].flat, bottom[1].flat, self._difference)
        return sum_of_squares(self._difference) / 2, max(1, bottom[0].shape[0])

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        sign = 1 if index == 0 else -1
        scale_into(self._difference, self.dtype(sign * scale), bottom[index].flat_diff)


@kernel
def _subtract(a: Any, b: Any, out: Any) -> None:
    for i in prange(out.size):
        out[i] = a[i] - b[i]
