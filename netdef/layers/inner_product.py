"""InnerProduct: y = x W^T + b, a fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.kernels.gemm import gemm
from netdef.kernels.gemv import gemv
from netdef.kernels.sums import add_column_sums
from netdef.layer import Layer, Param, register
from netdef.layers.common.arrays import as_rows, check_counts
from netdef.layers.common.axes import axis_of


@register("InnerProduct", config="inner_product_param")
class InnerProduct(Layer):
    """Multiplies each row of its bottom by a matrix and adds a bias: a fully connected layer.

        y[m, :] = W x[m, :] + b

        bottom  x  [M..., K...], where K begins at ``axis``
        top     y  [M..., num_output]
        params  weight [num_output, K], with ``transpose`` [K, num_output]; bias [num_output]

    K cannot change once the weight is there; M can.

    Example::

        layer {
          name: "ip1"
          type: "InnerProduct"
          bottom: "pool2"  # 8x20x4x4
          top: "ip1"
          inner_product_param {
            num_output: 50
            weight_filler {
              type: "xavier"
            }
          }
        }

    Source: Caffe 1.0.
    """

    backward_reads = ("bottom",)
    writes_gradients = frozenset({0})

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_counts(self, "inner_product_param", "num_output")
        axis = axis_of(self, x, self.config.axis, "inner_product_param", "axis")
        if math.prod(x[axis:]) == 0:
            raise self.error(f"the bottom {shape_text(x)} has no values to multiply", "bottom", 0)
        return [(*x[:axis], self.config.num_output)]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c = self.config
        values = math.prod(bottoms[0][c.axis % len(bottoms[0]) :])
        shape = (values, c.num_output) if c.transpose else (c.num_output, values)
        yield Param("weight", shape, c.weight_filler)
        if c.bias_term:
            yield Param("bias", (c.num_output,), c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._axis = self.config.axis % len(bottom[0].shape)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, weight = self.config, self.blobs[0].data
        x, y = (as_rows(blob.data, self._axis) for blob in (bottom[0], top[0]))
        if len(x) == 1 and not c.transpose:
            gemv(weight, x.reshape(-1), y.reshape(-1))
        else:
            gemm(x, weight, y, transpose_b=not c.transpose)
        if c.bias_term:
            _add_row(self.blobs[1].flat, y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        c, weight = self.config, self.blobs[0]
        x, dy = as_rows(bottom[0].data, self._axis), as_rows(top[0].diff, self._axis)
        if self.learn[0]:
            if c.transpose:
                gemm(x, dy, weight.diff, transpose_a=True, accumulate=self.adds[0])
            else:
                gemm(dy, x, weight.diff, transpose_a=True, accumulate=self.adds[0])
        if c.bias_term and self.learn[1]:
            add_column_sums(dy, self.blobs[1].flat_diff)
        if bottom[0].diff is not None:
            gemm(dy, weight.data, as_rows(bottom[0].diff, self._axis), transpose_b=c.transpose)


@kernel
def _add_row(row: Any, y: Any) -> None:
    for i in prange(y.shape[0]):
        for j in range(row.size):
            y[i, j] += row[j]
