"""SpatialDropout: dropout of whole channels."""

from __future__ import annotations

import math

from netdef.blob import Array, Shape, shape_text
from netdef.kernels.channels import scale
from netdef.layer import Work, register
from netdef.layers.dropout import Dropout


@register("SpatialDropout", config="spatial_dropout_param")
class SpatialDropout(Dropout):
    """Sets a random fraction ``dropout_ratio`` of its channels to 0, and scales up the rest.

        y[n, c] = x[n, c] * mask[n, c] / (1 - dropout_ratio)  in training
        y       = x                                           in testing

        bottom  x  [N, C, ...]
        top     y  shape of x; may be x itself

    Neighbouring pixels say much the same, so that to drop some of them drops little. The mask is 0
    or 1, drawn anew for each channel of each item in each pass, as that of Dropout is.

    Example::

        layer {
          name: "drop1_0"
          type: "SpatialDropout"
          bottom: "conv1_0"  # 4x64x64x128
          top: "conv1_0"
          spatial_dropout_param {
            dropout_ratio: 0.01
          }
        }

    Source: Tompson, Goroshin, Jain, LeCun & Bregler, "Efficient object localization using
    convolutional networks", CVPR 2015; ENet.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        if len(x) < 2:
            raise self.error(
                f"needs a bottom of at least 2 axes (N, C, ...), but it is {shape_text(x)}",
                "bottom",
                0,
            )
        return super().shapes(x)

    def work(self, *bottoms: Shape) -> list[Work]:
        return [Work((math.prod(bottoms[0][:2]) if self._drops else 0,))]

    def mask(self, x: Array, y: Array) -> None:
        rows = (1, self._mask.size, x.size // max(1, self._mask.size))
        scale(x.reshape(rows), self._mask, y.reshape(rows))
