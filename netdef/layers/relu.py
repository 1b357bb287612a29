"""ReLU: y = x where x > 0, negative_slope * x elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("ReLU", config="relu_param")
class ReLU(Neuron):
    """Rectified linear unit; leaky where ``negative_slope`` is not 0.

        y = x                   where x > 0
        y = negative_slope * x  elsewhere

        bottom  x  any shape
        top     y  shape of x; may be x itself

    At x == 0 the slope is ``negative_slope``, as in Caffe.

    Example::

        layer {
          name: "relu1"
          type: "ReLU"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
        }

    Source: Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML
    2010; Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.
    """

    @property
    def reads_bottom(self) -> bool:
        # In place, the sign of y tells that of x, unless the slope is negative.
        in_place = self.message.bottom[0] == self.message.top[0]
        return bool(self.config.negative_slope < 0) or not in_place

    def map(self, x: Array, y: Array) -> None:
        _map(x, self.dtype(self.config.negative_slope), y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x if self.reads_bottom else y, dy, self.dtype(self.config.negative_slope), dx)


@kernel
def _map(x: Any, slope: Any, y: Any) -> None:
    for i in prange(x.size):
        # A NaN is neither above 0 nor below: it stays.
        y[i] = slope * x[i] if x[i] <= 0 else x[i]


@kernel
def _chain(x: Any, dy: Any, slope: Any, dx: Any) -> None:
    """``x`` may be y."""
    for i in prange(x.size):
        dx[i] = dy[i] if x[i] > 0 else slope * dy[i]
