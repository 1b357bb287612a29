"""L1Loss: sum |a - b| / N."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.kernels.elementwise import BLOCK
from netdef.layer import register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import check_batch, check_same_items
from netdef.layers.common.loss import Loss


@register("L1Loss", config="l1_loss_param")
class L1Loss(Loss):
    """The absolute distance of two blobs, averaged over the batch.

        loss = sum of |a - b| / N

        bottom  a     [N, ...]
                b     optional: [N, ...] with as many values per item; 0 if it is missing
        top     loss  scalar

    The sum is divided by N, not by the number of values, and ``loss_param`` is not read. Both
    bottoms have a gradient; where a is b it is 0.

    Example::

        layer {
          name: "loss"
          type: "L1Loss"
          bottom: "box"     # 64x4
          bottom: "target"  # 64x4
          top: "loss"
        }

    Source: NVIDIA's Caffe.
    """

    bottoms = (1, 2)
    no_gradient = frozenset()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        check_batch(self, bottoms[0])
        for name in ("l2_per_location", "l2_prescale_by_channels", "normalize_by_num_entries"):
            if getattr(self.config, name):
                raise self.error(f"FlowNet's {name} is not computed", "l1_loss_param", name)
        if self.config.plateau:
            raise self.error("FlowNet's plateau is not computed", "l1_loss_param", "plateau")
        if len(bottoms) == 2:
            check_same_items(self, *bottoms)
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._nothing = np.zeros(bottom[0].count if len(bottom) == 1 else 0, self.dtype)
        self._sums = scratch((-(-bottom[0].count // BLOCK),), np.float64)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        _add_up(bottom[0].flat, self._other(bottom), self._sums)
        return float(self._sums.sum()), max(1, bottom[0].shape[0])

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        sign = 1 if index == 0 else -1
        dx = bottom[index].flat_diff
        _slopes(bottom[0].flat, self._other(bottom), self.dtype(sign * scale), dx)

    def _other(self, bottom: list[Blob]) -> Any:
        return bottom[1].flat if len(bottom) == 2 else self._nothing


@kernel
def _add_up(a: Any, b: Any, sums: Any) -> None:
    for block in prange(sums.size):
        total = 0.0
        for i in range(block * BLOCK, min(a.size, (block + 1) * BLOCK)):
            total += abs(np.float64(a[i] - b[i]))
        sums[block] = total


@kernel
def _slopes(a: Any, b: Any, scale: Any, dx: Any) -> None:
    for i in prange(dx.size):
        # The sign of a NaN is NaN.
        dx[i] = scale * np.sign(a[i] - b[i])
