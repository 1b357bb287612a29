"""Log: y = log_base(shift + scale * x)."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array, Shape
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import log
from netdef.layer import register
from netdef.layers.common.neuron import Based


@register("Log", config="log_param")
class Log(Based):
    """The logarithm to ``base``, or to e where ``base`` is -1.

        y = log(shift + scale * x) / log(base)

        bottom  x  any shape
        top     y  shape of x; may be x itself

    The logarithm of 0 is -inf, that of a negative number NaN, as in Caffe.

    Example::

        layer {
          name: "log_prob"
          type: "Log"
          bottom: "prob"  # 64x10
          top: "log_prob"
          log_param {
            shift: 1e-6
          }
        }

    Deviations: the gradient is right in place, too; Caffe takes it at y instead of x there.

    Source: Caffe 1.0.
    """

    reads_bottom = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        if self.log_base() == 0:
            raise self.error("there is no logarithm to base 1", "log_param", "base")
        return super().shapes(*bottoms)

    def map(self, x: Array, y: Array) -> None:
        _map(x, self._log_base, self._scale, self._shift, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, self._log_base, self._scale, self._shift, dx)


@kernel
def _map(x: Any, log_base: Any, scale: Any, shift: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = log(shift + scale * x[i]) / log_base


@kernel
def _chain(x: Any, dy: Any, log_base: Any, scale: Any, shift: Any, dx: Any) -> None:
    rate = scale / log_base
    for i in prange(x.size):
        dx[i] = dy[i] * (rate / (shift + scale * x[i]))
