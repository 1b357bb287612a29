"""Small things that layers of every kind ask: scratch, scalars, views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.layer import Layer


class View(Layer):
    """A layer whose top holds the values of its bottom, in their order, under another shape."""

    view = True
    backward_reads = ()

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].flat, bottom[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            np.copyto(bottom[0].flat_diff, top[0].flat_diff)


def set_scalar(top: Blob, value: float) -> None:
    """Give a scalar top its value; one beyond its type becomes infinite, as in Caffe."""
    with np.errstate(over="ignore"):
        top.data[...] = value


def scratch(shape: Shape, dtype: Any) -> Array:
    """Memory that a layer keeps between forward and backward."""
    return np.empty(shape, dtype)


class Kept:
    """The values of a bottom as ``backward`` needs them, also where the top overwrites them."""

    def __init__(self, bottom: Blob, top: Blob, wanted: bool) -> None:
        """Made in setup; ``wanted`` says whether backward will ask for the values."""
        self._bottom = bottom
        overwritten = wanted and top.data is bottom.data
        self._copy = scratch((bottom.count,), bottom.data.dtype) if overwritten else None

    def keep(self) -> None:
        """To be called by forward before it writes the top."""
        if self._copy is not None:
            np.copyto(self._copy, self._bottom.flat)

    @property
    def flat(self) -> Array:
        """The values that the bottom had in forward, as one axis."""
        return self._bottom.flat if self._copy is None else self._copy


def check_counts(layer: Layer, config: str, *fields: str) -> None:
    """Raise unless each of these fields of the layer's message ``config`` is at least 1."""
    message = getattr(layer.message, config)
    for field in fields:
        value = getattr(message, field)
        if value < 1:
            given = f"is {value}, but must be at least 1"
            raise layer.error(
                f"{field} {given if message.HasField(field) else 'is missing'}", config, field
            )


def as_rows(values: Array, axis: int) -> Array:
    """An array as a matrix: the axes before ``axis`` are its rows."""
    rows, columns = math.prod(values.shape[:axis]), math.prod(values.shape[axis:])
    return values.reshape(rows, columns)
