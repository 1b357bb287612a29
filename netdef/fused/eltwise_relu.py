"""Eltwise and ReLU: y = max(0, x + z), the end of a residual block."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from netdef.blob import Blob
from netdef.fused.common import adds_two, is_changed, rectifies
from netdef.fusion import Fused, fuses
from netdef.jit import kernel, prange
from netdef.layer import Layer
from netdef.plan import LayerPlan


@fuses
class EltwiseReLU(Fused):
    """One pass forward instead of two. Backward, the gradient of the sum is that of each bottom,
    and where they share it, it is computed once."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__(layers)
        self._relu: Any = layers[1]

    @classmethod
    def match(cls, chain: Sequence[LayerPlan]) -> int:
        eltwise, relu, *behind = chain
        if not adds_two(eltwise) or not eltwise.layer.plain_sum or not rectifies(relu):
            return 0
        return 0 if is_changed(behind) else 2

    @property
    def backward_reads(self) -> Collection[str]:
        return ("top",)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        _rectified_sum(bottom[0].flat, bottom[1].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        (y,) = top
        first, *others = (blob for blob in bottom if blob.diff is not None)
        self._relu.chain(y.flat, y.flat, y.flat_diff, first.flat_diff)
        for blob in others:
            if blob.diff is not first.diff:
                np.copyto(blob.diff, first.diff)


@kernel
def _rectified_sum(x: Any, z: Any, y: Any) -> None:
    zero = y.dtype.type(0)
    for i in prange(y.size):
        value = x[i] + z[i]
        # A NaN is not below 0: it stays.
        y[i] = zero if value <= zero else value
