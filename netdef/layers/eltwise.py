"""Eltwise: the sum, the product or the maximum of several blobs, value by value."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.jit import kernel, prange
from netdef.kernels.elementwise import multiply, scale_into
from netdef.layer import Layer, Work, register
from netdef.layers.common.arrays import Kept
from netdef.layers.common.axes import check_same_shapes
from netdef.proto import netdef_pb2 as pb


@register("Eltwise", config="eltwise_param")
class Eltwise(Layer):
    """Combines blobs of one shape value by value: their sum, product or maximum.

        y = coeff[0] * x0 + coeff[1] * x1 + ...  SUM
        y = x0 * x1 * ...                        PROD
        y = max(x0, x1, ...)                     MAX

        bottom  x0, x1, ...  at least two, any one shape
        top     y            shape of x0; may be x0 itself

    Where x0 and x1 are equal, MAX takes x1; a later bottom it takes only where that is larger. So
    does Caffe. The gradient goes to the bottom that was taken, and to no other. MAX ignores
    ``coeff``.

    ``stable_prod_grad`` changes nothing: the gradient is always the product of the other bottoms.

    Example::

        layer {
          name: "res2a"
          type: "Eltwise"
          bottom: "branch1"  # 64x256x14x14
          bottom: "branch2"  # 64x256x14x14
          top: "res2a"
          eltwise_param {
            operation: SUM
          }
        }

    Deviations: with ``stable_prod_grad: false`` Caffe divides the top by the bottom, so that a
    bottom of 0 gets NaN where netdef gives the gradient. Caffe computes wrong gradients where PROD
    works in place.

    Source: Caffe 1.0.
    """

    bottoms = (2, None)
    in_place = True

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom",) if self.config.operation == pb.EltwiseParameter.PROD else ()

    @property
    def plain_sum(self) -> bool:
        c = self.config
        return c.operation == pb.EltwiseParameter.SUM and all(factor == 1 for factor in c.coeff)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c = self.config
        if c.coeff and len(c.coeff) != len(bottoms):
            raise self.error(
                f"has {len(bottoms)} bottoms but {len(c.coeff)} coeff: give one per bottom, "
                "or none",
                "eltwise_param",
                "coeff",
            )
        if c.coeff and c.operation == pb.EltwiseParameter.PROD:
            raise self.error("coeff goes with operation SUM, not PROD", "eltwise_param", "coeff")
        check_same_shapes(self, bottoms)
        return [bottoms[0]]

    def work(self, *bottoms: Shape) -> list[Work]:
        is_max = self.config.operation == pb.EltwiseParameter.MAX
        return [Work((math.prod(bottoms[0]) if is_max else 0,), np.int32)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        operation = self.config.operation
        self.coeff = [self.dtype(c) for c in self.config.coeff or [1] * len(bottom)]
        others_move = any(blob.diff is not None for blob in bottom[1:])
        is_prod = operation == pb.EltwiseParameter.PROD
        self._kept = Kept(bottom[0], top[0], is_prod and others_move)
        (self._winner,) = self.work_arrays

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        operation, y = self.config.operation, top[0].flat
        self._kept.keep()
        first, second, *rest = (blob.flat for blob in bottom)
        if operation == pb.EltwiseParameter.SUM:
            _weighted(first, self.coeff[0], second, self.coeff[1], y)
            for x, coeff in zip(rest, self.coeff[2:], strict=True):
                _weighted(y, self.dtype(1), x, coeff, y)
        elif operation == pb.EltwiseParameter.PROD:
            multiply(first, second, y)
            for x in rest:
                multiply(y, x, y)
        else:
            _larger(first, second, y, self._winner)
            for i, x in enumerate(rest, 2):
                _challenge(x, i, y, self._winner)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        operation, dy = self.config.operation, top[0].flat_diff
        # In place, the gradient of the first bottom takes the place of that of the top: it is last.
        for i, blob in reversed(list(enumerate(bottom))):
            if blob.diff is None or (self.plain_sum and blob.diff is top[0].diff):
                continue
            if operation == pb.EltwiseParameter.SUM:
                scale_into(dy, self.coeff[i], blob.flat_diff)
            elif operation == pb.EltwiseParameter.PROD:
                self._chain_product(i, bottom, dy, blob.flat_diff)
            else:
                _route(self._winner, i, dy, blob.flat_diff)

    def _chain_product(self, index: int, bottom: list[Blob], dy: Array, dx: Array) -> None:
        """dx = dy times all bottoms but the one of this index."""
        factors = [self._kept.flat, *(blob.flat for blob in bottom[1:])]
        del factors[index]
        for x in factors:
            multiply(dy, x, dx)
            dy = dx


@kernel
def _weighted(x: Any, a: Any, z: Any, b: Any, y: Any) -> None:
    for i in prange(y.size):
        y[i] = a * x[i] + b * z[i]


@kernel
def _larger(x: Any, z: Any, y: Any, winner: Any) -> None:
    for i in prange(y.size):
        first = x[i] > z[i]
        y[i] = x[i] if first else z[i]
        winner[i] = 0 if first else 1


@kernel
def _challenge(x: Any, index: Any, y: Any, winner: Any) -> None:
    for i in prange(y.size):
        if x[i] > y[i]:
            y[i] = x[i]
            winner[i] = index


@kernel
def _route(winner: Any, index: Any, dy: Any, dx: Any) -> None:
    zero = dx.dtype.type(0)
    for i in prange(dx.size):
        dx[i] = dy[i] if winner[i] == index else zero
