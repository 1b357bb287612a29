"""ELU: y = x where x > 0, alpha * (e^x - 1) elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import expm1
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("ELU", config="elu_param")
class ELU(Neuron):
    """Exponential linear unit: below 0 it bends towards ``-alpha``.

        y = x                  where x > 0
        y = alpha * (e^x - 1)  elsewhere

        bottom  x  any shape
        top     y  shape of x; may be x itself

    At x == 0 the slope is ``alpha``, as in Caffe.

    Example::

        layer {
          name: "elu1"
          type: "ELU"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
          elu_param {
            alpha: 0.5
          }
        }

    Deviations: with a negative ``alpha`` the gradient is right in place, too; Caffe takes the sign
    of y for that of x there.

    Source: Clevert, Unterthiner & Hochreiter, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", ICLR 2016.
    """

    @property
    def reads_bottom(self) -> bool:
        # In place, the sign of y tells that of x, unless alpha is negative.
        in_place = self.message.bottom[0] == self.message.top[0]
        return bool(self.config.alpha < 0) or not in_place

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom", "top") if self.reads_bottom else ("top",)

    def map(self, x: Array, y: Array) -> None:
        _map(x, self.dtype(self.config.alpha), y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x if self.reads_bottom else y, y, dy, self.dtype(self.config.alpha), dx)


@kernel
def _map(x: Any, alpha: Any, y: Any) -> None:
    for i in prange(x.size):
        below = alpha * expm1(x[i])
        y[i] = x[i] if x[i] > 0 else below


@kernel
def _chain(x: Any, y: Any, dy: Any, alpha: Any, dx: Any) -> None:
    """``x`` may be y."""
    for i in prange(x.size):
        # alpha e^x is y + alpha.
        dx[i] = dy[i] if x[i] > 0 else dy[i] * (y[i] + alpha)
