"""Recurrent layers, computed as whole sequences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import alone
from netdef.kernels.elementwise import add
from netdef.kernels.gemm import Packed, gemm
from netdef.kernels.recurrent import add_to_steps, carry, fill_rows, sum_steps
from netdef.kernels.sums import add_column_sums
from netdef.layer import MOST_VALUES, Layer, Param
from netdef.layers.common.arrays import as_rows, check_counts, scratch
from netdef.proto import netdef_pb2 as pb

#: Products of one step of a recurrent layer, fewer than which are not worth a second thread.
FEW = 1 << 18


class Recurrent(Layer):
    """A layer that goes through sequences step by step: what it is given, kept and learned.

    What does not depend on the last step, the products with x and with x_static, is computed for
    all steps at once, and so are all gradients of parameters. A subclass gives ``step`` and
    ``step_backward``, and says what its top is in ``output`` and ``output_backward``.
    """

    no_gradient = frozenset({1})
    backward_reads = ("bottom",)
    #: How many values a step computes for each unit: rows of a weight.
    gates: ClassVar[int] = 1
    #: What Caffe calls the sum they are computed from, in the names of parameters.
    letter: ClassVar[str] = "h"
    #: What goes on from step to step; the first is what W_h is multiplied by.
    states: ClassVar[tuple[str, ...]] = ("h",)

    #: The states, each [T + 1, N, D]; row t is that before step t.
    values: Array
    #: Their gradients, each [N, D], of the step that backward has come to.
    gradients: Array
    #: For each step the sums that it computes from, and then what it keeps: [T, N, gates * D].
    steps: Array
    #: The gradients of those sums.
    d_steps: Array

    def __init__(self, message: pb.LayerParameter, *more: Any) -> None:
        super().__init__(message, *more)
        self._exposed = len(self.states) if self.config.expose_hidden else 0
        self._has_static = len(message.bottom) > 2 + self._exposed
        self.bottoms = 2 + self._exposed, 3 + self._exposed
        self.tops = 1 + self._exposed
        self.values = np.zeros((len(self.states), 1, 0, 0))

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, cont = bottoms[:2]
        size = self.config.num_output
        check_counts(self, "recurrent_param", "num_output")
        if len(x) < 3:
            raise self.error(
                f"needs a bottom of at least 3 axes (T steps, N sequences, values), but it is "
                f"{shape_text(x)}",
                "bottom",
                0,
            )
        steps, count = x[:2]
        if steps == 0:
            raise self.error(f"the bottom {shape_text(x)} has no steps", "bottom", 0)
        self._check_values(x[2:], x, 0)
        if cont != (steps, count):
            raise self.error(
                f"cont must be {steps}x{count} (T x N) for an x of {shape_text(x)}, but is "
                f"{shape_text(cont)}",
                "bottom",
                1,
                hint="one value for each step of each sequence: 0 where it begins, else 1",
            )
        if self._has_static:
            self._check_static(bottoms[2], count)
        state = (1, count, size)
        for name, i in zip(self.states, self._initial, strict=False):
            if bottoms[i] != state:
                raise self.error(
                    f"{name}0 must be {shape_text(state)} (1, N, num_output), but is "
                    f"{shape_text(bottoms[i])}",
                    "bottom",
                    i,
                )
        if steps * count * self.gates * size > MOST_VALUES:
            raise self.error(
                f"its gates would be {steps}x{count}x{self.gates * size}: more than 2^31 - 1 values"
            )
        return [(steps, count, size), *[state] * self._exposed]

    def _check_static(self, static: Shape, count: int) -> None:
        if len(static) < 2 or static[0] != count:
            raise self.error(
                f"x_static must be {count}x... (N, values), but is {shape_text(static)}",
                "bottom",
                2,
                hint="" if self._exposed else "initial states need  expose_hidden: true",
            )
        self._check_values(static[1:], static, 2)

    def _check_values(self, values: Shape, given: Shape, bottom: int) -> None:
        if math.prod(values) == 0:
            raise self.error(
                f"the bottom {shape_text(given)} has no values to multiply", "bottom", bottom
            )

    @property
    def _initial(self) -> range:
        """The bottoms with the initial states."""
        first = 3 if self._has_static else 2
        return range(first, first + self._exposed)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c = self.config
        rows, letter = self.gates * c.num_output, self.letter
        yield Param(f"W_x{letter}", (rows, math.prod(bottoms[0][2:])), c.weight_filler)
        yield Param(f"b_{letter}", (rows,), c.bias_filler)
        if self._has_static:
            shape = (rows, math.prod(bottoms[2][1:]))
            yield Param(f"W_x{letter}_static", shape, c.weight_filler)
        yield Param(f"W_h{letter}", (rows, c.num_output), c.weight_filler)

    @property
    def _hidden(self) -> int:
        """The index of W_h."""
        return 3 if self._has_static else 2

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        steps, count, size = top[0].shape
        rows = self.gates * size
        self.steps = scratch((steps, count, rows), self.dtype)
        self.d_steps = scratch((steps, count, rows), self.dtype)
        self.gradients = scratch((len(self.states), count, size), self.dtype)
        # What of h reaches each step: cont[t] h[t - 1].
        self._carried = scratch((steps, count, size), self.dtype)
        # The weight that every step is multiplied by, and for backward its transpose.
        self._weight = Packed(size, rows, self.dtype)
        self._transpose = Packed(rows, size, self.dtype)
        self._static = scratch((count if self._has_static else 0, rows), self.dtype)
        values = np.zeros((len(self.states), steps + 1, count, size), self.dtype)
        if self.values.shape[2:] == (count, size):
            values[:, -1] = self.values[:, -1]
        self.values = values

    def reset(self) -> None:
        """Let the next forward pass begin from a state of zeros."""
        self.values.fill(0)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, cont, steps = bottom[0].data, bottom[1].data, self.steps
        weight, bias = self.blobs[:2]
        fill_rows(bias.flat, as_rows(steps, 2))
        gemm(as_rows(x, 2), weight.data, as_rows(steps, 2), transpose_b=True, accumulate=True)
        if self._has_static:
            static = bottom[2].data
            gemm(as_rows(static, 1), self.blobs[2].data, self._static, transpose_b=True)
            add_to_steps(self._static, steps)

        self.values[:, 0] = self.values[:, -1]
        for value, i in zip(self.values, self._initial, strict=False):
            np.copyto(value[0], bottom[i].data[0])
        with alone(self._is_small):
            self._weight.pack(self.blobs[self._hidden].data, transpose_b=True)
            for t in range(len(steps)):
                carry(self.values[0][t], cont[t], self._carried[t])
                self._weight.multiply(self._carried[t], steps[t], accumulate=True)
                self.step(t, cont[t])
        self.output(top[0])
        for value, blob in zip(self.values, top[1:], strict=False):
            np.copyto(blob.data[0], value[-1])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        cont, hidden = bottom[1].data, self.blobs[self._hidden]
        dy = self.output_backward(top[0])
        # The next batch may go on from the last state, but sends no gradient back to it.
        self.gradients.fill(0)
        for gradient, blob in zip(self.gradients, top[1:], strict=False):
            np.copyto(gradient, blob.diff[0])
        dh = self.gradients[0]
        with alone(self._is_small):
            self._transpose.pack(hidden.data)
            for t in reversed(range(len(self.steps))):
                add(dy[t].reshape(-1), dh.reshape(-1))
                self.step_backward(t, cont[t])
                self._transpose.multiply(self.d_steps[t], dh)
                carry(dh, cont[t], dh)
        for gradient, i in zip(self.gradients, self._initial, strict=False):
            if bottom[i].diff is not None:
                np.copyto(bottom[i].diff[0], gradient)

        x, d_steps = bottom[0], as_rows(self.d_steps, 2)
        if self.learn[0]:
            gemm(d_steps, as_rows(x.data, 2), self.blobs[0].diff, transpose_a=True, accumulate=True)
        if self.learn[1]:
            add_column_sums(d_steps, self.blobs[1].flat_diff)
        if self.learn[self._hidden]:
            gemm(d_steps, as_rows(self._carried, 2), hidden.diff, transpose_a=True, accumulate=True)
        if x.diff is not None:
            gemm(d_steps, self.blobs[0].data, as_rows(x.diff, 2))
        if self._has_static:
            self._backward_static(bottom[2])

    @property
    def _is_small(self) -> bool:
        _, count, rows = self.steps.shape
        return bool(count * rows * rows // self.gates < FEW)

    def _backward_static(self, static: Blob) -> None:
        sum_steps(self.d_steps, self._static)
        weight = self.blobs[2]
        if self.learn[2]:
            gemm(
                self._static,
                as_rows(static.data, 1),
                weight.diff,
                transpose_a=True,
                accumulate=True,
            )
        if static.diff is not None:
            gemm(self._static, weight.data, as_rows(static.diff, 1))

    def step(self, t: int, cont: Array) -> None:
        """From ``steps[t]`` and ``values[:, t]`` compute ``values[:, t + 1]``."""
        raise NotImplementedError

    def step_backward(self, t: int, cont: Array) -> None:
        """Compute ``d_steps[t]`` from ``gradients``, which are with respect to the states after
        step t; those of all states but the first are then to be with respect to those before."""
        raise NotImplementedError

    def output(self, top: Blob) -> None:
        """Compute the first top: h itself, unless overridden."""
        np.copyto(top.data, self.values[0][1:])

    def output_backward(self, top: Blob) -> Array:
        """The gradient that the first top sends to h, [T, N, D]."""
        gradient: Array = top.diff
        return gradient
