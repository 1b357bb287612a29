"""Neurons: layers that map each value by itself."""

from __future__ import annotations

import math

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.layer import Layer
from netdef.layers.common.arrays import scratch


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
        needed = self.reads_bottom and (bottom[0].diff is not None or any(self.learn))
        keep = needed and top[0].data is bottom[0].data
        self._kept = scratch((bottom[0].count,), self.dtype) if keep else None

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._kept is not None:
            np.copyto(self._kept, bottom[0].flat)
        self.map(bottom[0].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        self.chain(self.before(bottom), top[0].flat, top[0].flat_diff, bottom[0].flat_diff)

    def before(self, bottom: list[Blob]) -> Array:
        """x as it was before forward, flat; kept where y overwrote it and the layer reads it."""
        return bottom[0].flat if self._kept is None else self._kept

    def map(self, x: Array, y: Array) -> None:
        """y = f(x), on flat arrays; ``y`` may be ``x``."""
        raise NotImplementedError

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy f'(x), on flat arrays; ``dx`` may be ``dy``, and unless the layer
        ``reads_bottom``, ``x`` may be ``y``."""
        raise NotImplementedError


def log_base(layer: Layer, *path: str | int) -> float:
    """The natural logarithm of the layer's ``base``, where -1 stands for e."""
    base = layer.config.base
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.error(f"base is {base:g}, but must be above 0, or -1 for e", *path)
    return math.log(base)
