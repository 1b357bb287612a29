"""Normalize: vectors of length 1, times a learned scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.kernels.elementwise import BLOCK
from netdef.layer import Layer, Param, Work, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.forks import refuse_fields
from netdef.proto import netdef_pb2 as pb


@register("Normalize", config="norm_param")
class Normalize(Layer):
    """Divides vectors by their Euclidean length, and multiplies them by a learned scale.

        y = scale[c] x / sqrt(sum of x^2 + eps)

        bottom  x      [N, C, ...]
        top     y      shape of x
        params  scale  [C], with ``channel_shared`` a scalar

    The sum is over a whole item; with ``across_spatial: false`` each position has its own, over the
    channels. ``fix_scale`` keeps the scale as it is filled, 1 unless ``scale_filler`` says
    otherwise.

    Forks of Caffe differ here. This is SSD's and ParseNet's layer; where there is no ``norm_param``
    at all, it is that of NormFace: each item is divided by its length, nothing is learned, and eps
    is 0. An item of nothing but zeros then gives 0.

    Example::

        layer {
          name: "conv4_3_norm"
          type: "Normalize"
          bottom: "conv4_3"  # 32x512x38x38
          top: "conv4_3_norm"
          norm_param {
            across_spatial: false
            channel_shared: false
            scale_filler {
              value: 20
            }
          }
        }

    Source: Liu, Rabinovich & Berg, "ParseNet: looking wider to see better", 2015.
    """

    backward_reads = ("bottom",)
    also_reads = ("normalize_param",)

    @property
    def _scales(self) -> bool:
        return self.message.HasField("norm_param")

    @property
    def _across(self) -> bool:
        return not self._scales or self.config.across_spatial

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        for field in ("norm_param", *self.also_reads):
            windows = "normalize_type", "fix_gradient", "bp_norm"
            refuse_fields(self, field, "caffe-windows", *windows)
            refuse_fields(self, field, "Synopsys' fork", "add_eps_before_sqrt")
        if len(x) < 2:
            raise self.error(
                f"needs a bottom of at least 2 axes (N, C, ...), but it is {shape_text(x)}",
                "bottom",
                0,
            )
        if x[1] == 0:
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        if not self.config.eps >= 0:
            raise self.error(
                f"eps is {self.config.eps:g}, but must be at least 0", "norm_param", "eps"
            )
        return [x]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c = self.config
        if self._scales:
            one = pb.FillerParameter(type="constant", value=1)
            filler = c.scale_filler if c.HasField("scale_filler") else one
            shape = () if c.channel_shared else (bottoms[0][1],)
            yield Param("scale", shape, filler, learns=not c.fix_scale)

    def work(self, *bottoms: Shape) -> list[Work]:
        n, _, *rest = bottoms[0]
        return [Work((n, 1 if self._across else math.prod(rest)), np.float64)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        n, c, *rest = bottom[0].shape
        self._view = n, c, math.prod(rest)
        self._eps = float(self.config.eps) if self._scales else 0.0
        (self._factors,) = self.work_arrays
        self._sums = scratch((n, c), np.float64)
        self._dots = scratch((n, c), np.float64)
        self._scale = scratch((c,), self.dtype)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = (blob.data.reshape(self._view) for blob in (bottom[0], top[0]))
        self._spread_scale()
        if self._across:
            _dots(x, x, self._sums)
            _invert(self._sums, self._eps, self._factors)
        else:
            _lengths(x, self._eps, self._factors)
        _divide(x, self._factors, self._scale, y)

    def _spread_scale(self) -> None:
        self._scale[...] = self.blobs[0].data if self.blobs else 1

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        x, dy = bottom[0].data.reshape(self._view), top[0].diff.reshape(self._view)
        learns = bool(self.blobs) and self.learn[0]
        self._spread_scale()
        if self._across:
            _dots(dy, x, self._sums)
        if learns:
            self._add_scale_gradient(dy, x)
        if bottom[0].diff is not None:
            dx = bottom[0].diff.reshape(self._view)
            if self._across:
                _backward_across(dy, x, self._factors, self._scale, self._sums, dx)
            else:
                _backward(dy, x, self._factors, self._scale, dx)

    def _add_scale_gradient(self, dy: Array, x: Array) -> None:
        if self._across:
            np.multiply(self._sums, self._factors, out=self._dots)
        else:
            _scaled_dots(dy, x, self._factors, self._dots)
        gradient = self.blobs[0].flat_diff
        _add_rows(self._dots, gradient)


@kernel
def _dots(a: Any, b: Any, dots: Any) -> None:
    """dots[n, c] = sum over s of a[n, c, s] b[n, c, s]"""
    for job in prange(a.shape[0] * a.shape[1]):
        n = job // a.shape[1]
        c = job % a.shape[1]
        total = 0.0
        for s in range(a.shape[2]):
            total += np.float64(a[n, c, s]) * np.float64(b[n, c, s])
        dots[n, c] = total


@kernel
def _scaled_dots(dy: Any, x: Any, factors: Any, dots: Any) -> None:
    """dots[n, c] = sum over s of dy[n, c, s] x[n, c, s] factors[n, s]"""
    for job in prange(x.shape[0] * x.shape[1]):
        n = job // x.shape[1]
        c = job % x.shape[1]
        total = 0.0
        for s in range(x.shape[2]):
            total += np.float64(dy[n, c, s]) * np.float64(x[n, c, s]) * factors[n, s]
        dots[n, c] = total


@kernel
def _invert(sums: Any, eps: Any, factors: Any) -> None:
    """factors[n, 0] = 1 / sqrt(sum over c of sums[n, c] + eps), or 0 where that is 0"""
    for n in prange(sums.shape[0]):
        total = eps
        for c in range(sums.shape[1]):
            total += sums[n, c]
        factors[n, 0] = 0.0 if total == 0 else 1 / np.sqrt(total)


@kernel
def _lengths(x: Any, eps: Any, factors: Any) -> None:
    """factors[n, s] = 1 / sqrt(sum over c of x[n, c, s]^2 + eps), or 0 where that is 0"""
    blocks = (x.shape[2] + BLOCK - 1) // BLOCK
    for job in prange(x.shape[0] * blocks):
        n = job // blocks
        first = job % blocks * BLOCK
        end = min(x.shape[2], first + BLOCK)
        for s in range(first, end):
            factors[n, s] = eps
        for c in range(x.shape[1]):
            for s in range(first, end):
                factors[n, s] += np.float64(x[n, c, s]) * np.float64(x[n, c, s])
        for s in range(first, end):
            total = factors[n, s]
            factors[n, s] = 0.0 if total == 0 else 1 / np.sqrt(total)


@kernel
def _divide(x: Any, factors: Any, scale: Any, y: Any) -> None:
    across = factors.shape[1] == 1 and x.shape[2] != 1
    for job in prange(x.shape[0] * x.shape[1]):
        n = job // x.shape[1]
        c = job % x.shape[1]
        for s in range(x.shape[2]):
            factor = factors[n, 0] if across else factors[n, s]
            y[n, c, s] = x[n, c, s] * factor * scale[c]


@kernel
def _backward_across(dy: Any, x: Any, factors: Any, scale: Any, dots: Any, dx: Any) -> None:
    """``dots`` is the sum of dy x over each channel."""
    for job in prange(x.shape[0] * x.shape[1]):
        n = job // x.shape[1]
        c = job % x.shape[1]
        total = 0.0
        for k in range(x.shape[1]):
            total += dots[n, k] * scale[k]
        factor = factors[n, 0]
        along = total * factor * factor
        for s in range(x.shape[2]):
            dx[n, c, s] = factor * (scale[c] * np.float64(dy[n, c, s]) - along * x[n, c, s])


@kernel
def _backward(dy: Any, x: Any, factors: Any, scale: Any, dx: Any) -> None:
    # The part of dy along x, for a piece of a line; short enough for the stack.
    piece = 64
    blocks = (x.shape[2] + piece - 1) // piece
    for job in prange(x.shape[0] * blocks):
        n = job // blocks
        for s in range(job % blocks * piece, min(x.shape[2], (job % blocks + 1) * piece)):
            total = 0.0
            for c in range(x.shape[1]):
                total += scale[c] * np.float64(dy[n, c, s]) * np.float64(x[n, c, s])
            factor = factors[n, s]
            along = total * factor * factor
            for c in range(x.shape[1]):
                dx[n, c, s] = factor * (scale[c] * np.float64(dy[n, c, s]) - along * x[n, c, s])


@kernel
def _add_rows(dots: Any, gradient: Any) -> None:
    """gradient[c] += sum over n of dots[n, c]; a single value gains the sum of all."""
    for c in prange(gradient.size):
        total = 0.0
        for n in range(dots.shape[0]):
            if gradient.size == 1:
                for k in range(dots.shape[1]):
                    total += dots[n, k]
            else:
                total += dots[n, c]
        gradient[c] += total
