"""PSROIPooling: the means of a region, each bin from channels of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import inline, kernel, prange
from netdef.layer import Layer, Work, register
from netdef.layers.common.arrays import check_counts, scratch
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.rois import (
    check_regions,
    check_scale,
    clipped,
    nearest,
    read_regions,
)


@register("PSROIPooling", config="psroi_pooling_param")
class PSROIPooling(Layer):
    """Takes the mean in each bin of each region of interest, from channels that belong to the bin.

        y[r, d, i, j] = mean of x[image of r, (d G + i) G + j] in bin (i, j) of G x G

        bottom  x     [N, output_dim G^2, H, W], where G is ``group_size``
                rois  [R, 5]: image, x1, y1, x2, y2, in pixels of the network's input
        top     y     [R, output_dim, G, G]

    Coordinates are rounded and then taken to those of x by ``spatial_scale``; the last row and
    column of pixels belong to the region, and it is at least 0.1 wide and high. A bin runs from the
    value that its first edge is in to the one that its last edge is in; what is outside of x is cut
    off. A bin without any value gives 0. The regions have no gradient.

    Example::

        layer {
          name: "psroipooled_cls_rois"
          type: "PSROIPooling"
          bottom: "rfcn_cls"  # 1x1029x38x50
          bottom: "rois"      # 300x5
          top: "psroipooled_cls_rois"
          psroi_pooling_param {
            spatial_scale: 0.0625
            output_dim: 21
            group_size: 7
          }
        }

    Source: Dai, Li, He & Sun, "R-FCN: object detection via region-based fully convolutional
    networks", NIPS 2016.
    """

    bottoms = 2
    no_gradient = frozenset({1})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, rois = bottoms
        refuse_fields(self, "psroi_pooling_param", "PSROIAlign", "sample_num")
        check_regions(self, x, rois)
        check_scale(self, "psroi_pooling_param")
        check_counts(self, "psroi_pooling_param", "output_dim", "group_size")
        dim, group = self.config.output_dim, self.config.group_size
        if x[1] != dim * group**2:
            raise self.error(
                f"output_dim {dim} and group_size {group} need {dim} * {group} * {group} = "
                f"{dim * group**2} channels, but the bottom is {shape_text(x)}",
                "bottom",
                0,
            )
        return [(rois[0], dim, group, group)]

    def work(self, *bottoms: Shape) -> list[Work]:
        rois, group = bottoms[1][0], self.config.group_size
        # The image of each region; where each row of bins begins and ends, and each column.
        return [Work((rois,), np.int64), Work((rois, 2, group, 2), np.int64)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._image, self._edges = self.work_arrays
        self._scale = self.dtype(self.config.spatial_scale)
        self._size = scratch((2,), np.int64)
        self._size[:] = bottom[0].shape[2:]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].data
        rois = read_regions(self, bottom[1], len(x), self._image)
        _find_bins(rois, self._scale, self._size, self._edges)
        _means(x, self._image, self._edges, top[0].data)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            _spread(top[0].diff, self._image, self._edges, bottom[0].diff)


@kernel
def _find_bins(rois: Any, scale: Any, size: Any, edges: Any) -> None:
    """edges[r, axis, bin] = first value of a bin and the one behind its last; rows come first."""
    bins = edges.shape[2]
    for job in prange(rois.shape[0] * 2):
        r = job // 2
        axis = job % 2
        one = rois.dtype.type(1)
        start = _pixel(rois[r, 2 - axis]) * scale
        end = (_pixel(rois[r, 4 - axis]) + one) * scale
        length = max(end - start, rois.dtype.type(0.1)) / rois.dtype.type(bins)
        for k in range(bins):
            first = np.int64(np.floor(rois.dtype.type(k) * length + start))
            last = np.int64(np.ceil(rois.dtype.type(k + 1) * length + start))
            edges[r, axis, k, 0] = clipped(first, size[axis])
            edges[r, axis, k, 1] = clipped(last, size[axis])


@inline
def _pixel(value: Any) -> Any:
    """The nearest whole number, in the type of the value."""
    return type(value)(nearest(value))


@inline
def _values(edges: Any, r: Any, i: Any, j: Any) -> Any:
    """How many values bin (i, j) of region r has."""
    rows = edges[r, 0, i, 1] - edges[r, 0, i, 0]
    columns = edges[r, 1, j, 1] - edges[r, 1, j, 0]
    return rows * columns if rows > 0 and columns > 0 else 0


@kernel
def _means(x: Any, image: Any, edges: Any, y: Any) -> None:
    dims, bins = y.shape[1], y.shape[2]
    for job in prange(y.shape[0] * dims):
        r = job // dims
        d = job % dims
        for i in range(bins):
            for j in range(bins):
                count = _values(edges, r, i, j)
                plane = x[image[r], (d * bins + i) * bins + j]
                total = 0.0
                for h in range(edges[r, 0, i, 0], edges[r, 0, i, 1]):
                    for w in range(edges[r, 1, j, 0], edges[r, 1, j, 1]):
                        total += plane[h, w]
                y[r, d, i, j] = total / count if count else 0.0


@kernel
def _spread(dy: Any, image: Any, edges: Any, dx: Any) -> None:
    """dx = the gradients of bins, one region after the other: a thread has channels of its own."""
    bins = dy.shape[2]
    for c in prange(dx.shape[1]):
        d = c // (bins * bins)
        i = c // bins % bins
        j = c % bins
        for n in range(dx.shape[0]):
            dx[n, c] = 0
        for r in range(dy.shape[0]):
            count = _values(edges, r, i, j)
            if count:
                share = dy[r, d, i, j] / dx.dtype.type(count)
                plane = dx[image[r], c]
                for h in range(edges[r, 0, i, 0], edges[r, 0, i, 1]):
                    for w in range(edges[r, 1, j, 0], edges[r, 1, j, 1]):
                        plane[h, w] += share
