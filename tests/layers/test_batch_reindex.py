"""BatchReindex: items repeated, left out, in another order; indices that are none."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Mistake, Trial, labels, normal, values


def reindexed(x: Any, index: Any) -> Any:
    return np.array([x[int(n)] for n in index]).reshape(len(index), *x.shape[1:])


def case(x: Shape, index: Any, other: Any = None) -> Case:
    shape = np.shape(index)
    draw = [normal, values(index)]
    return Case('type: "BatchReindex"', [x, shape], reindexed, draw, other=other or [x, shape])


CASES = [
    Case('type: "BatchReindex"', [(4, 3, 2), (9,)], reindexed, [normal, labels(4)]),
    Case('type: "BatchReindex"', [(4, 80), (6,)], reindexed, [normal, labels(4)]),
    case((4, 3), [3, 0, 3, 3]),
    case((4,), [2]),
    # A fraction is cut off, as in Caffe.
    case((3, 2), [0.9, 2.5, 1.0]),
    case((3, 2), [], [(2, 2), (0,)]),
    case((0, 2), [], [(2, 2), (0,)]),
    case((2, 0), [1, 1, 0]),
]


def mistake(index: Any, message: str, x: Shape = (4, 2)) -> Mistake:
    return Mistake(
        'type: "BatchReindex"',
        [x, np.shape(index)],
        message,
        '"x1"',
        [normal, values(index)],
        error=DataError,
    )


MISTAKES = [
    Mistake('type: "BatchReindex"', [(4, 2)], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "BatchReindex"',
        [(4, 2), (3, 1)],
        "the index must have 1 axis, but it is 3x1",
        '"x1"',
    ),
    Mistake('type: "BatchReindex"', [(4, 2), ()], "the index must have 1 axis", '"x1"'),
    Mistake(
        'type: "BatchReindex"',
        [(), (3,)],
        "needs a bottom with a batch axis, but it is a scalar",
        '"x0"',
    ),
    mistake(
        [0, 4],
        "index 4 (number 1, counted from 0) is not one of the 4 items of the bottom 4x2: 0 to 3",
    ),
    mistake([0, 1, -1], "index -1 (number 2, counted from 0) is not one of the 4 items"),
    mistake([-0.5], "index -0.5 (number 0, counted from 0) is not one of"),
    mistake([1, np.nan, 9], "index nan (number 1, counted from 0) is not one of"),
    mistake([np.inf], "index inf (number 0, counted from 0) is not one of"),
    mistake([0], "is not one of the 0 items of the bottom 0x2: there are none", (0, 2)),
    Mistake('type: "BatchReindex" top: "x0"', [(4, 2), (4,)], "cannot work in place on", '"x0"'),
]


def test_gradients_are_added_in_the_order_of_the_index() -> None:
    """1e8 + 1 - 1e8 + 1 is 1 in float32, in this order alone."""
    with Trial(case((3, 100), [1, 1, 0, 1, 1]), np.float32) as trial:
        trial.forward()
        for row, value in enumerate((1e8, 1, 5, -1e8, 1)):
            trial.top[0].diff[row] = value
        trial.backward()
        for row, value in enumerate((5, 1, 0)):
            assert (trial.bottom[0].diff[row] == value).all()
