"""FocalLoss: -alpha (1 - p)^gamma log p, p = softmax(x)[label], averaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.jit import inline, kernel, prange
from netdef.layer import register
from netdef.layers.common.axes import axis_of
from netdef.layers.common.loss import SoftmaxLoss
from netdef.proto import netdef_pb2 as pb


@register("FocalLoss", config="focal_loss_param")
class FocalLoss(SoftmaxLoss):
    """A softmax loss in which what is already predicted well counts for less.

        p    = softmax(x) along softmax_param.axis
        loss = sum of -alpha (1 - p[label])^gamma log p[label] / normalizer

        bottom  x      any shape; scores along softmax_param.axis
                label  one class for each prediction, any shape of that count
        top     loss   scalar
                prob   optional: p, shape of x

    With ``gamma`` 0 and ``alpha`` 1 it is SoftmaxWithLoss, and so are ``loss_param``, labels and
    the bound on a probability. ``gama`` is another spelling of ``gamma``.

    Example::

        layer {
          name: "loss"
          type: "FocalLoss"
          bottom: "score"  # 8x21x32x32
          bottom: "label"  # 8x1x32x32
          top: "loss"
          focal_loss_param {
            gamma: 2
            alpha: 0.25
          }
          loss_param {
            ignore_label: -1
          }
        }

    Source: Lin, Goyal, Girshick, He & Dollár, "Focal loss for dense object detection", ICCV 2017,
    with the softmax of Caffe's forks.
    """

    also_reads = ("loss_param", "softmax_param")

    def class_axes(self, x: Shape) -> tuple[int, int]:
        axis = axis_of(self, x, self.message.softmax_param.axis, "softmax_param", "axis")
        return axis, axis + 1

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c = self.config
        if c.type != pb.FocalLossParameter.ORIGIN:
            raise self.error(
                "only the type ORIGIN is computed, not LINEAR", "focal_loss_param", "type"
            )
        if c.HasField("gamma") and c.HasField("gama"):
            raise self.error("give gamma, or gama, not both", "focal_loss_param", "gama")
        if not self._gamma >= 0:
            raise self.error(
                f"gamma is {self._gamma:g}, but must be at least 0",
                "focal_loss_param",
                "gama" if c.HasField("gama") else "gamma",
            )
        return super().shapes(*bottoms)

    @property
    def _gamma(self) -> float:
        c = self.config
        return float(c.gama if c.HasField("gama") else c.gamma)

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        _losses(x, labels, self._gamma, float(self.config.alpha), losses)

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        _slopes(x, labels, self._gamma, float(self.config.alpha) * float(scale), dx)


@inline
def _log(p: Any) -> Any:
    """The logarithm of a probability, but at least that of the smallest normal float32."""
    least = 1.1754943508222875e-38
    # A NaN stays one, so that a net that diverged says so.
    return np.log(least if p < least else p)


@kernel
def _losses(prob: Any, labels: Any, gamma: Any, alpha: Any, losses: Any) -> None:
    inner = prob.shape[2]
    for job in prange(labels.size):
        losses[job] = 0.0
        if labels[job] >= 0:
            p = np.float64(prob[job // inner, labels[job], job % inner])
            losses[job] -= alpha * max(1 - p, 0.0) ** gamma * _log(p)


@kernel
def _slopes(prob: Any, labels: Any, gamma: Any, scale: Any, dx: Any) -> None:
    classes, inner = prob.shape[1], prob.shape[2]
    for job in prange(labels.size):
        i = job // inner
        j = job % inner
        label = labels[job]
        weight = 0.0
        if label >= 0:
            # p times the slope of the loss over p.
            p = np.float64(prob[i, label, j])
            rest = max(1 - p, 0.0)
            weight = scale * rest**gamma
            if gamma > 0 and rest > 0:
                weight -= scale * gamma * p * rest ** (gamma - 1) * _log(p)
        for c in range(classes):
            dx[i, c, j] = weight * prob[i, c, j]
        if label >= 0:
            dx[i, label, j] = weight * (np.float64(prob[i, label, j]) - 1)
