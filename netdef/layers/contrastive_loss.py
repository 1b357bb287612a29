"""ContrastiveLoss: y d^2 + (1 - y) max(margin - d, 0)^2, d = |a - b|, over 2 N."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.arrays import as_rows, scratch
from netdef.layers.common.axes import check_same_items
from netdef.layers.common.loss import Loss


@register("ContrastiveLoss", config="contrastive_loss_param")
class ContrastiveLoss(Loss):
    """Draws the features of like pairs together, and those of unlike ones apart up to a margin.

        d    = |a - b|, the Euclidean distance of a pair
        loss = sum of y d^2 + (1 - y) max(margin - d, 0)^2 / (2 N)
        loss = sum of y d^2 + (1 - y) max(margin - d^2, 0) / (2 N)    with legacy_version

        bottom  a     [N, ...]
                b     [N, ...] with as many values per item
                y     [N], or any shape of that count: 1 for a like pair, 0 for an unlike one
        top     loss  scalar

    A fraction of y is cut off, and every whole number but 0 means a like pair, -1 too. The
    gradient of an unlike pair is divided by d + 1e-4, not by d, so it is finite, and 0, where a
    is b. ``loss_param`` is not read. All as in Caffe.

    Example::

        layer {
          name: "loss"
          type: "ContrastiveLoss"
          bottom: "feat"    # 64x2
          bottom: "feat_p"  # 64x2
          bottom: "sim"     # 64
          top: "loss"
          contrastive_loss_param {
            margin: 1
          }
        }

    Source: Hadsell, Chopra & LeCun, "Dimensionality reduction by learning an invariant mapping",
    CVPR 2006.
    """

    bottoms = 3
    no_gradient = frozenset({2})

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        a, b, y = bottoms
        check_same_items(self, a, b)
        if math.prod(y) != a[0]:
            raise self.error(
                f"needs one number for each of the {a[0]} pairs {shape_text(a)}, but the third "
                f"bottom is {shape_text(y)}",
                "bottom",
                2,
            )
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        pairs = bottom[0].shape[0]
        self._distances = scratch((pairs,), np.float64)
        self._losses = scratch((pairs,), np.float64)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        a, b, y = bottom
        strange = ~np.isfinite(y.flat)
        if strange.any():
            index = int(np.argmax(strange))
            raise self.error(
                f"the pair {index} (counted from 0) is marked {y.flat[index]:g}: neither like, 1, "
                "nor unlike, 0",
                "bottom",
                2,
                kind=DataError,
            )
        c = self.config
        _distances(as_rows(a.data, 1), as_rows(b.data, 1), self._distances)
        _losses(self._distances, y.flat, c.margin, c.legacy_version, self._losses)
        return float(self._losses.sum()) / 2, max(1, len(self._losses))

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        c, y = self.config, bottom[2].flat
        one, other = (as_rows(bottom[i].data, 1) for i in (index, 1 - index))
        dx = as_rows(bottom[index].diff, 1)
        _slopes(one, other, self._distances, y, c.margin, c.legacy_version, scale, dx)


@kernel
def _distances(a: Any, b: Any, distances: Any) -> None:
    for i in prange(distances.size):
        total = 0.0
        for c in range(a.shape[1]):
            difference = np.float64(a[i, c] - b[i, c])
            total += difference * difference
        distances[i] = np.sqrt(total)


@kernel
def _losses(distances: Any, y: Any, margin: Any, legacy: Any, losses: Any) -> None:
    for i in prange(losses.size):
        d = distances[i]
        if np.trunc(y[i]) != 0:
            losses[i] = d * d
        elif legacy:
            losses[i] = max(margin - d * d, 0.0)
        else:
            losses[i] = max(margin - d, 0.0) ** 2


@kernel
def _slopes(
    x: Any,
    other: Any,
    distances: Any,
    y: Any,
    margin: Any,
    legacy: Any,
    scale: Any,
    dx: Any,
) -> None:
    """``x`` is the one of the two whose gradient ``dx`` is."""
    for i in prange(dx.shape[0]):
        d = distances[i]
        if np.trunc(y[i]) != 0:
            factor = scale
        elif legacy:
            factor = -scale if d * d < margin else 0.0
        else:
            factor = -scale * max(margin - d, 0.0) / (d + 1e-4)
        for c in range(dx.shape[1]):
            dx[i, c] = dx.dtype.type(factor) * (x[i, c] - other[i, c])
