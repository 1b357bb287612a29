"""Two blobs of which one is repeated along the axes it does not have: Add and Mul."""

from __future__ import annotations

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.layer import Layer
from netdef.layers.common.arrays import scratch


class Broadcast(Layer):
    """A layer of two bottoms whose shapes are lined up at their last axes, as in numpy.

    Axes must be equal, or one of them 1 or missing. A subclass gives ``slope``.
    """

    bottoms = 2

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        try:
            return [np.broadcast_shapes(*bottoms)]
        except ValueError:
            raise self.error(
                f"the bottoms {shape_text(bottoms[0])} and {shape_text(bottoms[1])} do not fit: "
                "counted from the last, their axes must be equal, or one of them 1",
                "bottom",
                1,
            ) from None

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        y = top[0].shape
        # Which axes of the top each bottom is repeated along.
        self._repeated = []
        for blob in bottom:
            whole = (1,) * (len(y) - len(blob.shape)) + blob.shape
            axes = tuple(i for i, (n, m) in enumerate(zip(whole, y, strict=True)) if n != m)
            self._repeated.append((whole, axes))
        sums = any(axes for _, axes in self._repeated)
        self._slope = scratch(y if sums else (0,) * len(y), self.dtype)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for index, (blob, (whole, axes)) in enumerate(zip(bottom, self._repeated, strict=True)):
            if blob.diff is None:
                continue
            if not axes:
                self.slope(bottom, index, top[0].diff, blob.diff.reshape(whole))
                continue
            # What is repeated gets the sum over its copies.
            self.slope(bottom, index, top[0].diff, self._slope)
            total = self._slope.sum(axis=axes, keepdims=True, dtype=np.float64)
            np.copyto(blob.diff.reshape(whole), total, casting="same_kind")

    def slope(self, bottom: list[Blob], index: int, dy: Array, out: Array) -> None:
        """out = the gradient of bottom ``index``, before it is summed, in the shape of the top."""
        raise NotImplementedError
