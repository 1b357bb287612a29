"""BNLL: y = log(1 + e^x)."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import sigmoid, softplus
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("BNLL")
class BNLL(Neuron):
    """Binomial normal log likelihood, better known as softplus: a smooth ReLU.

        y = log(1 + e^x)

        bottom  x  any shape
        top     y  shape of x; may be x itself

    A large x does not overflow: y is x then.

    Example::

        layer {
          name: "bnll1"
          type: "BNLL"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
        }

    Deviations: the gradient is right in place, too; Caffe takes it at y instead of x there.

    Source: Dugas, Bengio, Bélisle, Nadeau & Garcia, "Incorporating second-order functional
    knowledge for better option pricing", NIPS 2000.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, dx)


@kernel
def _map(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = softplus(x[i])


@kernel
def _chain(x: Any, dy: Any, dx: Any) -> None:
    for i in prange(x.size):
        dx[i] = dy[i] * sigmoid(x[i])
