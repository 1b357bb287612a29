"""MultinomialLogisticLoss: flattened axes, the bound of the logarithm, labels that are no class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, labels, normal, values

X, LABEL = (4, 5), (4,)


def probabilities(random: np.random.Generator, shape: Shape) -> Any:
    """They need not sum to 1."""
    return random.uniform(0.05, 1, shape)


def loss(p: Any, label: Any) -> Any:
    rows = p.reshape(len(p), int(np.prod(p.shape[1:])))
    chosen = [row[int(i)] for row, i in zip(rows, label.reshape(-1), strict=True)]
    return -sum(np.log(max(p, 1e-20)) for p in chosen) / max(1, len(p))


def case(
    options: str, x: Shape, label: Shape, classes: int = 5, draw: Draw = probabilities
) -> Case:
    text = f'type: "MultinomialLogisticLoss" {options}'
    return Case(text, [x, label], loss, [draw, labels(classes)])


CASES = [
    case("", X, LABEL),
    case("", X, (4, 1, 1, 1)),
    case("", (3, 2, 2, 3), (3,), 12),
    case("", (1, 7), (1, 1), 7),
    case("", (3,), (3,), 1),
    case("", (0, 5), (0,)),
    case("loss_weight: 2.5", X, LABEL),
    # loss_param is not read, as in Caffe.
    case("loss_param { normalization: NONE ignore_label: 2 }", X, LABEL),
]


def mistake(label: Draw, message: str) -> Mistake:
    text = 'type: "MultinomialLogisticLoss"'
    return Mistake(text, [X, LABEL], message, '"x1"', [normal, label], error=DataError)


MISTAKES = [
    Mistake('type: "MultinomialLogisticLoss"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "MultinomialLogisticLoss" top: "a" top: "b"', [X, LABEL], "takes 1 top blob", '"b"'
    ),
    Mistake(
        'type: "MultinomialLogisticLoss"',
        [X, (4, 3, 2)],
        "Number of labels must match number of predictions: 4x5 with 5 classes on axis 1 makes 4 "
        "predictions, but the labels are 4x3x2",
        '"x1"',
    ),
    Mistake('type: "MultinomialLogisticLoss"', [(), ()], "needs a bottom with a batch", '"x0"'),
    mistake(values([0, 1, 5, 0]), "label 5 (number 2 of the batch, counted from 0) is not one of"),
    mistake(values([0, -1, 9, 0]), "label -1 (number 1 of the batch"),
    mistake(values([0, 0, 0, np.inf]), "label inf (number 3 of the batch"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.0, 1e-30, -0.5])
def test_a_hopeless_prediction_is_bounded(dtype: type[Any], p: float) -> None:
    """Its gradient is that at the bound."""
    with Trial(case("", (1, 3), (1,)), dtype) as trial:
        trial.bottom[0].data[...] = [[0.5, p, 0.5]]
        trial.bottom[1].data[...] = 1
        trial.forward()
        assert trial.top[0].data == pytest.approx(-np.log(1e-20), rel=1e-6)
        trial.top[0].diff.fill(2)
        trial.backward()
        np.testing.assert_allclose(trial.bottom[0].diff, [[0, -2e20, 0]], rtol=1e-6)


def test_a_certain_prediction_costs_nothing() -> None:
    with Trial(case("", (1, 2), (1,), 2)) as trial:
        trial.bottom[0].data[...] = 1
        trial.forward()
        assert trial.top[0].data == 0
        assert not np.signbit(trial.top[0].data)


def test_a_diverged_net_says_so() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[1] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data)
