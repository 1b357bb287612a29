"""Losses: a sum over the batch, divided by a normalizer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.jit import inline, kernel, prange
from netdef.kernels.softmax import softmax
from netdef.layer import Arity, Layer, Work
from netdef.layers.common.arrays import scratch, set_scalar
from netdef.layers.common.axes import around, axis_of, check_batch
from netdef.layers.common.labels import check_labels, read_labels
from netdef.proto import netdef_pb2 as pb


class Loss(Layer):
    """A layer whose first top is one number: a sum over the batch, divided by a normalizer.

    Bottom 1 is what is wanted of bottom 0, and has no gradient. A subclass gives ``measure`` and
    ``chain``.
    """

    bottoms: Arity = 2
    no_gradient = frozenset({1})
    loss = True
    backward_reads: tuple[str, ...] = ("bottom",)

    _normalizer = 1.0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        total, self._normalizer = self.measure(bottom)
        set_scalar(top[0], total / self._normalizer)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        scale = top[0].diff.item() / self._normalizer
        for index, blob in enumerate(bottom):
            if blob.diff is not None:
                self.chain(bottom, index, scale)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        """The sum, and what it is divided by."""
        raise NotImplementedError

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        """bottom[index].diff = scale * the gradient of the sum."""
        raise NotImplementedError


class LabelLoss(Loss):
    """The sum of the losses of predictions: each has a score for every class, and one label.

    All axes but the first hold the scores of a prediction; the sum is divided by the batch. A
    subclass gives ``losses`` and ``slopes``, mostly one kernel each; both see the scores as
    [outer, classes, inner] and for each prediction its class, or IGNORED.

    Where the layer reads ``loss_param``, ``weight_by_label_freqs`` multiplies each loss by the
    weight of its class.
    """

    #: The weight of each class, float64, or nothing where all are 1.
    _weights = np.empty(0)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label, *_ = bottoms
        check_batch(self, x)
        check_labels(self, x, label, *self.class_axes(x))
        self._check_weights(around(x, *self.class_axes(x))[1])
        return [()]

    def _weighing(self) -> tuple[str, Any] | None:
        """The message that tells of weights of classes, and its name."""
        for name in ("loss_param", "softmax_param"):
            if "loss_param" in self.also_reads and (
                name in self.also_reads or name == self.config_field
            ):
                message = getattr(self.message, name)
                if message.weight_by_label_freqs or message.class_weighting:
                    return name, message
        return None

    def _check_weights(self, classes: int) -> None:
        found = self._weighing()
        if found is None:
            return
        name, message = found
        given = len(message.class_weighting)
        if given and not message.weight_by_label_freqs:
            raise self.error(
                "class_weighting goes with weight_by_label_freqs: true", name, "class_weighting"
            )
        if given not in (0, classes):
            raise self.error(
                f"class_weighting has {given} values, but there are {classes} classes",
                name,
                "class_weighting",
            )

    def class_axes(self, x: Shape) -> tuple[int, int]:
        """The first axis of the scores, and the one after the last."""
        return 1, len(x)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._view = outer, _, inner = around(x, *self.class_axes(x))
        self._labels = scratch((outer * inner,), np.int32)
        self._losses = scratch((outer * inner,), np.float64)

    def scores(self, bottom: list[Blob]) -> Array:
        """What ``losses`` and ``slopes`` are given as scores."""
        return bottom[0].data.reshape(self._view)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        outer, classes, inner = self._view
        loss_param = self.message.loss_param if "loss_param" in self.also_reads else None
        valid = read_labels(self, bottom[1], classes, loss_param, self._labels)
        self.losses(self.scores(bottom), self._labels, self._losses)
        found = self._weighing()
        if found is not None:
            counts = np.bincount(self._labels[self._labels >= 0], minlength=classes)
            given = np.array(found[1].class_weighting, np.float64)
            self._weights = given if given.size else 1 / np.maximum(counts, 1)
            _weigh(self._labels, self._weights, self._losses)
        batch = pb.LossParameter.BATCH_SIZE
        mode = batch if loss_param is None else normalization(loss_param)
        return float(self._losses.sum()), normalizer(mode, outer, inner, valid)

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        dx = bottom[0].diff.reshape(self._view)
        self.slopes(self.scores(bottom), self._labels, self.dtype(scale), dx)
        if self._weights.size:
            _weigh_slopes(self._labels, self._weights, dx)

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        """losses[i] = the loss of prediction i, float64; 0 where it is IGNORED."""
        raise NotImplementedError

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        """dx = scale * the gradient of the losses; 0 where a prediction is IGNORED."""
        raise NotImplementedError


class SoftmaxLoss(LabelLoss):
    """A loss of probabilities, the softmax of scores along ``axis``, that obeys ``loss_param``.

    ``losses`` and ``slopes`` are given the probabilities; ``dx`` is the gradient of what the
    softmax is taken of. A second top gets the probabilities too.
    """

    tops = (1, 2)
    also_reads: ClassVar[tuple[str, ...]] = ("loss_param",)
    backward_reads: tuple[str, ...] = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [*super().shapes(*bottoms), bottoms[0]][: len(self.message.top)]

    def class_axes(self, x: Shape) -> tuple[int, int]:
        axis = axis_of(self, x, self.config.axis, self.config_field or "", "axis")
        return axis, axis + 1

    def work(self, *bottoms: Shape) -> list[Work]:
        return [Work(bottoms[0])]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        self._prob = self.work_arrays[0].reshape(self._view)

    def scores(self, bottom: list[Blob]) -> Array:
        return self._prob

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        softmax(bottom[0].data.reshape(self._view), self._prob)
        super().forward(bottom, top)
        if len(top) == 2:
            np.copyto(top[1].flat, self._prob.reshape(-1))


def normalization(
    loss: pb.LossParameter,
    default: pb.LossParameter.NormalizationMode = pb.LossParameter.VALID,
) -> pb.LossParameter.NormalizationMode:
    """The mode of a loss: ``normalization``, else the older ``normalize``, else the default."""
    if loss.HasField("normalization"):
        return loss.normalization
    if loss.HasField("normalize"):
        return pb.LossParameter.VALID if loss.normalize else pb.LossParameter.BATCH_SIZE
    return default


def normalizer(
    mode: pb.LossParameter.NormalizationMode, outer: int, inner: int, valid: int
) -> float:
    """What a summed loss is divided by; at least 1, so that a batch without valid labels is 0."""
    count = {
        pb.LossParameter.FULL: outer * inner,
        pb.LossParameter.VALID: valid,
        pb.LossParameter.BATCH_SIZE: outer,
        pb.LossParameter.NONE: 1,
    }[mode]
    return float(max(1, count))


@kernel
def _weigh(labels: Any, weights: Any, losses: Any) -> None:
    for i in prange(labels.size):
        if labels[i] >= 0:
            losses[i] *= weights[labels[i]]


@kernel
def _weigh_slopes(labels: Any, weights: Any, dx: Any) -> None:
    inner = dx.shape[2]
    for job in prange(labels.size):
        if labels[job] >= 0:
            weight = dx.dtype.type(weights[labels[job]])
            for c in range(dx.shape[1]):
                dx[job // inner, c, job % inner] *= weight


@inline
def bounded(p: Any) -> Any:
    """A probability, but at least 1e-20, which Caffe takes logarithms of; a NaN stays one."""
    least = type(p)(1e-20)
    return least if p < least else p
