"""EuclideanLoss: sum (a - b)^2 / (2 N)."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.kernels.elementwise import scale_into, sum_of_squares
from netdef.layer import Layer, register
from netdef.layers.common import scratch, set_scalar


@register("EuclideanLoss")
class EuclideanLoss(Layer):
    """Half the mean squared distance between two blobs, per item of the batch.

    bottom  a     [N, ...]
            b     [N, ...] with as many values per item
    top     loss  scalar

    It divides by 2 N, not by the number of values. Both bottoms have a gradient.
    """

    bottoms = 2
    loss = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        a, b = bottoms
        if not a or not b or a[0] != b[0] or np.prod(a) != np.prod(b):
            raise self.error(
                "both bottoms must have the same batch and the same number of values, but they are "
                f"{shape_text(a)} and {shape_text(b)}",
                "bottom",
                1,
            )
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._difference = scratch((bottom[0].count,), self.dtype)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        _subtract(bottom[0].flat, bottom[1].flat, self._difference)
        squares = sum_of_squares(self._difference)
        set_scalar(top[0], squares / (2 * max(1, bottom[0].shape[0])))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        scale = top[0].diff.item() / max(1, bottom[0].shape[0])
        for blob, sign in zip(bottom, (1, -1), strict=True):
            if blob.diff is not None:
                scale_into(self._difference, self.dtype(sign * scale), blob.flat_diff)


@kernel
def _subtract(a: Any, b: Any, out: Any) -> None:
    for i in prange(out.size):
        out[i] = a[i] - b[i]
