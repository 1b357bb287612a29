"""BatchReindex: y[m] = x[index[m]], items in any order and number."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.kernels.parts import add_rows, take_rows
from netdef.layer import Layer, register
from netdef.layers.common.arrays import as_rows, scratch
from netdef.layers.common.axes import check_batch


@register("BatchReindex")
class BatchReindex(Layer):
    """Puts the items of its bottom in the order of an index, which may leave out and repeat some.

        y[m, ...] = x[index[m], ...]

        bottom  x      [N, ...]
                index  [M], from 0 to N - 1; a fraction is cut off
        top     y      [M, ...]

    The gradients of an item that is repeated add up. The index has no gradient.

    Example::

        layer {
          name: "reindex"
          type: "BatchReindex"
          bottom: "features"  # 4x8x6x6
          bottom: "order"     # 10
          top: "reordered"
        }

    Source: Caffe 1.0.
    """

    bottoms = 2
    no_gradient = frozenset({1})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, index = bottoms
        check_batch(self, x)
        if len(index) != 1:
            raise self.error(
                f"the index must have 1 axis, but it is {shape_text(index)}", "bottom", 1
            )
        return [(*index, *x[1:])]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._items = scratch(bottom[1].shape, np.int64)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        index, count = bottom[1].data, bottom[0].shape[0]
        inside = (index >= 0) & (index < count)
        if not inside.all():
            first = int(np.argmin(inside))
            allowed = f"0 to {count - 1}" if count else "there are none"
            raise self.error(
                f"index {index[first]:g} (number {first}, counted from 0) is not one of the "
                f"{count} items of the bottom {shape_text(bottom[0].shape)}: {allowed}",
                "bottom",
                1,
                kind=DataError,
            )
        np.copyto(self._items, index, casting="unsafe")
        take_rows(as_rows(bottom[0].data, 1), self._items, as_rows(top[0].data, 1))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            bottom[0].diff.fill(0)
            add_rows(as_rows(top[0].diff, 1), self._items, as_rows(bottom[0].diff, 1))
