"""Softmax: y = exp(x) / sum exp(x) along an axis."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.kernels.softmax import softmax, softmax_backward
from netdef.layer import Layer, register
from netdef.layers.common.axes import around, axis_of
from netdef.layers.common.labels import check_classes


@register("Softmax", config="softmax_param")
class Softmax(Layer):
    """Turns scores into probabilities, which sum to 1 along ``axis``.

        y[c] = exp(x[c]) / sum over k of exp(x[k])

        bottom  x  any shape; scores along ``axis``
        top     y  shape of x; may be x itself

    Example::

        layer {
          name: "prob"
          type: "Softmax"
          bottom: "ip2"  # 8x10
          top: "prob"
        }

    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs,
    with relationships to statistical pattern recognition", Neurocomputing, 1990.
    """

    in_place = True
    backward_reads = ("top",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        axis = axis_of(self, x, self.config.axis, "softmax_param", "axis")
        check_classes(self, x, axis)
        return [x]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._view = around(x, self.config.axis % len(x))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        softmax(bottom[0].data.reshape(self._view), top[0].data.reshape(self._view))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            y, dy, dx = (a.reshape(self._view) for a in (top[0].data, top[0].diff, bottom[0].diff))
            softmax_backward(y, dy, dx)
