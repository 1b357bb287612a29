"""Swish: beta of either sign and 0, far from 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def swish(beta: float) -> Callable[..., Any]:
    return lambda x: x / (1 + np.exp(-beta * x))


def case(beta: float, x: tuple[int, ...] = X) -> Case:
    return Case(f'type: "Swish" swish_param {{ beta: {beta} }}', [x], swish(beta))


CASES = [
    Case('type: "Swish"', [X], swish(1)),
    case(1.75, (1, 2, 3, 4, 2)),
    case(-0.5),
    case(0),
    case(20),
    case(1.75, (1,)),
    case(1.75, (0, 3)),
]

MISTAKES = [
    Mistake('type: "Swish"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Swish" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "Swish"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_it_is_relu(dtype: type[Any]) -> None:
    y, slope = curve('type: "Swish" swish_param { beta: 2 }', [-1024, 0, 1024, np.nan], dtype)
    np.testing.assert_array_equal(y, [0, 0, 1024, np.nan])
    np.testing.assert_array_equal(slope, [0, 0.5, 1, np.nan])
