"""DetectionEvaluate: right and wrong, found twice, difficult objects, and images without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.errors import DataError
from netdef.testing import Case, Mistake, Trial, values

C = 3


def size(box: Any) -> float:
    return float(max(0, box[2] - box[0]) * max(0, box[3] - box[1]))


def overlap(a: Any, b: Any) -> float:
    both = size([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
    return both / (size(a) + size(b) - both) if both else 0.0


def judged(
    background: int = 0, threshold: float = 0.5, difficult: bool = True
) -> Callable[..., Any]:
    def expected(found: Any, truth: Any) -> Any:
        objects = [row for row in truth.reshape(-1, 8) if row[0] != -1]
        rows: list[Any] = []
        for c in range(C):
            if c != background:
                mine = [row for row in objects if row[1] == c and (difficult or not row[7])]
                rows.append([-1, c, len(mine), -1, -1])
        taken = set()
        detections = [row for row in found.reshape(-1, 7) if row[1] != -1]
        for row in sorted(detections, key=lambda row: (row[0], row[1], -row[2])):
            able = [g for g, one in enumerate(objects) if tuple(one[:2]) == tuple(row[:2])]
            best = max(able, key=lambda g: overlap(row[3:], objects[g][3:7]), default=None)
            right = best is not None and overlap(row[3:], objects[best][3:7]) >= threshold
            if right and not difficult and objects[best][7]:
                rows.append([*row[:3], 0, 0])
                continue
            rows.append([*row[:3], *((1, 0) if right and best not in taken else (0, 1))])
            if right:
                taken.add(best)
        return np.reshape(rows, (1, 1, -1, 5))

    return expected


A, B, NEAR_A = [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0.0625, 0.5, 0.5]

FOUND = [
    [0, 1, 0.75, *NEAR_A],
    [0, 1, 0.875, *A],
    [0, 1, 0.5, *B],
    [0, 2, 0.625, *A],
    [2, 2, 0.25, *B],
    [1, 1, 0.5, *B],
    [1, 1, 0.5, *A],
    [3, 1, 0.5, *A],
]
TRUTH = [
    [0, 1, 0, *A, 0],
    [0, 1, 1, *B, 1],
    [2, 2, 0, *B, 0],
    [1, 1, 0, *A, 0],
    [1, 2, 0, *A, 1],
    [-1] * 8,
]


def case(
    options: str, expected: Callable[..., Any], found: Any = FOUND, truth: Any = TRUTH
) -> Case:
    text = f"num_classes: {C} {options}"
    shapes = (1, 1, len(found), 7), (1, 1, len(truth), 8)
    return Case(
        f'type: "DetectionEvaluate" detection_evaluate_param {{ {text} }}',
        shapes,
        expected,
        [values(np.reshape(found, shapes[0])), values(np.reshape(truth, shapes[1]))],
        other=shapes,
    )


CASES = [
    case("", judged()),
    case("evaluate_difficult_gt: false", judged(difficult=False)),
    case("overlap_threshold: 0.875", judged(threshold=0.875)),
    case("overlap_threshold: 0.9375", judged(threshold=0.9375)),
    case("background_label_id: -1", judged(background=-1)),
    # No detection, as DetectionOutput says it; no object; nothing at all.
    case("", judged(), found=[[0, *[-1] * 6], [1, *[-1] * 6]]),
    case("", judged(), truth=[[-1] * 8]),
    case("", judged(), found=[], truth=[]),
]


def mistake(
    options: str, message: str, at: str, found: Any = FOUND, truth: Any = TRUTH, **more: Any
) -> Mistake:
    one = case("", judged(), found, truth)
    text = f'type: "DetectionEvaluate" detection_evaluate_param {{ {options} }}'
    return Mistake(text, one.bottoms, message, at, one.draw, **more)


CLASSES = f"num_classes: {C}"

MISTAKES = [
    mistake("overlap_threshold: 0.5", "num_classes is missing", "detection_evaluate_param"),
    mistake(f"{CLASSES} overlap_threshold: 0", "overlap_threshold is 0, but must be above 0", "0"),
    Mistake(
        f'type: "DetectionEvaluate" detection_evaluate_param {{ {CLASSES} }}',
        [(1, 1, 3, 6), (1, 1, 3, 8)],
        "bottom 0 has 7 numbers for each detection",
        '"x0"',
    ),
    Mistake(
        f'type: "DetectionEvaluate" detection_evaluate_param {{ {CLASSES} }}',
        [(1, 1, 3, 7), (1, 1, 3, 7)],
        "bottom 1 has 8 numbers for each object",
        '"x1"',
    ),
    mistake(
        CLASSES,
        "a detection is not of a class that can be found: 0, 3, 0.5, 0, 0, 0.5, 0.5",
        '"x0"',
        found=[[0, 3, 0.5, *A]],
        error=DataError,
    ),
    mistake(
        CLASSES,
        "object 0 (counted from 0) is of class 0, the background",
        '"x1"',
        truth=[[0, 0, 0, *A, 0]],
        error=DataError,
    ),
    mistake(
        CLASSES,
        "object 1 (counted from 0) has 0, 1, 0, nan",
        '"x1"',
        truth=[[0, 1, 0, *A, 0], [0, 1, 0, np.nan, *A[1:], 0]],
        error=DataError,
    ),
]


def test_a_file_that_is_not_read_is_told_of() -> None:
    told: list[Any] = []
    layer = case('name_size_file: "sizes.txt"', judged()).layer()
    layer.emit = told.append
    with Trial(case("", judged())) as trial:
        layer.setup(trial.bottom, trial.top)
        layer.setup(trial.bottom, trial.top)
    assert [event.text for event in told] == [
        'layer "layer": name_size_file is not read, boxes are compared as parts of the image'
    ]
