"""SeLu: y = lambda x where x > 0, lambda alpha (e^x - 1) elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import exp, expm1
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("SeLu", config="selu_param")
class SeLu(Neuron):
    """Scaled exponential linear unit: deep nets of it keep mean 0 and variance 1 by themselves.

        y = lambda * x                  where x > 0
        y = lambda * alpha * (e^x - 1)  elsewhere

        bottom  x  any shape
        top     y  shape of x; may be x itself

    At x == 0 the slope is ``lambda * alpha``. Weights are to begin with mean 0 and variance 1 / the
    number of inputs.

    Example::

        layer {
          name: "selu1"
          type: "SeLu"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
        }

    Source: Klambauer, Unterthiner, Mayr & Hochreiter, "Self-normalizing neural networks", NIPS
    2017.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, *self._factors(), y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, *self._factors(), dx)

    def _factors(self) -> tuple[Any, Any]:
        factor = getattr(self.config, "lambda")
        return self.dtype(factor), self.dtype(factor * self.config.alpha)


@kernel
def _map(x: Any, above: Any, below: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = above * x[i] if x[i] > 0 else below * expm1(x[i])


@kernel
def _chain(x: Any, dy: Any, above: Any, below: Any, dx: Any) -> None:
    for i in prange(x.size):
        dx[i] = dy[i] * (above if x[i] > 0 else below * exp(x[i]))
