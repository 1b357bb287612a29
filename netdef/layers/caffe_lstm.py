"""Lstm: the LSTM of caffe-lstm and CTPN, whose batch is one long column of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import alone, kernel, prange
from netdef.kernels.elementwise import add
from netdef.kernels.gemm import Packed, gemm
from netdef.kernels.recurrent import carry, fill_rows, lstm_unit, lstm_unit_backward
from netdef.kernels.sums import add_column_sums
from netdef.layer import MOST_VALUES, Layer, Param, register
from netdef.layers.common.arrays import as_rows, check_counts, scratch
from netdef.layers.common.recurrent import FEW


@register("Lstm", config="lstm_param")
class Lstm(Layer):
    """The long short-term memory of two forks; LSTM is that of Caffe itself.

        i, f, o, g = W_i x[t] + W_h h[t-1] + b
        c[t] = sigmoid(f) c[t-1] + sigmoid(i) tanh(g)
        h[t] = sigmoid(o) tanh(c[t])

        bottom  x     caffe-lstm: [T N, ...], step after step, each with N = ``batch_size`` rows;
                      CTPN, without ``batch_size``: [T, N, values]
                cont  optional, T N values: 0 where a sequence begins
        top     h     [T N, D], or [T, N, D]; D is ``num_output``
        params  W_i [4 D, values of x in a step]; W_h [4 D, D]; b [4 D]

    A bottom of three axes is taken as CTPN's, unless ``batch_size`` is given. Without ``cont``
    every batch holds whole sequences. With it, a pass goes on from the state that the last one
    left, as LSTM's does; any value but 0 means that the sequence goes on. ``cont`` has no gradient.

    ``clipping_threshold`` bounds the gradient of each gate's sum at each step; 0 leaves it as it
    is. A filler that is left out makes zeros, so give ``weight_filler``.

    Example::

        layer {
          name: "lstm1"
          type: "Lstm"
          bottom: "words"  # 320x50
          bottom: "cont"   # 320
          top: "lstm1"
          lstm_param {
            num_output: 100
            batch_size: 16
            clipping_threshold: 0.1
            weight_filler {
              type: "gaussian"
              std: 0.1
            }
          }
        }

    Deviations: ``cont`` of several sequences is read row by row; the fork takes the wrong ones. The
    gradient of W_h of the first step counts all sequences; the fork counts the first.

    Source: Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; Oh's
    caffe-lstm; Tian, Huang, He, He & Qiao, "Detecting text in natural image with connectionist
    text proposal network", ECCV 2016.
    """

    bottoms = (1, 2)
    no_gradient = frozenset({1})
    backward_reads = ("bottom",)

    #: The states, each [T + 1, N, D]; row t is that before step t.
    _h: Array = np.zeros((1, 0, 0))
    _c: Array = np.zeros((1, 0, 0))

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        self._check_options()
        size = int(self.config.num_output)
        if len(x) < 2 or math.prod(x[self._axes(x) :]) == 0:
            raise self.error(
                f"needs a bottom of rows with values, but it is {shape_text(x)}", "bottom", 0
            )
        steps, count = self._steps(x)
        if steps * count == 0:
            raise self.error(f"the bottom {shape_text(x)} has no steps", "bottom", 0)
        if len(bottoms) == 2 and math.prod(bottoms[1]) != steps * count:
            raise self.error(
                f"cont must have one value for each of the {steps * count} rows of the bottom "
                f"{shape_text(x)}, but is {shape_text(bottoms[1])}",
                "bottom",
                1,
            )
        if steps * count * 4 * size > MOST_VALUES:
            raise self.error(
                f"its gates would be {steps}x{count}x{4 * size}: more than 2^31 - 1 values"
            )
        return [(*x[: self._axes(x)], size)]

    def _check_options(self) -> None:
        c = self.config
        check_counts(self, "lstm_param", "num_output", "batch_size")
        if not c.clipping_threshold >= 0:
            raise self.error(
                f"clipping_threshold is {c.clipping_threshold:g}, but must be at least 0",
                "lstm_param",
                "clipping_threshold",
            )
        strange = {
            "steps": c.steps != -1,
            "num_layers": c.num_layers != 1,
            "dropout_ratio": c.dropout_ratio != 0,
            "enable_attention": c.enable_attention,
        }
        for name, given in strange.items():
            if given:
                raise self.error(f"{name} belongs to the LSTM of another fork", "lstm_param", name)

    def _axes(self, x: Shape) -> int:
        """How many axes the rows take: 2 as in CTPN, or 1 as in caffe-lstm."""
        return 2 if len(x) == 3 and not self.config.HasField("batch_size") else 1

    def _steps(self, x: Shape) -> tuple[int, int]:
        """(T, N)"""
        if self._axes(x) == 2:
            return x[0], x[1]
        count = int(self.config.batch_size)
        if x[0] % count:
            raise self.error(
                f"the {x[0]} rows of the bottom {shape_text(x)} are no whole steps of {count} "
                "sequences each",
                "lstm_param",
                "batch_size",
            )
        return x[0] // count, count

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c, x = self.config, bottoms[0]
        rows = 4 * c.num_output
        yield Param("W_i", (rows, math.prod(x[self._axes(x) :])), c.weight_filler)
        yield Param("W_h", (rows, c.num_output), c.weight_filler)
        yield Param("b", (rows,), c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        size = int(self.config.num_output)
        steps, count = self._steps(bottom[0].shape)
        self._gates = scratch((steps, count, 4 * size), self.dtype)
        self._d_gates = scratch((steps, count, 4 * size), self.dtype)
        self._cont = np.ones((steps, count), self.dtype)
        # What of h reaches each step.
        self._carried = scratch((steps, count, size), self.dtype)
        self._dh, self._dc = scratch((2, count, size), self.dtype)
        # The weight that every step is multiplied by, and for backward its transpose.
        self._weight = Packed(size, 4 * size, self.dtype)
        self._transpose = Packed(4 * size, size, self.dtype)
        states = np.zeros((2, steps + 1, count, size), self.dtype)
        for state, before in zip(states, (self._h, self._c), strict=True):
            if before.shape[1:] == (count, size):
                state[-1] = before[-1]
        self._h, self._c = states

    def reset(self) -> None:
        """Let the next forward pass begin from a state of zeros."""
        self._h.fill(0)
        self._c.fill(0)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        weight_i, weight_h, bias = self.blobs
        gates, cont, h, c = self._gates, self._cont, self._h, self._c
        if len(bottom) == 2:
            np.not_equal(bottom[1].data.reshape(cont.shape), 0, out=cont, casting="unsafe")
            h[0], c[0] = h[-1], c[-1]
        else:
            cont[0] = 0
            h[0], c[0] = 0, 0
        fill_rows(bias.flat, as_rows(gates, 2))
        x = bottom[0].data.reshape(-1, weight_i.shape[1])
        gemm(x, weight_i.data, as_rows(gates, 2), transpose_b=True, accumulate=True)
        with alone(self._is_small):
            self._weight.pack(weight_h.data, transpose_b=True)
            for t in range(len(gates)):
                carry(h[t], cont[t], self._carried[t])
                self._weight.multiply(self._carried[t], gates[t], accumulate=True)
                lstm_unit(c[t], gates[t], cont[t], gates[t], c[t + 1], h[t + 1])
        np.copyto(top[0].data.reshape(h[1:].shape), h[1:])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        weight_i, weight_h, bias = self.blobs
        cont, dh, dc, d_gates = self._cont, self._dh, self._dc, self._d_gates
        dy = top[0].diff.reshape(self._carried.shape)
        limit = self.dtype(self.config.clipping_threshold)
        # The next batch may go on from the last state, but sends no gradient back to it.
        dh.fill(0)
        dc.fill(0)
        with alone(self._is_small):
            self._transpose.pack(weight_h.data)
            for t in reversed(range(len(d_gates))):
                add(dy[t].reshape(-1), dh.reshape(-1))
                lstm_unit_backward(self._c[t], self._gates[t], cont[t], dc, dh, d_gates[t], dc)
                if limit:
                    _bound(d_gates[t].reshape(-1), limit)
                self._transpose.multiply(d_gates[t], dh)
                carry(dh, cont[t], dh)
        x, rows = bottom[0], as_rows(d_gates, 2)
        flat = x.data.reshape(-1, weight_i.shape[1])
        if self.learn[0]:
            gemm(rows, flat, weight_i.diff, transpose_a=True, accumulate=True)
        if self.learn[1]:
            carried = as_rows(self._carried, 2)
            gemm(rows, carried, weight_h.diff, transpose_a=True, accumulate=True)
        if self.learn[2]:
            add_column_sums(rows, bias.flat_diff)
        if x.diff is not None:
            gemm(rows, weight_i.data, x.diff.reshape(flat.shape))

    @property
    def _is_small(self) -> bool:
        _, count, rows = self._gates.shape
        return bool(count * rows * rows // 4 < FEW)


@kernel
def _bound(x: Any, limit: Any) -> None:
    """x = the nearest value within -limit and limit; a NaN stays one."""
    for i in prange(x.size):
        if x[i] > limit:
            x[i] = limit
        elif x[i] < -limit:
            x[i] = -limit
