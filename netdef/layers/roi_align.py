"""ROIAlign: a region as a map of fixed size, without rounding its coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Blob, Shape
from netdef.jit import inline, kernel, prange
from netdef.layer import Layer, Work, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.rois import check_pooled, check_regions, check_scale, read_regions

#: Samples along one axis of a bin, at most: a region far larger than the features needs no more.
MOST_SAMPLES = 1024


@register("ROIAlign", config="roi_align_param")
class ROIAlign(Layer):
    """Takes the mean of samples, interpolated between values, in bins of each region of interest.

        bottom  x     [N, C, H, W]
                rois  [R, 5]: image, x1, y1, x2, y2, in pixels of the network's input
        top     y     [R, C, pooled_h, pooled_w]

    ``spatial_scale`` takes coordinates to those of x, and nothing is rounded. A region is at least
    1 wide and high. Each bin has ``sampling_ratio`` x ``sampling_ratio`` samples, evenly spaced;
    without it (0 or less) as many as the bin is wide and high, rounded up. A sample is interpolated
    bilinearly between the four values around it. One that is more than 1 outside of x counts as 0;
    one that is less takes the value at the edge. The regions have no gradient.

    Deviations: forks of Caffe disagree about this layer. This is that of Mask R-CNN's authors,
    which most have taken over. At most 1024 samples are taken along each axis of a bin.

    Example::

        layer {
          name: "roi_align"
          type: "ROIAlign"
          bottom: "conv5_3"  # 1x512x38x50
          bottom: "rois"     # 128x5
          top: "roi_align"
          roi_align_param {
            pooled_h: 7
            pooled_w: 7
            spatial_scale: 0.0625
            sampling_ratio: 2
          }
        }

    Source: He, Gkioxari, Dollar & Girshick, "Mask R-CNN", ICCV 2017.
    """

    bottoms = 2
    no_gradient = frozenset({1})
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, rois = bottoms
        others = "roi_end_mode", "position_sensitive", "num_roi_per_image"
        refuse_fields(self, "roi_align_param", "other forks", *others)
        check_regions(self, x, rois)
        check_scale(self, "roi_align_param")
        name = self._ratio_name
        if getattr(self.config, name) > MOST_SAMPLES:
            raise self.error(
                f"{name} is {getattr(self.config, name)}, but can be at most {MOST_SAMPLES}",
                "roi_align_param",
                name,
            )
        return [(rois[0], x[1], *check_pooled(self, "roi_align_param"))]

    @property
    def _ratio_name(self) -> str:
        """What the file calls sampling_ratio."""
        return "sample_ratio" if self.config.HasField("sample_ratio") else "sampling_ratio"

    def work(self, *bottoms: Shape) -> list[Work]:
        rois = bottoms[1][0]
        # The image of each region; where its rows begin, how long a bin is, samples in it; the
        # same of its columns.
        return [Work((rois,), np.int64), Work((rois, 2, 3), np.float64)]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._image, self._bins = self.work_arrays
        self._pooled = scratch((2,), np.int64)
        self._pooled[:] = top[0].shape[2:]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].data
        rois = read_regions(self, bottom[1], len(x), self._image)
        scale = float(self.config.spatial_scale)
        ratio = int(getattr(self.config, self._ratio_name))
        _find_bins(rois, scale, ratio, self._pooled, self._bins)
        _means(x, self._image, self._bins, top[0].data)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            _spread(top[0].diff, self._image, self._bins, bottom[0].diff)


@kernel
def _find_bins(rois: Any, scale: Any, ratio: Any, pooled: Any, bins: Any) -> None:
    for job in prange(rois.shape[0] * 2):
        r = job // 2
        axis = job % 2
        start = np.float64(rois[r, 2 - axis]) * scale
        length = max(np.float64(rois[r, 4 - axis]) * scale - start, 1.0) / pooled[axis]
        bins[r, axis, 0] = start
        bins[r, axis, 1] = length
        bins[r, axis, 2] = ratio if ratio > 0 else min(np.ceil(length), float(MOST_SAMPLES))


@inline
def _around(at: Any, size: Any) -> Any:
    """The values before and behind a place, and the weight of the latter; -1 if there is none."""
    if not (at >= -1 and at <= size):
        return -1, -1, 0.0
    at = max(at, 0.0)
    low = np.int64(at)
    if low >= size - 1:
        return size - 1, size - 1, 0.0
    return low, low + 1, at - low


@kernel
def _means(x: Any, image: Any, bins: Any, y: Any) -> None:
    channels, rows, columns = y.shape[1], y.shape[2], y.shape[3]
    for job in prange(y.shape[0] * channels):
        r = job // channels
        c = job % channels
        plane = x[image[r], c]
        top, tall, down = bins[r, 0, 0], bins[r, 0, 1], np.int64(bins[r, 0, 2])
        left, wide, across = bins[r, 1, 0], bins[r, 1, 1], np.int64(bins[r, 1, 2])
        for i in range(rows):
            for j in range(columns):
                total = 0.0
                for k in range(down):
                    h0, h1, h = _around(top + (i + (k + 0.5) / down) * tall, x.shape[2])
                    if h0 < 0:
                        continue
                    for m in range(across):
                        w0, w1, w = _around(left + (j + (m + 0.5) / across) * wide, x.shape[3])
                        if w0 >= 0:
                            upper = (1 - w) * plane[h0, w0] + w * plane[h0, w1]
                            lower = (1 - w) * plane[h1, w0] + w * plane[h1, w1]
                            total += (1 - h) * upper + h * lower
                y[r, c, i, j] = total / (down * across)


@kernel
def _spread(dy: Any, image: Any, bins: Any, dx: Any) -> None:
    """dx = the gradients of bins, one region after the other: a thread has channels of its own."""
    for c in prange(dx.shape[1]):
        for n in range(dx.shape[0]):
            dx[n, c] = 0
        for r in range(dy.shape[0]):
            plane = dx[image[r], c]
            top, tall, down = bins[r, 0, 0], bins[r, 0, 1], np.int64(bins[r, 0, 2])
            left, wide, across = bins[r, 1, 0], bins[r, 1, 1], np.int64(bins[r, 1, 2])
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    share = np.float64(dy[r, c, i, j]) / (down * across)
                    for k in range(down):
                        h0, h1, h = _around(top + (i + (k + 0.5) / down) * tall, dx.shape[2])
                        if h0 < 0:
                            continue
                        for m in range(across):
                            w0, w1, w = _around(left + (j + (m + 0.5) / across) * wide, dx.shape[3])
                            if w0 >= 0:
                                plane[h0, w0] += (1 - h) * (1 - w) * share
                                plane[h0, w1] += (1 - h) * w * share
                                plane[h1, w0] += h * (1 - w) * share
                                plane[h1, w1] += h * w * share
