"""TanH: y = tanh(x)."""

from __future__ import annotations

from netdef.blob import Array
from netdef.kernels.elementwise import tanh, tanh_backward
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("TanH", config="tanh_param")
class TanH(Neuron):
    """The hyperbolic tangent, from -1 to 1.

        y = tanh(x)

        bottom  x  any shape
        top     y  shape of x; may be x itself

    Example::

        layer {
          name: "tanh1"
          type: "TanH"
          bottom: "ip1"  # 64x500
          top: "ip1"
        }

    Source: LeCun, Bottou, Orr & Müller, "Efficient BackProp", Neural networks: tricks of the
    trade, 1998.
    """

    def map(self, x: Array, y: Array) -> None:
        tanh(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        tanh_backward(y, dy, dx)
