"""Swish: y = x * sigmoid(beta * x)."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import sigmoid
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("Swish", config="swish_param")
class Swish(Neuron):
    """A smooth ReLU that dips below 0; with ``beta`` 1 also called SiLU.

        y = x / (1 + e^(-beta * x))

        bottom  x  any shape
        top     y  shape of x; may be x itself

    Example::

        layer {
          name: "swish1"
          type: "Swish"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
          swish_param {
            beta: 1.5
          }
        }

    Source: Ramachandran, Zoph & Le, "Searching for activation functions", arXiv, 2017.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, self.dtype(self.config.beta), y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, self.dtype(self.config.beta), dx)


@kernel
def _map(x: Any, beta: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = x[i] * sigmoid(beta * x[i])


@kernel
def _chain(x: Any, dy: Any, beta: Any, dx: Any) -> None:
    one = x.dtype.type(1)
    for i in prange(x.size):
        gate = sigmoid(beta * x[i])
        dx[i] = dy[i] * (gate + beta * x[i] * gate * (one - gate))
