"""HingeLoss: max(0, 1 - t x), t = 1 for the label and -1 for all other classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange
from netdef.layer import register
from netdef.layers.common.loss import LabelLoss
from netdef.proto import netdef_pb2 as pb


@register("HingeLoss", config="hinge_loss_param")
class HingeLoss(LabelLoss):
    """The loss of linear support vector machines, each class against all others.

        h    = max(0, 1 - t x), where t = 1 for the label, -1 for every other class
        loss = sum of h / N      with norm L1
        loss = sum of h^2 / N    with norm L2

        bottom  x      [N, ...]; all axes but the first are the classes
                label  [N], or any shape of that count
        top     loss   scalar

    The sum is divided by N, the size of the batch; ``loss_param`` is not read. Where h is 0 there
    is no gradient, at the kink neither. A fraction of a label is cut off.

    Example::

        layer {
          name: "loss"
          type: "HingeLoss"
          bottom: "score"  # 64x10
          bottom: "label"  # 64
          top: "loss"
          hinge_loss_param {
            norm: L2
          }
        }

    Deviations: a score that is NaN makes the loss NaN, so that a net that diverged says so; Caffe
    takes its h for 0.

    Source: Tang, "Deep learning using linear support vector machines", ICML Workshop on Challenges
    in Representation Learning, 2013.
    """

    @property
    def _squared(self) -> bool:
        return bool(self.config.norm == pb.HingeLossParameter.L2)

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        _losses(x, labels, self._squared, losses)

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        _slopes(x, labels, self._squared, scale, dx)


@inline
def _hinge(value: Any, wanted: Any) -> Any:
    one = type(value)(1)
    h = one - value if wanted else one + value
    return type(value)(0) if h <= 0 else h


@kernel
def _losses(x: Any, labels: Any, squared: Any, losses: Any) -> None:
    for i in prange(labels.size):
        total = 0.0
        for c in range(x.shape[1]):
            h = np.float64(_hinge(x[i, c, 0], c == labels[i]))
            total += h * h if squared else h
        losses[i] = total


@kernel
def _slopes(x: Any, labels: Any, squared: Any, scale: Any, dx: Any) -> None:
    zero, two = dx.dtype.type(0), dx.dtype.type(2)
    for i in prange(labels.size):
        for c in range(x.shape[1]):
            h = _hinge(x[i, c, 0], c == labels[i])
            slope = zero if h == 0 else two * scale * h if squared else scale
            dx[i, c, 0] = -slope if c == labels[i] else slope
