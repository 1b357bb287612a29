"""Slice: [y0, y1, ...] = x, cut along an axis."""

from __future__ import annotations

from itertools import pairwise

from netdef.blob import Blob, Shape, shape_text
from netdef.kernels.parts import copy_columns
from netdef.layer import Layer, register
from netdef.layers.common.arrays import as_rows
from netdef.layers.common.axes import axis_or_dim


@register("Slice", config="slice_param")
class Slice(Layer):
    """Cuts its bottom along ``axis`` into one part for each top.

        yk[n, :] = x[n, slice_point[k - 1]:slice_point[k]]

        bottom  x   [..., C, ...], where C is the length of ``axis``
        top     y0  [..., C0, ...]
                y1  [..., C1, ...]
                ...

    Without ``slice_point`` the parts are equal. A last point of C leaves the last top empty, as in
    Caffe. ``slice_dim`` is the older name of ``axis`` and cannot be negative; both at once are an
    error.

    Example::

        layer {
          name: "slice_pair"
          type: "Slice"
          bottom: "pair_data"  # 64x3x28x28
          top: "data"
          top: "data_p"
          slice_param {
            slice_point: 1
          }
        }

    Source: Caffe 1.0.
    """

    tops = (1, None)
    backward_reads = ()

    @property
    def view(self) -> bool:
        return len(self.message.top) == 1

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        axis = axis_or_dim(self, x, "slice_param", "slice_dim")
        limits = self._limits(x, axis)
        return [(*x[:axis], end - first, *x[axis + 1 :]) for first, end in pairwise(limits)]

    def _limits(self, x: Shape, axis: int) -> list[int]:
        """Where the tops begin on ``axis``, and where the last one ends."""
        points, tops, length = list(self.config.slice_point), len(self.message.top), x[axis]
        if not points:
            if length % tops:
                raise self.error(
                    f"cannot cut axis {axis} of {shape_text(x)} into {tops} equal tops: "
                    f"{length} is not a multiple of {tops}",
                    "bottom",
                    0,
                    hint="say with slice_point where to cut",
                )
            return [k * length // tops for k in range(tops + 1)]
        if len(points) != tops - 1:
            raise self.error(
                f"has {tops} tops but {len(points)} slice_point: give {tops - 1}, one for each "
                "top but the first, or none for equal parts",
                "slice_param",
                "slice_point",
                0,
            )
        if tops > length:
            raise self.error(
                f"cannot cut axis {axis} of {shape_text(x)} into {tops} tops", "bottom", 0
            )
        for k, (before, point) in enumerate(pairwise([0, *points])):
            if point <= before:
                raise self.error(
                    f"slice_point {point} follows {before}: they must ascend from above 0",
                    "slice_param",
                    "slice_point",
                    k,
                )
            if point > length:
                raise self.error(
                    f"slice_point {point} is beyond the {length} of axis {axis} of the bottom "
                    f"{shape_text(x)}",
                    "slice_param",
                    "slice_point",
                    k,
                )
        return [0, *points, length]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._axis = axis_or_dim(self, bottom[0].shape, "slice_param", "slice_dim")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, first = as_rows(bottom[0].data, self._axis), 0
        for blob in top:
            y = as_rows(blob.data, self._axis)
            copy_columns(x, first, y, 0, y.shape[1])
            first += y.shape[1]

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        dx, first = as_rows(bottom[0].diff, self._axis), 0
        for blob in top:
            dy = as_rows(blob.diff, self._axis)
            copy_columns(dy, 0, dx, first, dy.shape[1])
            first += dy.shape[1]
