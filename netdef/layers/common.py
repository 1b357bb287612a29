"""What several layers share: neurons, views, axes, labels, the normalisation of losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.jit import inline
from netdef.layer import Layer
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


class View(Layer):
    """A layer whose top holds the values of its bottom, in their order, under another shape."""

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].flat, bottom[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            np.copyto(bottom[0].flat_diff, top[0].flat_diff)


def axis_of(layer: Layer, shape: Shape, axis: int, *path: str | int) -> int:
    """``axis`` counted from the front; a negative one counts from the back, as in Caffe."""
    if not -len(shape) <= axis < len(shape):
        raise layer.error(
            f"axis is {axis}, but the bottom is {shape_text(shape)} ({len(shape)} axes)", *path
        )
    return axis % len(shape)


def around(shape: Shape, axis: int) -> tuple[int, int, int]:
    """(outer, length, inner): the product before ``axis``, its length, the product after it."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def check_classes(layer: Layer, scores: Shape, axis: int) -> None:
    """Raise where there are no scores to choose from."""
    if scores[axis] == 0:
        raise layer.error(
            f"the bottom {shape_text(scores)} has no classes on axis {axis}", "bottom", 0
        )


def check_labels(layer: Layer, scores: Shape, labels: Shape, axis: int) -> None:
    """Raise where there is not one label for each prediction, or no class to predict."""
    check_classes(layer, scores, axis)
    outer, classes, inner = around(scores, axis)
    if math.prod(labels) != outer * inner:
        wanted = shape_text(scores[:axis] + scores[axis + 1 :])
        raise layer.error(
            f"Number of labels must match number of predictions: {shape_text(scores)} with "
            f"{classes} classes on axis {axis} makes {outer * inner} predictions, but the labels "
            f"are {shape_text(labels)}",
            "bottom",
            1,
            hint=f"the labels should be {wanted}",
        )


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


def bad_label(layer: Layer, label: Blob, index: int, classes: int) -> Exception:
    """The error for label number ``index`` of a batch."""
    value = float(label.flat[index])
    return layer.error(
        f"label {value:g} (number {index} of the batch, counted from 0) is not one of the "
        f"{classes} classes 0 to {classes - 1}",
        "bottom",
        1,
        hint="labels count from 0"
        if value == classes
        else "set ignore_label for values that mean no class",
        kind=DataError,
    )


def normalization(loss: pb.LossParameter) -> pb.LossParameter.NormalizationMode:
    """The mode of a loss: ``normalization``, else the older ``normalize``."""
    if not loss.HasField("normalization") and loss.HasField("normalize"):
        return pb.LossParameter.VALID if loss.normalize else pb.LossParameter.BATCH_SIZE
    return loss.normalization


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


def set_scalar(top: Blob, value: float) -> None:
    """Give a scalar top its value; one beyond its type becomes infinite, as in Caffe."""
    with np.errstate(over="ignore"):
        top.data[...] = value


def scratch(shape: Shape, dtype: Any) -> Array:
    """Memory that a layer keeps between forward and backward."""
    return np.empty(shape, dtype)


def axis_or_dim(layer: Layer, shape: Shape, config: str, older: str) -> int:
    """The axis that a layer's ``axis`` names, or the older field, which counts from the front."""
    if layer.config.HasField(older):
        if layer.config.HasField("axis"):
            raise layer.error(f"give axis or {older}, not both", config, older)
        return axis_of(layer, shape, getattr(layer.config, older), config, older)
    return axis_of(layer, shape, layer.config.axis, config, "axis")


def as_rows(values: Array, axis: int) -> Array:
    """An array as a matrix: the axes before ``axis`` are its rows."""
    rows, columns = math.prod(values.shape[:axis]), math.prod(values.shape[axis:])
    return values.reshape(rows, columns)


def shape_of(layer: Layer, given: pb.BlobShape, *path: str | int) -> Shape:
    """The shape that a layer's message states; ``path`` leads to it."""
    for i, n in enumerate(given.dim):
        if n < 0:
            raise layer.error(f"a dimension cannot be negative: {n}", *path, "dim", i)
    return tuple(given.dim)


def shapes_of_tops(layer: Layer, config: str) -> list[Shape]:
    """What the field ``shape`` of a layer without bottoms states: one for all tops, or for each."""
    stated = [
        shape_of(layer, shape, config, "shape", i) for i, shape in enumerate(layer.config.shape)
    ]
    tops = len(layer.message.top)
    if len(stated) not in (1, tops):
        raise layer.error(
            f"has {tops} tops but {len(stated)} shapes",
            config,
            hint="give one shape for all tops, or one for each",
        )
    return stated if len(stated) == tops else stated * tops
