"""Eltwise: every operation of two and more bottoms, coefficients, equal values, zeros, in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.testing import Case, Draw, Mistake, Trial, distinct, normal, values

X = (2, 3, 4)


def weighted(*coeff: float) -> Any:
    return lambda *x: sum(c * v for c, v in zip(coeff, x, strict=True))


def product(*x: Any) -> Any:
    return reduce(np.multiply, x)


def largest(*x: Any) -> Any:
    return reduce(np.maximum, x)


def apart(number: int) -> Draw:
    """Values that differ from those of all other bottoms: nothing changes hands."""
    return lambda random, shape: distinct(random, shape) + 0.003 * number


def case(
    options: str, count: int, expected: Any, x: Shape = X, draw: Draw | Sequence[Draw] = normal
) -> Case:
    text = f'type: "Eltwise" eltwise_param {{ {options} }}'
    return Case(text, [x] * count, expected, draw)


CASES = [
    Case('type: "Eltwise"', [X, X], weighted(1, 1)),
    case("operation: SUM", 4, weighted(1, 1, 1, 1)),
    case("coeff: 1 coeff: -1", 2, weighted(1, -1)),
    case("coeff: 1.5 coeff: -0.5 coeff: 0", 3, weighted(1.5, -0.5, 0)),
    case("operation: PROD", 2, product),
    case("operation: PROD", 4, product),
    case("operation: PROD stable_prod_grad: false", 3, product),
    case("operation: MAX", 2, largest, draw=[apart(0), apart(1)]),
    case("operation: MAX", 4, largest, draw=[apart(i) for i in (0, 2, 1, -1)]),
    case("operation: MAX coeff: 2 coeff: 3", 2, largest, draw=[apart(1), apart(0)]),
    *(
        case(f"operation: {operation}", 2, expected, (0, 3))
        for operation, expected in (
            ("SUM", weighted(1, 1)),
            ("PROD", product),
            ("MAX", largest),
        )
    ),
    Case('type: "Eltwise"', [(), ()], weighted(1, 1), other=[(), ()]),
]

MISTAKES = [
    Mistake('type: "Eltwise"', [X], "takes 2 or more bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "Eltwise"',
        [X, X, (2, 3, 5)],
        "all bottoms must have one shape, but the first is 2x3x4 and number 3 is 2x3x5",
        '"x2"',
    ),
    Mistake(
        'type: "Eltwise"',
        [X, (2, 12)],
        "all bottoms must have one shape, but the first is 2x3x4 and number 2 is 2x12",
        '"x1"',
    ),
    Mistake(
        'type: "Eltwise" eltwise_param { coeff: 1 }',
        [X, X],
        "has 2 bottoms but 1 coeff: give one per bottom, or none",
        "1",
    ),
    Mistake(
        'type: "Eltwise" eltwise_param { operation: MAX coeff: [1, 2, 3] }',
        [X, X],
        "has 2 bottoms but 3 coeff",
        "1",
    ),
    Mistake(
        'type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 2 }',
        [X, X],
        "coeff goes with operation SUM, not PROD",
        "1",
    ),
]


@pytest.mark.parametrize(("count", "winner"), [(2, 1), (3, 1)])
def test_of_equal_values_the_second_bottom_gets_the_gradient(count: int, winner: int) -> None:
    with Trial(case("operation: MAX", count, largest, draw=values(3))) as trial:
        trial.run()
        for i, blob in enumerate(trial.bottom):
            expected = trial.top[0].diff if i == winner else 0 * trial.top[0].diff
            np.testing.assert_array_equal(blob.diff, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([np.nan, 1, 0], 1),
        ([1, np.nan, 2], np.nan),
        ([1, 2, np.nan], 2),
        ([-np.inf, -np.inf, -np.inf], -np.inf),
    ],
)
def test_the_maximum_compares_as_caffe_does(given: list[float], expected: float) -> None:
    with Trial(case("operation: MAX", 3, largest, draw=[values(v) for v in given])) as trial:
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, expected)


@pytest.mark.parametrize("stable", ["true", "false"])
def test_a_product_has_a_gradient_at_zero(stable: str) -> None:
    options = f"operation: PROD stable_prod_grad: {stable}"
    with Trial(case(options, 3, product, draw=[values(0), values(2), values(3)])) as trial:
        trial.run()
        dy = trial.top[0].diff
        for blob, factor in zip(trial.bottom, (6, 0, 0), strict=True):
            np.testing.assert_array_equal(blob.diff, factor * dy)


def test_in_place_a_product_keeps_its_first_bottom_only_for_the_others() -> None:
    with Trial(case("operation: PROD", 2, product), in_place=True) as trial:
        trial.bottom[1].bind(trial.bottom[1].data, None)
        trial.layer.setup(trial.bottom, trial.top)
        dy = trial.top[0].diff.copy()
        trial.forward()
        trial.backward()
        np.testing.assert_array_equal(trial.bottom[0].diff, dy * trial.bottom[1].data)
