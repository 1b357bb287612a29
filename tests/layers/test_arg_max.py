"""ArgMax: over items and along axes, indices and values, ties, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.testing import Case, Draw, Mistake, Trial, normal, values


def first(rows: Any, top_k: int) -> Any:
    """The indices of the ``top_k`` largest of each row; the higher one first where they tie."""
    found = [sorted(range(len(row)), key=lambda c: (row[c], c), reverse=True) for row in rows]
    return np.array([row[:top_k] for row in found], int).reshape(len(rows), top_k)


def of_items(top_k: int = 1, both: bool = False) -> Callable[..., Any]:
    def expected(x: Any) -> Any:
        rows = x.reshape(len(x), int(np.prod(x.shape[1:])))
        index = first(rows, top_k)
        parts = [index, np.take_along_axis(rows, index, 1)] if both else [index]
        y = np.stack(parts, 1)
        return y.reshape(*y.shape, *[1] * (x.ndim - 3))

    return expected


def along(axis: int, top_k: int = 1, value: bool = False) -> Callable[..., Any]:
    def expected(x: Any) -> Any:
        last = np.moveaxis(x, axis, -1)
        rows = last.reshape(int(np.prod(last.shape[:-1])), x.shape[axis])
        index = first(rows, top_k)
        y = np.take_along_axis(rows, index, 1) if value else index
        return np.moveaxis(y.reshape(*last.shape[:-1], top_k), -1, axis)

    return expected


def case(
    options: str, x: Shape, expected: Callable[..., Any], draw: Draw = normal, **more: Any
) -> Case:
    return Case(f'type: "ArgMax" argmax_param {{ {options} }}', [x], expected, draw, **more)


X = (3, 5, 4)


def ties(random: np.random.Generator, shape: Shape) -> Any:
    return random.integers(0, 3, shape)


CASES = [
    case("", X, of_items()),
    case("top_k: 3", X, of_items(3)),
    case("out_max_val: true", X, of_items(1, both=True)),
    case("out_max_val: true top_k: 4", X, of_items(4, both=True)),
    case("top_k: 20", X, of_items(20)),
    # The top has as many axes as the bottom, and at least 3.
    case("top_k: 2", (2, 3, 2, 2, 1), of_items(2)),
    case("out_max_val: true top_k: 2", (2, 3, 2, 2), of_items(2, both=True)),
    case("top_k: 2", (2, 6), of_items(2)),
    case("out_max_val: true", (4,), of_items(1, both=True)),
    case("axis: 1", X, along(1)),
    case("axis: 1 top_k: 3", X, along(1, 3)),
    case("axis: 1 top_k: 5 out_max_val: true", X, along(1, 5, value=True)),
    case("axis: 0 top_k: 2", X, along(0, 2)),
    case("axis: -1 top_k: 2 out_max_val: true", X, along(2, 2, value=True)),
    case("axis: -3", X, along(0)),
    case("axis: 0", (6,), along(0)),
    case("axis: 1 top_k: 9", (2, 9, 3), along(1, 9), ties),
    case("top_k: 7 out_max_val: true", (4, 9), of_items(7, both=True), ties),
    case("", (0, 5), of_items()),
    case("axis: 1 top_k: 2", (2, 3, 0), along(1, 2)),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "ArgMax" argmax_param {{ {options} }}', bottoms, message, at)


MISTAKES = [
    mistake("", [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake("axis: 3", [X], "axis is 3, but the bottom is 3x5x4 (3 axes)", "3"),
    mistake("axis: -4", [X], "axis is -4, but the bottom is 3x5x4 (3 axes)", "-4"),
    mistake(
        "axis: 1 top_k: 6",
        [X],
        "top_k is 6, but must be from 1 to 5: the bottom 3x5x4 has 5 values on axis 1",
        "6",
    ),
    mistake(
        "top_k: 21",
        [X],
        "top_k is 21, but must be from 1 to 20: the bottom 3x5x4 has 20 values in an item",
        "21",
    ),
    mistake("top_k: 0", [X], "top_k is 0, but must be from 1 to 20", "0"),
    mistake("top_k: 4294967295", [X], "top_k is 4294967295, but must be", "4294967295"),
    mistake("", [(2, 0)], "the bottom 2x0 has no values to choose from", '"x0"'),
    mistake("axis: 1 top_k: 2", [(2, 0)], "the bottom 2x0 has no values to choose from", '"x0"'),
    mistake("", [()], "needs a bottom with a batch axis, but it is a scalar", '"x0"'),
    mistake("axis: 0", [()], "axis is 0, but the bottom is scalar (0 axes)", "0"),
    Mistake('type: "ArgMax" top: "x0"', [X], 'cannot work in place on "x0"', '"x0"'),
]


def test_among_equal_values_the_last_comes_first() -> None:
    tied = case("top_k: 3", (1, 5), of_items(3), values([[7, 9, 9, 7, 9]]))
    with Trial(tied) as trial:
        trial.forward()
        assert trial.top[0].data.tolist() == [[[4, 2, 1]]]


@pytest.mark.parametrize(
    ("row", "index"),
    [
        # As Caffe finds it: comparing with a NaN, the later index wins.
        ([5, np.nan, 1, 3, 2], 3),
        ([1, 2, 3, 4, np.nan], 4),
        ([np.nan, 2, 1, 0, 0], 1),
        ([np.nan] * 5, 4),
    ],
)
def test_the_largest_beside_nan(row: list[float], index: int) -> None:
    with Trial(case("", (1, 5), of_items(), values([row]))) as trial:
        trial.forward()
        assert trial.top[0].data.item() == index


@pytest.mark.parametrize("top_k", [2, 5, 20])
def test_nan_leaves_each_index_once(top_k: int) -> None:
    with Trial(case(f"top_k: {top_k}", X, of_items(top_k))) as trial:
        trial.bottom[0].flat[::3] = np.nan
        trial.forward()
        for row in trial.top[0].data.reshape(3, top_k):
            assert len({int(index) for index in row if 0 <= index < 20}) == top_k


def test_infinite_values_are_values() -> None:
    rows = [[-np.inf, -np.inf, 0], [-np.inf] * 3, [0, np.inf, 5]]
    with Trial(case("top_k: 2", (3, 3), of_items(2), values(rows))) as trial:
        trial.forward()
        assert trial.top[0].data.tolist() == [[[2, 1]], [[2, 1]], [[1, 2]]]
