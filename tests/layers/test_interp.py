"""Interp: every way to give a size, pads, one pixel, what keeps corners in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.testing import Case, Mistake, Trial

X = (2, 3, 5, 4)


def line(size: int, count: int) -> Any:
    """A matrix that makes ``count`` values of ``size``: interpolation along one axis."""
    weights = np.zeros((count, size))
    for i in range(count):
        place = i * (size - 1) / (count - 1) if count > 1 else 0.0
        for pixel in range(size):
            weights[i, pixel] = max(0.0, 1 - abs(place - pixel))
    return weights


def interp(height: int, width: int, begin: int = 0, end: int = 0) -> Callable[..., Any]:
    """Two products with tent functions, of what lies between the pads."""

    def expected(x: Any, *reference: Any) -> Any:
        inner = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
        rows, columns = line(inner.shape[2], height), line(inner.shape[3], width)
        return np.einsum("ih,nchw,jw->ncij", rows, inner, columns)

    return expected


def case(options: str, height: int, width: int, begin: int = 0, end: int = 0) -> Case:
    text = f'type: "Interp" interp_param {{ {options} }}'
    other: list[Shape] = [(1, 3, 5, 4)]
    return Case(text, [X], interp(height, width, begin, end), other=other)


CASES = [
    case("height: 9 width: 7", 9, 7),
    case("height: 3 width: 2", 3, 2),
    case("height: 5 width: 4", 5, 4),
    case("height: 1 width: 1", 1, 1),
    case("height: 13 width: 1", 13, 1),
    case("zoom_factor: 2", 9, 7),
    case("zoom_factor: 1", 5, 4),
    case("zoom_factor: 8", 33, 25),
    case("shrink_factor: 2", 3, 2),
    case("shrink_factor: 3", 2, 2),
    case("shrink_factor: 9", 1, 1),
    case("shrink_factor: 2 zoom_factor: 3", 7, 4),
    case("full_zoom_factor: 2", 10, 8),
    case("height: 9 width: 7 pad_beg: -1", 9, 7, 1),
    case("height: 4 width: 6 pad_beg: -1 pad_end: -2", 4, 6, 1, 2),
    case("zoom_factor: 2 pad_end: -1", 7, 5, 0, 1),
    case("shrink_factor: 2 pad_beg: 0 pad_end: 0", 3, 2),
    # One factor alone counts more than a size, and both less.
    case("zoom_factor: 2 height: 3 width: 3", 9, 7),
    case("shrink_factor: 2 height: 9 width: 9", 3, 2),
    case("shrink_factor: 2 zoom_factor: 2 height: 9 width: 8", 9, 8),
    Case('type: "Interp"', [X, (1, 1, 8, 3)], interp(8, 3), other=[(1, 3, 6, 7), (1, 1, 2, 4)]),
    Case('type: "Interp"', [X, (8, 3)], interp(8, 3), other=[(1, 3, 6, 7), (8, 3)]),
    Case(
        'type: "Interp" interp_param { height: 4 width: 3 }',
        [(1, 2, 1, 1)],
        interp(4, 3),
        other=[(1, 2, 2, 1)],
    ),
    Case(
        'type: "Interp" interp_param { height: 4 width: 3 }',
        [(0, 2, 3, 3)],
        interp(4, 3),
        other=[(1, 2, 3, 3)],
    ),
]


def mistake(options: str, message: str, at: str, *bottoms: Shape) -> Mistake:
    return Mistake(f'type: "Interp" interp_param {{ {options} }}', bottoms or [X], message, at)


MISTAKES = [
    Mistake('type: "Interp"', [X], "no size is given", "layer"),
    mistake("height: 4", "give both height and width", "4"),
    mistake("height: 0 width: 4", "height is 0, but must be at least 1", "0"),
    mistake("zoom_factor: 0", "zoom_factor is 0, but must be at least 1", "0"),
    mistake("shrink_factor: -2", "shrink_factor is -2, but must be at least 1", "-2"),
    mistake(
        "zoom_factor: 2 pad_beg: 1",
        "pad_beg is 1, but only 0 and negative values, which cut off, have a meaning",
        "1",
    ),
    mistake(
        "zoom_factor: 2 pad_beg: -2 pad_end: -2",
        "pad_beg -2 and pad_end -2 leave nothing of the bottom 2x3x5x4",
        "-2 pad_end",
    ),
    mistake("zoom_factor: 2", "needs a bottom of 4 axes", '"x0"', (2, 3, 5)),
    mistake(
        "pad_beg: 0",
        "the second bottom is to give height and width, but it is 7",
        '"x1"',
        X,
        (7,),
    ),
]


def test_corners_and_pixels_stay_what_they_are() -> None:
    """Of three times as many places, every third is a pixel, to the last bit."""
    with Trial(case("zoom_factor: 3", 13, 10), np.float32) as trial:
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data[:, :, ::3, ::3], trial.bottom[0].data)


def test_what_is_cut_off_has_no_gradient() -> None:
    with Trial(case("height: 4 width: 6 pad_beg: -1 pad_end: -2", 4, 6, 1, 2)) as trial:
        trial.forward()
        trial.backward()
        dx = trial.bottom[0].diff
        assert dx[:, :, 1:3, 1:2].all()
        assert not dx[:, :, [0, 3, 4]].any()
        assert not dx[..., [0, 2, 3]].any()
