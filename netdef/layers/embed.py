"""Embed: y = weight[x] + b, a vector for each index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.errors import DataError
from netdef.jit import kernel, prange
from netdef.kernels.parts import add_rows
from netdef.kernels.sums import add_column_sums
from netdef.layer import Layer, Param, register
from netdef.layers.common.arrays import check_counts, scratch
from netdef.layers.common.labels import read_label


@register("Embed", config="embed_param")
class Embed(Layer):
    """Looks up a learned vector for each index of its bottom.

        y[i] = weight[x[i]] + bias

        bottom  x  any shape; indices from 0 to input_dim - 1
        top     y  [axes of x..., num_output]
        params  weight [input_dim, num_output]; bias [num_output]

    It is an InnerProduct of one-hot vectors that are never made. Fractions of an index are cut off,
    as in Caffe. There is no gradient for the bottom.

    Example::

        layer {
          name: "embed1"
          type: "Embed"
          bottom: "words"  # 20x16
          top: "embed1"
          embed_param {
            input_dim: 1000
            num_output: 64
            weight_filler {
              type: "uniform"
              min: -0.08
              max: 0.08
            }
          }
        }

    Deviations: an index that is out of range is an error; Caffe reads beyond its memory.

    Source: Caffe 1.0.
    """

    no_gradient = frozenset({0})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        check_counts(self, "embed_param", "num_output", "input_dim")
        return [(*bottoms[0], self.config.num_output)]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c = self.config
        yield Param("weight", (c.input_dim, c.num_output), c.weight_filler)
        if c.bias_term:
            yield Param("bias", (c.num_output,), c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._index = scratch((bottom[0].count,), np.int64)
        self._no_bias = np.zeros(self.config.num_output, self.dtype)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        c = self.config
        _read(bottom[0].flat, c.input_dim, self._index)
        if (self._index < 0).any():
            raise self._bad_index(bottom[0], int(np.argmax(self._index < 0)))
        bias = self.blobs[1].flat if c.bias_term else self._no_bias
        _look_up(self._index, self.blobs[0].data, bias, top[0].data.reshape(-1, c.num_output))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        dy = top[0].diff.reshape(-1, self.config.num_output)
        if self.learn[0]:
            add_rows(dy, self._index, self.blobs[0].diff)
        if self.config.bias_term and self.learn[1]:
            add_column_sums(dy, self.blobs[1].flat_diff)

    def _bad_index(self, x: Blob, number: int) -> Exception:
        last = self.config.input_dim - 1
        return self.error(
            f"index {x.flat[number]:g} (number {number} of the bottom, counted from 0) is not one "
            f"of 0 to {last}",
            "bottom",
            0,
            hint=f"input_dim is {last + 1}",
            kind=DataError,
        )


@kernel
def _read(x: Any, count: Any, index: Any) -> None:
    """The indices, or a negative number where a value is none."""
    for i in prange(x.size):
        index[i] = read_label(x[i], count, 0, False)


@kernel
def _look_up(index: Any, weight: Any, bias: Any, y: Any) -> None:
    for i in prange(index.size):
        row = index[i]
        for j in range(bias.size):
            y[i, j] = weight[row, j] + bias[j]
