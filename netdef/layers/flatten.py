"""Flatten: neighbouring axes joined into one."""

from __future__ import annotations

import math

from netdef.blob import Shape, shape_text
from netdef.layer import register
from netdef.layers.common.arrays import View
from netdef.layers.common.axes import axis_of


@register("Flatten", config="flatten_param")
class Flatten(View):
    """Joins the axes from ``axis`` to ``end_axis`` into one; the values stay as they are.

        bottom  x  [A..., B, C, D, E...], where B is ``axis`` and D is ``end_axis``
        top     y  [A..., B C D, E...]

    Where ``end_axis`` is one less than ``axis``, an axis of length 1 is put in before ``axis``, as
    in Caffe.

    Example::

        layer {
          name: "flatten"
          type: "Flatten"
          bottom: "pool5"  # 8x16x3x3
          top: "features"
        }

    Source: Caffe 1.0.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        axis = axis_of(self, x, self.config.axis, "flatten_param", "axis")
        end = axis_of(self, x, self.config.end_axis, "flatten_param", "end_axis") + 1
        if end < axis:
            raise self.error(
                f"end_axis {self.config.end_axis} comes before axis {self.config.axis} of the "
                f"bottom {shape_text(x)}",
                "flatten_param",
                "end_axis",
            )
        return [(*x[:axis], math.prod(x[axis:end]), *x[end:])]
