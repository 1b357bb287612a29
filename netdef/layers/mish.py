"""Mish: y = x * tanh(log(1 + e^x))."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, prange
from netdef.kernels.transcendental import exp
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("Mish")
class Mish(Neuron):
    """A smooth ReLU that dips below 0 and comes back: the activation of YOLO v4.

        y = x * tanh(log(1 + e^x))

        bottom  x  any shape
        top     y  shape of x; may be x itself

    Example::

        layer {
          name: "mish1"
          type: "Mish"
          bottom: "conv1"  # 1x32x416x416
          top: "conv1"
        }

    Source: Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, dx)


@inline
def _gate(x: Any) -> Any:
    """(tanh(log(1 + e^x)), its slope), without overflow: with n = e^-|x|, all is of order 1."""
    one, two = type(x)(1), type(x)(2)
    n = exp(-abs(x))
    if x < 0:
        # tanh(log(1 + n)) = (n^2 + 2 n) / (n^2 + 2 n + 2)
        above = n * (n + two)
        below = above + two
        return above / below, two * two * n * (n + one) / (below * below)
    # The same, divided by e^2x.
    above = one + two * n
    below = above + two * n * n
    return above / below, two * two * n * n * (one + n) / (below * below)


@kernel
def _map(x: Any, y: Any) -> None:
    for i in prange(x.size):
        gate, _ = _gate(x[i])
        y[i] = x[i] * gate


@kernel
def _chain(x: Any, dy: Any, dx: Any) -> None:
    for i in prange(x.size):
        gate, slope = _gate(x[i])
        dx[i] = dy[i] * (gate + x[i] * slope)
