"""ReLU6: y = x within [0, 6], the nearer limit elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import inline, kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("ReLU6", config="relu6_param")
class ReLU6(Neuron):
    """Rectified linear unit that saturates at 6; leaky where ``negative_slope`` is not 0.

        y = min(x, 6)                   where x > 0
        y = min(negative_slope * x, 6)  elsewhere

        bottom  x  any shape
        top     y  shape of x; may be x itself

    At x == 0 the slope is ``negative_slope``; where y has come to 6 it is 0.

    Example::

        layer {
          name: "relu1"
          type: "ReLU6"
          bottom: "conv1"  # 64x32x112x112
          top: "conv1"
        }

    Source: Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010; MobileNet-YOLO's
    Caffe.
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


@inline
def _rectified(x: Any, slope: Any) -> Any:
    # A NaN is neither above 0 nor below: it stays.
    return slope * x if x <= 0 else x


@kernel
def _map(x: Any, slope: Any, y: Any) -> None:
    six = x.dtype.type(6)
    for i in prange(x.size):
        value = _rectified(x[i], slope)
        y[i] = six if value > six else value


@kernel
def _chain(x: Any, dy: Any, slope: Any, dx: Any) -> None:
    """``x`` may be y."""
    zero, six = x.dtype.type(0), x.dtype.type(6)
    for i in prange(x.size):
        slant = dy[i] if x[i] > 0 else slope * dy[i]
        dx[i] = zero if _rectified(x[i], slope) >= six else slant
