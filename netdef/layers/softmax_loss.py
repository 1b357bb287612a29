"""SoftmaxWithLoss: -log softmax(x)[label], averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.kernels.softmax import softmax
from netdef.layer import Layer, register
from netdef.layers.common import (
    IGNORED,
    INVALID,
    around,
    axis_of,
    bad_label,
    check_labels,
    normalization,
    normalizer,
    read_label,
    scratch,
    set_scalar,
)


@register("SoftmaxWithLoss", config="softmax_param")
class SoftmaxWithLoss(Layer):
    """The multinomial logistic loss of the softmax of its scores, in one numerically stable step.

    bottom  x      any shape; scores along softmax_param.axis
            label  one class for each prediction, any shape of that count
    top     loss   scalar
            prob   optional: the softmax, shape of x

    ``loss_param``: ``ignore_label`` leaves predictions out; ``normalization`` divides the sum by
    all predictions (FULL), by those not ignored (VALID, the default), by the outer count
    (BATCH_SIZE), or by 1 (NONE).
    """

    bottoms = 2
    tops = (1, 2)
    no_gradient = frozenset({1})
    loss = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label = bottoms
        axis = axis_of(self, x, self.config.axis, "softmax_param", "axis")
        check_labels(self, x, label, axis)
        return [(), x][: len(self.message.top)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._view = around(x, self.config.axis % len(x))
        self._prob = scratch(self._view, self.dtype)
        self._losses = scratch((self._view[0] * self._view[2],), np.float64)
        self._loss_param = self.message.loss_param
        self._ignore = np.int64(self._loss_param.ignore_label)
        self._has_ignore = self._loss_param.HasField("ignore_label")
        self._mode = normalization(self._loss_param)
        self._normalizer = 1.0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        outer, classes, inner = self._view
        softmax(bottom[0].data.reshape(self._view), self._prob)
        _losses(self._prob, bottom[1].flat, self._ignore, self._has_ignore, self._losses)
        # A loss is never negative: what is, marks a prediction that does not count.
        marked = self._losses < 0
        if (self._losses == INVALID).any():
            raise bad_label(self, bottom[1], int(np.argmax(self._losses == INVALID)), classes)
        counted = self._losses[~marked]
        self._normalizer = normalizer(self._mode, outer, inner, counted.size)
        set_scalar(top[0], counted.sum() / self._normalizer)
        if len(top) == 2:
            np.copyto(top[1].flat, self._prob.reshape(-1))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        scale = self.dtype(top[0].diff.item() / self._normalizer)
        dx = bottom[0].diff.reshape(self._view)
        _backward(self._prob, bottom[1].flat, self._ignore, self._has_ignore, scale, dx)


@kernel
def _losses(prob: Any, labels: Any, ignore: Any, has_ignore: Any, losses: Any) -> None:
    """The loss of each prediction, or IGNORED or INVALID (both negative) in its place."""
    classes, inner = prob.shape[1], prob.shape[2]
    # The smallest normal float32: Caffe's bound on how wrong a prediction can be, 87.3365.
    least = 1.1754943508222875e-38
    for job in prange(prob.shape[0] * inner):
        label = read_label(labels[job], classes, ignore, has_ignore)
        if label < 0:
            losses[job] = label
        else:
            p = np.float64(prob[job // inner, label, job % inner])
            # A NaN stays one, so that a net that diverged says so.
            losses[job] = -np.log(least if p < least else p) + 0.0


@kernel
def _backward(prob: Any, labels: Any, ignore: Any, has_ignore: Any, scale: Any, dx: Any) -> None:
    classes, inner = prob.shape[1], prob.shape[2]
    zero = prob.dtype.type(0)
    for job in prange(prob.shape[0] * inner):
        i = job // inner
        j = job % inner
        label = read_label(labels[job], classes, ignore, has_ignore)
        for c in range(classes):
            if label == IGNORED:
                dx[i, c, j] = zero
            else:
                dx[i, c, j] = prob[i, c, j] * scale
        if label >= 0:
            dx[i, label, j] = (prob[i, label, j] - prob.dtype.type(1)) * scale
