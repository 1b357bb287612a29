"""Nesterov: its formula, what it rounds, and that it looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TEXT = 'type: "Nesterov" momentum: 0.75'


def nesterov(g: Any, history: list[Any], rate: float, t: int) -> Any:
    old = history[0].copy()
    history[0][...] = 0.75 * old + rate * g
    return 1.75 * history[0] - 0.75 * old


def test_training(agrees: Callable[..., None]) -> None:
    agrees(TEXT, nesterov)


def test_without_momentum_it_is_sgd(agrees: Callable[..., None]) -> None:
    def sgd(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0][...] = rate * g
        return rate * g

    agrees('type: "Nesterov"', sgd)


def test_rounding(rounds: Callable[..., None]) -> None:
    def exact(g: Any, history: list[Any], rate: Any, fused: Any) -> Any:
        m, one = np.float32(0.9), np.float32(1)
        v = fused(rate, g, m * history[0])
        return fused(one + m, v, -m * history[0]), [v]

    rounds('type: "Nesterov", momentum: 0.9', exact)


def test_it_looks_ahead(agrees: Callable[..., None]) -> None:
    """The weights are those of momentum with the gradient taken at w + m v (Sutskever 2013)."""
    moved: dict[int, Any] = {}

    def textbook(g: Any, history: list[Any], rate: float, t: int) -> Any:
        v = history[0]
        start = moved[id(v)] if t > 1 else np.zeros_like(v)
        looked_from = start - 0.75 * v
        v[...] = 0.75 * v + rate * g
        moved[id(v)] = start - v
        return looked_from - (moved[id(v)] - 0.75 * v)

    agrees(TEXT, textbook)
