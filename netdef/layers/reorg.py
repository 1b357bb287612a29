"""Reorg: blocks of pixels become channels, in YOLO's order, or the other way round."""

from __future__ import annotations

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.layer import Layer, register
from netdef.layers.common.arrays import check_counts
from netdef.layers.common.windows import check_images


@register("Reorg", config="reorg_param")
class Reorg(Layer):
    """Turns a fine grid of few channels into a coarse one of many: the passthrough of YOLO v2.

        bottom  x  [N, C, H, W], C a multiple of s^2, where s is ``stride``; H and W of s, unless
                   ``reverse``
        top     y  [N, C s^2, H / s, W / s]; with ``reverse`` [N, C / s^2, H s, W s]

    With ``reverse``, groups of c = C / s^2 channels become the pixels of blocks of s x s:

        y[n, k, s h + i, s w + j] = x[n, (s i + j) c + k, h, w]

    Without, darknet computes the inverse on the memory of x as if it were already the larger grid:

        x as z [N, c, s H, s W]
        u[n, (s i + j) c + k, h, w] = z[n, k, s h + i, s w + j]
        u [N, C, H, W] as y [N, C s^2, H / s, W / s]

    so a channel of y does not see every s-th pixel of a channel of x, as one would think. Weights
    of YOLO are trained with this order, and all forks of Caffe keep it.

    Example::

        layer {
          name: "reorg1"
          type: "Reorg"
          bottom: "conv21"  # 1x64x26x26
          top: "reorg1"
          reorg_param {
            stride: 2
          }
        }

    Deviations: the gradient is right; the fork sends back what an array that nothing ever wrote
    holds.

    Source: Redmon & Farhadi, "YOLO9000: better, faster, stronger", CVPR 2017; darknet.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_images(self, x)
        check_counts(self, "reorg_param", "stride")
        s = self.config.stride
        n, c, h, w = x
        if c % (s * s):
            raise self.error(
                f"the bottom {shape_text(x)} must have a multiple of {s * s} channels, the square "
                "of stride",
                "reorg_param",
                "stride",
            )
        if self.config.reverse:
            return [(n, c // (s * s), h * s, w * s)]
        if h % s or w % s:
            raise self.error(
                f"height and width of the bottom {shape_text(x)} must be multiples of the stride, "
                f"{s}",
                "reorg_param",
                "stride",
            )
        return [(n, c * s * s, h // s, w // s)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        s = self.config.stride
        n, c, h, w = bottom[0].shape
        self._fine = n, c // (s * s), h, s, w, s
        self._coarse = n, s, s, c // (s * s), h, w

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = bottom[0].data, top[0].data
        if self.config.reverse:
            np.copyto(self._pixels(y), x.reshape(self._coarse))
        else:
            np.copyto(y.reshape(self._coarse), self._pixels(x))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        dy, dx = top[0].diff, bottom[0].diff
        if dx is None:
            return
        if self.config.reverse:
            np.copyto(dx.reshape(self._coarse), self._pixels(dy))
        else:
            np.copyto(self._pixels(dx), dy.reshape(self._coarse))

    def _pixels(self, values: Array) -> Array:
        """The pixels of the larger grid as [N, row and column in a block, k, h, w]."""
        pixels: Array = values.reshape(self._fine).transpose(0, 3, 5, 1, 2, 4)
        return pixels
