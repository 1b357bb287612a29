"""ResizeBilinear, ResizeNearestNeighbor: images of another size, as TensorFlow resizes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.kernels.resize import Places, between_corners, by_ratio, interpolate, pick, put_back
from netdef.kernels.resize import spread as spread_back
from netdef.layer import Layer, register
from netdef.layers.common.arrays import check_counts


class Resize(Layer):
    """A layer that resizes images, whose channels are axis 1 or the last one."""

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        c, config = self.config, self.config_field or ""
        if c.data_format not in ("NHWC", "NCHW"):
            raise self.error(
                f'data_format is "{c.data_format}", but must be "NHWC" or "NCHW"',
                config,
                "data_format",
            )
        if len(x) != 4 or 0 in self._image(x):
            raise self.error(
                f"needs a bottom of 4 axes ({', '.join(c.data_format)}) with pixels, but it is "
                f"{shape_text(x)}",
                "bottom",
                0,
            )
        size = [
            self._length(side, length)
            for side, length in zip(("height", "width"), self._image(x), strict=True)
        ]
        return [(*x[:2], *size) if c.data_format == "NCHW" else (x[0], *size, x[3])]

    def _image(self, x: Shape) -> Sequence[int]:
        """(height, width)"""
        return x[2:] if self.config.data_format == "NCHW" else x[1:3]

    def _length(self, side: str, length: int) -> int:
        """What a side of the image becomes."""
        c, config = self.config, self.config_field or ""
        if c.HasField(f"output_{side}"):
            check_counts(self, config, f"output_{side}")
            return int(getattr(c, f"output_{side}"))
        scale = getattr(c, f"scale_{side}")
        if not 1 <= length * scale < 2**31:
            raise self.error(
                f"scale_{side} is {scale:g}, which makes {length} pixels none or too many",
                config,
                f"scale_{side}",
            )
        return int(length * scale)

    def _sides(self, bottom: Blob, top: Blob) -> list[tuple[int, int]]:
        """(size of the bottom, size of the top) of both sides."""
        return list(zip(self._image(bottom.shape), self._image(top.shape), strict=True))

    def _pixels(self, values: Array) -> Array:
        """The images as kernels take them: the values of a pixel are the last axis."""
        return values[..., None] if self.config.data_format == "NCHW" else values


@register("ResizeBilinear", config="resize_bilinear_param")
class ResizeBilinear(Resize):
    """Resizes images by bilinear interpolation, as TensorFlow's resize_bilinear of old does.

        y[i, j] = x at row i H / H', column j W / W'
        y[i, j] = x at row i (H - 1) / (H' - 1), column j (W - 1) / (W' - 1)  with align_corners

        bottom  x  [N, H, W, C]; [N, C, H, W] with ``data_format: "NCHW"``
        top     y  [N, H', W', C]; [N, C, H', W']

    H' is ``output_height``, or H ``scale_height``, rounded down; W' is found alike. Beyond the last
    pixel is that pixel again.

    Example::

        layer {
          name: "resize"
          type: "ResizeBilinear"
          bottom: "logits"  # 1x21x65x65
          top: "resize"
          resize_bilinear_param {
            align_corners: true
            output_height: 513
            output_width: 513
            data_format: "NCHW"
          }
        }

    Source: TensorFlow 1; Synopsys' Caffe.
    """

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        find = between_corners if self.config.align_corners else by_ratio
        self._rows, self._columns = (
            Places(size, *find(size, count), self.dtype)
            for size, count in self._sides(bottom[0], top[0])
        )

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        interpolate(
            self._pixels(bottom[0].data), self._rows, self._columns, self._pixels(top[0].data)
        )

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            spread_back(
                self._pixels(top[0].diff), self._rows, self._columns, self._pixels(bottom[0].diff)
            )


@register("ResizeNearestNeighbor", config="resize_nearest_neighbor_param")
class ResizeNearestNeighbor(Resize):
    """Resizes images by repeating and leaving out pixels, as TensorFlow 1 does.

        y[i, j] = x[i H / H', j W / W'], rounded down
        y[i, j] = x[i (H - 1) / (H' - 1), j (W - 1) / (W' - 1)], rounded, with align_corners

        bottom  x  [N, H, W, C]; [N, C, H, W] with ``data_format: "NCHW"``
        top     y  [N, H', W', C]; [N, C, H', W']

    H' is ``output_height``, or H ``scale_height``, rounded down; W' is found alike.

    Example::

        layer {
          name: "up"
          type: "ResizeNearestNeighbor"
          bottom: "p5"  # 1x256x16x16
          top: "up"
          resize_nearest_neighbor_param {
            output_height: 32
            output_width: 32
            data_format: "NCHW"
          }
        }

    Source: TensorFlow 1; Synopsys' Caffe.
    """

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._rows, self._columns = (
            self._nearest(size, count) for size, count in self._sides(bottom[0], top[0])
        )

    def _nearest(self, size: int, count: int) -> Array:
        """The pixel that each of ``count`` places shows."""
        if not self.config.align_corners:
            return by_ratio(size, count)[0]
        pixel, share = between_corners(size, count)
        return np.where(share < 0.5, pixel, pixel + 1)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        pick(self._pixels(bottom[0].data), self._rows, self._columns, self._pixels(top[0].data))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            put_back(
                self._pixels(top[0].diff), self._rows, self._columns, self._pixels(bottom[0].diff)
            )
