"""CropCenter: margins of each axis, none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial

X = (2, 3, 7, 6)


def cropped(*margins: int) -> Callable[..., Any]:
    def expected(x: Any) -> Any:
        for axis, margin in enumerate(margins):
            x = np.take(x, range(margin, x.shape[axis] - margin), axis=axis)
        return x

    return expected


def text(*margins: int) -> str:
    sizes = " ".join(f"crop_size: {margin}" for margin in margins)
    return f'type: "CropCenter" crop_center_param {{ {sizes} }}'


def case(*margins: int, x: tuple[int, ...] = X) -> Case:
    return Case(text(*margins), [x], cropped(*margins))


CASES = [
    case(0, 0, 2, 1),
    case(0, 0, 3, 2),
    case(0, 1, 0, 0),
    case(0, 0, 0, 0),
    case(1, 2, x=(3, 7)),
    case(0, 1, x=(0, 3)),
    Case('type: "CropCenter" crop_center_param { crop_h: 2 crop_w: 1 }', [X], cropped(0, 0, 2, 1)),
    Case('type: "CropCenter" crop_center_param { crop_w: 2 }', [(4, 7)], cropped(0, 2)),
]

MISTAKES = [
    Mistake(
        text(2, 1),
        [X],
        "2 crop_size are given, but the bottom 2x3x7x6 has 4 axes: give one for each",
        "crop_center_param",
    ),
    Mistake('type: "CropCenter"', [X], "0 crop_size are given", "layer"),
    Mistake(
        text(0, 0, 2, 3),
        [X],
        "crop_size 3 at both ends leaves nothing of axis 3 of the bottom 2x3x7x6",
        "3",
    ),
    Mistake(
        'type: "CropCenter" crop_center_param { crop_h: 2 crop_size: 1 }',
        [X],
        "give crop_size, or crop_h and crop_w, not both",
        "2",
    ),
    Mistake(
        'type: "CropCenter" crop_center_param { crop_h: 2 crop_w: 3 }',
        [X],
        "crop_w 3 at both ends leaves nothing of axis 3",
        "3",
    ),
    Mistake(text(0, 0, 4294967295, 0), [X], "leaves nothing of axis 2", "4294967295"),
]


def test_the_margin_has_no_gradient() -> None:
    with Trial(case(0, 0, 2, 1)) as trial:
        trial.forward()
        trial.backward()
        expected = np.pad(trial.top[0].diff, [(0, 0), (0, 0), (2, 2), (1, 1)])
        np.testing.assert_array_equal(trial.bottom[0].diff, expected)
