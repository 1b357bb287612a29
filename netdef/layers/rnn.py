"""RNN: h = tanh(W_hh h_prev + W_xh x + b_h), o = tanh(W_ho h + b_o), step by step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.kernels.elementwise import tanh, tanh_backward
from netdef.kernels.gemm import gemm
from netdef.kernels.recurrent import fill_rows
from netdef.kernels.sums import add_column_sums
from netdef.layer import Param, register
from netdef.layers.common.arrays import as_rows, scratch
from netdef.layers.common.recurrent import Recurrent


@register("RNN", config="recurrent_param")
class RNN(Recurrent):
    """A plain recurrent layer: its state is a tanh of its input and of its last state.

        h[t] = tanh(W_xh x[t] + b_h + W_xh_static x_static + W_hh (cont[t] h[t-1]))
        o[t] = tanh(W_ho h[t] + b_o)

        bottom  x         [T, N, ...]: T steps of N sequences side by side
                cont      [T, N]: 0 where a sequence begins, 1 where it goes on
                x_static  optional, [N, ...]: added to every step
                h0        with ``expose_hidden``, [1, N, D]: the state before the first step
        top     o         [T, N, D], where D is ``num_output``
                hT        with ``expose_hidden``, [1, N, D]: the state after the last step
        params  W_xh [D, values of x in a step]; b_h [D];
                with x_static W_xh_static [D, values of x_static]; W_hh [D, D]; W_ho [D, D]; b_o [D]

    ``cont``, the state between forward passes and all options are those of LSTM, described there.

    Example::

        layer {
          name: "rnn1"
          type: "RNN"
          bottom: "samples"  # 20x16x8
          bottom: "cont"     # 20x16
          top: "rnn1"
          recurrent_param {
            num_output: 32
            weight_filler {
              type: "xavier"
            }
          }
        }

    Deviations: those of LSTM.

    Source: Elman, "Finding structure in time", Cognitive Science 14, 1990; Donahue et al.,
    "Long-term recurrent convolutional networks for visual recognition and description", CVPR 2015.
    """

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        yield from super().params(*bottoms)
        c = self.config
        yield Param("W_ho", (c.num_output, c.num_output), c.weight_filler)
        yield Param("b_o", (c.num_output,), c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        # The top may be overwritten before it is needed for the gradient.
        self._output = scratch(top[0].shape, self.dtype)
        self._d_output = scratch(top[0].shape, self.dtype)
        self._d_hidden = scratch(top[0].shape, self.dtype)

    def step(self, t: int, cont: Array) -> None:
        tanh(self.steps[t].reshape(-1), self.values[0][t + 1].reshape(-1))

    def step_backward(self, t: int, cont: Array) -> None:
        h, dh = self.values[0][t + 1], self.gradients[0]
        tanh_backward(h.reshape(-1), dh.reshape(-1), self.d_steps[t].reshape(-1))

    def output(self, top: Blob) -> None:
        weight, bias = self.blobs[-2:]
        rows = as_rows(self._output, 2)
        fill_rows(bias.flat, rows)
        gemm(as_rows(self.values[0][1:], 2), weight.data, rows, transpose_b=True, accumulate=True)
        tanh(self._output.reshape(-1), self._output.reshape(-1))
        np.copyto(top.data, self._output)

    def output_backward(self, top: Blob) -> Array:
        weight, bias = self.blobs[-2:]
        learn_weight, learn_bias = self.learn[-2:]
        do = as_rows(self._d_output, 2)
        tanh_backward(self._output.reshape(-1), top.flat_diff, do.reshape(-1))
        if learn_weight:
            h = as_rows(self.values[0][1:], 2)
            gemm(do, h, weight.diff, transpose_a=True, accumulate=True)
        if learn_bias:
            add_column_sums(do, bias.flat_diff)
        gemm(do, weight.data, as_rows(self._d_hidden, 2))
        return self._d_hidden
