"""ResizeBilinear and ResizeNearestNeighbor: both alignments, orders of axes, forms of a size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.testing import Case, Mistake

X = (2, 3, 5, 4)


def places(size: int, count: int, align: bool) -> list[float]:
    if align and count > 1:
        return [i * (size - 1) / (count - 1) for i in range(count)]
    return [i * size / count for i in range(count)]


def linear(size: int, count: int, align: bool) -> Any:
    """A matrix that makes ``count`` values of ``size``; the last pixel goes on beyond its place."""
    weights = np.zeros((count, size))
    for i, place in enumerate(places(size, count, align)):
        for pixel in range(size + 1):
            weights[i, min(pixel, size - 1)] += max(0.0, 1 - abs(place - pixel))
    return weights


def nearest(size: int, count: int, align: bool) -> Any:
    weights = np.zeros((count, size))
    for i, place in enumerate(places(size, count, align)):
        weights[i, math.floor(place + 0.5) if align else math.floor(place)] = 1
    return weights


def resized(
    along: Callable[..., Any], height: int, width: int, align: bool = False, last: bool = False
) -> Callable[..., Any]:
    def expected(x: Any) -> Any:
        h, w = x.shape[1:3] if last else x.shape[2:]
        rows, columns = along(h, height, align), along(w, width, align)
        return np.einsum("ih,nhwc,jw->nijc" if last else "ih,nchw,jw->ncij", rows, x, columns)

    return expected


BILINEAR, NEAREST = "ResizeBilinear", "ResizeNearestNeighbor"
FIELD = {BILINEAR: "resize_bilinear_param", NEAREST: "resize_nearest_neighbor_param"}
ALONG = {BILINEAR: linear, NEAREST: nearest}


def case(type_name: str, options: str, height: int, width: int, **how: bool) -> Case:
    if not how.get("last"):
        options += ' data_format: "NCHW"'
    text = f'type: "{type_name}" {FIELD[type_name]} {{ {options} }}'
    return Case(text, [X], resized(ALONG[type_name], height, width, **how))


CASES = [
    one
    for kind in (BILINEAR, NEAREST)
    for one in (
        case(kind, "output_height: 10 output_width: 8", 10, 8),
        case(kind, "output_height: 7 output_width: 9", 7, 9),
        case(kind, "output_height: 3 output_width: 1", 3, 1),
        case(kind, "output_height: 5 output_width: 4", 5, 4),
        case(kind, "output_height: 9 output_width: 7 align_corners: true", 9, 7, align=True),
        case(kind, "output_height: 3 output_width: 1 align_corners: true", 3, 1, align=True),
        case(kind, "output_height: 6 output_width: 10", 6, 10, last=True),
        case(
            kind,
            "output_height: 6 output_width: 9 align_corners: true",
            6,
            9,
            align=True,
            last=True,
        ),
        case(kind, "scale_height: 2 scale_width: 1.5", 10, 6),
        case(kind, "scale_height: 0.5 output_width: 3", 2, 3),
        case(kind, "", 5, 4),
    )
]


def mistakes(kind: str) -> list[Mistake]:
    def one(options: str, message: str, at: str, x: Shape = X) -> Mistake:
        return Mistake(f'type: "{kind}" {FIELD[kind]} {{ {options} }}', [x], message, at)

    return [
        one("output_height: 0", "output_height is 0, but must be at least 1", "0"),
        one('data_format: "CHWN"', 'data_format is "CHWN", but must be "NHWC" or "NCHW"', '"C'),
        one("scale_width: 0.1", "scale_width is 0.1, which makes 5 pixels none", "0.1"),
        one("scale_width: nan", "scale_width is nan", "nan"),
        one(
            "",
            "needs a bottom of 4 axes (N, H, W, C) with pixels, but it is 2x3x4",
            '"x0"',
            (2, 3, 4),
        ),
        one("", "needs a bottom of 4 axes", '"x0"', (2, 0, 4, 3)),
    ]


MISTAKES = [*mistakes(BILINEAR), *mistakes(NEAREST)]
