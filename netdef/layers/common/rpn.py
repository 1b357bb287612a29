"""Region proposal networks: anchors at each position of a map, moved to where objects may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.jit import inline, kernel, prange
from netdef.kernels.boxes import suppress

#: The score of what is no proposal.
NONE = -np.inf


class Limits(NamedTuple):
    """Which proposals are kept: ``looks`` enter non-maximum suppression, ``most`` come out."""

    looks: int
    most: int
    threshold: float
    min_size: float


def make_anchors(
    base_size: int, ratios: Sequence[float], scales: Sequence[float], rounds: Any
) -> Array:
    """Boxes around that of the first position, [A, 4]; height by width is each of ``ratios``.

    ``rounds`` is how forks of Caffe round: width and height do not differ for the usual ratios.
    """
    area = float(base_size) ** 2
    centre = 0.5 * (base_size - 1)
    anchors = []
    for ratio in ratios:
        width = float(rounds(np.sqrt(area / ratio)))
        height = float(rounds(width * ratio))
        for scale in scales:
            half_w, half_h = 0.5 * (width * scale - 1), 0.5 * (height * scale - 1)
            anchors.append([centre - half_w, centre - half_h, centre + half_w, centre + half_h])
    return np.array(anchors, np.float64).reshape(-1, 4)


class Proposals:
    """Finds the regions that a batch of predictions proposes."""

    def __init__(self, anchors: Array, stride: float, limits: Limits, removes: bool) -> None:
        """A box below ``min_size`` is removed if it ``removes``; else its score becomes 0."""
        self._anchors = anchors
        self._stride = stride
        self._limits = limits
        self._removes = removes

    def find(self, scores: Array, deltas: Array, info: Array) -> tuple[Array, Array]:
        """Regions, [R, 5], and their scores, [R]; those of an image follow the best first.

        ``scores`` are [N, 2 A, H, W], those of objects in the second half; ``deltas``
        [N, 4 A, H, W]; ``info`` [1 or N, 2 or more]: height and width of the image, and the scale
        of min_size for both, or for height and for width.
        """
        images, (height, width) = len(scores), scores.shape[2:]
        count = height * width * len(self._anchors)
        boxes = np.empty((images, count, 4), scores.dtype)
        keys = np.empty((images, count), scores.dtype)
        sizes = np.ones((images, 4))
        sizes[:, :2] = info[:, :2]
        if info.shape[1] > 2:
            sizes[:, 2:] = info[:, 2:4] if info.shape[1] > 3 else info[:, 2:3]
        sizes[:, 2:] *= self._limits.min_size
        _move(scores, deltas, self._anchors, self._stride, sizes, self._removes, boxes, keys)
        looks, most, threshold, _ = self._limits
        looks = count if looks <= 0 else looks
        most = count if most <= 0 else most
        order = np.empty((images, count), np.int32)
        counts = np.empty(images, np.int64)
        _select(boxes, keys, looks, most, float(threshold), order, counts)
        ends = counts.cumsum()
        total = int(ends[-1]) if images else 0
        rois, found = np.empty((total, 5), scores.dtype), np.empty(total, scores.dtype)
        _gather(boxes, keys, order, counts, ends, rois, found)
        return rois, found


@inline
def _within(value: Any, size: Any) -> Any:
    """The nearest pixel of an axis of this many; a NaN stays one."""
    if value > size - 1:
        value = size - 1
    return 0.0 if value < 0 else value


@kernel
def _move(
    scores: Any,
    deltas: Any,
    anchors: Any,
    stride: Any,
    sizes: Any,
    removes: Any,
    boxes: Any,
    keys: Any,
) -> None:
    """The box and the score of each anchor, in the order of rows, columns and anchors."""
    rows, columns, count = scores.shape[2], scores.shape[3], anchors.shape[0]
    for job in prange(scores.shape[0] * rows):
        n = job // rows
        i = job % rows
        for j in range(columns):
            for a in range(count):
                at = (i * columns + j) * count + a
                width = anchors[a, 2] - anchors[a, 0] + 1
                height = anchors[a, 3] - anchors[a, 1] + 1
                x = anchors[a, 0] + j * stride + 0.5 * width
                y = anchors[a, 1] + i * stride + 0.5 * height
                x += deltas[n, 4 * a, i, j] * width
                y += deltas[n, 4 * a + 1, i, j] * height
                half_w = 0.5 * np.exp(np.float64(deltas[n, 4 * a + 2, i, j])) * width
                half_h = 0.5 * np.exp(np.float64(deltas[n, 4 * a + 3, i, j])) * height
                box = boxes[n, at]
                box[0] = _within(x - half_w, sizes[n, 1])
                box[1] = _within(y - half_h, sizes[n, 0])
                box[2] = _within(x + half_w, sizes[n, 1])
                box[3] = _within(y + half_h, sizes[n, 0])
                score = scores[n, count + a, i, j]
                large = box[2] - box[0] + 1 >= sizes[n, 3] and box[3] - box[1] + 1 >= sizes[n, 2]
                if not large:
                    score = scores.dtype.type(NONE if removes else 0.0)
                keys[n, at] = score


@kernel
def _select(
    boxes: Any, keys: Any, looks: Any, most: Any, threshold: Any, order: Any, counts: Any
) -> None:
    for n in prange(boxes.shape[0]):
        counts[n] = suppress(
            boxes[n], keys[n], NONE, looks, most, threshold, 1.0, 1.0, 0.0, order[n]
        )


@kernel
def _gather(
    boxes: Any, keys: Any, order: Any, counts: Any, ends: Any, rois: Any, found: Any
) -> None:
    for n in prange(boxes.shape[0]):
        for k in range(counts[n]):
            at = order[n, order.shape[1] - 1 - k]
            row = ends[n] - counts[n] + k
            found[row] = keys[n, at]
            rois[row, 0] = n
            for e in range(4):
                rois[row, 1 + e] = boxes[n, at, e]
