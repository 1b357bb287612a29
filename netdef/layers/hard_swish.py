"""HardSwish: y = x * clip(x + 3, 0, 6) / 6."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("HardSwish")
class HardSwish(Neuron):
    """Swish made of straight lines: 0 below -3, x above 3, a parabola between them.

        y = x * min(max(x + 3, 0), 6) / 6

        bottom  x  any shape
        top     y  shape of x; may be x itself

    The slope is 0 at x == -3 and 1 at x == 3.

    Example::

        layer {
          name: "swish1"
          type: "HardSwish"
          bottom: "conv1"  # 64x16x112x112
          top: "conv1"
        }

    Source: Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, dx)


@kernel
def _map(x: Any, y: Any) -> None:
    zero, three, six = x.dtype.type(0), x.dtype.type(3), x.dtype.type(6)
    for i in prange(x.size):
        if x[i] <= -three:
            y[i] = zero
        elif x[i] >= three:
            y[i] = x[i]
        else:  # a NaN stays one
            y[i] = x[i] * (x[i] + three) / six


@kernel
def _chain(x: Any, dy: Any, dx: Any) -> None:
    zero, three, six = x.dtype.type(0), x.dtype.type(3), x.dtype.type(6)
    for i in prange(x.size):
        if x[i] <= -three:
            dx[i] = zero
        elif x[i] >= three:
            dx[i] = dy[i]
        else:
            dx[i] = dy[i] * (x[i] + x[i] + three) / six
