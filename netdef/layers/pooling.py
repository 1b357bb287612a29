"""Pooling: the maximum or the mean of each window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import inline, kernel, prange
from netdef.layer import Layer, register
from netdef.layers.common import scratch
from netdef.proto import netdef_pb2 as pb


@register("Pooling", config="pooling_param")
class Pooling(Layer):
    """Takes the maximum or the mean of each window of each channel.

    bottom  x     [N, C, H, W]
    top     y     [N, C, (H + 2 pad - kernel) / stride + 1, ...], rounded up; FLOOR rounds down
            mask  optional, only for MAX: where in its channel (H, W as one axis) each maximum is

    As in Caffe: where there is any padding, a last window that would begin beyond the image is left
    out; MAX looks only at what is inside the image; AVE divides by the part of its window that is
    inside the padded image, counting padding as 0. ``global_pooling`` takes one window over the
    whole image. Without padding, a stride beyond the kernel can put the last window outside: its
    maximum is then the lowest float32, with index -1 and no gradient.
    """

    tops = (1, 2)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        if self.config.pool == pb.PoolingParameter.STOCHASTIC:
            raise self.error("STOCHASTIC pooling is not in this version", "pooling_param", "pool")
        if len(x) != 4:
            raise self.error(
                f"needs a bottom of 4 axes (N, C, H, W), but it is {shape_text(x)}", "bottom", 0
            )
        if 0 in x[2:]:
            raise self.error(f"the bottom {shape_text(x)} has an empty image", "bottom", 0)
        if len(self.message.top) == 2 and self.config.pool != pb.PoolingParameter.MAX:
            raise self.error("only MAX pooling has a second top, the mask", "top", 1)
        window, stride, pad = self._extents(x)
        output = []
        for size, k, s, p in zip(x[2:], window, stride, pad, strict=True):
            count = pooled(size, k, s, p, any(pad), self._rounds_up)
            # Rounding up leaves one window to a kernel that is too wide by less than the stride.
            if count < 1:
                raise self.error(
                    f"the kernel is {k} wide, but the bottom {shape_text(x)} has only "
                    f"{size} + 2 * {p} = {size + 2 * p}",
                    "pooling_param",
                )
            output.append(count)
        return [(*x[:2], *output)] * len(self.message.top)

    @property
    def _rounds_up(self) -> bool:
        return bool(self.config.round_mode == pb.PoolingParameter.CEIL)

    def _extents(self, x: Shape) -> tuple[list[int], list[int], list[int]]:
        """(kernel, stride, pad), each for height and width."""
        c = self.config
        pad = self._pair("pad", 0)
        stride = self._pair("stride", 1)
        if c.global_pooling:
            for name in ("kernel_size", "kernel_h", "kernel_w"):
                if c.HasField(name):
                    raise self.error(
                        f"global_pooling takes the whole image: no {name}", "pooling_param", name
                    )
            if pad != [0, 0] or stride != [1, 1]:
                raise self.error("global_pooling goes with pad 0 and stride 1", "pooling_param")
            return [x[2], x[3]], stride, pad
        window = self._pair("kernel_size", None, "kernel")
        for k, s, p in zip(window, stride, pad, strict=True):
            if k < 1 or s < 1:
                raise self.error("kernel and stride must be at least 1", "pooling_param")
            if p >= k:
                raise self.error(
                    f"pad {p} must be less than the kernel, {k}: a window would see only padding",
                    "pooling_param",
                )
        return window, stride, pad

    def _pair(self, name: str, default: int | None, stem: str = "") -> list[int]:
        """A setting for height and width, from one field or from its _h and _w forms."""
        c, stem = self.config, stem or name
        pair = [f"{stem}_h", f"{stem}_w"]
        given = [c.HasField(field) for field in pair]
        if c.HasField(name) and any(given):
            raise self.error(
                f"give {name}, or {' and '.join(pair)}, not both", "pooling_param", name
            )
        if any(given) and not all(given):
            raise self.error(f"give both {' and '.join(pair)}", "pooling_param")
        if all(given):
            return [getattr(c, field) for field in pair]
        if not c.HasField(name) and default is None:
            raise self.error(
                f"{name} is missing", "pooling_param", hint="or say global_pooling: true"
            )
        return [getattr(c, name)] * 2

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._window = np.array(self._extents(bottom[0].shape), np.int64)
        needs_mask = self.config.pool == pb.PoolingParameter.MAX
        self._mask = scratch(top[0].shape if needs_mask else (0, 0, 0, 0), np.int32)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self.config.pool == pb.PoolingParameter.AVE:
            _mean(_planes(bottom[0].data), self._window, _planes(top[0].data))
            return
        mask = _planes(self._mask)
        _maximum(_planes(bottom[0].data), self._window, _planes(top[0].data), mask)
        if len(top) == 2:
            np.copyto(top[1].data, self._mask)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        dy, dx = _planes(top[0].diff), _planes(bottom[0].diff)
        if self.config.pool == pb.PoolingParameter.AVE:
            _spread(dy, self._window, dx)
        else:
            _route(dy, _planes(self._mask), dx.reshape(len(dx), math.prod(dx.shape[1:])))


#: The maximum of nothing.
LOWEST = -3.4028234663852886e38


def pooled(size: int, kernel: int, stride: int, pad: int, clip: bool, up: bool) -> int:
    """The number of windows along an axis; ``clip`` where any axis of the layer is padded."""
    room = size + 2 * pad - kernel
    count = (-(-room // stride) if up else room // stride) + 1
    return count - 1 if clip and (count - 1) * stride >= size + pad else count


def _planes(values: Any) -> Any:
    """[N, C, H, W] as [N * C, H, W]."""
    n, c, h, w = values.shape
    return values.reshape(n * c, h, w)


@inline
def _window_of(index: Any, kernel: Any, stride: Any, pad: Any, size: Any) -> Any:
    """(first, end, span) of a window: its part in the image, its length in the padded image."""
    first = index * stride - pad
    end = min(first + kernel, size + pad)
    span = end - first
    return max(first, 0), min(end, size), span


@kernel
def _maximum(x: Any, window: Any, y: Any, mask: Any) -> None:
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, _ = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, _ = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                best = x.dtype.type(LOWEST)
                at = -1
                if top < bottom and left < right:
                    best = x[plane, top, left]
                    at = top * width + left
                # The first of equal values wins, as in Caffe.
                for h in range(top, bottom):
                    for w in range(left, right):
                        value = x[plane, h, w]
                        if value > best:
                            best = value
                            at = h * width + w
                y[plane, i, j] = best
                mask[plane, i, j] = at


@kernel
def _route(dy: Any, mask: Any, dx: Any) -> None:
    """``dx`` is flat in each plane, as the mask counts."""
    zero = dx.dtype.type(0)
    for plane in prange(dy.shape[0]):
        for i in range(dx.shape[1]):
            dx[plane, i] = zero
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                at = mask[plane, i, j]
                if at >= 0:
                    dx[plane, at] += dy[plane, i, j]


@kernel
def _mean(x: Any, window: Any, y: Any) -> None:
    height, width = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0]):
        for i in range(y.shape[1]):
            top, bottom, tall = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(y.shape[2]):
                left, right, wide = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                total = x.dtype.type(0)
                for h in range(top, bottom):
                    for w in range(left, right):
                        total += x[plane, h, w]
                y[plane, i, j] = total / x.dtype.type(tall * wide)


@kernel
def _spread(dy: Any, window: Any, dx: Any) -> None:
    height, width = dx.shape[1], dx.shape[2]
    zero = dx.dtype.type(0)
    for plane in prange(dy.shape[0]):
        for h in range(height):
            for w in range(width):
                dx[plane, h, w] = zero
        for i in range(dy.shape[1]):
            top, bottom, tall = _window_of(i, window[0, 0], window[1, 0], window[2, 0], height)
            for j in range(dy.shape[2]):
                left, right, wide = _window_of(j, window[0, 1], window[1, 1], window[2, 1], width)
                share = dy[plane, i, j] / dy.dtype.type(tall * wide)
                for h in range(top, bottom):
                    for w in range(left, right):
                        dx[plane, h, w] += share
