"""TripletLoss: sum max(margin + |a - p|^2 - |a - n|^2, 0) / (2 N)."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.arrays import as_rows, scratch
from netdef.layers.common.axes import check_batch
from netdef.layers.common.loss import Loss


@register("TripletLoss", config="triplet_loss_param")
class TripletLoss(Loss):
    """Wants an anchor to be nearer to one of its kind than to one of another, by a margin.

        loss = sum of max(margin + |a - p|^2 - |a - n|^2, 0) / (2 N)

        bottom  a       [N, ...], anchors
                p       shape of a: features of the same kind
                n       shape of a: features of another kind
                labels  optional, not read: MyCaffe has them there
        top     loss    scalar

    The first three have a gradient. ``alpha`` is MyCaffe's name of ``margin``.

    Example::

        layer {
          name: "loss"
          type: "TripletLoss"
          bottom: "anchor"    # 30x128
          bottom: "positive"  # 30x128
          bottom: "negative"  # 30x128
          top: "loss"
          triplet_loss_param {
            margin: 0.2
          }
        }

    Source: Schroff, Kalenichenko & Philbin, "FaceNet: a unified embedding for face recognition and
    clustering", CVPR 2015; the forks of Caffe, which halve it.
    """

    bottoms = (3, 4)
    no_gradient = frozenset({3})

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        a = bottoms[0]
        check_batch(self, a)
        for i, shape in enumerate(bottoms[:3]):
            if shape != a:
                raise self.error(
                    f"anchors and features must have one shape, but the anchors are "
                    f"{shape_text(a)} and bottom {i} is {shape_text(shape)}",
                    "bottom",
                    i,
                )
        c = self.config
        if c.HasField("margin") and c.HasField("alpha"):
            raise self.error("give margin, or alpha, not both", "triplet_loss_param", "alpha")
        for name, usual in (("losstype", 1), ("num_triplets", 3)):
            if getattr(c, name) != usual:
                raise self.error(
                    f"{name} belongs to the TripletLoss of another fork, which computes something "
                    "else",
                    "triplet_loss_param",
                    name,
                )
        return [()]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._losses = scratch((bottom[0].shape[0],), np.float64)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        c = self.config
        margin = float(c.alpha if c.HasField("alpha") else c.margin)
        a, p, n = (as_rows(blob.data, 1) for blob in bottom[:3])
        _losses(a, p, n, margin, self._losses)
        return float(self._losses.sum()) / 2, max(1, len(self._losses))

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        # The slope of a is 2 (n - p), that of p 2 (p - a), that of n 2 (a - n); the 2 is halved.
        first, second = ((2, 1), (1, 0), (0, 2))[index]
        one, other = (as_rows(bottom[i].data, 1) for i in (first, second))
        _slopes(one, other, self._losses, self.dtype(scale), as_rows(bottom[index].diff, 1))


@kernel
def _losses(a: Any, p: Any, n: Any, margin: Any, losses: Any) -> None:
    for i in prange(losses.size):
        total = margin
        for k in range(a.shape[1]):
            near = np.float64(a[i, k] - p[i, k])
            far = np.float64(a[i, k] - n[i, k])
            total += near * near - far * far
        # A NaN stays one, so that a net that diverged says so.
        losses[i] = 0.0 if total <= 0 else total


@kernel
def _slopes(one: Any, other: Any, losses: Any, scale: Any, dx: Any) -> None:
    """dx = scale (one - other) where there is a loss"""
    zero = dx.dtype.type(0)
    for i in prange(losses.size):
        for k in range(dx.shape[1]):
            dx[i, k] = zero if losses[i] == 0 else scale * (one[i, k] - other[i, k])
