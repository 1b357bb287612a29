"""TripletLoss: margins, triplets that are far enough apart, MyCaffe's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, Trial

X = (6, 5)


def loss(margin: float) -> Callable[..., Any]:
    margin = float(np.float32(margin))

    def expected(a: Any, p: Any, n: Any, *labels: Any) -> Any:
        axes = tuple(range(1, a.ndim))
        near, far = (((a - b) ** 2).sum(axes) for b in (p, n))
        return np.maximum(margin + near - far, 0).sum() / (2 * max(1, len(a)))

    return expected


def apart(random: np.random.Generator, shape: Shape) -> Array:
    """Items so different in size that no loss is near 0."""
    sizes = random.choice([0.2, 1, 3], (shape[0], *[1] * (len(shape) - 1)))
    return np.asarray(sizes * random.standard_normal(shape))


def case(options: str, margin: float, x: Shape = X) -> Case:
    text = f'type: "TripletLoss" triplet_loss_param {{ {options} }}'
    return Case(text, [x] * 3, loss(margin), apart)


CASES = [
    Case('type: "TripletLoss"', [X] * 3, loss(1), apart),
    case("margin: 0.25", 0.25),
    case("margin: 0", 0),
    case("margin: 100", 100),
    case("alpha: 0.5", 0.5),
    case("margin: 1", 1, (3, 2, 4, 2)),
    case("margin: 1", 1, (0, 5)),
    Case('type: "TripletLoss"', [X, X, X, (6, 3)], loss(1), apart),
]

MISTAKES = [
    Mistake('type: "TripletLoss"', [X, X], "takes 3 to 4 bottom blobs, but 2 given", "layer"),
    Mistake(
        'type: "TripletLoss"',
        [X, X, (6, 4)],
        "anchors and features must have one shape, but the anchors are 6x5 and bottom 2 is 6x4",
        '"x2"',
    ),
    Mistake(
        'type: "TripletLoss" triplet_loss_param { margin: 1 alpha: 0.5 }',
        [X, X, X],
        "give margin, or alpha, not both",
        "0.5",
    ),
    Mistake(
        'type: "TripletLoss" triplet_loss_param { losstype: 2 }',
        [X, X, X],
        "losstype belongs to the TripletLoss of another fork",
        "2",
    ),
]


def test_a_triplet_that_is_far_enough_apart_costs_nothing() -> None:
    with Trial(case("margin: 1", 1, (2, 1))) as trial:
        for blob, values in zip(trial.bottom, ([[0], [0]], [[1], [1]], [[3], [1]]), strict=True):
            blob.data[...] = values
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        # 1 + 1 - 9 is below 0, 1 + 1 - 1 is not.
        assert trial.top[0].data == 1 / 4
        assert [blob.diff.ravel().tolist() for blob in trial.bottom] == [
            [0, 0],
            [0, 0.5],
            [0, -0.5],
        ]
