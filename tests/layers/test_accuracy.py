"""Accuracy: top_k, ties, ignored labels, axes, the top of each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, distinct, labels, normal, values

X, LABEL = (8, 5), (8,)
IMAGE, LABELS = (2, 5, 3, 4), (2, 3, 4)


def accuracy(
    top_k: int = 1, ignore: int | None = None, axis: int = 1, per_class: bool = False
) -> Callable[..., Any]:
    def expected(x: Any, label: Any) -> Any:
        classes = x.shape[axis]
        rows = np.moveaxis(x, axis, -1).reshape(-1, classes)
        right: list[list[bool]] = [[] for _ in range(classes)]
        for row, value in zip(rows, label.reshape(-1).astype(int), strict=True):
            if value != ignore:
                others = np.delete(row, value)
                right[value].append(bool((others >= row[value]).sum() < top_k))
        everything = [hit for hits in right for hit in hits]
        total = np.mean(everything) if everything else 0.0
        each = np.array([np.mean(hits) if hits else 0.0 for hits in right])
        return (total, each) if per_class else total

    return expected


def case(
    options: str,
    x: Shape,
    label: Shape,
    expected: Callable[..., Any],
    *more: float,
    axis: int = 1,
    draw: Draw = distinct,
) -> Case:
    text = f'type: "Accuracy" {options}'
    return Case(text, [x, label], expected, [draw, labels(x[axis], *more)])


#: Few different scores: many ties.
def coarse(random: np.random.Generator, shape: Shape) -> Any:
    return random.integers(0, 3, shape)


BOTH = 'top: "accuracy" top: "per_class"'

CASES = [
    case("", X, LABEL, accuracy()),
    case("", X, (8, 1), accuracy()),
    case("", IMAGE, LABELS, accuracy()),
    case("", X, LABEL, accuracy(), draw=coarse),
    case("accuracy_param { top_k: 2 }", X, LABEL, accuracy(2), draw=coarse),
    case("accuracy_param { top_k: 3 }", X, LABEL, accuracy(3)),
    case("accuracy_param { top_k: 5 }", X, LABEL, accuracy(5)),
    case("accuracy_param { axis: 3 }", IMAGE, (2, 5, 3), accuracy(axis=3), axis=3),
    case("accuracy_param { axis: -2 }", IMAGE, (2, 5, 4), accuracy(axis=2), axis=2),
    case("accuracy_param { ignore_label: 2 }", IMAGE, LABELS, accuracy(ignore=2)),
    case("accuracy_param { ignore_label: -1 }", X, LABEL, accuracy(ignore=-1), -1, -1),
    case(BOTH, IMAGE, LABELS, accuracy(per_class=True)),
    case(
        f"{BOTH} accuracy_param {{ top_k: 2 ignore_label: 255 }}",
        IMAGE,
        LABELS,
        accuracy(2, 255, per_class=True),
        255,
    ),
    Case(
        f'type: "Accuracy" {BOTH} accuracy_param {{ ignore_label: 3 }}',
        [X, LABEL],
        lambda x, label: (np.array(0.0), np.zeros(5)),
        [normal, values(3)],
    ),
    case(BOTH, (0, 5), (0,), accuracy(per_class=True)),
    case(BOTH, (3, 1), (3,), accuracy(per_class=True)),
]


def mistake(label: Any, message: str, options: str = "") -> Mistake:
    text = f'type: "Accuracy" {options}'
    return Mistake(text, [(2, 5), (2,)], message, '"x1"', [normal, values(label)], error=DataError)


MISTAKES = [
    Mistake('type: "Accuracy"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "Accuracy"',
        [IMAGE, (2,)],
        "Number of labels must match number of predictions: 2x5x3x4 with 5 classes on axis 1 makes "
        "24 predictions, but the labels are 2",
        '"x1"',
    ),
    Mistake(
        'type: "Accuracy" accuracy_param { top_k: 6 }',
        [X, LABEL],
        "top_k is 6, but must be from 1 to 5: there are 5 classes",
        "6",
    ),
    Mistake('type: "Accuracy" accuracy_param { top_k: 0 }', [X, LABEL], "top_k is 0", "0"),
    Mistake(
        'type: "Accuracy" accuracy_param { axis: 2 }',
        [X, LABEL],
        "axis is 2, but the bottom is 8x5",
        "2",
    ),
    Mistake('type: "Accuracy"', [(3, 0), (3,)], "the bottom 3x0 has no classes on axis 1", '"x0"'),
    mistake([0, 5], "label 5 (number 1 of the batch, counted from 0) is not one of the 5 classes"),
    mistake([-1, 0], "label -1 (number 0 of the batch"),
    mistake([0, np.nan], "label nan (number 1 of the batch"),
    mistake([9, np.inf], "label inf (number 1", "accuracy_param { ignore_label: 9 }"),
]


@pytest.mark.parametrize(("wrong", "share"), [(0, 0), (2, 1)])
def test_nan_is_not_right_and_beats_nobody(wrong: int, share: int) -> None:
    """Only where the label itself is scored NaN is the prediction wrong."""
    with Trial(case("", (1, 3), (1,), accuracy())) as trial:
        trial.bottom[0].data[...] = [[2, 1, 0]]
        trial.bottom[0].data[0, wrong] = np.nan
        trial.bottom[1].data.fill(0)
        trial.forward()
        assert trial.top[0].data == share


def test_fractions_of_labels_are_cut_off() -> None:
    with Trial(case(BOTH, X, LABEL, accuracy())) as trial:
        trial.bottom[1].data[...] = [0, 1, 2, 3, 4, 0, 1, 2]
        whole = trial.run()
        trial.bottom[1].data[...] = [-0.9, 1.5, 2.1, 3.99, 4.2, 0.5, 1, 2]
        found = trial.run()
        assert all((found[name] == whole[name]).all() for name in whole)
