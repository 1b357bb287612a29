"""Concat: y = [x0, x1, ...], joined along an axis."""

from __future__ import annotations

from netdef.blob import Blob, Shape, shape_text
from netdef.kernels.parts import copy_columns
from netdef.layer import Layer, register
from netdef.layers.common.arrays import as_rows
from netdef.layers.common.axes import axis_or_dim


@register("Concat", config="concat_param")
class Concat(Layer):
    """Joins its bottoms along ``axis``, in their order.

        y[n, c0 + c1 + ...] = x0[n, :], x1[n, :], ...

        bottom  x0  [..., C0, ...], where C0 is the length of ``axis``
                x1  [..., C1, ...], all other axes as those of x0
                ...
        top     y   [..., C0 + C1 + ..., ...]

    A single bottom is copied. ``concat_dim`` is the older name of ``axis`` and cannot be negative;
    both at once are an error.

    Example::

        layer {
          name: "inception_output"
          type: "Concat"
          bottom: "branch1"  # 8x16x14x14
          bottom: "branch3"  # 8x24x14x14
          top: "inception_output"
        }

    Source: Caffe 1.0.
    """

    bottoms = (1, None)
    backward_reads = ()

    @property
    def view(self) -> bool:
        return len(self.message.bottom) == 1

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        axis = axis_or_dim(self, x, "concat_param", "concat_dim")
        for i, other in enumerate(bottoms[1:], 1):
            if len(other) != len(x) or _without(other, axis) != _without(x, axis):
                raise self.error(
                    f"cannot join {shape_text(other)} to {shape_text(x)} along axis {axis}: "
                    "all other axes must agree",
                    "bottom",
                    i,
                )
        return [(*x[:axis], sum(shape[axis] for shape in bottoms), *x[axis + 1 :])]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._axis = axis_or_dim(self, bottom[0].shape, "concat_param", "concat_dim")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        y, first = as_rows(top[0].data, self._axis), 0
        for blob in bottom:
            x = as_rows(blob.data, self._axis)
            copy_columns(x, 0, y, first, x.shape[1])
            first += x.shape[1]

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        dy, first = as_rows(top[0].diff, self._axis), 0
        for blob in bottom:
            columns = as_rows(blob.data, self._axis).shape[1]
            if blob.diff is not None:
                copy_columns(dy, first, as_rows(blob.diff, self._axis), 0, columns)
            first += columns


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])
