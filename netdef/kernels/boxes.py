"""Boxes: how far two overlap, which come first, and which of those that overlap are kept.

A box is (x1, y1, x2, y2). Where coordinates are pixels, a box from 3 to 5 is 3 wide: then ``extra``
is 1, and 0 where they are parts of the image.

What comes first is decided by one total order, score and then index, so equal scores never change
places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import inline


@inline
def area(box: Any, extra: Any) -> Any:
    """0 where a box ends before it begins."""
    if box[2] < box[0] or box[3] < box[1]:
        return 0.0
    width = np.float64(box[2]) - np.float64(box[0]) + extra
    height = np.float64(box[3]) - np.float64(box[1]) + extra
    return width * height


@inline
def overlap(a: Any, b: Any, extra: Any) -> Any:
    """The intersection of two boxes over their union."""
    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return 0.0
    width = np.float64(min(a[2], b[2])) - np.float64(max(a[0], b[0])) + extra
    height = np.float64(min(a[3], b[3])) - np.float64(max(a[1], b[1])) + extra
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (area(a, extra) + area(b, extra) - both)


@inline
def is_finite(box: Any) -> Any:
    """Whether no coordinate is infinite or NaN."""
    return (
        np.isfinite(box[0]) and np.isfinite(box[1]) and np.isfinite(box[2]) and np.isfinite(box[3])
    )


@inline
def precedes(scores: Any, a: Any, b: Any) -> Any:
    """Whether a comes before b. No score is NaN."""
    return scores[a] > scores[b] or (scores[a] == scores[b] and a < b)


@inline
def sink(scores: Any, heap: Any, start: Any, size: Any) -> Any:
    """Let heap[start] change places with what comes before it, until nothing below it does."""
    at = start
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and precedes(scores, heap[below + 1], heap[below]):
            below += 1
        if not precedes(scores, heap[below], heap[at]):
            break
        mine = heap[at]
        heap[at] = heap[below]
        heap[below] = mine
        at = below


@inline
def gather_heap(scores: Any, least: Any, heap: Any) -> Any:
    """Make a heap of every index with a score above ``least``; gives how many there are."""
    size = 0
    for i in range(scores.size):
        if scores[i] > least:
            heap[size] = i
            size += 1
    for start in range(size // 2 - 1, -1, -1):
        sink(scores, heap, start, size)
    return size


@inline
def pop(scores: Any, heap: Any, size: Any) -> Any:
    """Take the first of ``size`` indices from a heap; the place behind the others is free then."""
    first = heap[0]
    heap[0] = heap[size - 1]
    sink(scores, heap, 0, size - 1)
    return first


@inline
def suppress(
    boxes: Any,
    scores: Any,
    least: Any,
    looks: Any,
    most: Any,
    threshold: Any,
    eta: Any,
    extra: Any,
    least_area: Any,
    order: Any,
) -> Any:
    """Greedy non-maximum suppression; gives how many boxes are kept.

    Of the ``looks`` boxes with the highest scores above ``least``, each is kept unless it overlaps
    one kept before by more than ``threshold``; ``most`` end it. What is not finite or
    is smaller than ``least_area`` is no box. With ``eta`` below 1 the threshold
    shrinks by that factor with each box kept, until it is 0.5. Kept ones stand, the first of them
    last, at the end of ``order``, which has room for the index of every box.
    """
    end = order.size - 1
    size = gather_heap(scores, least, order)
    kept = 0
    for _ in range(min(size, looks)):
        if kept >= most:
            break
        i = pop(scores, order, size)
        size -= 1
        keep = is_finite(boxes[i]) and area(boxes[i], extra) >= least_area
        for k in range(kept if keep else 0):
            if overlap(boxes[i], boxes[order[end - k]], extra) > threshold:
                keep = False
                break
        if keep:
            order[end - kept] = i
            kept += 1
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return kept


#: How a predicted box says where it is, as PriorBoxParameter.CodeType numbers them.
CORNER, CENTER_SIZE, CORNER_SIZE = 1, 2, 3


@inline
def decode(code: Any, prior: Any, variance: Any, scaled: Any, told: Any, box: Any) -> Any:
    """box = what ``told`` says about ``prior``; the variances are in it already if ``scaled``."""
    left, top = np.float64(prior[0]), np.float64(prior[1])
    right, bottom = np.float64(prior[2]), np.float64(prior[3])
    width, height = right - left, bottom - top
    a, b, c, d = np.float64(told[0]), np.float64(told[1]), np.float64(told[2]), np.float64(told[3])
    if not scaled:
        a, b, c, d = a * variance[0], b * variance[1], c * variance[2], d * variance[3]
    if code == CENTER_SIZE:
        x, y = a * width + (left + right) / 2, b * height + (top + bottom) / 2
        w, h = np.exp(c) * width, np.exp(d) * height
        box[0], box[1], box[2], box[3] = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        return
    if code == CORNER:
        width, height = 1.0, 1.0
    box[0], box[1] = left + a * width, top + b * height
    box[2], box[3] = right + c * width, bottom + d * height


@inline
def encode(code: Any, prior: Any, variance: Any, box: Any) -> Any:
    """The four numbers that say about ``prior`` that ``box`` is meant, over the variances."""
    left, top = np.float64(prior[0]), np.float64(prior[1])
    right, bottom = np.float64(prior[2]), np.float64(prior[3])
    width, height = right - left, bottom - top
    x1, y1 = np.float64(box[0]), np.float64(box[1])
    x2, y2 = np.float64(box[2]), np.float64(box[3])
    if code == CENTER_SIZE:
        a = ((x1 + x2) / 2 - (left + right) / 2) / width
        b = ((y1 + y2) / 2 - (top + bottom) / 2) / height
        c, d = np.log((x2 - x1) / width), np.log((y2 - y1) / height)
    else:
        if code == CORNER:
            width, height = 1.0, 1.0
        a, b = (x1 - left) / width, (y1 - top) / height
        c, d = (x2 - right) / width, (y2 - bottom) / height
    return a / variance[0], b / variance[1], c / variance[2], d / variance[3]
