"""CropCenter: cuts off the same margin at both ends of each axis."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.layer import Layer, register


@register("CropCenter", config="crop_center_param")
class CropCenter(Layer):
    """Cuts a margin off both ends of each axis.

        y = x[..., crop : size - crop, ...]

        bottom  x  any shape
        top     y  each axis shorter by twice its ``crop_size``

    ``crop_size`` is given once for each axis, N and C included; in its place ``crop_h`` and
    ``crop_w`` cut the last two. It lets a shortcut be added to what
    convolutions without padding have made smaller.

    Example::

        layer {
          name: "crop1"
          type: "CropCenter"
          bottom: "conv1"  # 16x64x48x48
          top: "crop1"
          crop_center_param {
            crop_size: 0
            crop_size: 0
            crop_size: 4
            crop_size: 4
          }
        }

    Source: waifu2x-caffe.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        margins = self._margins(x)
        if len(margins) != len(x):
            raise self.error(
                f"{len(margins)} crop_size are given, but the bottom {shape_text(x)} has {len(x)} "
                "axes: give one for each",
                "crop_center_param",
            )
        for i, (size, margin) in enumerate(zip(x, margins, strict=True)):
            if margin and size - 2 * margin < 1:
                place = ("crop_size", i) if self.config.crop_size else (f"crop_{'hw'[i - len(x)]}",)
                raise self.error(
                    f"{place[0]} {margin} at both ends leaves nothing of axis {i} of the bottom "
                    f"{shape_text(x)}",
                    "crop_center_param",
                    *place,
                )
        return [tuple(size - 2 * margin for size, margin in zip(x, margins, strict=True))]

    def _margins(self, x: Shape) -> list[int]:
        c = self.config
        pair = [name for name in ("crop_h", "crop_w") if c.HasField(name)]
        if not pair:
            return list(c.crop_size)
        if c.crop_size:
            raise self.error(
                "give crop_size, or crop_h and crop_w, not both", "crop_center_param", pair[0]
            )
        if len(x) < 2:
            raise self.error(
                f"{pair[0]} is for images, but the bottom is {shape_text(x)}", "bottom", 0
            )
        return [*[0] * (len(x) - 2), c.crop_h, c.crop_w]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._inside = tuple(
            slice(margin, margin + size)
            for margin, size in zip(self._margins(bottom[0].shape), top[0].shape, strict=True)
        )

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, bottom[0].data[self._inside])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            bottom[0].diff.fill(0)
            bottom[0].diff[self._inside] = top[0].diff
