"""AdaGrad: its formula, what it rounds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def test_training(agrees: Callable[..., None]) -> None:
    def ada_grad(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0] += g**2
        return rate * g / (np.sqrt(history[0]) + 0.125)

    agrees('type: "AdaGrad" delta: 0.125', ada_grad)


def test_rounding(rounds: Callable[..., None]) -> None:
    def exact(g: Any, history: list[Any], rate: Any, fused: Any) -> Any:
        h = history[0] + g * g
        return rate * (g / (np.sqrt(h) + np.float32(1e-3))), [h]

    rounds('type: "AdaGrad", delta: 1e-3', exact)


def test_momentum_of_zero_may_be_given(agrees: Callable[..., None]) -> None:
    def ada_grad(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0] += g**2
        return rate * g / (np.sqrt(history[0]) + 1e-8)

    agrees('type: "AdaGrad" momentum: 0', ada_grad)


@pytest.mark.parametrize(
    ("fields", "message", "at"),
    [
        (
            "momentum: 0.9",
            "Momentum cannot be used with AdaGrad, but momentum is 0.9",
            "0.9",
        ),
        ("delta: -1e-8", "delta cannot be -1e-08", "-1e-8"),
    ],
)
def test_mistakes(
    refused: Callable[[str], tuple[str, str]], fields: str, message: str, at: str
) -> None:
    assert refused(f'type: "AdaGrad"\n{fields}') == (f'solver type "AdaGrad": {message}', at)
