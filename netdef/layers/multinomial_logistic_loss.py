"""MultinomialLogisticLoss: -log p[label], averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.loss import LabelLoss, bounded


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LabelLoss):
    """How surprising the labels are to predicted probabilities; for scores: SoftmaxWithLoss.

        loss = sum of -log max(p[label], 1e-20) / N

        bottom  p      [N, ...], probabilities; all axes but the first are the classes
                label  [N], or any shape of that count
        top     loss   scalar

    The sum is divided by N, the size of the batch; ``loss_param`` is not read. The gradient is
    that of the logarithm at max(p, 1e-20), also where p is less. That the probabilities sum to 1
    is not checked. A fraction of a label is cut off. All as in Caffe.

    Example::

        layer {
          name: "loss"
          type: "MultinomialLogisticLoss"
          bottom: "prob"   # 64x10
          bottom: "label"  # 64
          top: "loss"
        }

    Source: Caffe 1.0.
    """

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        _losses(x, labels, losses)

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        _slopes(x, labels, scale, dx)


@kernel
def _losses(p: Any, labels: Any, losses: Any) -> None:
    for i in prange(labels.size):
        # From 0.0, so that a certain prediction costs 0 and not -0.
        losses[i] = 0.0 - np.log(np.float64(bounded(p[i, labels[i], 0])))


@kernel
def _slopes(p: Any, labels: Any, scale: Any, dx: Any) -> None:
    for i in prange(labels.size):
        for c in range(p.shape[1]):
            dx[i, c, 0] = dx.dtype.type(0)
        dx[i, labels[i], 0] = -scale / bounded(p[i, labels[i], 0])
