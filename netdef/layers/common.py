"""What several layers share: neurons, axes, labels, the normalisation of losses."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.jit import inline, kernel, prange
from netdef.kernels.softmax import softmax
from netdef.layer import Arity, Layer
from netdef.proto import netdef_pb2 as pb


class Neuron(Layer):
    """A layer that maps each value by itself: one bottom, one top of its shape, in place if asked.

    A subclass gives ``map`` and ``chain``, mostly one kernel each.
    """

    in_place = True
    #: Whether the gradient is computed from x; working in place, forward then keeps a copy of it.
    reads_bottom = False

    _kept: Array | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [bottoms[0]]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        overwritten = top[0].data is bottom[0].data and bottom[0].diff is not None
        keep = self.reads_bottom and overwritten
        self._kept = scratch((bottom[0].count,), self.dtype) if keep else None

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._kept is not None:
            np.copyto(self._kept, bottom[0].flat)
        self.map(bottom[0].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        x = bottom[0].flat if self._kept is None else self._kept
        self.chain(x, top[0].flat, top[0].flat_diff, bottom[0].flat_diff)

    def map(self, x: Array, y: Array) -> None:
        """y = f(x), on flat arrays; ``y`` may be ``x``."""
        raise NotImplementedError

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy f'(x), on flat arrays; ``dx`` may be ``dy``, and unless the layer
        ``reads_bottom``, ``x`` may be ``y``."""
        raise NotImplementedError


class Loss(Layer):
    """A layer whose first top is one number: a sum over the batch, divided by a normalizer.

    Bottom 1 is what is wanted of bottom 0, and has no gradient. A subclass gives ``measure`` and
    ``chain``.
    """

    bottoms: ClassVar[Arity] = 2
    no_gradient = frozenset({1})
    loss = True

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
    """

    #: Whether ``loss_param`` says which labels are ignored and what the sum is divided by.
    obeys_loss_param = False

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label, *_ = bottoms
        check_batch(self, x)
        check_labels(self, x, label, *self.class_axes(x))
        return [()]

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
        loss_param = self.message.loss_param if self.obeys_loss_param else None
        valid = read_labels(self, bottom[1], classes, loss_param, self._labels)
        self.losses(self.scores(bottom), self._labels, self._losses)
        batch = pb.LossParameter.BATCH_SIZE
        mode = batch if loss_param is None else normalization(loss_param)
        return float(self._losses.sum()), normalizer(mode, outer, inner, valid)

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        dx = bottom[0].diff.reshape(self._view)
        self.slopes(self.scores(bottom), self._labels, self.dtype(scale), dx)

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
    obeys_loss_param = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [*super().shapes(*bottoms), bottoms[0]][: len(self.message.top)]

    def class_axes(self, x: Shape) -> tuple[int, int]:
        axis = axis_of(self, x, self.config.axis, self.config_field or "", "axis")
        return axis, axis + 1

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        self._prob = scratch(self._view, self.dtype)

    def scores(self, bottom: list[Blob]) -> Array:
        return self._prob

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        softmax(bottom[0].data.reshape(self._view), self._prob)
        super().forward(bottom, top)
        if len(top) == 2:
            np.copyto(top[1].flat, self._prob.reshape(-1))


def axis_of(layer: Layer, shape: Shape, axis: int, *path: str | int) -> int:
    """``axis`` counted from the front; a negative one counts from the back, as in Caffe."""
    if not -len(shape) <= axis < len(shape):
        raise layer.error(
            f"axis is {axis}, but the bottom is {shape_text(shape)} ({len(shape)} axes)", *path
        )
    return axis % len(shape)


def around(shape: Shape, axis: int, end: int | None = None) -> tuple[int, int, int]:
    """(outer, length, inner): the product before ``axis``, its length, the product after it.

    With ``end`` the length is that of all axes from ``axis`` to the one before ``end``.
    """
    end = axis + 1 if end is None else end
    return math.prod(shape[:axis]), math.prod(shape[axis:end]), math.prod(shape[end:])


def check_batch(layer: Layer, x: Shape) -> None:
    """Raise where the first bottom has no axis that could be the batch."""
    if not x:
        raise layer.error("needs a bottom with a batch axis, but it is a scalar", "bottom", 0)


def check_same_items(layer: Layer, a: Shape, b: Shape) -> None:
    """Raise where two bottoms cannot be compared item by item and value by value."""
    if not a or not b or a[0] != b[0] or math.prod(a) != math.prod(b):
        raise layer.error(
            "both bottoms must have the same batch and the same number of values, but they are "
            f"{shape_text(a)} and {shape_text(b)}",
            "bottom",
            1,
        )


def check_classes(layer: Layer, scores: Shape, axis: int, end: int | None = None) -> None:
    """Raise where there are no scores to choose from."""
    if around(scores, axis, end)[1] == 0:
        raise layer.error(
            f"the bottom {shape_text(scores)} has no classes on {_axes(axis, end)}", "bottom", 0
        )


def check_labels(
    layer: Layer, scores: Shape, labels: Shape, axis: int, end: int | None = None
) -> None:
    """Raise where there is not one label for each prediction, or no class to predict."""
    check_classes(layer, scores, axis, end)
    outer, classes, inner = around(scores, axis, end)
    if math.prod(labels) != outer * inner:
        wanted = shape_text(scores[:axis] + scores[axis + 1 if end is None else end :])
        raise layer.error(
            f"Number of labels must match number of predictions: {shape_text(scores)} with "
            f"{classes} classes on {_axes(axis, end)} makes {outer * inner} predictions, but the "
            f"labels are {shape_text(labels)}",
            "bottom",
            1,
            hint=f"the labels should be {wanted}",
        )


def _axes(axis: int, end: int | None) -> str:
    return f"axis {axis}" if end is None or end <= axis + 1 else f"axes {axis} to {end - 1}"


#: What ``read_label`` gives for a label to be left out, and for one that is no class.
IGNORED, INVALID = -1, -2


@inline
def read_label(value: Any, classes: Any, ignore: Any, has_ignore: Any) -> Any:
    """The class a float label names, IGNORED, or INVALID; fractions are cut off, as in Caffe."""
    if not (value > -2147483648.0 and value < 2147483648.0):
        return INVALID
    label = np.int64(value)
    if has_ignore and label == ignore:
        return IGNORED
    if label < 0 or label >= classes:
        return INVALID
    return label


@inline
def is_ignored(value: Any, ignore: Any, has_ignore: Any) -> Any:
    """Whether a float is to be left out; a fraction is cut off, as in Caffe."""
    return has_ignore and np.trunc(value) == ignore


def ignored_label(config: Any) -> tuple[Any, bool]:
    """(label, whether it is to be ignored), as kernels take it; ``config`` may be None."""
    if config is None:
        return np.int64(0), False
    return np.int64(config.ignore_label), config.HasField("ignore_label")


def read_labels(layer: Layer, label: Blob, classes: int, config: Any, out: Array) -> int:
    """Write into ``out`` the class each label names, or IGNORED; gives how many are not ignored.

    ``config`` is the message with the field ``ignore_label``, None where the layer has none.
    Raises for the first label that is no class.
    """
    _read_labels(label.flat, np.int64(classes), *ignored_label(config), out)
    if out.min(initial=0) == INVALID:
        raise bad_label(layer, label, int(np.argmin(out)), classes, config is not None)
    return int(np.count_nonzero(out >= 0))


@kernel
def _read_labels(labels: Any, classes: Any, ignore: Any, has_ignore: Any, out: Any) -> None:
    for i in prange(labels.size):
        out[i] = read_label(labels[i], classes, ignore, has_ignore)


def bad_label(
    layer: Layer, label: Blob, index: int, classes: int, may_ignore: bool = True
) -> Exception:
    """The error for label number ``index`` of a batch."""
    value = float(label.flat[index])
    hint = "set ignore_label for values that mean no class" if may_ignore else ""
    return layer.error(
        f"label {value:g} (number {index} of the batch, counted from 0) is not one of the "
        f"{classes} classes 0 to {classes - 1}",
        "bottom",
        1,
        hint="labels count from 0" if value == classes else hint,
        kind=DataError,
    )


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


@inline
def bounded(p: Any) -> Any:
    """A probability, but at least 1e-20, which Caffe takes logarithms of; a NaN stays one."""
    least = type(p)(1e-20)
    return least if p < least else p


def set_scalar(top: Blob, value: float) -> None:
    """Give a scalar top its value; one beyond its type becomes infinite, as in Caffe."""
    with np.errstate(over="ignore"):
        top.data[...] = value


def scratch(shape: Shape, dtype: Any) -> Array:
    """Memory that a layer keeps between forward and backward."""
    return np.empty(shape, dtype)
