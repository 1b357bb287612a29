"""FocalLoss: exponents, factors, normalizations, ignored labels, sure and hopeless predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial, labels, normal, values


def loss(
    gamma: float = 2,
    alpha: float = 0.25,
    mode: str = "VALID",
    ignore: int | None = None,
    axis: int = 1,
    prob: bool = False,
) -> Callable[..., Any]:
    def expected(x: Any, label: Any) -> Any:
        e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
        p = e / e.sum(axis, keepdims=True)
        rows = np.moveaxis(p, axis, -1).reshape(-1, x.shape[axis])
        label = label.reshape(-1).astype(int)
        counted = label != ignore
        own = rows[counted, label[counted]]
        total = (-np.float32(alpha) * (1 - own) ** np.float32(gamma) * np.log(own)).sum()
        outer = int(np.prod(x.shape[:axis]))
        count = {"VALID": counted.sum(), "FULL": label.size, "BATCH_SIZE": outer, "NONE": 1}
        total = total / max(1, count[mode])
        return (total, p) if prob else total

    return expected


def case(
    options: str, x: Shape, label: Shape, expected: Callable[..., Any], *more: float, axis: int = 1
) -> Case:
    text = f'type: "FocalLoss" {options}'
    return Case(text, [x, label], expected, [normal, labels(x[axis], *more)])


X, LABEL = (4, 5), (4,)
IMAGE, LABELS = (2, 5, 3, 4), (2, 1, 3, 4)

CASES = [
    case("", X, LABEL, loss()),
    case("", IMAGE, LABELS, loss()),
    case("focal_loss_param { gamma: 0 alpha: 1 }", IMAGE, LABELS, loss(0, 1)),
    case("focal_loss_param { gamma: 0.5 alpha: 0.75 }", IMAGE, LABELS, loss(0.5, 0.75)),
    case("focal_loss_param { gamma: 1 }", X, LABEL, loss(1)),
    case("focal_loss_param { gama: 3.5 }", X, LABEL, loss(3.5)),
    case('top: "loss" top: "prob"', IMAGE, LABELS, loss(prob=True)),
    case("softmax_param { axis: 3 }", IMAGE, (2, 5, 3), loss(axis=3), axis=3),
    *(
        case(
            f"loss_param {{ normalization: {mode} ignore_label: -1 }}",
            IMAGE,
            LABELS,
            loss(mode=mode, ignore=-1),
            -1,
            -1,
        )
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    case("loss_param { normalize: false }", IMAGE, LABELS, loss(mode="BATCH_SIZE")),
    case("", (0, 5), (0,), loss()),
]

MISTAKES = [
    Mistake(
        'type: "FocalLoss" focal_loss_param { type: LINEAR }',
        [X, LABEL],
        "only the type ORIGIN is computed, not LINEAR",
        "LINEAR",
    ),
    Mistake(
        'type: "FocalLoss" focal_loss_param { gamma: -1 }',
        [X, LABEL],
        "gamma is -1, but must be at least 0",
        "-1",
    ),
    Mistake(
        'type: "FocalLoss" focal_loss_param { gamma: 1 gama: 2 }',
        [X, LABEL],
        "give gamma, or gama, not both",
        "2",
    ),
    Mistake(
        'type: "FocalLoss"', [X, (5,)], "Number of labels must match number of predictions", '"x1"'
    ),
    Mistake(
        'type: "FocalLoss"',
        [X, LABEL],
        "label 5 (number 0 of the batch, counted from 0) is not one of the 5 classes 0 to 4",
        '"x1"',
        [normal, values(5)],
        error=DataError,
    ),
]


def test_without_gamma_and_alpha_it_is_the_softmax_loss() -> None:
    net = Net.from_text(
        """
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 5 } } }
        layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 4 } } }
        layer { name: "one" type: "FocalLoss" bottom: "x" bottom: "l" top: "one"
                focal_loss_param { gamma: 0 alpha: 1 } }
        layer { name: "two" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "two"
                loss_weight: -1 }
        """
    )
    net.blobs["x"].data[...] = np.random.default_rng(1).standard_normal((4, 5))
    net.blobs["l"].data[...] = [0, 1, 4, 2]
    net.forward()
    np.testing.assert_allclose(net.blobs["one"].data, net.blobs["two"].data, rtol=1e-6)
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 0, atol=1e-7)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_sure_and_hopeless_predictions_are_finite(gamma: float) -> None:
    text = f"focal_loss_param {{ gamma: {gamma} }}"
    with Trial(case(text, (2, 2), (2,), loss(gamma))) as trial:
        trial.bottom[0].data[...] = [[1000, 0], [1000, 0]]
        trial.bottom[1].data[...] = [0, 1]
        trial.forward()
        trial.backward()
        # Caffe bounds a probability by the smallest normal float32.
        expected = -0.25 * np.log(np.finfo(np.float32).tiny) / 2
        np.testing.assert_allclose(trial.top[0].data, expected, rtol=1e-6)
        assert not trial.bottom[0].diff[0].any()
        assert np.isfinite(trial.bottom[0].diff).all()
