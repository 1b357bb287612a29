"""AdaDelta: its formula, what it rounds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("keep", [0.75, 0])
def test_training(agrees: Callable[..., None], keep: float) -> None:
    def ada_delta(g: Any, history: list[Any], rate: float, t: int) -> Any:
        squares, steps = history
        squares[...] = keep * squares + (1 - keep) * g**2
        step = g * np.sqrt((steps + 0.125) / (squares + 0.125))
        steps[...] = keep * steps + (1 - keep) * step**2
        return rate * step

    agrees(f'type: "AdaDelta" delta: 0.125 momentum: {keep}', ada_delta)


def test_rounding(rounds: Callable[..., None]) -> None:
    def exact(g: Any, history: list[Any], rate: Any, fused: Any) -> Any:
        keep, delta = np.float32(0.95), np.float32(1e-3)
        take = np.float32(1) - keep
        squares = fused(take, g * g, keep * history[0])
        step = g * np.sqrt((history[1] + delta) / (squares + delta))
        return rate * step, [squares, fused(take, step * step, keep * history[1])]

    rounds('type: "AdaDelta", delta: 1e-3, momentum: 0.95', exact)


@pytest.mark.parametrize(
    ("fields", "message", "at"),
    [
        ("momentum: 1", "momentum should lie between 0 and 1, but is 1", "1"),
        ("momentum: -0.1", "momentum should lie between 0 and 1, but is -0.1", "-0.1"),
        ("delta: -1e-6", "delta cannot be -1e-06", "-1e-6"),
    ],
)
def test_mistakes(
    refused: Callable[[str], tuple[str, str]], fields: str, message: str, at: str
) -> None:
    assert refused(f'type: "AdaDelta"\n{fields}') == (f'solver type "AdaDelta": {message}', at)
