"""Power: y = (shift + scale * x)^power."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from netdef.blob import Array, Blob
from netdef.jit import inline, kernel, prange
from netdef.kernels.transcendental import power as raised
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("Power", config="power_param")
class Power(Neuron):
    """Raises to a fixed power; with ``power`` 1 a scale and a shift.

        y = (shift + scale * x)^power

        bottom  x  any shape
        top     y  shape of x; may be x itself

    A negative number has whole powers only: any other is NaN, as in Caffe. Where ``power`` or
    ``scale`` is 0, y is the constant shift^power whatever x holds, and the gradient is 0; 0^0
    is 1.

    Example::

        layer {
          name: "square"
          type: "Power"
          bottom: "difference"  # 64x10
          top: "square"
          power_param {
            power: 2
            scale: 0.5
            shift: 1
          }
        }

    Deviations: where shift + scale * x is 0, the gradient is that of the function (0 for powers
    above 1, infinite below); Caffe divides 0 by 0 there, except for ``power`` 1 and 2. The gradient
    is right in place, too; Caffe takes it at y instead of x there.

    Source: Caffe 1.0.
    """

    @property
    def _constant(self) -> bool:
        return bool(self.config.power == 0 or self.config.scale == 0)

    @property
    def reads_bottom(self) -> bool:
        return bool(not self._constant and self.config.power != 1)

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom",) if self.reads_bottom else ()

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        c = self.config
        super().setup(bottom, top)
        self._numbers = self.dtype(c.power), self.dtype(c.scale), self.dtype(c.shift)

    def map(self, x: Array, y: Array) -> None:
        power, scale, shift = self._numbers
        if self._constant:
            y.fill(shift)
            _map(y, power, self.dtype(1), self.dtype(0), y)
        else:
            _map(x, power, scale, shift, y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        if self._constant:
            dx.fill(0)
        else:
            _chain(x, dy, *self._numbers, dx)


@inline
def _raised(value: Any, power: Any, one: Any) -> Any:
    """value^power, where the usual powers cost no call."""
    if power == 0:
        return one
    if power == 1:
        return value
    if power == 2:
        return value * value
    return raised(value, power)


@kernel
def _map(x: Any, power: Any, scale: Any, shift: Any, y: Any) -> None:
    one = x.dtype.type(1)
    for i in prange(x.size):
        y[i] = _raised(shift + scale * x[i], power, one)


@kernel
def _chain(x: Any, dy: Any, power: Any, scale: Any, shift: Any, dx: Any) -> None:
    one = x.dtype.type(1)
    for i in prange(x.size):
        dx[i] = dy[i] * (power * scale * _raised(shift + scale * x[i], power - one, one))
