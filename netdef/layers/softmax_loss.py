"""SoftmaxWithLoss: -log softmax(x)[label], averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.softmax import BLOCK
from netdef.layer import register
from netdef.layers.common.loss import SoftmaxLoss


@register("SoftmaxWithLoss", config="softmax_param")
class SoftmaxWithLoss(SoftmaxLoss):
    """The multinomial logistic loss of the softmax of its scores, in one numerically stable step.

        p    = softmax(x) along softmax_param.axis
        loss = sum of -log p[label] / normalizer

        bottom  x      any shape; scores along softmax_param.axis
                label  one class for each prediction, any shape of that count
        top     loss   scalar
                prob   optional: p, shape of x

    ``loss_param`` counts predictions; BATCH_SIZE is the product of the axes before that of the
    scores. A batch of nothing but ignored labels has the loss 0. A fraction of a label is cut off.
    A probability below 1.175e-38, the least normal float32, counts as that, so a prediction costs
    at most 87.3365. All as in Caffe.

    ``weight_by_label_freqs``, of SegNet, multiplies the loss of a prediction by the
    ``class_weighting`` of its class, one value for each; without values it divides it by how often
    the class occurs in the batch. The normalizer counts predictions all the same.

    Example::

        layer {
          name: "loss"
          type: "SoftmaxWithLoss"
          bottom: "score"  # 8x21x32x32
          bottom: "label"  # 8x1x32x32
          top: "loss"
          loss_param {
            ignore_label: 255
          }
        }

    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs,
    with relationships to statistical pattern recognition", Neurocomputing, 1990.
    """

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        _losses(x, labels, losses)

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        if x.shape[2] == 1:
            _slopes_of_lines(x.reshape(x.shape[:2]), labels, scale, dx.reshape(x.shape[:2]))
        else:
            _slopes(x, labels, scale, dx)


@kernel
def _losses(prob: Any, labels: Any, losses: Any) -> None:
    inner = prob.shape[2]
    # The smallest normal float32: Caffe's bound on how wrong a prediction can be.
    least = 1.1754943508222875e-38
    for job in prange(labels.size):
        losses[job] = 0.0
        if labels[job] >= 0:
            p = np.float64(prob[job // inner, labels[job], job % inner])
            # A NaN stays one, so that a net that diverged says so.
            losses[job] -= np.log(least if p < least else p)


@kernel
def _slopes_of_lines(prob: Any, labels: Any, scale: Any, dx: Any) -> None:
    zero, one = dx.dtype.type(0), dx.dtype.type(1)
    for i in prange(labels.size):
        label = labels[i]
        for c in range(prob.shape[1]):
            dx[i, c] = prob[i, c] * scale if label >= 0 else zero
        if label >= 0:
            dx[i, label] = (prob[i, label] - one) * scale


@kernel
def _slopes(prob: Any, labels: Any, scale: Any, dx: Any) -> None:
    classes, inner = prob.shape[1], prob.shape[2]
    blocks = (inner + BLOCK - 1) // BLOCK
    zero, one = dx.dtype.type(0), dx.dtype.type(1)
    for job in prange(prob.shape[0] * blocks):
        i = job // blocks
        first = np.uint64(job % blocks * BLOCK)
        end = np.uint64(min(inner, job % blocks * BLOCK + BLOCK))
        for c in range(classes):
            for j in range(first, end):
                dx[i, c, j] = prob[i, c, j] * scale if labels[i * inner + j] >= 0 else zero
        for j in range(first, end):
            label = labels[i * inner + j]
            if label >= 0:
                dx[i, label, j] = (prob[i, label, j] - one) * scale
