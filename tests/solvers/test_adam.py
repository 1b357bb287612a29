"""Adam: its formula, what it rounds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize(("keep1", "keep2"), [(0.75, 0.875), (0, 0.5), (0.5, 0)])
def test_training(agrees: Callable[..., None], keep1: float, keep2: float) -> None:
    def adam(g: Any, history: list[Any], rate: float, t: int) -> Any:
        mean, square = history
        mean[...] = keep1 * mean + (1 - keep1) * g
        square[...] = keep2 * square + (1 - keep2) * g**2
        correction = np.sqrt(1 - keep2**t) / (1 - keep1**t)
        return rate * correction * mean / (np.sqrt(square) + 0.125)

    agrees(f'type: "Adam" delta: 0.125 momentum: {keep1} momentum2: {keep2}', adam)


def test_rounding(rounds: Callable[..., None]) -> None:
    def exact(g: Any, history: list[Any], rate: Any, fused: Any) -> Any:
        keep1, keep2, one = np.float32(0.9), np.float32(0.999), np.float32(1)
        mean = fused(one - keep1, g, keep1 * history[0])
        square = fused(one - keep2, g * g, keep2 * history[1])
        # The sixth iteration from 0 is update 7.
        correction = np.sqrt(1 - float(keep2) ** 7) / (1 - float(keep1) ** 7)
        scale = rate * np.float32(correction)
        return scale * (mean / (np.sqrt(square) + np.float32(1e-3))), [mean, square]

    rounds('type: "Adam", delta: 1e-3, momentum: 0.9', exact)


def test_the_usual_shares(agrees: Callable[..., None]) -> None:
    """momentum is 0 and momentum2 0.999 unless given."""
    keep = float(np.float32(0.999))

    def adam(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0][...] = g
        history[1][...] = keep * history[1] + (1 - keep) * g**2
        return rate * np.sqrt(1 - keep**t) * g / (np.sqrt(history[1]) + 0.125)

    agrees('type: "Adam" delta: 0.125', adam)


@pytest.mark.parametrize(
    ("fields", "message", "at"),
    [
        ("momentum: 1", "momentum should lie between 0 and 1, but is 1", "1"),
        ("momentum: -0.9", "momentum should lie between 0 and 1, but is -0.9", "-0.9"),
        ("momentum2: 1", "momentum2 should lie between 0 and 1, but is 1", "1"),
        ("delta: -1e-8", "delta cannot be -1e-08", "-1e-8"),
    ],
)
def test_mistakes(
    refused: Callable[[str], tuple[str, str]], fields: str, message: str, at: str
) -> None:
    assert refused(f'type: "Adam"\n{fields}') == (f'solver type "Adam": {message}', at)
