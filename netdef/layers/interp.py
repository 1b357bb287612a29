"""Interp: images resized by bilinear interpolation that keeps the corners in place."""

from __future__ import annotations

from netdef.blob import Blob, Shape, shape_text
from netdef.kernels.resize import Places, between_corners, interpolate, spread
from netdef.layer import Layer, register
from netdef.layers.common.arrays import check_counts
from netdef.layers.common.windows import check_images


@register("Interp", config="interp_param")
class Interp(Layer):
    """Resizes images by bilinear interpolation; the corner pixels of x and y lie on each other.

        y[i, j] = x at row i (h - 1) / (H' - 1), column j (w - 1) / (W' - 1)

        bottom  x          [N, C, H, W]; of it, with pads, the part of h x w pixels
                reference  optional: [..., H', W'], whose values do not matter
        top     y          [N, C, H', W']

    ``pad_beg`` and ``pad_end`` are 0 or negative: so many rows and columns are cut off first, at
    the top and left, and at the bottom and right. That leaves h = H + pad_beg + pad_end. The size
    of the top is, whichever is given first in this list:

    - ``shrink_factor`` alone: H' = (h - 1) / shrink_factor + 1, rounded down
    - ``zoom_factor`` alone: H' = (h - 1) zoom_factor + 1
    - ``height`` and ``width``
    - both factors: shrunk first, then zoomed
    - ``full_zoom_factor``: H' = h full_zoom_factor
    - the second bottom

    A side that becomes one pixel long shows the first pixel.

    Example::

        layer {
          name: "conv5_interp"
          type: "Interp"
          bottom: "conv5"  # 1x19x90x90
          top: "conv5_interp"
          interp_param {
            zoom_factor: 8
          }
        }

    Source: Chen, Papandreou, Kokkinos, Murphy & Yuille, "DeepLab: semantic image segmentation with
    deep convolutional nets, atrous convolution, and fully connected CRFs", TPAMI 2018.
    """

    bottoms = (1, 2)
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        check_images(self, x)
        return [(*x[:2], *self._size(self._inner(x), bottoms[1:]))]

    def _inner(self, x: Shape) -> list[int]:
        """Height and width of the part that is resized."""
        c = self.config
        for name in ("pad_beg", "pad_end"):
            if getattr(c, name) > 0:
                raise self.error(
                    f"{name} is {getattr(c, name)}, but only 0 and negative values, which cut off, "
                    "have a meaning",
                    "interp_param",
                    name,
                )
        inner = [size + c.pad_beg + c.pad_end for size in x[2:]]
        if min(inner) < 1:
            raise self.error(
                f"pad_beg {c.pad_beg} and pad_end {c.pad_end} leave nothing of the bottom "
                f"{shape_text(x)}",
                "interp_param",
                "pad_beg" if c.HasField("pad_beg") else "pad_end",
            )
        return inner

    def _size(self, inner: list[int], references: tuple[Shape, ...]) -> list[int]:
        c = self.config
        shrinks, zooms = c.HasField("shrink_factor"), c.HasField("zoom_factor")
        check_counts(self, "interp_param", *["shrink_factor"] * shrinks, *["zoom_factor"] * zooms)
        sized = [name for name in ("height", "width") if c.HasField(name)]
        if shrinks == zooms and sized:
            if len(sized) == 1:
                raise self.error("give both height and width", "interp_param", sized[0])
            check_counts(self, "interp_param", "height", "width")
            return [c.height, c.width]
        if shrinks or zooms:
            shrink = c.shrink_factor if shrinks else 1
            zoom = c.zoom_factor if zooms else 1
            return [(size - 1) // shrink * zoom + 1 for size in inner]
        if c.HasField("full_zoom_factor"):
            check_counts(self, "interp_param", "full_zoom_factor")
            return [size * c.full_zoom_factor for size in inner]
        for reference in references:
            if len(reference) < 2 or 0 in reference[-2:]:
                raise self.error(
                    f"the second bottom is to give height and width, but it is "
                    f"{shape_text(reference)}",
                    "bottom",
                    1,
                )
            return list(reference[-2:])
        raise self.error(
            "no size is given",
            "interp_param",
            hint="give height and width, zoom_factor, shrink_factor, or a second bottom",
        )

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        begin = -self.config.pad_beg
        self._rows, self._columns = (
            Places(size, *between_corners(size, count), self.dtype, begin)
            for size, count in zip(self._inner(bottom[0].shape), top[0].shape[2:], strict=True)
        )

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        interpolate(bottom[0].data[..., None], self._rows, self._columns, top[0].data[..., None])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            spread(top[0].diff[..., None], self._rows, self._columns, bottom[0].diff[..., None])
        if len(bottom) == 2 and bottom[1].diff is not None:
            bottom[1].diff.fill(0)
