"""PriorBox: sizes, ratios, steps, images of any size, and what a file may leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial


def priors(
    sizes: list[tuple[float, float]],
    step: tuple[float, float] | None = None,
    image: tuple[float, float] | None = None,
    offset: float = 0.5,
    clip: bool = False,
    variance: Any = 0.1,
) -> Callable[..., Any]:
    """Boxes of these widths and heights, laid one after the other; pairs are (height, width)."""

    def expected(x: Any, data: Any = None) -> Any:
        rows, columns = x.shape[2:]
        height, width = image or data.shape[2:]
        down, across = step or (height / rows, width / columns)
        boxes = []
        for i in range(rows):
            for j in range(columns):
                cx, cy = (j + offset) * across, (i + offset) * down
                for w, h in sizes:
                    boxes.append(
                        [
                            (cx - w / 2) / width,
                            (cy - h / 2) / height,
                            (cx + w / 2) / width,
                            (cy + h / 2) / height,
                        ]
                    )
        flat = np.array(boxes).ravel()
        variances = np.resize(np.float32(variance), flat.size)
        return np.stack([flat.clip(0, 1) if clip else flat, variances])[None]

    return expected


def ratio(size: float, r: float) -> tuple[float, float]:
    return size * math.sqrt(r), size / math.sqrt(r)


X, DATA = (2, 3, 4, 5), (2, 3, 64, 48)


def case(options: str, expected: Callable[..., Any], bottoms: Any = (X, DATA)) -> Case:
    return Case(f'type: "PriorBox" prior_box_param {{ {options} }}', bottoms, expected)


SQUARE = (10, 10)
BIGGER = (math.sqrt(10 * 30),) * 2

CASES = [
    case("min_size: 10", priors([SQUARE])),
    case("min_size: 10 max_size: 30", priors([SQUARE, BIGGER])),
    case("min_size: 10 aspect_ratio: 2", priors([SQUARE, ratio(10, 2), ratio(10, 1 / 2)])),
    case("min_size: 10 aspect_ratio: 2 flip: false", priors([SQUARE, ratio(10, 2)])),
    case(
        "min_size: 10 max_size: 30 aspect_ratio: 2 aspect_ratio: 4",
        priors([SQUARE, BIGGER, *(ratio(10, r) for r in (2, 1 / 2, 4, 1 / 4))]),
    ),
    # What was there before is left out: 1 always, and the inverse of what was flipped.
    case(
        "min_size: 10 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 0.5 aspect_ratio: 2",
        priors([SQUARE, ratio(10, 2), ratio(10, 1 / 2)]),
    ),
    case(
        "min_size: 10 min_size: 20 max_size: 30 max_size: 45 aspect_ratio: 4 flip: false",
        priors([SQUARE, BIGGER, ratio(10, 4), (20, 20), (30, 30), ratio(20, 4)]),
    ),
    # A fraction of a size is cut off.
    case("min_size: 10.75 max_size: 30.5", priors([SQUARE, BIGGER])),
    case("min_size: 40 clip: true", priors([(40, 40)], clip=True)),
    case("min_size: 10 step: 8", priors([SQUARE], step=(8, 8))),
    case("min_size: 10 step_h: 8 step_w: 16", priors([SQUARE], step=(8, 16))),
    case("min_size: 10 offset: 0", priors([SQUARE], offset=0)),
    case("min_size: 10 variance: 0.25", priors([SQUARE], variance=0.25)),
    case(
        "min_size: 10 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2",
        priors([SQUARE], variance=[0.1, 0.1, 0.2, 0.2]),
    ),
    case("min_size: 10 img_size: 32", priors([SQUARE], image=(32, 32))),
    case("min_size: 10 img_size: 32", priors([SQUARE], image=(32, 32)), [X]),
    case("min_size: 10 img_h: 32 img_w: 16", priors([SQUARE], image=(32, 16))),
    case("min_size: 10", priors([SQUARE]), [(0, 3, 2, 2), (0, 3, 8, 8)]),
]


def mistake(options: str, message: str, at: str, bottoms: Any = (X, DATA)) -> Mistake:
    return Mistake(f'type: "PriorBox" prior_box_param {{ {options} }}', bottoms, message, at)


MISTAKES = [
    mistake("max_size: 20", "min_size is missing", "prior_box_param"),
    mistake("min_size: 0", "min_size is 0, but must be at least 1 pixel", "0"),
    mistake("min_size: nan", "min_size is nan", "nan"),
    mistake("min_size: 10 max_size: 10", "max_size is 10, but must be above min_size, 10", "10 }"),
    mistake("min_size: 10 max_size: 20 max_size: 30", "has 1 min_size but 2 max_size", "30"),
    mistake("min_size: 10 aspect_ratio: 0", "aspect_ratio is 0, but must be above 0", "0"),
    mistake("min_size: 10 aspect_ratio: inf", "aspect_ratio is inf", "inf"),
    mistake("min_size: 10 variance: 0.1 variance: 0.2", "has 2 variance, but takes 1, or 4", "0.2"),
    mistake("min_size: 10 variance: -1", "variance is -1, but must be above 0", "-1"),
    mistake("min_size: 10 step: 8 step_h: 8", "give step, or step_h and step_w, not both", "8 "),
    mistake("min_size: 10 step_h: 8", "give both step_h and step_w", "8"),
    mistake("min_size: 10 step: 0", "step is 0, but must be above 0", "0"),
    mistake("min_size: 10 img_size: 9 img_w: 9", "give img_size, or img_h and img_w, not", "9 "),
    mistake("min_size: 10", "the size of the image is missing", "layer", [X]),
    mistake("min_size: 10", "needs a bottom of 4 axes", '"x0"', [(2, 3, 4), DATA]),
    mistake("min_size: 10", "the bottom 2x3x0x5 has an empty image", '"x0"', [(2, 3, 0, 5), DATA]),
    mistake("min_size: 10", "the second bottom holds images", '"x1"', [X, (2, 3)]),
    mistake("min_size: 10 tf: true", "tf is of Synopsys' fork, whose PriorBox is another", "true"),
]


def test_values_are_laid_anew_in_every_pass() -> None:
    """Their memory may have been used by others in between."""
    with Trial(CASES[0]) as trial:
        trial.forward()
        once = trial.top[0].data.copy()
        trial.top[0].data.fill(7)
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, once)
