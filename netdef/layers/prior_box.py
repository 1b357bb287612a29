"""PriorBox: the boxes that a detector starts from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.layer import Layer, register
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.windows import check_images


@register("PriorBox", config="prior_box_param")
class PriorBox(Layer):
    """Lays boxes of several sizes and shapes around each position of a feature map.

        y[0, 0] = x1 y1 x2 y2 of each box, as parts of the image
        y[0, 1] = variance, four for each box

        bottom  x      [N, C, H, W]: only its shape is read
                image  [N, C, height, width]: only its shape is read; may be left out where
                       ``img_size``, or ``img_h`` and ``img_w``, are given
        top     y      [1, 2, 4 K H W], where K are the boxes of a position

    A position has, for each ``min_size`` one after the other: a square of that size; with
    ``max_size`` a square of size sqrt(min_size max_size); and for each ``aspect_ratio`` r but 1 a
    box of min_size sqrt(r) by min_size / sqrt(r). With ``flip`` each ratio is followed by 1 / r.
    Ratios that were there before are left out. Positions follow row by row.

    Boxes are centred at (column + offset) step; without a step, those of the image and of the map
    are divided by each other. A size in pixels loses its fraction, as in SSD's fork of Caffe. The
    variances are 0.1 unless one, or four, are given. There is no gradient.

    Example::

        layer {
          name: "fc7_mbox_priorbox"
          type: "PriorBox"
          bottom: "fc7"   # 32x1024x19x19
          bottom: "data"  # 32x3x300x300
          top: "fc7_mbox_priorbox"
          prior_box_param {
            min_size: 60
            max_size: 111
            aspect_ratio: 2
            aspect_ratio: 3
            variance: 0.1
            variance: 0.1
            variance: 0.2
            variance: 0.2
            step: 16
          }
        }

    Source: Liu et al., "SSD: single shot multibox detector", ECCV 2016.
    """

    bottoms = (1, 2)
    no_gradient = frozenset({0, 1})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        synopsys = "faceboxes", "box_width", "box_height", "tf", "yx_order"
        refuse_fields(self, "prior_box_param", "Synopsys' fork", *synopsys)
        check_images(self, x)
        self._image(bottoms)
        self._pair("step", 0.0)
        self._variances()
        count = 4 * len(self._sizes()) * x[2] * x[3]
        return [(1, 2, count)]

    def _pair(self, name: str, default: float) -> tuple[float, float]:
        """A setting for height and width, from one field or from its _h and _w forms."""
        c, stem = self.config, name.removesuffix("_size")
        both = [f"{stem}_h", f"{stem}_w"]
        given = [field for field in (name, *both) if c.HasField(field)]
        if name in given and len(given) > 1:
            raise self.error(
                f"give {name}, or {' and '.join(both)}, not both", "prior_box_param", name
            )
        if len(given) == 1 and name not in given:
            raise self.error(f"give both {' and '.join(both)}", "prior_box_param", given[0])
        for field in given:
            if not 0 < getattr(c, field) < math.inf:
                raise self.error(
                    f"{field} is {getattr(c, field):g}, but must be above 0",
                    "prior_box_param",
                    field,
                )
        if not given:
            return default, default
        height, width = (getattr(c, field) for field in (both if len(given) == 2 else [name] * 2))
        return height, width

    def _image(self, bottoms: tuple[Shape, ...]) -> tuple[float, float]:
        """Height and width of the image, in pixels."""
        height, width = self._pair("img_size", 0)
        if height:
            return height, width
        if len(bottoms) < 2:
            raise self.error(
                "the size of the image is missing",
                hint="name the images as a second bottom, or give img_size",
            )
        image = bottoms[1]
        if len(image) != 4 or 0 in image[2:]:
            raise self.error(
                "the second bottom holds images, (N, C, height, width), but it is "
                f"{shape_text(image)}",
                "bottom",
                1,
            )
        return image[2], image[3]

    def _sizes(self) -> list[tuple[float, float]]:
        """Width and height of each box of a position, in pixels."""
        c = self.config
        if not c.min_size:
            raise self.error("min_size is missing", "prior_box_param")
        if c.max_size and len(c.max_size) != len(c.min_size):
            raise self.error(
                f"has {len(c.min_size)} min_size but {len(c.max_size)} max_size: give one for "
                "each, or none",
                "prior_box_param",
                "max_size",
                len(c.max_size) - 1,
            )
        ratios = self._ratios()
        sizes = []
        for i, least in enumerate(c.min_size):
            if not 1 <= least < 2**31:
                raise self.error(
                    f"min_size is {least:g}, but must be at least 1 pixel",
                    "prior_box_param",
                    "min_size",
                    i,
                )
            size = int(least)
            sizes.append((float(size), float(size)))
            if c.max_size:
                if not least < c.max_size[i] < 2**31:
                    raise self.error(
                        f"max_size is {c.max_size[i]:g}, but must be above min_size, {least:g}",
                        "prior_box_param",
                        "max_size",
                        i,
                    )
                side = math.sqrt(size * int(c.max_size[i]))
                sizes.append((side, side))
            sizes += [(size * math.sqrt(r), size / math.sqrt(r)) for r in ratios]
        return sizes

    def _ratios(self) -> list[float]:
        """Width by height of the boxes that are no squares."""
        found = [1.0]
        for i, ratio in enumerate(self.config.aspect_ratio):
            if not 0 < ratio < math.inf:
                raise self.error(
                    f"aspect_ratio is {ratio:g}, but must be above 0",
                    "prior_box_param",
                    "aspect_ratio",
                    i,
                )
            if all(abs(ratio - other) >= 1e-6 for other in found):
                found += [ratio, 1 / ratio] if self.config.flip else [ratio]
        return found[1:]

    def _variances(self) -> list[float]:
        given = list(self.config.variance)
        if len(given) not in (0, 1, 4):
            raise self.error(
                f"has {len(given)} variance, but takes 1, or 4: for x, y, width and height",
                "prior_box_param",
                "variance",
                len(given) - 1,
            )
        for i, value in enumerate(given):
            if not 0 < value < math.inf:
                raise self.error(
                    f"variance is {value:g}, but must be above 0", "prior_box_param", "variance", i
                )
        # The default is a float32, as those are that a file gives.
        given = given or [float(np.float32(0.1))]
        return given * 4 if len(given) == 1 else given

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        shape = bottom[0].shape
        self._image_size = self._image(tuple(blob.shape for blob in bottom))
        image = np.array(self._image_size, np.float64)
        step = np.array(self._pair("step", 0.0), np.float64)
        self._step = step if step.all() else image / np.array(shape[2:], np.float64)
        self._halves = np.array(self._sizes(), np.float64) / 2
        self._image_array = image
        self._variance = np.array(self._variances(), np.float64)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        _, _, height, width = bottom[0].shape
        c = self.config
        y: Array = top[0].data.reshape(2, height, width, len(self._halves), 4)
        settings = self._halves, self._step, self._image_array, self._variance
        _lay(*settings, float(c.offset), bool(c.clip), y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@kernel
def _lay(halves: Any, step: Any, image: Any, variance: Any, offset: Any, clip: Any, y: Any) -> None:
    """y[0, row, column, k] = box k there; halves[k] are half its width and height."""
    rows, columns = y.shape[1], y.shape[2]
    for job in prange(rows * columns):
        i = job // columns
        j = job % columns
        centre_x = (j + offset) * step[1]
        centre_y = (i + offset) * step[0]
        for k in range(halves.shape[0]):
            box = y[0, i, j, k]
            box[0] = (centre_x - halves[k, 0]) / image[1]
            box[1] = (centre_y - halves[k, 1]) / image[0]
            box[2] = (centre_x + halves[k, 0]) / image[1]
            box[3] = (centre_y + halves[k, 1]) / image[0]
            for e in range(4):
                if clip:
                    box[e] = min(max(box[e], 0), 1)
                y[1, i, j, k, e] = variance[e]
