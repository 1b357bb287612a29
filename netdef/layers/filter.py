"""Filter: the items that a selector chooses."""

from __future__ import annotations

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.kernels.parts import add_rows, take_rows
from netdef.layer import Layer, Locate, register
from netdef.layers.common.arrays import as_rows
from netdef.proto import netdef_pb2 as pb


@register("Filter")
class Filter(Layer):
    """Keeps the items whose selector is not 0, in their order.

        y[m, ...] = x[n, ...], where n is the m-th item with selector[n] != 0

        bottom  x0, x1, ...  each [N, ...]
                selector     the last one: [N], or [N, 1, ...]
        top     y0, y1, ...  each [M, ...], one for each bottom but the selector

    M changes from pass to pass, and can be 0. The gradient of an item left out is 0. The selector
    has no gradient.

    Example::

        layer {
          name: "filter"
          type: "Filter"
          bottom: "features"     # 32x64
          bottom: "label"        # 32
          bottom: "is_labelled"  # 32x1
          top: "labelled_features"
          top: "labelled_label"
        }

    Source: Caffe 1.0.
    """

    bottoms = (2, None)
    tops = (1, None)
    dynamic = True
    backward_reads = ()

    def __init__(self, message: pb.LayerParameter, phase: int, locate: Locate) -> None:
        super().__init__(message, phase, locate)
        self.no_gradient = frozenset({len(message.bottom) - 1})

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        *data, selector = bottoms
        if len(self.message.top) != len(data):
            raise self.error(
                f"has {len(bottoms)} bottoms but {len(self.message.top)} tops: give one top for "
                "each bottom but the last, the selector",
                *(("top", len(data)) if len(self.message.top) > len(data) else ()),
            )
        if not selector or any(n != 1 for n in selector[1:]):
            raise self.error(
                "the last bottom is the selector, with one value for each item, but it is "
                f"{shape_text(selector)}",
                "bottom",
                len(data),
            )
        for i, x in enumerate(data):
            if not x or x[0] != selector[0]:
                raise self.error(
                    f"bottom {i} is {shape_text(x)}, but the selector {shape_text(selector)} "
                    f"chooses among {selector[0]} items",
                    "bottom",
                    i,
                )
        return list(data)

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        *data, selector = bottom
        # As in Caffe, a NaN selects.
        self._items = np.flatnonzero(selector.flat)
        return [(len(self._items), *blob.shape[1:]) for blob in data]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for x, y in zip(bottom, top, strict=False):
            take_rows(as_rows(x.data, 1), self._items, as_rows(y.data, 1))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for y, x in zip(top, bottom, strict=False):
            if x.diff is not None:
                x.diff.fill(0)
                add_rows(as_rows(y.diff, 1), self._items, as_rows(x.diff, 1))
