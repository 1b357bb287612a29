"""LRN: y = x * (k + alpha / n * sum of x^2 over n neighbours)^-beta."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.jit import inline, kernel, prange
from netdef.layer import Layer, Work, register
from netdef.layers.common.windows import check_images
from netdef.proto import netdef_pb2 as pb


@register("LRN", config="lrn_param")
class LRN(Layer):
    """Local response normalization: divides each value by the strength of its neighbours.

        y = x * scale^-beta    scale = k + alpha / n * sum of x^2 over n neighbours, x among them

        bottom  x  [N, C, H, W]
        top     y  shape of x

    Neighbours are ``local_size`` channels at the same pixel, or with WITHIN_CHANNEL ``local_size``
    x ``local_size`` pixels of the same channel. Where some lie outside the bottom they count as 0,
    and n stays what it is. WITHIN_CHANNEL takes 1 for ``k``, as in Caffe.

    Example::

        layer {
          name: "norm1"
          type: "LRN"
          bottom: "pool1"  # 16x96x27x27
          top: "norm1"
          lrn_param {
            local_size: 5
            alpha: 0.0001
            beta: 0.75
          }
        }

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural
    networks", NIPS 2012.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_images(self, x)
        size = self.config.local_size
        if size % 2 == 0:
            raise self.error(
                f"local_size is {size}, but must be odd, so that each value is in the middle of "
                "its neighbours",
                "lrn_param",
                "local_size",
            )
        return [x]

    def work(self, *bottoms: Shape) -> list[Work]:
        return [Work(bottoms[0])]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, (n, channels, height, width) = self.config, bottom[0].shape
        reach = c.local_size // 2
        if c.norm_region == pb.LRNParameter.WITHIN_CHANNEL:
            view, self._reach = (n * channels, height, width), (reach, reach)
            neighbours, k = c.local_size**2, 1.0
        else:
            view, self._reach = (n, channels, height * width), (reach, 0)
            neighbours, k = c.local_size, c.k
        self._share, self._k = self.dtype(c.alpha / neighbours), self.dtype(k)
        # Beyond its type it is infinite, as in Caffe.
        with np.errstate(over="ignore"):
            self._slope = self.dtype(2 * c.beta * c.alpha / neighbours)
        self._scale = self.work_arrays[0].reshape(view)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = self._view(bottom[0].data), self._view(top[0].data)
        beta = self.dtype(self.config.beta)
        _normalize(x, *self._reach, self._share, self._k, beta, self._scale, y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        x, dx = self._view(bottom[0].data), self._view(bottom[0].diff)
        y, dy = self._view(top[0].data), self._view(top[0].diff)
        beta = self.dtype(self.config.beta)
        _chain(x, y, self._scale, dy, *self._reach, self._slope, beta, dx)

    def _view(self, values: Array) -> Array:
        """Neighbours along the last two axes."""
        view: Array = values.reshape(self._scale.shape)
        return view


@inline
def _power(scale: Any, beta: Any) -> Any:
    """scale^beta; quickly for the beta that everybody has."""
    if beta == 0.75:
        root = np.sqrt(scale)
        return root * np.sqrt(root)
    return scale**beta


@kernel
def _normalize(
    x: Any, tall: Any, wide: Any, share: Any, k: Any, beta: Any, scale: Any, y: Any
) -> None:
    rows, columns = x.shape[1], x.shape[2]
    widest = min(wide, columns - 1)
    for job in prange(x.shape[0] * rows):
        plane = job // rows
        row = job % rows
        for i in range(columns):
            scale[plane, row, i] = k
        for other in range(max(0, row - tall), min(rows, row + tall + 1)):
            for shift in range(-widest, widest + 1):
                for i in range(max(0, -shift), min(columns, columns - shift)):
                    # An unsigned index cannot count from the back: only so the loop is vectorised.
                    at = np.uint64(i)
                    value = x[plane, other, np.uint64(i + shift)]
                    scale[plane, row, at] += share * value * value
        for i in range(columns):
            y[plane, row, i] = x[plane, row, i] / _power(scale[plane, row, i], beta)


@kernel
def _chain(
    x: Any, y: Any, scale: Any, dy: Any, tall: Any, wide: Any, slope: Any, beta: Any, dx: Any
) -> None:
    """dx = dy scale^-beta - slope x sum of dy y / scale over neighbours."""
    rows, columns = x.shape[1], x.shape[2]
    widest = min(wide, columns - 1)
    for job in prange(x.shape[0] * rows):
        plane = job // rows
        row = job % rows
        for i in range(columns):
            dx[plane, row, i] = dx.dtype.type(0)
        for other in range(max(0, row - tall), min(rows, row + tall + 1)):
            for shift in range(-widest, widest + 1):
                for i in range(max(0, -shift), min(columns, columns - shift)):
                    at, there = np.uint64(i), np.uint64(i + shift)
                    product = dy[plane, other, there] * y[plane, other, there]
                    dx[plane, row, at] += product / scale[plane, other, there]
        for i in range(columns):
            direct = dy[plane, row, i] / _power(scale[plane, row, i], beta)
            dx[plane, row, i] = direct - slope * x[plane, row, i] * dx[plane, row, i]
