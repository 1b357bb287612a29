"""LSTMUnit: one step; sequences that begin, go on, or go on in part; NaN before a beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, Trial, assert_same_bits, normal, values


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def unit(c_prev: Any, gates: Any, cont: Any) -> Any:
    i, f, o, g = np.split(gates, 4, axis=2)
    c = cont[..., None] * sigmoid(f) * c_prev + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def case(count: int, size: int, cont: Any) -> Case:
    shapes = [(1, count, size), (1, count, 4 * size), (1, count)]
    other = [(1, count + 1, size), (1, count + 1, 4 * size), (1, count + 1)]
    draw = [normal, normal, values(cont)]
    if np.size(cont) > 1:
        other = [(1, count, size + 1), (1, count, 4 * size + 4), (1, count)]
    return Case('type: "LSTMUnit"', shapes, unit, draw, other=other)


CASES = [
    case(3, 4, [[0, 1, 0]]),
    case(3, 4, 1),
    case(3, 4, 0),
    case(4, 3, [[1, 0.5, 0, -2]]),
    case(1, 1, 1),
    case(2, 130, [[1, 0]]),  # more than one block of neighbours
    case(0, 4, 1),
]

C, GATES, CONT = (1, 3, 4), (1, 3, 16), (1, 3)


def mistake(bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake('type: "LSTMUnit"', bottoms, message, at)


MISTAKES = [
    mistake([C, GATES], "takes 3 bottom blobs, but 2 given", "layer"),
    Mistake('type: "LSTMUnit" top: "c"', [C, GATES, CONT], "takes 2 top blobs, but 1", "layer"),
    mistake([(3, 4), GATES, CONT], "c_prev must be 1xNxD, the cells of one step, but", '"x0"'),
    mistake([(2, 3, 4), GATES, CONT], "c_prev must be 1xNxD, the cells of one step", '"x0"'),
    mistake([C, (1, 3, 12), CONT], "gates must be 1x3x16 for a c_prev of 1x3x4, but is", '"x1"'),
    mistake([C, (1, 2, 16), CONT], "gates must be 1x3x16 for a c_prev of 1x3x4, but is", '"x1"'),
    mistake([C, GATES, (1, 4)], "cont must be 1x3 for a c_prev of 1x3x4, but is 1x4", '"x2"'),
    mistake([C, GATES, (1, 3, 1)], "cont must be 1x3 for a c_prev of 1x3x4", '"x2"'),
]


def test_what_came_before_a_beginning_does_not_count() -> None:
    with Trial(CASES[2]) as trial:
        expected = trial.run()
        trial.bottom[0].data.fill(np.nan)
        assert_same_bits(trial.run(), expected, "after NaN")
        trial.top[0].diff.fill(np.nan)
        trial.backward()
        assert (trial.bottom[0].diff == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_that_are_far_out_saturate(dtype: type[Any]) -> None:
    with Trial(CASES[1], dtype) as trial:
        i, f, o, g = np.split(trial.bottom[1].data, 4, axis=2)
        c_prev = trial.bottom[0].data
        for far in (1e4, -1e4):
            i[...] = f[...] = o[...] = g[...] = far
            trial.run()
            assert (trial.top[0].data == (c_prev + 1 if far > 0 else 0)).all()
            assert (trial.bottom[1].diff == 0).all()
