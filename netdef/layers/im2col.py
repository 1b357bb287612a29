"""Im2col: y[(c, k), p] = x[c, stride p + dilation k - pad], the windows of images as columns."""

from __future__ import annotations

import math

from netdef.blob import Blob, Shape, shape_text
from netdef.kernels import convolution as kernels
from netdef.layer import register
from netdef.layers.common.windows import Sliding


@register("Im2col", config="convolution_param")
class Im2col(Sliding):
    """Lays out what each window of a convolution sees along the axis of the channels.

        y[(c, k), p] = x[c, stride p + dilation k - pad], 0 outside the image

        bottom  x  [N..., C, spatial axes...]
        top     y  [N..., C * the product of kernel..., (size + 2 pad - dilation (kernel - 1) - 1) /
                   stride + 1, ...], rounded down

    ``axis`` is that of C; p and k run over the axes behind it. A convolution is a product of its
    weights with this matrix. Of ``convolution_param`` only the options of the window count.

    Example::

        layer {
          name: "patches"
          type: "Im2col"
          bottom: "data"  # 4x3x32x32
          top: "patches"
          convolution_param {
            kernel_size: 8
            stride: 8
          }
        }

    Source: Chellapilla, Puri & Simard, "High performance convolutional neural networks for document
    processing", IWFHR 2006.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        axis = self.channel_axis(x)
        if axis == len(x) - 1:
            raise self.error(
                f"the bottom {shape_text(x)} has no axes behind the channels", "bottom", 0
            )
        output = self.slide(x, axis)
        window = math.prod(w.kernel for w in self.windows(len(output)))
        return [(*x[:axis], x[axis] * window, *output)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = bottom[0].shape, top[0].shape
        axis = self.config.axis % len(x)
        self._geometry = self.geometry(x[axis:], (1, *y[axis + 1 :]))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        kernels.im2col(self._geometry, self.images(bottom[0].data), self.images(top[0].data))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            kernels.col2im(self._geometry, self.images(top[0].diff), self.images(bottom[0].diff))
