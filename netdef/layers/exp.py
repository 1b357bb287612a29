"""Exp: y = base^(shift + scale * x)."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.transcendental import exp
from netdef.layer import register
from netdef.layers.common.neuron import Based


@register("Exp", config="exp_param")
class Exp(Based):
    """A power of ``base``, or of e where ``base`` is -1.

        y = base^(shift + scale * x)

        bottom  x  any shape
        top     y  shape of x; may be x itself

    Example::

        layer {
          name: "odds"
          type: "Exp"
          bottom: "logit"  # 64x10
          top: "odds"
          exp_param {
            base: 2
            scale: 0.5
            shift: 1
          }
        }

    Deviations: the exponent is summed before it is raised; Caffe multiplies by base^shift, which
    alone can be too large for the type.

    Source: Caffe 1.0.
    """

    def map(self, x: Array, y: Array) -> None:
        _map(x, self._log_base, self._scale, self._shift, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(y, dy, self._log_base, self._scale, dx)


@kernel
def _map(x: Any, log_base: Any, scale: Any, shift: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = exp(log_base * (shift + scale * x[i]))


@kernel
def _chain(y: Any, dy: Any, log_base: Any, scale: Any, dx: Any) -> None:
    rate = log_base * scale
    for i in prange(y.size):
        dx[i] = dy[i] * (rate * y[i])
