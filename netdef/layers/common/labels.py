"""Labels: which class each one names, and which are left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.jit import inline, kernel, prange
from netdef.layer import Layer
from netdef.layers.common.axes import around


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
