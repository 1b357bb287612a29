"""L1Loss: ranks, one bottom, many values, values that are equal."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, Trial


def loss(a: Any, b: Any = None) -> Any:
    b = np.zeros(a.shape) if b is None else b.reshape(a.shape)
    return np.abs(a - b).sum() / max(1, len(a))


def steps(first: float) -> Any:
    """Values of a grid: those of two grids are never equal."""

    def draw(random: np.random.Generator, shape: Shape) -> Array:
        return np.asarray(random.integers(-5, 5, shape) + first)

    return draw


def case(*bottoms: Shape, **more: Any) -> Case:
    draws = [steps(0.25), steps(0.75)][: len(bottoms)]
    return Case('type: "L1Loss"', bottoms, loss, draws, **more)


CASES = [
    case((4, 5), (4, 5)),
    case((4, 3, 2), (4, 6, 1)),
    case((4, 5)),
    # So large a sum drowns a finite difference.
    case((2, 5000), (2, 5000), forward_only=True),
    case((7,), (7,)),
    case((0, 5), (0, 5)),
]

X = (4, 5)

MISTAKES = [
    Mistake('type: "L1Loss"', [X, (3, 5)], "both bottoms must have the same batch", '"x1"'),
    Mistake('type: "L1Loss"', [()], "needs a bottom with a batch axis", '"x0"'),
    Mistake('type: "L1Loss"', [X, X, X], "takes 1 to 2 bottom blobs, but 3 given", '"x2"'),
    Mistake(
        'type: "L1Loss" l1_loss_param { l2_per_location: true }',
        [X, X],
        "FlowNet's l2_per_location is not computed",
        "true",
    ),
]


def test_equal_values_have_no_gradient() -> None:
    with Trial(case((1, 3), (1, 3))) as trial:
        trial.bottom[0].data[...] = [[1, 2, 3]]
        trial.bottom[1].data[...] = [[1, 1, 5]]
        trial.forward()
        trial.top[0].diff.fill(2)
        trial.backward()
        assert trial.top[0].data == 3
        np.testing.assert_array_equal(trial.bottom[0].diff, [[0, 2, -2]])
        np.testing.assert_array_equal(trial.bottom[1].diff, [[0, -2, 2]])
