"""CenterLoss: sum |x - centre of its class|^2 / (2 N); the centres follow the features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.layer import Param, register
from netdef.layers.common.arrays import as_rows, check_counts, scratch
from netdef.layers.common.axes import axis_of, check_batch
from netdef.layers.common.labels import read_labels
from netdef.layers.common.loss import Loss


@register("CenterLoss", config="center_loss_param")
class CenterLoss(Loss):
    """Draws the features of each class towards a centre, which follows them.

        loss = sum of |x - centre[label]|^2 / (2 N)

        bottom  x       [N, ...], features from ``axis`` on
                label   [N], or any shape of that count: one class for each item
        top     loss    scalar
        params  centre  [``num_output`` classes, features]

    It stands beside a softmax loss, with a ``loss_weight`` that is small. The centres do not go
    down a gradient. Each goes the way

        centre - mean towards its features = sum of (centre - x) / (1 + n)

    over the n items of its class, times the learning rate and ``lr_mult``: neither N nor
    ``loss_weight`` count. ``decay_mult: 0`` keeps centres from being drawn to 0.

    Example::

        layer {
          name: "center_loss"
          type: "CenterLoss"
          bottom: "fc5"    # 256x512
          bottom: "label"  # 256
          top: "center_loss"
          param {
            lr_mult: 1
            decay_mult: 0
          }
          center_loss_param {
            num_output: 10572
            center_filler {
              type: "xavier"
            }
          }
          loss_weight: 0.008
        }

    Deviations: with ``iter_size`` the ways of all passes add up; the fork keeps that of the last.

    Source: Wen, Zhang, Li & Qiao, "A discriminative feature learning approach for deep face
    recognition", ECCV 2016.
    """

    backward_reads = ("bottom",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label = bottoms
        check_batch(self, x)
        check_counts(self, "center_loss_param", "num_output")
        axis = self._axis(x)
        if math.prod(x[axis:]) == 0:
            raise self.error(f"the bottom {shape_text(x)} has no features", "bottom", 0)
        if math.prod(label) != math.prod(x[:axis]):
            raise self.error(
                f"needs one label for each of the {math.prod(x[:axis])} features of "
                f"{shape_text(x)}, but the labels are {shape_text(label)}",
                "bottom",
                1,
            )
        return [()]

    def _axis(self, x: Shape) -> int:
        return axis_of(self, x, self.config.axis, "center_loss_param", "axis")

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c, x = self.config, bottoms[0]
        yield Param("centre", (c.num_output, math.prod(x[self._axis(x) :])), c.center_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._at = self._axis(x)
        items = math.prod(x[: self._at])
        self._labels = scratch((items,), np.int32)
        self._losses = scratch((items,), np.float64)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        centre = self.blobs[0]
        read_labels(self, bottom[1], centre.shape[0], None, self._labels)
        _losses(as_rows(bottom[0].data, self._at), centre.data, self._labels, self._losses)
        return float(self._losses.sum()) / 2, max(1, len(self._losses))

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        x, dx = (as_rows(values, self._at) for values in (bottom[0].data, bottom[0].diff))
        _slopes(x, self.blobs[0].data, self._labels, self.dtype(scale), dx)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        super().backward(top, bottom)
        if self.learn[0]:
            centre = self.blobs[0]
            x = as_rows(bottom[0].data, self._at)
            counts = np.bincount(self._labels, minlength=centre.shape[0])
            # Each class's items, in the order of the batch: a thread has centres of its own.
            order = np.argsort(self._labels, kind="stable")
            _follow(x, centre.data, order, counts.cumsum(), centre.diff)


@kernel
def _losses(x: Any, centre: Any, labels: Any, losses: Any) -> None:
    for i in prange(labels.size):
        total = 0.0
        for k in range(x.shape[1]):
            distance = np.float64(x[i, k] - centre[labels[i], k])
            total += distance * distance
        losses[i] = total


@kernel
def _slopes(x: Any, centre: Any, labels: Any, scale: Any, dx: Any) -> None:
    for i in prange(labels.size):
        for k in range(x.shape[1]):
            dx[i, k] = scale * (x[i, k] - centre[labels[i], k])


@kernel
def _follow(x: Any, centre: Any, order: Any, ends: Any, way: Any) -> None:
    """way[j] += sum of centre[j] - x[i] over the items i of class j, / (1 + their number)

    ``order`` has the items class after class, those of class j up to ``ends[j]``.
    """
    for j in prange(centre.shape[0]):
        first = ends[j - 1] if j > 0 else 0
        share = centre.dtype.type(1) / centre.dtype.type(1 + ends[j] - first)
        for at in range(first, ends[j]):
            for k in range(x.shape[1]):
                way[j, k] += share * (centre[j, k] - x[order[at], k])
