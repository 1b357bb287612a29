"""Embed: indices of any shape, repeated ones, fractions, and those that are out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, labels, values


def look_up(x: Any, weight: Any, *bias: Any) -> Any:
    rows = np.stack([weight[int(i)] for i in x.reshape(-1)] or [weight[0]])[: x.size]
    return rows.reshape(*x.shape, weight.shape[1]) + (bias[0] if bias else 0)


def case(options: str, x: Shape, draw: Draw, **more: Any) -> Case:
    return Case(f'type: "Embed" embed_param {{ {options} }}', [x], look_up, draw, **more)


CASES = [
    case("input_dim: 7 num_output: 4", (3, 5), labels(7)),
    case("input_dim: 7 num_output: 4 bias_term: false", (3, 5), labels(7)),
    # Indices that repeat, and rows beyond a block of columns.
    case("input_dim: 2 num_output: 37", (4, 2, 3), labels(2)),
    case("input_dim: 3 num_output: 1", (6, 1, 1, 1), labels(3)),
    case("input_dim: 1 num_output: 2", (4,), labels(1)),
    case("input_dim: 5 num_output: 3", (), values(2), other=[(2,)]),
    case("input_dim: 5 num_output: 3", (0, 2), labels(5)),
]


def mistake(x: float, message: str) -> Mistake:
    text = 'type: "Embed" embed_param { input_dim: 5 num_output: 3 }'
    draw = values([[0, 4], [x, 9]])
    return Mistake(text, [(2, 2)], message, '"x0"', draw, error=DataError)


MISTAKES = [
    Mistake(
        'type: "Embed" embed_param { input_dim: 5 }',
        [(2,)],
        "num_output is missing",
        "embed_param",
    ),
    Mistake(
        'type: "Embed" embed_param { num_output: 3 input_dim: 0 }',
        [(2,)],
        "input_dim is 0, but must be at least 1",
        "0",
    ),
    Mistake(
        'type: "Embed" embed_param { num_output: 3 input_dim: 5 }',
        [(2,), (2,)],
        "takes 1 bottom blob, but 2 given",
        '"x1"',
    ),
    mistake(5, "index 5 (number 2 of the bottom, counted from 0) is not one of 0 to 4"),
    mistake(-1, "index -1 (number 2 of the bottom"),
    mistake(np.nan, "index nan (number 2 of the bottom"),
    mistake(np.inf, "index inf (number 2 of the bottom"),
    mistake(1e30, "index 1e+30 (number 2 of the bottom"),
]


def test_fractions_are_cut_off() -> None:
    with Trial(case("input_dim: 4 num_output: 3", (5,), labels(4))) as trial:
        trial.bottom[0].data[...] = [0, 0, 1, 2, 3]
        whole = trial.run()
        trial.layer.blobs[0].diff.fill(0)
        trial.layer.blobs[1].diff.fill(0)
        trial.bottom[0].data[...] = [-0.9, 0.5, 1.1, 2.99, 3.75]
        for name, array in trial.run().items():
            np.testing.assert_array_equal(array, whole[name], err_msg=name)


def test_gradients_of_repeated_indices_add_up() -> None:
    with Trial(case("input_dim: 4 num_output: 3", (6,), labels(4))) as trial:
        trial.bottom[0].data[...] = [3, 1, 3, 3, 1, 0]
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        assert trial.layer.blobs[0].diff.tolist() == [[1] * 3, [2] * 3, [0] * 3, [3] * 3]
        assert trial.layer.blobs[1].diff.tolist() == [6] * 3


@pytest.mark.parametrize("bias", ["true", "false"])
def test_the_shapes_of_the_parameters(bias: str) -> None:
    options = f"input_dim: 7 num_output: 4 bias_term: {bias}"
    layer = case(options, (2, 3), labels(7)).layer()
    assert layer.shapes((2, 3)) == [(2, 3, 4)]
    shapes = [param.shape for param in layer.params((2, 3))]
    assert shapes == ([(7, 4), (4,)] if bias == "true" else [(7, 4)])
