"""PReLU: y = x where x > 0, slope * x elsewhere, with a learned slope per channel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import inline, kernel, prange
from netdef.kernels import lanes
from netdef.kernels.lanes import LANES
from netdef.layer import Param, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.neuron import Neuron
from netdef.proto import netdef_pb2 as pb


@register("PReLU", config="prelu_param")
class PReLU(Neuron):
    """Rectified linear unit that learns its slope below 0, one for each channel.

        y = x          where x > 0
        y = slope * x  elsewhere

        bottom  x      [N, C, ...]
        top     y      shape of x; may be x itself
        params  slope  [C], with ``channel_shared`` a scalar

    At x == 0 the gradient is that of the slope's side, as in Caffe. Weight decay draws slopes
    towards 0, a plain ReLU: ``param { decay_mult: 0 }`` keeps them free.

    Example::

        layer {
          name: "prelu1"
          type: "PReLU"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
          param {
            decay_mult: 0
          }
          prelu_param {
            filler {
              value: 0.1
            }
          }
        }

    Source: He, Zhang, Ren & Sun, "Delving deep into rectifiers: surpassing human-level performance
    on ImageNet classification", ICCV 2015.
    """

    reads_bottom = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        if len(x) < 2:
            raise self.error(
                f"needs a bottom of at least 2 axes (N, C, ...), but it is {shape_text(x)}",
                "bottom",
                0,
            )
        if x[1] == 0:
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        return [x]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c = self.config
        quarter = pb.FillerParameter(type="constant", value=0.25)
        filler = c.filler if c.HasField("filler") else quarter
        yield Param("slope", () if c.channel_shared else (bottoms[0][1],), filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        shape, slopes = bottom[0].shape, self.blobs[0].count
        self._view = shape[0] * shape[1] // slopes, slopes, math.prod(shape[2:])
        self._sums = scratch(self._view[:2], np.float64)

    def map(self, x: Array, y: Array) -> None:
        _map(x.reshape(self._view), self.blobs[0].flat, y.reshape(self._view))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        slope, wanted = self.blobs[0], bottom[0].diff is not None
        dy = top[0].flat_diff.reshape(self._view)
        dx = bottom[0].flat_diff.reshape(self._view) if wanted else dy
        _backward(self._kept.flat.reshape(self._view), slope.flat, dy, wanted, dx, self._sums)
        if self.learn[0]:
            _add_sums(self._sums, slope.flat_diff)


@kernel
def _map(x: Any, slope: Any, y: Any) -> None:
    """x and y are [n, slopes, inner]."""
    for job in prange(x.shape[0] * x.shape[1]):
        n = job // x.shape[1]
        c = job % x.shape[1]
        a = slope[c]
        for p in range(x.shape[2]):
            value = x[n, c, p]
            y[n, c, p] = a * value if value <= 0 else value


@kernel
def _backward(x: Any, slope: Any, dy: Any, wanted: Any, dx: Any, sums: Any) -> None:
    """dx = dy f'(x) if ``wanted``; sums[n, c] is what line c of image n adds to its slope."""
    for job in prange(x.shape[0] * x.shape[1]):
        n = job // x.shape[1]
        c = job % x.shape[1]
        # Before dx, which may take the place of dy.
        sums[n, c] = _sum_below(x, dy, job * x.shape[2], x.shape[2])
        if wanted:
            a = slope[c]
            for p in range(x.shape[2]):
                slant = dy[n, c, p]
                dx[n, c, p] = slant if x[n, c, p] > 0 else a * slant


@inline
def _sum_below(x: Any, dy: Any, first: Any, count: Any) -> Any:
    """The sum of dy x over those x of a line that are not above 0."""
    zero = x.dtype.type(0)
    end = first + count
    whole = end - count % LANES
    nothing, total = lanes.fill(0.0), lanes.fill(0.0)
    for i in range(first, end, LANES):
        if i < whole:
            value, slant = lanes.load(x, i), lanes.load(dy, i)
        else:
            value = lanes.load_part(x, i, i, end, zero)
            slant = lanes.load_part(dy, i, i, end, zero)
        product = lanes.double(value) * lanes.double(slant)
        total = total + lanes.choose(value <= lanes.fill(zero), product, nothing)
    return lanes.total(total)


@kernel
def _add_sums(sums: Any, gradient: Any) -> None:
    """gradient[c] += sum over n of sums[n, c], one after the other."""
    for c in prange(sums.shape[1]):
        total = 0.0
        for n in range(sums.shape[0]):
            total += sums[n, c]
        gradient[c] += total
