"""Reduction: every operation from every axis, coefficients, the kink, sums of many values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.testing import Case, Mistake, Trial, normal, off_zero

X = (2, 3, 4, 5)

#: A plain function of the rows that are reduced, by the name of the operation.
OPERATIONS = {
    "SUM": lambda rows: rows.sum(-1),
    "ASUM": lambda rows: np.abs(rows).sum(-1),
    "SUMSQ": lambda rows: (rows**2).sum(-1),
    "MEAN": lambda rows: rows.mean(-1),
}


def case(operation: str, axis: int = 0, coeff: float = 1, x: Shape = X) -> Case:
    before = x[: axis % len(x)]
    size = int(np.prod(x[axis % len(x) :]))

    def expected(x: Any) -> Any:
        return coeff * OPERATIONS[operation](x.reshape(*before, size))

    options = f"operation: {operation} axis: {axis} coeff: {coeff}"
    draw = off_zero if operation == "ASUM" else normal
    text = f'type: "Reduction" reduction_param {{ {options} }}'
    return Case(text, [x], expected, draw)


CASES = [
    Case('type: "Reduction"', [X], lambda x: x.sum()),
    *(case(operation) for operation in OPERATIONS),
    *(case(operation, 1, 0.5) for operation in OPERATIONS),
    *(case(operation, -1, -2) for operation in OPERATIONS),
    *(case(operation, 1, x=(0, 3)) for operation in OPERATIONS),
    case("MEAN", 2, 3),
    case("SUM", 0, x=(0, 3)),
    case("SUMSQ", 1, x=(2, 0)),
    case("ASUM", 0, 0),
    case("MEAN", -1, x=(7,)),
]


def mistake(options: str, x: Shape, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Reduction" reduction_param {{ {options} }}', [x], message, at)


MISTAKES = [
    mistake("axis: 4", X, "axis is 4, but the bottom is 2x3x4x5 (4 axes)", "4"),
    mistake("axis: -5", X, "axis is -5, but the bottom is 2x3x4x5 (4 axes)", "-5"),
    mistake("", (), "axis is 0, but the bottom is scalar (0 axes)", "reduction_param"),
    mistake(
        "operation: MEAN axis: 1",
        (2, 3, 0),
        "the bottom 2x3x0 has no values from axis 1 on to take the mean of",
        '"x0"',
    ),
    Mistake('type: "Reduction"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
]


def test_the_slope_of_an_absolute_at_zero_is_zero() -> None:
    with Trial(case("ASUM", 1, x=(1, 3))) as trial:
        trial.bottom[0].data[...] = [[-1, 0, 2]]
        trial.forward()
        trial.top[0].diff.fill(3)
        trial.backward()
        assert trial.bottom[0].diff.tolist() == [[-3, 0, 3]]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_sum_of_many_values_is_accurate(operation: str) -> None:
    one = case(operation, x=(500, 1000))
    with Trial(one, np.float32) as trial:
        trial.bottom[0].data += np.float32(0.1)
        trial.forward()
        expected = one.expected(trial.bottom[0].data.astype(np.float64))
        assert trial.top[0].data == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nan_stays_nan(operation: str) -> None:
    with Trial(case(operation, 1)) as trial:
        trial.bottom[0].data[0, 1, 2, 3] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data).tolist() == [True, False]
