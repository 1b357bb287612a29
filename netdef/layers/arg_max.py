"""ArgMax: where the largest values are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import inline, kernel, prange
from netdef.layer import Layer, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import around, axis_of, check_batch


@register("ArgMax", config="argmax_param")
class ArgMax(Layer):
    """Finds the ``top_k`` largest values, the largest first, and where they are.

        bottom  x  [N, ...]
        top     y  without ``axis`` [N, 1, top_k], indices among all values of an item; with
                   ``out_max_val`` [N, 2, top_k], the indices and then the values; where x has more
                   than 3 axes, y has as many, each further one of length 1
                   with ``axis`` shape of x, but ``axis`` has length top_k: indices along it, or
                   with ``out_max_val`` the values

    Among equal values the one of the higher index comes first, as in Caffe. There is no gradient.

    Example::

        layer {
          name: "prediction"
          type: "ArgMax"
          bottom: "scores"  # 2x21x32x32
          top: "prediction"
          argmax_param {
            axis: 1
          }
        }

    Source: Caffe 1.0.
    """

    no_gradient = frozenset({0})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        c, top_k = self.config, self.config.top_k
        if c.HasField("axis"):
            axis = axis_of(self, x, c.axis, "argmax_param", "axis")
            values, where = x[axis], f"on axis {axis}"
            top = (*x[:axis], top_k, *x[axis + 1 :])
        else:
            check_batch(self, x)
            values, where = math.prod(x[1:]), "in an item"
            top = (x[0], 2 if c.out_max_val else 1, top_k, *[1] * (len(x) - 3))
        if values == 0:
            raise self.error(
                f"the bottom {shape_text(x)} has no values to choose from", "bottom", 0
            )
        if not 1 <= top_k <= values:
            raise self.error(
                f"top_k is {top_k}, but must be from 1 to {values}: the bottom {shape_text(x)} "
                f"has {values} values {where}",
                "argmax_param",
                "top_k",
            )
        return [top]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, x = self.config, bottom[0].shape
        if c.HasField("axis"):
            self._view = around(x, c.axis % len(x))
        else:
            self._view = around(x, 1, len(x))
        outer, _, inner = self._view
        self._chosen = scratch((outer, c.top_k, inner), np.int64)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, x = self.config, bottom[0].data.reshape(self._view)
        both = c.out_max_val and not c.HasField("axis")
        outer, _, inner = self._view
        y = top[0].data.reshape(outer, 2 if both else 1, c.top_k, inner)
        _choose(x, self._chosen)
        if both or not c.out_max_val:
            np.copyto(y[:, 0], self._chosen, casting="unsafe")
        if c.out_max_val:
            _take(x, self._chosen, y, y.shape[1] - 1)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@kernel
def _choose(x: Any, chosen: Any) -> None:
    """chosen[i, :, j] = where the largest of x[i, :, j] are, the largest first."""
    top_k = chosen.shape[1]
    for job in prange(x.shape[0] * x.shape[2]):
        i = job // x.shape[2]
        j = job % x.shape[2]
        # A heap: at its root is the one that the next larger value pushes out.
        for k in range(top_k):
            chosen[i, k, j] = k
        for k in range(top_k // 2 - 1, -1, -1):
            _sink(x, chosen, i, j, k, top_k)
        for c in range(top_k, x.shape[1]):
            if _precedes(x, i, j, c, chosen[i, 0, j]):
                chosen[i, 0, j] = c
                _sink(x, chosen, i, j, 0, top_k)
        for size in range(top_k - 1, 0, -1):
            last = chosen[i, 0, j]
            chosen[i, 0, j] = chosen[i, size, j]
            chosen[i, size, j] = last
            _sink(x, chosen, i, j, 0, size)


@inline
def _precedes(x: Any, i: Any, j: Any, a: Any, b: Any) -> Any:
    """Whether value a is given before value b. A NaN is as large as what it is compared with."""
    if x[i, a, j] > x[i, b, j]:
        return True
    return a > b and not x[i, a, j] < x[i, b, j]


@inline
def _sink(x: Any, chosen: Any, i: Any, j: Any, start: Any, size: Any) -> None:
    """Let chosen[i, start, j] change places with what is to be given later, until none is below."""
    at = start
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and _precedes(x, i, j, chosen[i, below, j], chosen[i, below + 1, j]):
            below += 1
        if not _precedes(x, i, j, chosen[i, at, j], chosen[i, below, j]):
            break
        mine = chosen[i, at, j]
        chosen[i, at, j] = chosen[i, below, j]
        chosen[i, below, j] = mine
        at = below


@kernel
def _take(x: Any, chosen: Any, y: Any, row: Any) -> None:
    for job in prange(x.shape[0] * x.shape[2]):
        i = job // x.shape[2]
        j = job % x.shape[2]
        for k in range(chosen.shape[1]):
            y[i, row, k, j] = x[i, chosen[i, k, j], j]
