"""Accuracy: the share of predictions whose class is among the top_k scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.layer import Layer, register
from netdef.layers.common import (
    INVALID,
    around,
    axis_of,
    bad_label,
    check_labels,
    read_label,
    scratch,
)


@register("Accuracy", config="accuracy_param")
class Accuracy(Layer):
    """Compares scores with labels.

    bottom  x          any shape; scores along ``axis``
            label      one class for each prediction, any shape of that count
    top     accuracy   scalar: right / not ignored predictions, 0 where there are none
            per_class  optional, [classes]: the same for each class

    A prediction is right when fewer than ``top_k`` other classes score as high or higher: a tie
    counts against it, as in Caffe.
    """

    bottoms = 2
    tops = (1, 2)
    no_gradient = frozenset({0, 1})

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label = bottoms
        axis = axis_of(self, x, self.config.axis, "accuracy_param", "axis")
        check_labels(self, x, label, axis)
        if not 1 <= self.config.top_k <= x[axis]:
            raise self.error(
                f"top_k is {self.config.top_k}, but there are {x[axis]} classes",
                "accuracy_param",
                "top_k",
            )
        return [(), (x[axis],)][: len(self.message.top)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._view = around(x, self.config.axis % len(x))
        self._right = scratch((self._view[0] * self._view[2],), np.int8)
        self._ignore = np.int64(self.config.ignore_label)
        self._has_ignore = self.config.HasField("ignore_label")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, classes = self.config, self._view[1]
        scores, labels = bottom[0].data.reshape(self._view), bottom[1].flat
        _judge(scores, labels, self._ignore, self._has_ignore, np.int64(c.top_k), self._right)
        if (self._right == INVALID).any():
            first = int(np.argmax(self._right == INVALID))
            raise bad_label(self, bottom[1], first, classes)
        counted = self._right >= 0
        top[0].data[...] = self._right[counted].mean() if counted.any() else 0
        if len(top) == 2:
            known = labels[counted].astype(np.int64)
            total = np.bincount(known, minlength=classes)
            right = np.bincount(known, self._right[counted], minlength=classes)
            top[1].data[...] = right / np.maximum(total, 1)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@kernel
def _judge(scores: Any, labels: Any, ignore: Any, has_ignore: Any, top_k: Any, right: Any) -> None:
    """1 where right, 0 where wrong, IGNORED or INVALID for each prediction."""
    classes, inner = scores.shape[1], scores.shape[2]
    for job in prange(scores.shape[0] * inner):
        i = job // inner
        j = job % inner
        label = read_label(labels[job], classes, ignore, has_ignore)
        if label < 0:
            right[job] = label
        else:
            # The class itself is counted among those that score as high.
            better = -1
            for c in range(classes):
                if scores[i, c, j] >= scores[i, label, j]:
                    better += 1
            right[job] = 1 if 0 <= better < top_k else 0
