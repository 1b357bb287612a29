"""Regions of interest: rows of (image, x1, y1, x2, y2) that say which part of which image is meant.

Coordinates are those of the network's input; ``spatial_scale`` takes them to the features. They are
computed in the type of the blobs, as in Caffe: where a bin begins may hang on the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.jit import inline
from netdef.layer import Layer
from netdef.layers.common.arrays import check_counts
from netdef.layers.common.windows import check_images


def check_regions(layer: Layer, x: Shape, rois: Shape) -> None:
    """Raise unless the bottoms are features, [N, C, H, W], and regions, [R, 5]."""
    check_images(layer, x)
    if not rois or math.prod(rois[1:]) != 5:
        raise layer.error(
            "the second bottom has 5 numbers for each region (image, x1, y1, x2, y2), but it is "
            f"{shape_text(rois)}",
            "bottom",
            1,
        )


def check_scale(layer: Layer, config: str) -> None:
    """Raise unless ``spatial_scale`` of the layer's message ``config`` is a positive number."""
    scale = layer.config.spatial_scale
    if not 0 < scale < math.inf:
        raise layer.error(
            f"spatial_scale is {scale:g}, but must be above 0", config, "spatial_scale"
        )


def check_pooled(layer: Layer, config: str) -> tuple[int, int]:
    """The rows and columns of the top: ``pooled_h`` and ``pooled_w``."""
    check_counts(layer, config, "pooled_h", "pooled_w")
    return layer.config.pooled_h, layer.config.pooled_w


def read_regions(layer: Layer, rois: Blob, images: int, image: Array) -> Array:
    """The regions as [R, 5]; ``image`` gets the image that each is of.

    Raises for the first that is of no image of the batch, or has a coordinate that is no number.
    """
    rows: Array = rois.data.reshape(rois.shape[0], 5)
    strange = ~np.isfinite(rows).all(axis=1)
    # A fraction of an index is cut off.
    strange |= ~((rows[:, 0] > -1) & (rows[:, 0] < images))
    if strange.any():
        index = int(np.argmax(strange))
        first = [float(value) for value in rows[index]]
        if all(map(math.isfinite, first)):
            wrong = f"is of image {first[0]:g}, but the batch has {images}, counted from 0"
        else:
            wrong = f"is {', '.join(f'{value:g}' for value in first)}"
        raise layer.error(f"region {index} (counted from 0) {wrong}", "bottom", 1, kind=DataError)
    np.copyto(image, rows[:, 0], casting="unsafe")
    return rows


@inline
def nearest(value: Any) -> Any:
    """The nearest whole number, halves away from 0, as C rounds; as an index, within 2^30."""
    whole = np.trunc(value)
    if abs(value - whole) >= 0.5:
        whole += np.sign(value)
    return np.int64(max(-1073741824.0, min(1073741824.0, whole)))


@inline
def clipped(value: Any, size: Any) -> Any:
    """A place on an axis of this many values; behind the last is one, too."""
    return min(max(value, 0), size)
