"""ROIAlign: samples between values, at the edge and beyond, few and many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from netdef.errors import DataError
from netdef.testing import Case, Mistake, Trial, normal, values


def sample(x: Any, h: float, w: float) -> Any:
    """All channels of [C, H, W] at one place."""
    rows, columns = x.shape[1:]
    if not (-1 <= h <= rows and -1 <= w <= columns):
        return np.zeros(len(x))
    h, w = min(max(h, 0), rows - 1), min(max(w, 0), columns - 1)
    total = np.zeros(len(x))
    for row in range(rows):
        for column in range(columns):
            total += max(0, 1 - abs(h - row)) * max(0, 1 - abs(w - column)) * x[:, row, column]
    return total


def aligned(rows: int, columns: int, scale: float, ratio: int = 0) -> Callable[..., Any]:
    def expected(x: Any, rois: Any) -> Any:
        y = np.zeros((len(rois), x.shape[1], rows, columns))
        for r, (image, *box) in enumerate(rois.reshape(len(rois), 5)):
            left, top, right, bottom = (value * scale for value in box)
            tall, wide = max(bottom - top, 1) / rows, max(right - left, 1) / columns
            down, across = ratio or math.ceil(tall), ratio or math.ceil(wide)
            for i, j, k, m in np.ndindex(rows, columns, down, across):
                h, w = top + (i + (k + 0.5) / down) * tall, left + (j + (m + 0.5) / across) * wide
                y[r, :, i, j] += sample(x[int(image)], h, w) / (down * across)
        return y

    return expected


X = (2, 3, 8, 10)

REGIONS = {
    "inside": [[0, 9, 8, 60, 41], [1, 16, 3, 47, 63], [0, 9, 8, 60, 41]],
    "whole": [[1, 0, 0, 79, 63]],
    "across the edges": [[0, -21, -9, 30, 20], [1, 50, 40, 121, 99]],
    "outside": [[0, -99, -99, -50, -50], [1, 200, 5, 300, 50]],
    "without extent": [[0, 21, 22, 21, 22], [1, 42, 43, 12, 10]],
}


def case(
    regions: Sequence[Any], rows: int = 3, columns: int = 2, more: str = "", ratio: int = 0
) -> Case:
    options = f"pooled_h: {rows} pooled_w: {columns} spatial_scale: 0.125 {more}"
    shape = (len(regions), 5)
    return Case(
        f'type: "ROIAlign" roi_align_param {{ {options} }}',
        [X, shape],
        aligned(rows, columns, 0.125, ratio),
        [normal, values(regions)],
        other=[(3, 3, 9, 7), shape],
    )


CASES = [
    *(case(regions) for regions in REGIONS.values()),
    *(case(regions, 2, 2, "sampling_ratio: 2", 2) for regions in REGIONS.values()),
    case(REGIONS["inside"], 1, 1, "sampling_ratio: 5", 5),
    case(REGIONS["inside"], 2, 2, "sample_ratio: 3", 3),
    case(REGIONS["inside"], 7, 7),
    Case(
        'type: "ROIAlign" roi_align_param { pooled_h: 2 pooled_w: 2 }',
        [X, (0, 5)],
        lambda x, rois: np.zeros((0, 3, 2, 2)),
        other=[(1, 3, 4, 4), (0, 5)],
    ),
]


def mistake(message: str, at: str, options: str, x: Any = X, given: Any = None) -> Mistake:
    text = f'type: "ROIAlign" roi_align_param {{ {options} }}'
    if given is None:
        return Mistake(text, [x, (1, 5)], message, at)
    draw = [normal, values(given)]
    return Mistake(text, [x, (len(given), 5)], message, at, draw, error=DataError)


WHOLE = "pooled_h: 2 pooled_w: 2"

MISTAKES = [
    mistake("pooled_h is missing", "roi_align_param", "pooled_w: 2"),
    mistake("spatial_scale is -1", "-1", f"{WHOLE} spatial_scale: -1"),
    mistake(
        "sampling_ratio is 9999, but can be at most 1024", "9999", f"{WHOLE} sampling_ratio: 9999"
    ),
    mistake("position_sensitive is of other forks", "true", f"{WHOLE} position_sensitive: true"),
    mistake("needs a bottom of 4 axes", '"x0"', WHOLE, (2, 8)),
    mistake("region 0 (counted from 0) is of image 7", '"x1"', WHOLE, given=[[7, 0, 0, 4, 4]]),
    mistake(
        "region 0 (counted from 0) is nan, 0, 0, 4, 4", '"x1"', WHOLE, given=[[np.nan, 0, 0, 4, 4]]
    ),
]


def test_a_ramp_gives_the_centres_of_its_bins() -> None:
    """Interpolation of a linear function is exact: what is left is where the samples are."""
    with Trial(case([[0, 8, 16, 40, 48]], 2, 2)) as trial:
        trial.bottom[0].data[...] = np.arange(8)[:, None] * 100 + np.arange(10)
        trial.forward()
        # Rows 2 to 6 and columns 1 to 5 in two bins each.
        expected = [[302, 304], [502, 504]]
        np.testing.assert_allclose(trial.top[0].data[0, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e9, 3e38])
def test_a_region_far_too_large_does_no_harm(size: float) -> None:
    with Trial(case([[0, 0, 0, 9, 9]]), np.float32) as trial:
        trial.bottom[1].data[...] = [0, -size, -size, size, size]
        trial.forward()
        assert np.isfinite(trial.top[0].data).all()
        trial.backward()
        assert np.isfinite(trial.bottom[0].diff).all()
