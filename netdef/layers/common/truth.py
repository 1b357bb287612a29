"""What is to be found in images: rows of (image, class, instance, x1, y1, x2, y2, difficult)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.layer import Layer


class Objects(NamedTuple):
    """Objects in the order of their images: whole rows, and what two of their numbers mean."""

    rows: Array
    images: Array
    labels: Array


def check_truth(layer: Layer, truth: Shape, index: int) -> None:
    """Raise unless bottom ``index`` has eight numbers for each object."""
    if not truth or truth[-1] != 8:
        raise layer.error(
            f"bottom {index} has 8 numbers for each object (image, class, instance, x1, y1, x2, "
            f"y2, difficult), but it is {shape_text(truth)}",
            "bottom",
            index,
        )


def read_truth(
    layer: Layer, truth: Blob, index: int, images: float, classes: float, background: int
) -> Objects:
    """The objects of bottom ``index``; a row of image -1 is none.

    Raises for the first that is not in one of so many images, or of one of so many classes, or is
    of the background.
    """
    rows: Array = truth.data.reshape(-1, 8)
    present = rows[:, 0] != -1
    strange = present & ~np.isfinite(rows).all(axis=1)
    numbers: Array = np.trunc(np.where((present & ~strange)[:, None], rows[:, :2], -1))
    image, label = numbers.T
    nowhere = present & ~((image >= 0) & (image < images))
    no_class = present & ~((label >= 0) & (label < classes) & (label != background))
    wrong = strange | nowhere | no_class
    if wrong.any():
        at = int(np.argmax(wrong))
        given = [float(value) for value in rows[at]]
        if strange[at]:
            what = "has " + ", ".join(f"{value:g}" for value in given)
        elif nowhere[at]:
            limit = "" if math.isinf(images) else f", but the batch has {images}, counted from 0"
            what = f"is in image {given[0]:g}{limit}"
        elif int(label[at]) == background:
            what = f"is of class {given[1]:g}, the background"
        else:
            limit = "" if math.isinf(classes) else f", none of the classes 0 to {classes - 1}"
            what = f"is of class {given[1]:g}{limit}"
        raise layer.error(f"object {at} (counted from 0) {what}", "bottom", index, kind=DataError)
    kept = np.flatnonzero(present)
    kept = kept[np.argsort(image[kept], kind="stable")]
    return Objects(rows[kept], image[kept].astype(np.int64), label[kept].astype(np.int64))
