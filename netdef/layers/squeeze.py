"""Squeeze: leaves out axes of length 1."""

from __future__ import annotations

from netdef.blob import Shape, shape_text
from netdef.layer import register
from netdef.layers.common.arrays import View
from netdef.layers.common.axes import axis_of


@register("Squeeze", config="squeeze_param")
class Squeeze(View):
    """Leaves out axes of length 1; the values stay as they are.

        bottom  x  any shape
        top     y  shape of x without each ``axis``, or without any axis of length 1 if none is
                   given

    Example::

        layer {
          name: "logits"
          type: "Squeeze"
          bottom: "conv7"  # 16x1x1x1001
          top: "logits"
          squeeze_param {
            axis: 1
            axis: 2
          }
        }

    Source: TensorFlow's squeeze; Synopsys' Caffe.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        given = list(self.config.axis)
        axes = {axis_of(self, x, a, "squeeze_param", "axis", i) for i, a in enumerate(given)}
        for i, axis in enumerate(given):
            if x[axis] != 1:
                raise self.error(
                    f"axis {axis} of the bottom {shape_text(x)} is {x[axis]} long: only an axis of "
                    "length 1 can be left out",
                    "squeeze_param",
                    "axis",
                    i,
                )
        if not given:
            axes = {i for i, size in enumerate(x) if size == 1}
        return [tuple(size for i, size in enumerate(x) if i not in axes)]
