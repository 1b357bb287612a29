"""Permute: whole and partial orders, and one that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.net import Net
from netdef.testing import Case, Mistake


def permute(*order: int) -> Callable[..., Any]:
    return lambda x: np.transpose(x, order)


def text(*order: int) -> str:
    orders = " ".join(f"order: {axis}" for axis in order)
    return f'type: "Permute" permute_param {{ {orders} }}'


X = (2, 3, 4, 5)

CASES = [
    Case(text(0, 2, 3, 1), [X], permute(0, 2, 3, 1)),
    Case(text(3, 2, 1, 0), [X], permute(3, 2, 1, 0)),
    # Axes that are not named follow in their order.
    Case(text(2), [X], permute(2, 0, 1, 3)),
    Case(text(1, 0), [X], permute(1, 0, 2, 3)),
    Case('type: "Permute"', [X], permute(0, 1, 2, 3)),
    Case(text(0, 1, 2, 3), [X], permute(0, 1, 2, 3)),
    Case(text(1, 2, 0), [(2, 3, 4)], permute(1, 2, 0)),
    Case(text(4, 1), [(2, 1, 3, 2, 4)], permute(4, 1, 0, 2, 3)),
    Case(text(0, 2, 3, 1), [(0, 3, 4, 5)], permute(0, 2, 3, 1)),
    Case('type: "Permute"', [()], lambda x: x, other=[()]),
]

MISTAKES = [
    Mistake(text(0, 4), [X], "order names axis 4, but the bottom is 2x3x4x5 (4 axes)", "4"),
    Mistake(text(0, 2, 0), [X], "order names axis 0 twice", "0"),
    Mistake(text(0), [()], "order names axis 0, but the bottom is scalar (0 axes)", "0"),
    Mistake('type: "Permute"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake(f'{text(1)} top: "x0"', [X], 'cannot work in place on "x0"', '"x0"'),
]


def test_an_order_that_changes_nothing_needs_no_memory() -> None:
    """Nor one that only moves an axis: those it has to copy."""
    net = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 } } }
    layer { name: "y" type: "Permute" bottom: "x" top: "y" permute_param { ORDER } }
    """
    for order, viewed in (("order: 0 order: 1", True), ("order: 1", False)):
        (planned,) = (
            each.layer
            for each in Net.from_text(net.replace("ORDER", order)).plan.layers
            if each.type == "Permute"
        )
        assert planned.view == viewed
