"""Neurons: layers that map each value by itself."""

from __future__ import annotations

import math
from collections.abc import Collection

from netdef.blob import Array, Blob, Shape
from netdef.layer import Layer
from netdef.layers.common.arrays import Kept


class Neuron(Layer):
    """A layer that maps each value by itself: one bottom, one top of its shape, in place if asked.

    A subclass gives ``map`` and ``chain``, mostly one kernel each.
    """

    in_place = True

    @property
    def reads_bottom(self) -> bool:
        """Whether the gradient is computed from x, and not from y."""
        return False

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom",) if self.reads_bottom else ("top",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [bottoms[0]]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        needed = self.reads_bottom and (bottom[0].diff is not None or any(self.learn))
        self._kept = Kept(bottom[0], top[0], needed)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._kept.keep()
        self.map(bottom[0].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            self.chain(self._kept.flat, top[0].flat, top[0].flat_diff, bottom[0].flat_diff)

    def map(self, x: Array, y: Array) -> None:
        """y = f(x), on flat arrays; ``y`` may be ``x``."""
        raise NotImplementedError

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy f'(x), on flat arrays; ``dx`` may be ``dy``. If the layer ``reads_bottom``, ``x``
        holds what it did in forward; only if it does not, ``y`` does."""
        raise NotImplementedError


class Based(Neuron):
    """A neuron of ``base``, ``scale`` and ``shift``: Exp and its inverse, Log."""

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        self.log_base()
        return super().shapes(*bottoms)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        self._log_base = self.dtype(self.log_base())
        self._scale = self.dtype(self.config.scale)
        self._shift = self.dtype(self.config.shift)

    def log_base(self) -> float:
        """The natural logarithm of ``base``, where -1 stands for e."""
        base = self.config.base
        if base == -1:
            return 1.0
        if not 0 < base < math.inf:
            raise self.error(
                f"base is {base:g}, but must be above 0, or -1 for e",
                self.config_field or "",
                "base",
            )
        return math.log(base)
