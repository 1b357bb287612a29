"""TanH: y = tanh(x)."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange
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
        _map(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(y, dy, dx)


@kernel
def _map(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = np.tanh(x[i])


@kernel
def _chain(y: Any, dy: Any, dx: Any) -> None:
    one = y.dtype.type(1)
    for i in prange(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])
