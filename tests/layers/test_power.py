"""Power: whole and broken powers, the constant ones, negative numbers, the derivative at 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Draw, Mistake, curve, normal

X = (2, 3, 4, 5)


def raised(power: float, scale: float = 1, shift: float = 0) -> Callable[..., Any]:
    return lambda x: np.float_power(shift + scale * x, power)


def case(
    options: str, expected: Callable[..., Any], draw: Draw = normal, x: tuple[int, ...] = X
) -> Case:
    return Case(f'type: "Power" power_param {{ {options} }}', [x], expected, draw)


def positive(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return random.uniform(0.2, 3, shape)


CASES = [
    Case('type: "Power"', [X], lambda x: x),
    case("scale: -2 shift: 1", lambda x: 1 - 2 * x),
    case("power: 2", lambda x: x * x),
    case("power: 2 scale: 0.5 shift: 3", lambda x: (3 + x / 2) ** 2, x=(1, 2, 3, 4, 2)),
    case("power: 3 scale: -0.5", raised(3, -0.5)),
    case("power: -1 scale: 0.5 shift: -4", lambda x: 1 / (x / 2 - 4)),
    case("power: 0.5 scale: 0.75 shift: 0.5", raised(0.5, 0.75, 0.5), positive),
    case("power: -1.5 shift: 0.25", raised(-1.5, 1, 0.25), positive),
    case("power: 0 scale: 2 shift: 1", lambda x: np.ones(x.shape)),
    case("power: 3 scale: 0 shift: -2", lambda x: np.full(x.shape, -8.0)),
    case("power: 1 scale: 0 shift: -2", lambda x: np.full(x.shape, -2.0)),
    case("power: 0 scale: 0", lambda x: np.ones(x.shape)),
    case("power: 3", lambda x: x, x=(0, 3)),
]

MISTAKES = [
    Mistake('type: "Power"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Power" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "Power"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize(
    ("power", "value", "slope"),
    [
        (-1, np.inf, -np.inf),
        (0, 1, 0),
        (0.5, 0, np.inf),
        (1, 0, 1),
        (1.5, 0, 0),
        (2, 0, 0),
        (3, 0, 0),
    ],
)
def test_at_zero(power: float, value: float, slope: float) -> None:
    assert curve(f'type: "Power" power_param {{ power: {power} }}', [0]) == (value, slope)
    with_shift = f'type: "Power" power_param {{ power: {power} shift: -3 }}'
    assert curve(with_shift, [3]) == (value, slope)


def test_powers_of_negative_numbers() -> None:
    y, slope = curve('type: "Power" power_param { power: 3 }', [-2])
    assert (y, slope) == (-8, 12)
    y, slope = curve('type: "Power" power_param { power: -2 }', [-2])
    assert (y, slope) == (0.25, 0.25)
    y, slope = curve('type: "Power" power_param { power: 0.5 }', [-2])
    assert np.isnan(y).all()
    assert np.isnan(slope).all()


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ("power: 0", 1),
        ("power: 0 shift: -1", 1),
        ("scale: 0 shift: 5", 5),
        ("scale: 0 power: 2", 0),
        ("scale: 0 power: -1", np.inf),
        ("scale: 0 power: 0.5 shift: -1", np.nan),
    ],
)
def test_a_constant_does_not_look_at_x(options: str, value: float) -> None:
    y, slope = curve(f'type: "Power" power_param {{ {options} }}', [0, -1, np.inf, np.nan])
    np.testing.assert_array_equal(y, np.full(4, value))
    np.testing.assert_array_equal(slope, np.zeros(4))
