"""SoftmaxWithLoss: normalizations, ignored labels, axes, the prob top, labels that are no class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, labels, normal, values

#: Caffe's bound on a probability, the smallest normal float32.
LEAST = np.finfo(np.float32).tiny


def loss(
    mode: str = "VALID", ignore: int | None = None, axis: int = 1, prob: bool = False
) -> Callable[..., Any]:
    def expected(x: Any, label: Any) -> Any:
        e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
        p = e / e.sum(axis, keepdims=True)
        outer = int(np.prod(x.shape[:axis]))
        rows = np.moveaxis(p, axis, -1).reshape(-1, x.shape[axis])
        label = label.reshape(-1).astype(int)
        counted = label != ignore
        each = -np.log(np.maximum(rows[counted, label[counted]], LEAST))
        count = {"VALID": counted.sum(), "FULL": label.size, "BATCH_SIZE": outer, "NONE": 1}
        total = each.sum() / max(1, count[mode])
        return (total, p) if prob else total

    return expected


def case(
    options: str,
    x: Shape,
    label: Shape,
    expected: Callable[..., Any],
    *more: float,
    other: Any = None,
    axis: int = 1,
) -> Case:
    text = f'type: "SoftmaxWithLoss" {options}'
    return Case(text, [x, label], expected, [normal, labels(x[axis], *more)], other=other)


def weighted(weights: list[float] | None, ignore: int | None = None) -> Callable[..., Any]:
    """SegNet's: by weights that are given, or by 1 / how often a class occurs."""

    def expected(x: Any, label: Any) -> Any:
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        rows = np.moveaxis(p, 1, -1).reshape(-1, x.shape[1])
        label = label.reshape(-1).astype(int)
        counted = np.flatnonzero(label != ignore)
        total = 0.0
        for i in counted:
            often = (label == label[i]).sum()
            weight = 1 / often if weights is None else np.float32(weights[label[i]])
            total -= weight * np.log(rows[i, label[i]])
        return total / max(1, len(counted))

    return expected


X, LABEL = (4, 5), (4,)
IMAGE, LABELS = (2, 5, 3, 4), (2, 1, 3, 4)

CASES = [
    case("", X, LABEL, loss()),
    case("", X, (4, 1), loss()),
    case("", IMAGE, LABELS, loss()),
    case("", IMAGE, (2, 3, 4), loss()),
    case('top: "loss" top: "prob"', IMAGE, LABELS, loss(prob=True)),
    case("softmax_param { axis: 3 }", IMAGE, (2, 5, 3), loss(axis=3), axis=3),
    case("softmax_param { axis: -2 }", IMAGE, (2, 5, 4), loss(axis=2), axis=2),
    case("softmax_param { axis: 0 }", (5,), (), loss(axis=0), other=[(6,), ()], axis=0),
    *(
        case(f"loss_param {{ normalization: {mode} }}", IMAGE, LABELS, loss(mode))
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    *(
        case(
            f"loss_param {{ normalization: {mode} ignore_label: 255 }}",
            IMAGE,
            LABELS,
            loss(mode, 255),
            255,
            255,
        )
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    # Weights of classes.
    case("loss_param { weight_by_label_freqs: true }", IMAGE, LABELS, weighted(None)),
    case(
        "loss_param { weight_by_label_freqs: true ignore_label: 255 "
        "class_weighting: 0.5 class_weighting: 2 class_weighting: 0 class_weighting: 0.1 "
        "class_weighting: 7 }",
        IMAGE,
        LABELS,
        weighted([0.5, 2, 0, 0.1, 7], 255),
        255,
    ),
    case("softmax_param { weight_by_label_freqs: true }", X, LABEL, weighted(None)),
    # A class may be the one to ignore.
    case("loss_param { ignore_label: 2 }", IMAGE, LABELS, loss(ignore=2)),
    case("loss_param { ignore_label: -1 }", X, LABEL, loss(ignore=-1), -1),
    # The older field, and that the newer one wins over it.
    case("loss_param { normalize: true }", IMAGE, LABELS, loss("VALID")),
    case("loss_param { normalize: false }", IMAGE, LABELS, loss("BATCH_SIZE")),
    case("loss_param { normalize: false normalization: FULL }", IMAGE, LABELS, loss("FULL")),
    Case(
        'type: "SoftmaxWithLoss" loss_param { ignore_label: 0 }',
        [X, LABEL],
        lambda x, label: np.array(0.0),
        [normal, values(0)],
    ),
    Case(
        'type: "SoftmaxWithLoss"',
        [(0, 5), (0,)],
        lambda x, label: np.array(0.0),
        [normal, labels(5)],
    ),
    case("loss_weight: 0.5", X, LABEL, loss()),
]


def mistake(label: Draw, message: str, options: str = "") -> Mistake:
    text = f'type: "SoftmaxWithLoss" {options}'
    return Mistake(text, [X, LABEL], message, '"x1"', [normal, label], error=DataError)


MISTAKES = [
    Mistake(
        'type: "SoftmaxWithLoss" loss_param { weight_by_label_freqs: true class_weighting: 1 }',
        [X, LABEL],
        "class_weighting has 1 values, but there are 5 classes",
        "1",
    ),
    Mistake(
        'type: "SoftmaxWithLoss" loss_param { class_weighting: 2 }',
        [X, LABEL],
        "class_weighting goes with weight_by_label_freqs: true",
        "2",
    ),
    Mistake('type: "SoftmaxWithLoss"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "SoftmaxWithLoss"',
        [IMAGE, (2,)],
        "Number of labels must match number of predictions: 2x5x3x4 with 5 classes on axis 1 makes "
        "24 predictions, but the labels are 2",
        '"x1"',
    ),
    Mistake(
        'type: "SoftmaxWithLoss" softmax_param { axis: 2 }',
        [X, LABEL],
        "axis is 2, but the bottom is 4x5",
        "2",
    ),
    Mistake(
        'type: "SoftmaxWithLoss"',
        [(4, 0), LABEL],
        "the bottom 4x0 has no classes on axis 1",
        '"x0"',
    ),
    Mistake(
        'type: "SoftmaxWithLoss" top: "a" top: "b" top: "c"',
        [X, LABEL],
        "takes 1 to 2 top blobs, but 3 given",
        '"c"',
    ),
    Mistake(
        'type: "SoftmaxWithLoss" loss_weight: 1 loss_weight: 1',
        [X, LABEL],
        "has 1 tops but 2 loss_weight",
        "1",
    ),
    mistake(
        values([0, 4, 5, 1]),
        "label 5 (number 2 of the batch, counted from 0) is not one of the 5 classes 0 to 4",
    ),
    mistake(values([0, -1, 0, 0]), "label -1 (number 1 of the batch"),
    mistake(values([0, 0, 0, np.nan]), "label nan (number 3 of the batch"),
    mistake(values([np.inf, 0, 0, 0]), "label inf (number 0 of the batch"),
    mistake(values([0, -1e30, 0, 0]), "label -1e+30 (number 1 of the batch"),
    mistake(values([0, 9, 7, 0]), "label 7 (number 2", "loss_param { ignore_label: 9 }"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hopeless_prediction_costs_no_more_than_caffe_says(dtype: type[Any]) -> None:
    with Trial(case("", (1, 2), (1,), loss()), dtype) as trial:
        trial.bottom[0].data[...] = [[1e4, -1e4]]
        trial.bottom[1].data[...] = 1
        trial.forward()
        assert trial.top[0].data == pytest.approx(87.33654, abs=1e-5)


def test_a_diverged_net_says_so() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[0] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data)


def test_fractions_of_labels_are_cut_off() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[1].data[...] = [0, 1, 2, 3]
        trial.forward()
        whole = trial.top[0].data.copy()
        trial.bottom[1].data[...] = [0.9, 1.5, 2.1, 3.99]
        trial.forward()
        assert trial.top[0].data == whole
