"""ReLU: y = x where x > 0, negative_slope * x elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.layer import Layer, register


@register("ReLU", config="relu_param")
class ReLU(Layer):
    """Rectified linear unit; leaky where ``negative_slope`` is not 0.

    bottom  x  any shape
    top     y  shape of x; may be x itself

    At x == 0 the slope is ``negative_slope``, as in Caffe. Below 0 a slope works as well, but not
    in place: the sign of y no longer tells that of x.
    Source: Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML
    2010; Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.
    """

    in_place = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        if self.config.negative_slope < 0 and self.message.bottom[0] == self.message.top[0]:
            raise self.error(
                f"negative_slope {self.config.negative_slope:g} cannot work in place",
                "relu_param",
                "negative_slope",
                hint="give the top another name",
            )
        return [bottoms[0]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        _forward(bottom[0].flat, self.dtype(self.config.negative_slope), top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        slope = self.config.negative_slope
        # In place, x is gone: y > 0 exactly where x > 0, unless the slope is negative.
        sign = bottom[0].flat if slope < 0 else top[0].flat
        _backward(sign, top[0].flat_diff, self.dtype(slope), bottom[0].flat_diff)


@kernel
def _forward(x: Any, slope: Any, y: Any) -> None:
    for i in prange(x.size):
        # A NaN is neither above 0 nor below: it stays.
        y[i] = slope * x[i] if x[i] <= 0 else x[i]


@kernel
def _backward(y: Any, dy: Any, slope: Any, dx: Any) -> None:
    for i in prange(y.size):
        dx[i] = dy[i] if y[i] > 0 else slope * dy[i]
