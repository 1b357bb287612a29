"""Clip: y = x within [min, max], the nearer limit elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array, Shape
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("Clip", config="clip_param")
class Clip(Neuron):
    """Limits every value to an interval; ``min: 0 max: 6`` is ReLU6.

        y = min  where x < min
        y = max  where x > max
        y = x    elsewhere

        bottom  x  any shape
        top     y  shape of x; may be x itself

    The gradient passes where min <= x <= max, both limits included, and is 0 elsewhere, as in
    Caffe.

    Example::

        layer {
          name: "relu6"
          type: "Clip"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
          clip_param {
            min: 0
            max: 6
          }
        }

    Deviations: a NaN stays NaN, so that a net that diverged says so; Caffe makes it ``min``. The
    gradient is right in place, too; Caffe lets it pass everywhere there.

    Source: Caffe 1.0.
    """

    reads_bottom = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c = self.config
        if not self.message.HasField("clip_param"):
            raise self.error("min and max must be given", hint="clip_param { min: 0 max: 6 }")
        if not c.min <= c.max:
            raise self.error(
                f"min is {c.min:g} and max {c.max:g}, but min must not be above max",
                "clip_param",
                "min",
            )
        return super().shapes(*bottoms)

    def map(self, x: Array, y: Array) -> None:
        _map(x, self.dtype(self.config.min), self.dtype(self.config.max), y)

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        _chain(x, dy, self.dtype(self.config.min), self.dtype(self.config.max), dx)


@kernel
def _map(x: Any, low: Any, high: Any, y: Any) -> None:
    for i in prange(x.size):
        value = x[i]
        if value < low:
            value = low
        elif value > high:
            value = high
        y[i] = value


@kernel
def _chain(x: Any, dy: Any, low: Any, high: Any, dx: Any) -> None:
    zero = dx.dtype.type(0)
    for i in prange(x.size):
        dx[i] = dy[i] if low <= x[i] <= high else zero
