"""AbsVal: y = |x|."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("AbsVal")
class AbsVal(Neuron):
    """Absolute value.

        y = |x|

        bottom  x  any shape
        top     y  shape of x; may be x itself

    At x == 0 the gradient is 0, as in Caffe.

    Example::

        layer {
          name: "distance"
          type: "AbsVal"
          bottom: "difference"  # 64x10
          top: "distance"
        }

    Deviations: works in place, which Caffe refuses.

    Source: Caffe 1.0.
    """

    reads_bottom = True

    def map(self, x: Array, y: Array) -> None:
        _map(x, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, dx)


@kernel
def _map(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = abs(x[i])


@kernel
def _chain(x: Any, dy: Any, dx: Any) -> None:
    zero = dx.dtype.type(0)
    for i in prange(x.size):
        if x[i] > 0:
            dx[i] = dy[i]
        elif x[i] < 0:
            dx[i] = -dy[i]
        else:
            dx[i] = zero
