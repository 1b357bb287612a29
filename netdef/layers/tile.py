"""Tile: y = [x, x, ...], repeated along an axis."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array, Blob, Shape
from netdef.jit import kernel, prange
from netdef.kernels.elementwise import BLOCK
from netdef.layer import Layer, register
from netdef.layers.common.arrays import as_rows, check_counts
from netdef.layers.common.axes import axis_of


@register("Tile", config="tile_param")
class Tile(Layer):
    """Repeats its bottom ``tiles`` times along ``axis``.

        y[n, t C + c] = x[n, c]  for t = 0 ... tiles - 1

        bottom  x  [..., C, ...], where C is the length of ``axis``
        top     y  [..., tiles C, ...]

    Example::

        layer {
          name: "tile"
          type: "Tile"
          bottom: "embedding"  # 16x1x300
          top: "each_step"
          tile_param {
            axis: 1
            tiles: 20
          }
        }

    Source: Caffe 1.0.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        axis = axis_of(self, x, self.config.axis, "tile_param", "axis")
        check_counts(self, "tile_param", "tiles")
        return [(*x[:axis], x[axis] * self.config.tiles, *x[axis + 1 :])]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._axis = self.config.axis % len(bottom[0].shape)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        _repeat(as_rows(bottom[0].data, self._axis), self._copies(top[0].data))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            _sum(self._copies(top[0].diff), as_rows(bottom[0].diff, self._axis))

    def _copies(self, y: Array) -> Array:
        """The top as [rows, tiles, columns]."""
        rows, columns = as_rows(y, self._axis).shape
        return y.reshape(rows, self.config.tiles, columns // self.config.tiles)


@kernel
def _repeat(x: Any, y: Any) -> None:
    for job in prange(y.shape[0] * y.shape[1]):
        i = job // y.shape[1]
        t = job % y.shape[1]
        for j in range(y.shape[2]):
            y[i, t, j] = x[i, j]


@kernel
def _sum(dy: Any, dx: Any) -> None:
    blocks = (dy.shape[2] + BLOCK - 1) // BLOCK
    for job in prange(dy.shape[0] * blocks):
        i = job // blocks
        first = job % blocks * BLOCK
        end = min(dy.shape[2], first + BLOCK)
        for j in range(first, end):
            dx[i, j] = dy[i, 0, j]
        for t in range(1, dy.shape[1]):
            for j in range(first, end):
                dx[i, j] += dy[i, t, j]
