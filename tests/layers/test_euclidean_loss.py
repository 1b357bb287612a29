"""EuclideanLoss: sum (a - b)^2 / (2 N), with a gradient for either bottom."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial

X = (3, 4, 2)


def loss(a: Any, b: Any) -> Any:
    return ((a.reshape(-1) - b.reshape(-1)) ** 2).sum() / (2 * max(1, len(a)))


CASES = [
    Case('type: "EuclideanLoss"', [X, X], loss),
    Case('type: "EuclideanLoss"', [X, (3, 8)], loss),
    Case('type: "EuclideanLoss"', [(1,), (1,)], loss),
    # More values than one job of the sum takes.
    Case('type: "EuclideanLoss"', [(2, 5000), (2, 5000)], loss),
    Case('type: "EuclideanLoss" loss_weight: 3', [X, X], loss),
    Case('type: "EuclideanLoss"', [(0, 4), (0, 4)], lambda a, b: np.array(0.0)),
]

MISTAKES = [
    Mistake('type: "EuclideanLoss"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake('type: "EuclideanLoss"', [X, (3, 7)], "but they are 3x4x2 and 3x7", '"x1"'),
    Mistake('type: "EuclideanLoss"', [X, (4, 3, 2)], "but they are 3x4x2 and 4x3x2", '"x1"'),
    Mistake('type: "EuclideanLoss"', [(), ()], "but they are scalar and scalar", '"x1"'),
    Mistake(
        'type: "EuclideanLoss" propagate_down: true',
        [X, X],
        "has 2 bottoms but 1 propagate_down",
        "true",
    ),
]


def test_a_diverged_net_says_so() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[1, 2] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data)
