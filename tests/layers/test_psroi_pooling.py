"""PSROIPooling: regions inside, across and beyond the edge, without extent, and of no image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from netdef.errors import DataError
from netdef.testing import Case, Mistake, Trial, normal, values


def half_away(value: float) -> float:
    """Rounded as C does it."""
    return math.copysign(math.floor(abs(value) + 0.5), value)


def pooled(dim: int, group: int, scale: float) -> Callable[..., Any]:
    """Looks into every bin of every region."""

    def expected(x: Any, rois: Any) -> Any:
        y = np.zeros((len(rois), dim, group, group))
        for r, (image, *box) in enumerate(rois.reshape(len(rois), 5)):
            left, top = (half_away(value) * scale for value in box[:2])
            right, bottom = ((half_away(value) + 1) * scale for value in box[2:])
            tall, wide = max(bottom - top, 0.1) / group, max(right - left, 0.1) / group
            for d, i, j in np.ndindex(dim, group, group):
                plane = x[int(image), (d * group + i) * group + j]
                h0, h1 = math.floor(i * tall + top), math.ceil((i + 1) * tall + top)
                w0, w1 = math.floor(j * wide + left), math.ceil((j + 1) * wide + left)
                bin_ = plane[max(h0, 0) : max(h1, 0), max(w0, 0) : max(w1, 0)]
                if bin_.size:
                    y[r, d, i, j] = bin_.mean()
        return y

    return expected


X = (2, 8, 8, 10)

REGIONS = {
    "inside": [[0, 8, 8, 60, 40], [1, 16, 0, 47, 63], [0, 8, 8, 60, 40]],
    "whole": [[1, 0, 0, 79, 63]],
    "across the edges": [[0, -20, -9, 30, 20], [1, 50, 40, 120, 99]],
    "outside": [[0, -99, -99, -50, -50], [1, 200, 5, 300, 50]],
    "without extent": [[0, 20, 22, 20, 22], [1, 42, 43, 12, 10]],
    "halves": [[0, 4.5, 12.5, 20.5, 28.5], [1, -4.5, -12.5, 12.5, 20.5]],
}


def case(
    regions: Sequence[Any], dim: int = 2, group: int = 2, shape: Any = None, x: Any = X
) -> Case:
    options = f"output_dim: {dim} group_size: {group} spatial_scale: 0.125"
    shape = shape or (len(regions), 5)
    return Case(
        f'type: "PSROIPooling" psroi_pooling_param {{ {options} }}',
        [x, shape],
        pooled(dim, group, 0.125),
        [normal, values(np.reshape(regions, shape))],
        other=[(3, x[1], 9, 7), shape],
    )


CASES = [
    *(case(regions) for regions in REGIONS.values()),
    case(REGIONS["inside"], 8, 1),
    case(REGIONS["inside"], 1, 3, x=(2, 9, 8, 10)),
    case(REGIONS["inside"], shape=(3, 5, 1, 1)),
    Case(
        'type: "PSROIPooling" psroi_pooling_param { output_dim: 2 group_size: 2 spatial_scale: 1 }',
        [X, (0, 5)],
        lambda x, rois: np.zeros((0, 2, 2, 2)),
        other=[(1, 8, 4, 4), (0, 5)],
    ),
]


def mistake(message: str, at: str, options: str, x: Any = X, given: Any = None) -> Mistake:
    text = f'type: "PSROIPooling" psroi_pooling_param {{ {options} }}'
    if given is None:
        return Mistake(text, [x, (1, 5)], message, at)
    draw = [normal, values(given)]
    return Mistake(text, [x, (len(given), 5)], message, at, draw, error=DataError)


WHOLE = "output_dim: 2 group_size: 2 spatial_scale: 1"

MISTAKES = [
    mistake("output_dim is missing", "psroi_pooling_param", "group_size: 2 spatial_scale: 1"),
    mistake("group_size is -2, but must be", "-2", "output_dim: 2 group_size: -2 spatial_scale: 1"),
    mistake("spatial_scale is 0", "psroi_pooling_param", "output_dim: 2 group_size: 2"),
    mistake(
        "output_dim 2 and group_size 2 need 2 * 2 * 2 = 8 channels, but the bottom is 2x9x8x10",
        '"x0"',
        WHOLE,
        (2, 9, 8, 10),
    ),
    mistake("needs a bottom of 4 axes", '"x0"', WHOLE, (2, 8)),
    mistake("region 0 (counted from 0) is of image 2", '"x1"', WHOLE, given=[[2, 0, 0, 4, 4]]),
    mistake(
        "region 0 (counted from 0) is 0, 0, 0, 4, nan", '"x1"', WHOLE, given=[[0, 0, 0, 4, np.nan]]
    ),
]


def test_a_nan_shows_in_its_bins_alone() -> None:
    with Trial(case(REGIONS["whole"])) as trial:
        trial.bottom[0].data[1, 3, 7, 9] = np.nan
        trial.forward()
        assert np.argwhere(np.isnan(trial.top[0].data)).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("size", [1e9, 3e38])
def test_a_region_far_too_large_does_no_harm(size: float) -> None:
    with Trial(case([[0, 0, 0, 9, 9]]), np.float32) as trial:
        trial.bottom[1].data[...] = [0, -size, -size, size, size]
        trial.forward()
        assert np.isfinite(trial.top[0].data).all()
        trial.backward()
        assert np.isfinite(trial.bottom[0].diff).all()
