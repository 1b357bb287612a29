"""Upsample: unpooling by a mask, or each pixel repeated."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.jit import kernel, prange
from netdef.layer import Arity, Layer, register
from netdef.layers.common.arrays import check_counts, scratch
from netdef.layers.common.windows import check_images
from netdef.proto import netdef_pb2 as pb


@register("Upsample", config="upsample_param")
class Upsample(Layer):
    """Enlarges images: with a mask it undoes max pooling, without one it repeats each pixel.

        y[mask[i]] = x[i], and 0 elsewhere                 with two bottoms, as SegNet
        y[h, w]    = x[h / scale, w / scale], rounded down with one, as YOLO

        bottom  x     [N, C, H, W]
                mask  optional, shape of x: where in its image each maximum was, the second top of
                      Pooling
        top     y     [N, C, H scale, W scale]

    ``scale`` is that of both sides, 2 with a mask and 1 without unless it is given; ``scale_h`` and
    ``scale_w`` are those of each. An image of 45 rows is pooled to 23: so with a mask and a scale
    of 2, ``pad_out_h: true`` makes y one row shorter, and ``pad_out_w: true`` one column; or
    ``upsample_h`` and ``upsample_w`` say how large y is. Without a mask ``height`` and ``width``
    can say it, multiples of H and W.

    Where two values go to one place, as after pooling with windows that overlap, the last of them
    stands there, and each gets the gradient of the place. A mask that points outside the image
    means that this is not of the size that was pooled, and is refused; -1, a window that saw
    nothing, points nowhere. All as in SegNet.

    Example::

        layer {
          name: "upsample4"
          type: "Upsample"
          bottom: "pool4"       # 4x64x23x30
          bottom: "pool4_mask"  # 4x64x23x30
          top: "upsample4"
          upsample_param {
            scale: 2
            pad_out_h: true
          }
        }

    Source: Badrinarayanan, Kendall & Cipolla, "SegNet: a deep convolutional encoder-decoder
    architecture for image segmentation", TPAMI 2017; Redmon & Farhadi, "YOLOv3: an incremental
    improvement", arXiv, 2018.
    """

    bottoms: Arity = (1, 2)

    def __init__(self, message: pb.LayerParameter, *more: Any) -> None:
        super().__init__(message, *more)
        self._unpools = len(message.bottom) == 2
        self.no_gradient = frozenset({1}) if self._unpools else frozenset()

    @property
    def backward_reads(self) -> tuple[str, ...]:
        return ("bottom",) if self._unpools else ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        check_images(self, x)
        if self._unpools and bottoms[1] != x:
            raise self.error(
                f"the mask must have the shape of x, {shape_text(x)}, but it is "
                f"{shape_text(bottoms[1])}",
                "bottom",
                1,
            )
        return [(*x[:2], *self._size(x))]

    def _size(self, x: Shape) -> list[int]:
        c = self.config
        stated = [name for name in ("upsample_h", "upsample_w") if c.HasField(name)]
        if stated and not self._unpools:
            raise self.error(
                f"{stated[0]} is for unpooling, which needs a mask as second bottom",
                "upsample_param",
                stated[0],
                hint='top: "mask" of the Pooling layer that made the image smaller',
            )
        if len(stated) == 1:
            raise self.error("give both upsample_h and upsample_w", "upsample_param", stated[0])
        if stated:
            check_counts(self, "upsample_param", *stated)
            return [c.upsample_h, c.upsample_w]
        scales = self._scales(x)
        size = []
        for name, length, scale in zip(("pad_out_h", "pad_out_w"), x[2:], scales, strict=True):
            padded = getattr(c, name)
            if padded and not (self._unpools and scale == 2):
                raise self.error(
                    f"{name} is for unpooling by a scale of 2, but "
                    + (f"the scale is {scale}" if self._unpools else "there is no mask"),
                    "upsample_param",
                    name,
                )
            size.append(length * scale - padded)
        return size

    def _scales(self, x: Shape) -> list[int]:
        """For height and for width."""
        c = self.config
        if c.HasField("mode") and (self._unpools or c.mode.upper() != "NEAREST"):
            raise self.error(
                f'mode is "{c.mode}", but '
                + ("a mask says where pixels go" if self._unpools else "only NEAREST is computed"),
                "upsample_param",
                "mode",
                hint="" if self._unpools else "Interp and Deconvolution interpolate",
            )
        ways = [("scale",), ("scale_h", "scale_w"), ("height", "width")]
        given = [[name for name in way if c.HasField(name)] for way in ways]
        used = [names for names in given if names]
        if not used:
            return [2, 2] if self._unpools else [1, 1]
        if len(used) > 1:
            raise self.error(
                f"give {used[0][0]}, or {used[1][0]}, not both", "upsample_param", used[1][0]
            )
        way, names = ways[given.index(used[0])], used[0]
        if len(names) < len(way):
            raise self.error(f"give both {' and '.join(way)}", "upsample_param", names[0])
        check_counts(self, "upsample_param", *way)
        if way != ("height", "width"):
            return [getattr(c, way[0]), getattr(c, way[-1])]
        for name, size in zip(way, x[2:], strict=True):
            if self._unpools or getattr(c, name) % size:
                raise self.error(
                    f"{name} is {getattr(c, name)}, "
                    + (
                        "but with a mask the size is that of upsample_h and upsample_w"
                        if self._unpools
                        else f"but must be a multiple of that of the bottom {shape_text(x)}"
                    ),
                    "upsample_param",
                    name,
                )
        return [c.height // x[2], c.width // x[3]]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        n, c = bottom[0].shape[:2]
        # Where in each plane stands the first place that is none.
        self._astray = scratch((n * c if self._unpools else 0,), np.int64)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if not self._unpools:
            h, w = self._scales(bottom[0].shape)
            np.copyto(_blocks(top[0].data, h, w), bottom[0].data[:, :, :, None, :, None])
            return
        x, mask, y = (_planes(blob.data) for blob in (*bottom, top[0]))
        _unpool(x, mask, y, self._astray)
        if self._astray.max(initial=-1) >= 0:
            plane = int(np.argmax(self._astray >= 0))
            height, width = top[0].shape[2:]
            raise self.error(
                f"the mask points at {mask[plane, self._astray[plane]]:g}, but an image of "
                f"{height}x{width} ends at {height * width - 1}: this is not the size that was "
                "pooled",
                "bottom",
                1,
                hint="upsample_h and upsample_w, or pad_out_h and pad_out_w",
                kind=DataError,
            )

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        if self._unpools:
            _pick(_planes(top[0].diff), _planes(bottom[1].data), _planes(bottom[0].diff))
        else:
            h, w = self._scales(bottom[0].shape)
            n, c, height, width = bottom[0].shape
            _sum_blocks(
                top[0].diff.reshape(n * c * height, h, width, w),
                bottom[0].diff.reshape(n * c * height, width),
            )


def _planes(values: Array) -> Array:
    """[N, C, H, W] as [N C, H W]."""
    n, c, h, w = values.shape
    planes: Array = values.reshape(n * c, h * w)
    return planes


def _blocks(values: Array, h: int, w: int) -> Array:
    """Images as blocks of h x w pixels: [N, C, H / h, h, W / w, w]."""
    n, c, height, width = values.shape
    blocks: Array = values.reshape(n, c, height // h, h, width // w, w)
    return blocks


@kernel
def _unpool(x: Any, mask: Any, y: Any, astray: Any) -> None:
    """astray[plane] = the first i whose mask points outside the image, or -1."""
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            y[plane, i] = y.dtype.type(0)
        astray[plane] = -1
        for i in range(x.shape[1]):
            place = mask[plane, i]
            # Written so that a NaN is outside, too.
            if not place < y.shape[1]:
                if astray[plane] < 0:
                    astray[plane] = i
            elif place >= 0:
                y[plane, np.int64(place)] = x[plane, i]


@kernel
def _pick(dy: Any, mask: Any, dx: Any) -> None:
    for plane in prange(dx.shape[0]):
        for i in range(dx.shape[1]):
            place = mask[plane, i]
            inside = place >= 0 and place < dy.shape[1]
            dx[plane, i] = dy[plane, np.int64(place)] if inside else dx.dtype.type(0)


@kernel
def _sum_blocks(dy: Any, dx: Any) -> None:
    """dx[row, j] = sum of dy[row, :, j, :]"""
    for row in prange(dx.shape[0]):
        for j in range(dx.shape[1]):
            total = dx.dtype.type(0)
            for h in range(dy.shape[1]):
                for w in range(dy.shape[3]):
                    total += dy[row, h, j, w]
            dx[row, j] = total


@register("UpsampleDarknet", config="upsample_darknet_param")
class UpsampleDarknet(Upsample):
    """Repeats each pixel: Upsample without a mask, under a name of its own.

        y[h, w] = x[h / stride, w / stride], rounded down

        bottom  x  [N, C, H, W]
        top     y  [N, C, H stride, W stride]

    Example::

        layer {
          name: "upsample1"
          type: "UpsampleDarknet"
          bottom: "conv1"  # 1x256x13x13
          top: "upsample1"
          upsample_darknet_param {
            stride: 2
          }
        }

    Source: Redmon & Farhadi, "YOLOv3: an incremental improvement", arXiv, 2018; Synopsys' Caffe.
    """

    bottoms = 1

    def _size(self, x: Shape) -> list[int]:
        h, w = self._scales(x)
        return [x[2] * h, x[3] * w]

    def _scales(self, x: Shape) -> list[int]:
        check_counts(self, "upsample_darknet_param", "stride")
        return [self.config.stride] * 2
