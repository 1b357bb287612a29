"""Threshold: limits of either sign, the limit itself, NaN, and that nothing learns through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.errors import NetError
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial, values

X = (2, 3, 4, 5)


def above(threshold: float) -> Callable[..., Any]:
    return lambda x: (x > threshold).astype(float)


def case(threshold: float, x: tuple[int, ...] = X, **rest: Any) -> Case:
    text = f'type: "Threshold" threshold_param {{ threshold: {threshold} }}'
    return Case(text, [x], above(threshold), **rest)


CASES = [
    Case('type: "Threshold"', [X], above(0)),
    case(0.5, (1, 2, 3, 4, 2)),
    case(-0.75),
    case(0.5, (1,)),
    case(0.5, (0, 3)),
]

MISTAKES = [
    Mistake('type: "Threshold"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Threshold" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "Threshold"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_limit_itself_is_not_above_it(dtype: type[Any]) -> None:
    """0.1 is the float32 next to it in either type."""
    limit = np.float32(0.1)
    x = [limit, np.nextafter(limit, np.float32(1)), np.inf, -np.inf, np.nan]
    with Trial(case(0.1, (5,), draw=values(x)), dtype) as trial:
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, [0, 1, 1, 0, 0])


NET = """
    layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "a"
            inner_product_param { num_output: 3 } }
    layer { name: "cut" type: "Threshold" bottom: "a" top: "%s" %s }
    layer { name: "loss" type: "EuclideanLoss" bottom: "%s" bottom: "t" top: "loss" }
"""


def test_nothing_learns_through_it() -> None:
    with pytest.raises(NetError, match=r'has no gradient for its bottom "a"'):
        Net.from_text(NET % ("b", "", "b"))


@pytest.mark.parametrize("top", ["a", "b"])
def test_a_net_may_say_that_nothing_should(top: str) -> None:
    net = Net.from_text(NET % (top, "propagate_down: false", top))
    net.forward()
    net.backward()
    assert not net.params["ip"][0].diff.any()
