"""Sigmoid: y = 1 / (1 + e^-x)."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import sigmoid
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("Sigmoid", config="sigmoid_param")
class Sigmoid(Neuron):
    """The logistic function, from 0 to 1.

        y = 1 / (1 + e^-x)

        bottom  x  any shape
        top     y  shape of x; may be x itself

    Before a loss, leave it out and take SigmoidCrossEntropyLoss, which is stable where y is
    nearly 0 or 1.

    Example::

        layer {
          name: "prob"
          type: "Sigmoid"
          bottom: "logit"  # 64x10
          top: "prob"
        }

    Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors",
    Nature 323, 1986.
    """

    def map(self, x: Array, y: Array) -> None:
        _map(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(y, dy, dx)


@kernel
def _map(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = sigmoid(x[i])


@kernel
def _chain(y: Any, dy: Any, dx: Any) -> None:
    one = y.dtype.type(1)
    for i in prange(y.size):
        dx[i] = dy[i] * (y[i] * (one - y[i]))
