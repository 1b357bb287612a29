"""A blob: an array of values and, beside it, the gradient of the loss with respect to them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

Shape = tuple[int, ...]
Array = np.ndarray[Any, np.dtype[Any]]


def shape_text(shape: Shape) -> str:
    """A shape as messages write it: ``64x1x28x28``; a scalar is ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


class Blob:
    """Values and gradient of one blob, C-contiguous and of the same shape.

    ``data`` and ``diff`` are the arrays, ``flat`` and ``flat_diff`` the same memory as one axis.
    For a layer, ``diff is None`` says that nobody needs this gradient.
    """

    __slots__ = ("_data", "_diff", "flat", "flat_diff", "name")

    flat: Array
    flat_diff: Any

    def __init__(self, data: Array, diff: Array | None = None, name: str = "") -> None:
        self.name = name
        self.bind(data, diff)

    def bind(self, data: Array, diff: Array | None) -> None:
        """Stand for these arrays from now on."""
        self._data = data
        self._diff = diff
        self.flat = data.reshape(-1)
        self.flat_diff = None if diff is None else diff.reshape(-1)

    @classmethod
    def zeros(cls, shape: Shape, name: str = "", dtype: Any = np.float32) -> Blob:
        """A blob of its own memory, with a gradient."""
        return cls(np.zeros(shape, dtype), np.zeros(shape, dtype), name)

    @property
    def data(self) -> Array:
        """The values; write into them with ``blob.data[...] = x``."""
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        self._only_itself(value, self._data, "data")

    @property
    def diff(self) -> Any:
        """The gradient, an array like ``data``, or None."""
        return self._diff

    @diff.setter
    def diff(self, value: Any) -> None:
        self._only_itself(value, self._diff, "diff")

    def _only_itself(self, value: Any, held: Any, name: str) -> None:
        """Let ``blob.data *= 2`` end, which assigns the same array; layers would miss another."""
        if value is not held:
            raise AttributeError(f"write into the array: blob.{name}[...] = values")

    @property
    def shape(self) -> Shape:
        return tuple(self.data.shape)

    @property
    def count(self) -> int:
        return self.data.size

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        """Axis of the 4-D form Caffe once had: missing trailing axes have length 1."""
        if self.data.ndim > 4:
            raise ValueError(f"a blob of {self.data.ndim} axes has no num/channels/height/width")
        return self.data.shape[axis] if axis < self.data.ndim else 1

    #: How often the user of any blob has given one another shape: tells when to look.
    reshapes: ClassVar[int] = 0

    def reshape(self, *shape: int) -> None:
        """Take a new shape; values are kept where the count stays the same, else they are zero."""
        if any(n < 0 for n in shape):
            raise ValueError(f"a blob cannot have the shape {shape}")
        Blob.reshapes += 1
        if math.prod(shape) == self.data.size:
            diff = None if self.diff is None else self.diff.reshape(shape)
            self.bind(self.data.reshape(shape), diff)
        else:
            dtype = self.data.dtype
            self.bind(np.zeros(shape, dtype), None if self.diff is None else np.zeros(shape, dtype))

    def __repr__(self) -> str:
        return f"<Blob {self.name} {shape_text(self.shape)}>"
