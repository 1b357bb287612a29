"""HingeLoss: both norms, flattened axes, the kink, NaN, labels that are no class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, labels, normal, values

X, LABEL = (4, 5), (4,)

L2 = "hinge_loss_param { norm: L2 }"


def loss(power: int = 1) -> Callable[..., Any]:
    def expected(x: Any, label: Any) -> Any:
        total = 0.0
        for scores, wanted in zip(x, label.reshape(-1), strict=True):
            for c, score in enumerate(scores.reshape(-1)):
                t = 1 if c == int(wanted) else -1
                total += max(0.0, 1 - t * score) ** power
        return total / max(1, len(x))

    return expected


#: Values that leave 1 - x and 1 + x at least 0.05 from their kinks at 1 and -1, on both sides.
def off_one(random: np.random.Generator, shape: Shape) -> Any:
    return random.choice([-1.6, -1.3, -0.7, -0.2, 0.3, 0.8, 1.2, 1.7], shape) + random.uniform(
        -0.1, 0.1, shape
    )


def case(
    options: str, x: Shape, label: Shape, expected: Callable[..., Any], classes: int = 5
) -> Case:
    return Case(f'type: "HingeLoss" {options}', [x, label], expected, [off_one, labels(classes)])


CASES = [
    case("", X, LABEL, loss()),
    case(L2, X, LABEL, loss(2)),
    case("hinge_loss_param { norm: L1 }", X, (4, 1, 1, 1), loss()),
    # All axes but the first are one axis of classes.
    case("", (3, 2, 2, 3), (3,), loss(), 12),
    case(L2, (3, 2, 4), (3, 1), loss(2), 8),
    case(L2, (1, 7), (1,), loss(2), 7),
    case("", (3,), (3,), loss(), 1),
    case("", (0, 5), (0,), loss()),
    case(f"{L2} loss_weight: 0.5", X, LABEL, loss(2)),
    # loss_param is not read, as in Caffe.
    case("loss_param { normalization: NONE ignore_label: 2 }", X, LABEL, loss()),
]


def mistake(label: Draw, message: str) -> Mistake:
    return Mistake(
        'type: "HingeLoss"', [X, LABEL], message, '"x1"', [normal, label], error=DataError
    )


MISTAKES = [
    Mistake('type: "HingeLoss"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake('type: "HingeLoss" top: "a" top: "b"', [X, LABEL], "takes 1 top blob", '"b"'),
    Mistake(
        'type: "HingeLoss"',
        [(4, 5, 2), (3,)],
        "Number of labels must match number of predictions: 4x5x2 with 10 classes on axes 1 to 2 "
        "makes 4 predictions, but the labels are 3",
        '"x1"',
    ),
    Mistake('type: "HingeLoss"', [X, (4, 5)], "but the labels are 4x5", '"x1"'),
    Mistake('type: "HingeLoss"', [(), ()], "needs a bottom with a batch axis", '"x0"'),
    Mistake(
        'type: "HingeLoss"',
        [(4, 5, 0), LABEL],
        "the bottom 4x5x0 has no classes on axes 1 to 2",
        '"x0"',
    ),
    mistake(values([0, 1, 5, 0]), "label 5 (number 2 of the batch, counted from 0) is not one of"),
    mistake(values([0, -1, 9, 0]), "label -1 (number 1 of the batch"),
    mistake(values([np.nan, 0, 0, 0]), "label nan (number 0 of the batch"),
]


def test_nothing_is_said_of_a_label_to_ignore() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[1].data[0] = 255
        with pytest.raises(DataError) as caught:
            trial.forward()
    assert caught.value.diagnostics[0].hint == ""


@pytest.mark.parametrize("options", ["", L2])
def test_at_the_kink_there_is_no_gradient(options: str) -> None:
    with Trial(case(options, (1, 3), (1,), loss())) as trial:
        trial.bottom[0].data[...] = [[1, -1, -1]]
        trial.bottom[1].data[...] = 0
        trial.run()
        assert trial.top[0].data == 0
        assert (trial.bottom[0].diff == 0).all()


@pytest.mark.parametrize(("options", "slopes"), [("", [-1, 1, 0]), (L2, [-1, 5, 0])])
def test_the_gradient(options: str, slopes: list[float]) -> None:
    with Trial(case(options, (2, 3), (2,), loss())) as trial:
        trial.bottom[0].data[...] = [0.5, 1.5, -2]
        trial.bottom[1].data[...] = 0
        trial.forward()
        trial.top[0].diff.fill(4)
        trial.backward()
        assert (trial.bottom[0].diff == 2 * np.array(slopes)).all()


def test_a_diverged_net_says_so() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[1, 2] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data)


def test_fractions_of_labels_are_cut_off() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[1].data[...] = [0, 1, 2, 3]
        whole = trial.run()
        trial.bottom[1].data[...] = [-0.9, 1.5, 2.1, 3.99]
        assert trial.run()["top 0"] == whole["top 0"]
