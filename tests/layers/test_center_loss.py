"""CenterLoss: axes, labels, and the way the centres go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial, labels, normal, values

CLASSES = 4


def loss(axis: int = 1) -> Callable[..., Any]:
    def expected(x: Any, label: Any, centre: Any) -> Any:
        x = x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        distance = x - centre[label.reshape(-1).astype(int)]
        return (distance**2).sum() / (2 * max(1, len(x)))

    return expected


def case(options: str, x: Shape, label: Shape, axis: int = 1) -> Case:
    text = f'type: "CenterLoss" center_loss_param {{ num_output: {CLASSES} {options} }}'
    draw = [normal, labels(CLASSES)]
    # The centres go their own way: see below.
    return Case(text, [x, label], loss(axis), draw, own_rule=frozenset({0}))


CASES = [
    case("", (6, 3), (6,)),
    case("", (6, 3), (6, 1, 1, 1)),
    case("", (5, 3, 2, 2), (5,)),
    case("axis: 2", (2, 3, 4), (2, 3), 2),
    case("axis: -1", (2, 3, 4), (2, 3), 2),
    case("", (1, 7), (1,)),
    case("", (0, 7), (0,)),
]

X, LABEL = (6, 3), (6,)


def mistake(options: str, message: str, at: str, *bottoms: Shape, **more: Any) -> Mistake:
    text = f'type: "CenterLoss" center_loss_param {{ {options} }}'
    return Mistake(text, bottoms or [X, LABEL], message, at, **more)


MISTAKES = [
    mistake("", "num_output is missing", "center_loss_param"),
    mistake("num_output: 4 axis: 2", "axis is 2, but the bottom is 6x3", "2"),
    mistake(
        "num_output: 4",
        "needs one label for each of the 6 features of 6x3, but the labels are 5",
        '"x1"',
        X,
        (5,),
    ),
    mistake("num_output: 4", "the bottom 6x0 has no features", '"x0"', (6, 0), LABEL),
    mistake(
        "num_output: 4",
        "label 4 (number 0 of the batch, counted from 0) is not one of the 4 classes 0 to 3",
        '"x1"',
        draw=[normal, values(4)],
        error=DataError,
    ),
]


def test_a_centre_goes_towards_the_mean_of_its_class() -> None:
    """By sum (c - x) / (1 + n), whatever the weight of the loss; without items it stays."""
    with Trial(case("", X, LABEL)) as trial:
        label = [2, 0, 2, 2, 0, 1]
        trial.bottom[1].data[...] = label
        trial.forward()
        trial.top[0].diff.fill(123)
        trial.backward()
        x, centre = trial.bottom[0].data, trial.layer.blobs[0]
        expected = np.zeros(centre.shape)
        for j in range(CLASSES):
            own = x[np.array(label) == j]
            expected[j] = (centre.data[j] - own).sum(0) / (1 + len(own))
        np.testing.assert_allclose(centre.diff, expected, rtol=1e-12, atol=1e-12)
        assert not centre.diff[3].any()


def test_centres_learn_in_a_net() -> None:
    net = Net.from_text(
        """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 } } }
        layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
        layer { name: "loss" type: "CenterLoss" bottom: "x" bottom: "label" top: "loss"
                loss_weight: 0.01 center_loss_param { num_output: 2 } }
        """
    )
    net.blobs["x"].data[...] = [[3], [5]]
    net.blobs["label"].data[...] = [0, 0]
    net.forward()
    net.backward()
    np.testing.assert_allclose(net.params["loss"][0].diff, [[-8 / 3], [0]], rtol=1e-6)
