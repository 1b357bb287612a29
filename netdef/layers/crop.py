"""Crop: y = x[..., offset : offset + size of the reference, ...]."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.layer import Layer, register
from netdef.layers.common.axes import axis_of


@register("Crop", config="crop_param")
class Crop(Layer):
    """Cuts its first bottom to the size of its second.

        y = x[..., offset : offset + size, ...]

        bottom  x          any shape
                reference  as many axes; its values do not matter, so its gradient is 0
        top     y          axes of x before ``axis``, those of the reference from there on

    ``offset`` has one value for each axis that is cut, or one for all of them; without it, the cut
    begins at 0.

    Example::

        layer {
          name: "score"
          type: "Crop"
          bottom: "upscore"  # 1x21x544x544
          bottom: "data"     # 1x3x500x500
          top: "score"
          crop_param {
            axis: 2
            offset: 19
          }
        }

    Source: Long, Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation",
    CVPR 2015.
    """

    bottoms = 2
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, reference = bottoms
        axis = axis_of(self, x, self.config.axis, "crop_param", "axis")
        if len(reference) < len(x):
            raise self.error(
                f"the reference {shape_text(reference)} has {len(reference)} axes, fewer than the "
                f"{len(x)} of {shape_text(x)}, which it is to cut",
                "bottom",
                1,
            )
        given = len(self.config.offset)
        if given > 1 and given != len(x) - axis:
            raise self.error(
                f"offset has {given} values, but {len(x) - axis} axes of {shape_text(x)} are cut: "
                "give one for all, or one for each",
                "crop_param",
                "offset",
                0,
            )
        for i, offset in enumerate(self._offsets(len(x) - axis), axis):
            if offset + reference[i] > x[i]:
                where = ("crop_param", "offset", min(i - axis, given - 1))
                raise self.error(
                    f"cannot cut {shape_text(x)} to {shape_text(reference)}: axis {i} would need "
                    f"{offset} + {reference[i]} values, but has {x[i]}",
                    *(where if given else ("bottom", 1)),
                )
        return [(*x[:axis], *reference[axis : len(x)])]

    def _offsets(self, axes: int) -> list[int]:
        """Where the cut begins, for each axis that is cut."""
        given = list(self.config.offset)
        return given if len(given) == axes else (given or [0]) * axes

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = bottom[0].shape, top[0].shape
        axis = self.config.axis % len(x)
        begins = [0] * axis + self._offsets(len(x) - axis)
        self._inside = tuple(slice(a, a + n) for a, n in zip(begins, y, strict=True))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, bottom[0].data[self._inside])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            bottom[0].diff.fill(0)
            bottom[0].diff[self._inside] = top[0].diff
        if bottom[1].diff is not None:
            bottom[1].diff.fill(0)
