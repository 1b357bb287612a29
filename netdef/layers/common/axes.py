"""Axes and shapes: which axis is meant, and whether two shapes fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from netdef.blob import Shape, shape_text
from netdef.layer import Layer
from netdef.proto import netdef_pb2 as pb


def axis_of(layer: Layer, shape: Shape, axis: int, *path: str | int) -> int:
    """``axis`` counted from the front; a negative one counts from the back, as in Caffe."""
    if not -len(shape) <= axis < len(shape):
        raise layer.error(
            f"axis is {axis}, but the bottom is {shape_text(shape)} ({len(shape)} axes)", *path
        )
    return axis % len(shape)


def around(shape: Shape, axis: int, end: int | None = None) -> tuple[int, int, int]:
    """(outer, length, inner): the product before ``axis``, its length, the product after it.

    With ``end`` the length is that of all axes from ``axis`` to the one before ``end``. An axis
    behind the last has the length 1.
    """
    end = axis + 1 if end is None else end
    return math.prod(shape[:axis]), math.prod(shape[axis:end]), math.prod(shape[end:])


def check_batch(layer: Layer, x: Shape) -> None:
    """Raise where the first bottom has no axis that could be the batch."""
    if not x:
        raise layer.error("needs a bottom with a batch axis, but it is a scalar", "bottom", 0)


def check_same_shapes(layer: Layer, bottoms: Sequence[Shape]) -> None:
    """Raise where a bottom has not the shape of the first."""
    for i, shape in enumerate(bottoms):
        if shape != bottoms[0]:
            raise layer.error(
                f"all bottoms must have one shape, but the first is {shape_text(bottoms[0])} and "
                f"number {i + 1} is {shape_text(shape)}",
                "bottom",
                i,
            )


def check_same_items(layer: Layer, a: Shape, b: Shape) -> None:
    """Raise where two bottoms cannot be compared item by item and value by value."""
    if not a or not b or a[0] != b[0] or math.prod(a) != math.prod(b):
        raise layer.error(
            "both bottoms must have the same batch and the same number of values, but they are "
            f"{shape_text(a)} and {shape_text(b)}",
            "bottom",
            1,
        )


def learned_axes(layer: Layer, x: Shape, *path: str) -> Shape:
    """``num_axes`` axes of the bottom from ``axis`` on: what a Scale or a Bias learns.

    ``path`` leads to the message that holds both fields.
    """
    axis = axis_of(layer, x, layer.config.axis, *path, "axis")
    count = layer.config.num_axes
    if count < -1:
        raise layer.error(
            f"num_axes is {count}, but must be at least 0, or -1 for all axes from axis on",
            *path,
            "num_axes",
        )
    if axis + count > len(x):
        raise layer.error(
            f"num_axes is {count} from axis {axis} on, but the bottom is {shape_text(x)} "
            f"({len(x)} axes)",
            *path,
            "num_axes",
        )
    return x[axis:] if count == -1 else x[axis : axis + count]


def aligned(layer: Layer, x: Shape, other: Shape, *path: str) -> tuple[int, int, int]:
    """(outer, values, inner) of the bottom where ``other`` lines up with it from ``axis`` on."""
    if not other:  # a single value lines up with any axis
        return 1, 1, math.prod(x)
    axis = axis_of(layer, x, layer.config.axis, *path, "axis")
    end = axis + len(other)
    if x[axis:end] != other:
        raise layer.error(
            f"its second bottom is {shape_text(other)}, but from axis {axis} on the first, "
            f"{shape_text(x)}, is {shape_text(x[axis:end])}",
            "bottom",
            1,
        )
    return math.prod(x[:axis]), math.prod(other), math.prod(x[end:])


def axis_or_dim(layer: Layer, shape: Shape, config: str, older: str) -> int:
    """The axis that a layer's ``axis`` names, or the older field, which counts from the front."""
    if layer.config.HasField(older):
        if layer.config.HasField("axis"):
            raise layer.error(f"give axis or {older}, not both", config, older)
        return axis_of(layer, shape, getattr(layer.config, older), config, older)
    return axis_of(layer, shape, layer.config.axis, config, "axis")


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


def to_four_axes(shape: Shape) -> Shape:
    """A shape with further axes of length 1, up to the four that every blob of Caffe once had."""
    return shape + (1,) * (4 - len(shape))
