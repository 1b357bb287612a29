"""Accuracy: the share of predictions whose class is among the top_k scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.layer import Layer, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.axes import around, axis_of
from netdef.layers.common.labels import check_labels, read_labels


@register("Accuracy", config="accuracy_param")
class Accuracy(Layer):
    """The share of predictions whose label is among their ``top_k`` highest scores.

        accuracy = right predictions / predictions that are not ignored

        bottom  x          any shape; scores along ``axis``
                label      one class for each prediction, any shape of that count
        top     accuracy   scalar
                per_class  optional, [classes]: the same for the predictions of each label

    As in Caffe, a prediction is right when fewer than ``top_k`` other classes score as high as its
    label or higher: a tie counts against it. The share of nothing, where all labels are ignored or
    a class has no label in the batch, is 0. A fraction of a label is cut off. There is no gradient.

    Example::

        layer {
          name: "accuracy"
          type: "Accuracy"
          bottom: "score"  # 100x10
          bottom: "label"  # 100
          top: "accuracy"
          accuracy_param {
            top_k: 5
          }
        }

    Deviations: a prediction that scores its label NaN is wrong, so that a net that diverged does
    not shine; in Caffe it is right.

    Source: Caffe 1.0.
    """

    bottoms = 2
    tops = (1, 2)
    no_gradient = frozenset({0, 1})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label = bottoms
        axis = axis_of(self, x, self.config.axis, "accuracy_param", "axis")
        check_labels(self, x, label, axis)
        top_k, classes = self.config.top_k, x[axis]
        if not 1 <= top_k <= classes:
            raise self.error(
                f"top_k is {top_k}, but must be from 1 to {classes}: there are {classes} classes",
                "accuracy_param",
                "top_k",
            )
        return [(), (classes,)][: len(self.message.top)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._view = outer, _, inner = around(x, self.config.axis % len(x))
        self._labels = scratch((outer * inner,), np.int32)
        self._right = scratch((outer * inner,), np.bool_)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        classes, labels = self._view[1], self._labels
        valid = read_labels(self, bottom[1], classes, self.config, labels)
        scores = bottom[0].data.reshape(self._view)
        _judge(scores, labels, np.int64(self.config.top_k), self._right)
        top[0].data[...] = np.count_nonzero(self._right) / max(1, valid)
        if len(top) == 2:
            total = np.bincount(labels[labels >= 0], minlength=classes)
            right = np.bincount(labels[self._right], minlength=classes)
            top[1].data[...] = right / np.maximum(total, 1)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@kernel
def _judge(scores: Any, labels: Any, top_k: Any, right: Any) -> None:
    classes, inner = scores.shape[1], scores.shape[2]
    for job in prange(labels.size):
        i = job // inner
        j = job % inner
        label = labels[job]
        right[job] = False
        if label >= 0:
            # The label itself is counted among the classes that score as high.
            better = -1
            for c in range(classes):
                if scores[i, c, j] >= scores[i, label, j]:
                    better += 1
            right[job] = 0 <= better < top_k
