"""ROIPooling: the maxima of a region, as a map of fixed size."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import kernel, prange
from netdef.layer import Layer, Work, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.rois import (
    check_pooled,
    check_regions,
    check_scale,
    clipped,
    nearest,
    read_regions,
)

#: What a maximum is above, as in Caffe: the lowest float32.
LOWEST = -3.4028234663852886e38


@register("ROIPooling", config="roi_pooling_param")
class ROIPooling(Layer):
    """Takes the maximum in each of ``pooled_h`` x ``pooled_w`` bins of each region of interest.

        bottom  x     [N, C, H, W]
                rois  [R, 5]: image, x1, y1, x2, y2, in pixels of the network's input
        top     y     [R, C, pooled_h, pooled_w]

    ``spatial_scale`` takes coordinates to those of x, where they are rounded; the last row and the
    last column belong to the region, so it has at least one value. A bin runs from the value that
    its first edge is in to the one that its last edge is in, so neighbours overlap; what is outside
    of x is cut off. A bin without any value gives 0, and has no gradient.

    The first of equal maxima gets the gradient. NaN is passed over; where a bin holds nothing else,
    its maximum is the lowest float32, and has no gradient. The regions have none either.

    Example::

        layer {
          name: "roi_pool5"
          type: "ROIPooling"
          bottom: "conv5_3"  # 1x512x38x50
          bottom: "rois"     # 128x5
          top: "pool5"
          roi_pooling_param {
            pooled_h: 7
            pooled_w: 7
            spatial_scale: 0.0625
          }
        }

    Source: Girshick, "Fast R-CNN", ICCV 2015.
    """

    bottoms = 2
    no_gradient = frozenset({1})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, rois = bottoms
        others = "pooled_size", "ringpad", "pad_ratio"
        refuse_fields(self, "roi_pooling_param", "other forks", *others)
        check_regions(self, x, rois)
        check_scale(self, "roi_pooling_param")
        return [(rois[0], x[1], *check_pooled(self, "roi_pooling_param"))]

    def work(self, *bottoms: Shape) -> list[Work]:
        (top,) = self.shapes(*bottoms)
        # The image of each region, and where in its channel each maximum stands.
        return [Work((top[0],), np.int64), Work(top, np.int32)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._image, self._chosen = self.work_arrays
        self._edges = scratch((top[0].shape[0], 4), np.int64)
        self._scale = self.dtype(self.config.spatial_scale)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].data
        rois = read_regions(self, bottom[1], len(x), self._image)
        _round(rois, self._scale, self._edges)
        _maxima(x, self._image, self._edges, top[0].data, self._chosen)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            _route(top[0].diff, self._image, self._chosen, bottom[0].diff)


@kernel
def _round(rois: Any, scale: Any, edges: Any) -> None:
    """edges[r] = first row, rows, first column, columns of region r on the features."""
    for r in prange(rois.shape[0]):
        left, top = nearest(rois[r, 1] * scale), nearest(rois[r, 2] * scale)
        right, bottom = nearest(rois[r, 3] * scale), nearest(rois[r, 4] * scale)
        edges[r, 0], edges[r, 1] = top, max(bottom - top + 1, 1)
        edges[r, 2], edges[r, 3] = left, max(right - left + 1, 1)


@kernel
def _maxima(x: Any, image: Any, edges: Any, y: Any, chosen: Any) -> None:
    channels, rows, columns = y.shape[1], y.shape[2], y.shape[3]
    height, width = x.shape[2], x.shape[3]
    for job in prange(y.shape[0] * channels):
        r = job // channels
        c = job % channels
        plane = x[image[r], c]
        # Edges of bins are computed in the type of the blob: see common/rois.py.
        tall = y.dtype.type(edges[r, 1]) / y.dtype.type(rows)
        wide = y.dtype.type(edges[r, 3]) / y.dtype.type(columns)
        for i in range(rows):
            top = np.int64(np.floor(y.dtype.type(i) * tall)) + edges[r, 0]
            bottom = np.int64(np.ceil(y.dtype.type(i + 1) * tall)) + edges[r, 0]
            top, bottom = clipped(top, height), clipped(bottom, height)
            for j in range(columns):
                left = np.int64(np.floor(y.dtype.type(j) * wide)) + edges[r, 2]
                right = np.int64(np.ceil(y.dtype.type(j + 1) * wide)) + edges[r, 2]
                left, right = clipped(left, width), clipped(right, width)
                largest = y.dtype.type(LOWEST if bottom > top and right > left else 0.0)
                at = -1
                for h in range(top, bottom):
                    for w in range(left, right):
                        if plane[h, w] > largest:
                            largest = plane[h, w]
                            at = h * width + w
                y[r, c, i, j] = largest
                chosen[r, c, i, j] = at


@kernel
def _route(dy: Any, image: Any, chosen: Any, dx: Any) -> None:
    """dx = the gradients of bins, one region after the other: a thread has channels of its own."""
    width = dx.shape[3]
    for c in prange(dx.shape[1]):
        for n in range(dx.shape[0]):
            dx[n, c] = 0
        for r in range(dy.shape[0]):
            plane = dx[image[r], c]
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    at = chosen[r, c, i, j]
                    if at >= 0:
                        plane[at // width, at % width] += dy[r, c, i, j]
