"""HardSigmoid: y = alpha * x + beta within [0, 1], the nearer limit elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("HardSigmoid", config="hard_sigmoid_param")
class HardSigmoid(Neuron):
    """A sigmoid made of straight lines.

        y = min(max(alpha * x + beta, 0), 1)

        bottom  x  any shape
        top     y  shape of x; may be x itself

    The slope is 0 where y has come to 0 or 1.

    Example::

        layer {
          name: "gate"
          type: "HardSigmoid"
          bottom: "squeeze"  # 64x72x1x1
          top: "gate"
          hard_sigmoid_param {
            alpha: 0.16666667
            beta: 0.5
          }
        }

    Source: Courbariaux, Bengio & David, "BinaryConnect: training deep neural networks with binary
    weights during propagations", NIPS 2015; Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, self.dtype(self.config.alpha), self.dtype(self.config.beta), y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, self.dtype(self.config.alpha), self.dtype(self.config.beta), dx)


@inline
def _line(x: Any, alpha: Any, beta: Any) -> Any:
    return alpha * x + beta


@kernel
def _map(x: Any, alpha: Any, beta: Any, y: Any) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in prange(x.size):
        value = _line(x[i], alpha, beta)
        if value < zero:
            value = zero
        elif value > one:
            value = one
        y[i] = value


@kernel
def _chain(x: Any, dy: Any, alpha: Any, beta: Any, dx: Any) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in prange(x.size):
        dx[i] = alpha * dy[i] if zero < _line(x[i], alpha, beta) < one else zero
