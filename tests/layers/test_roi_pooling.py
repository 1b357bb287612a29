"""ROIPooling: regions inside, across and beyond the edge, without extent, and of no image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from netdef.errors import DataError
from netdef.testing import Case, Mistake, Trial, distinct, values

LOWEST = -np.finfo(np.float32).max


def half_away(value: float) -> int:
    """Rounded as C does it."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def pooled(rows: int, columns: int, scale: float) -> Callable[..., Any]:
    """Looks into every bin of every region."""

    def expected(x: Any, rois: Any) -> Any:
        rois = rois.reshape(len(rois), 5)
        y = np.zeros((len(rois), x.shape[1], rows, columns))
        for r, (image, *box) in enumerate(rois):
            left, top, right, bottom = (half_away(value * scale) for value in box)
            tall, wide = max(bottom - top + 1, 1) / rows, max(right - left + 1, 1) / columns
            for i in range(rows):
                for j in range(columns):
                    h0, h1 = math.floor(i * tall) + top, math.ceil((i + 1) * tall) + top
                    w0, w1 = math.floor(j * wide) + left, math.ceil((j + 1) * wide) + left
                    bin_ = x[int(image), :, max(h0, 0) : max(h1, 0), max(w0, 0) : max(w1, 0)]
                    if bin_.size:
                        y[r, :, i, j] = bin_.max((1, 2))
        return y

    return expected


X = (2, 3, 8, 10)

REGIONS = {
    "inside": [[0, 8, 8, 60, 40], [1, 16, 0, 47, 63], [0, 8, 8, 60, 40]],
    "whole": [[1, 0, 0, 79, 63]],
    "across the edges": [[0, -20, -9, 30, 20], [1, 50, 40, 120, 99]],
    "outside": [[0, -99, -99, -50, -50], [1, 200, 5, 300, 50]],
    "without extent": [[0, 24, 24, 24, 24], [1, 40, 40, 10, 10]],
    "halves": [[0, 4, 12, 20, 28], [1, -4, -12, 12, 20]],
    "fractions of an image": [[0.9, 8, 8, 60, 40], [1.5, 8, 8, 60, 40], [-0.5, 8, 8, 60, 40]],
}


def case(regions: Sequence[Any], rows: int = 3, columns: int = 2, shape: Any = None) -> Case:
    options = f"pooled_h: {rows} pooled_w: {columns} spatial_scale: 0.125"
    shape = shape or (len(regions), 5)
    return Case(
        f'type: "ROIPooling" roi_pooling_param {{ {options} }}',
        [X, shape],
        pooled(rows, columns, 0.125),
        [distinct, values(np.reshape(regions, shape))],
        other=[(3, 3, 9, 7), shape],
    )


CASES = [
    *(case(regions) for regions in REGIONS.values()),
    case(REGIONS["inside"], 7, 7),
    case(REGIONS["inside"], 1, 1),
    case(REGIONS["inside"], shape=(3, 5, 1, 1)),
    Case(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }',
        [X, (2, 5)],
        pooled(2, 2, 1),
        [distinct, values([[0, 1, 2, 6, 7], [1, 0, 0, 3, 3]])],
        other=[(2, 3, 9, 9), (2, 5)],
    ),
    Case(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }',
        [X, (0, 5)],
        lambda x, rois: np.zeros((0, 3, 2, 2)),
        other=[(1, 3, 4, 4), (0, 5)],
    ),
]


def mistake(
    message: str,
    at: str,
    options: str = "pooled_h: 2 pooled_w: 2",
    x: Any = X,
    rois: Any = (1, 5),
    given: Any = None,
) -> Mistake:
    text = f'type: "ROIPooling" roi_pooling_param {{ {options} }}'
    if given is None:
        return Mistake(text, [x, rois], message, at)
    draw = [distinct, values(given)]
    return Mistake(text, [x, (len(given), 5)], message, at, draw, error=DataError)


MISTAKES = [
    mistake("pooled_h is missing", "roi_pooling_param", "pooled_w: 2"),
    mistake("pooled_w is 0, but must be at least 1", "0", "pooled_h: 2 pooled_w: 0"),
    mistake(
        "spatial_scale is 0, but must be above 0", "0", "pooled_h: 2 pooled_w: 2 spatial_scale: 0"
    ),
    mistake("needs a bottom of 4 axes", '"x0"', x=(2, 3)),
    mistake("the second bottom has 5 numbers for each region", '"x1"', rois=(3, 4)),
    mistake(
        "ringpad is of other forks, whose ROIPooling is another layer",
        "true",
        "pooled_h: 2 pooled_w: 2 ringpad: true",
    ),
    mistake(
        "region 1 (counted from 0) is of image 2, but the batch has 2, counted from 0",
        '"x1"',
        given=[[0, 0, 0, 4, 4], [2, 0, 0, 4, 4]],
    ),
    mistake("region 0 (counted from 0) is of image -1", '"x1"', given=[[-1, 0, 0, 4, 4]]),
    mistake("region 0 (counted from 0) is 0, nan, 0, 4, 4", '"x1"', given=[[0, np.nan, 0, 4, 4]]),
    mistake("region 0 (counted from 0) is 0, 0, 0, inf, 4", '"x1"', given=[[0, 0, 0, np.inf, 4]]),
    mistake("is of image 1e+30, but the batch has 2", '"x1"', given=[[1e30, 0, 0, 4, 4]]),
]


def test_the_first_of_equal_maxima_gets_the_gradient() -> None:
    with Trial(case(REGIONS["whole"], 1, 1)) as trial:
        trial.bottom[0].data.fill(3)
        trial.forward()
        trial.backward()
        routed = np.argwhere(trial.bottom[0].diff)
        assert routed.tolist() == [[1, c, 0, 0] for c in range(3)]


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_bin_of_nothing_comparable_has_no_gradient(value: float) -> None:
    with Trial(case(REGIONS["whole"], 1, 1)) as trial:
        trial.bottom[0].data.fill(value)
        trial.forward()
        assert (trial.top[0].data == LOWEST).all()
        trial.backward()
        assert not trial.bottom[0].diff.any()


@pytest.mark.parametrize("size", [1e9, 3e38])
def test_a_region_far_too_large_does_no_harm(size: float) -> None:
    with Trial(case([[0, -size, -size, size, size]]), np.float32) as trial:
        trial.bottom[1].data[...] = [0, -size, -size, size, size]
        trial.forward()
        assert np.isfinite(trial.top[0].data).all()
        trial.backward()
        assert np.isfinite(trial.bottom[0].diff).all()
