"""RMSProp: its formula, what it rounds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize(("fields", "keep"), [("rms_decay: 0.75", 0.75), ("rms_decay: 0", 0)])
def test_training(agrees: Callable[..., None], fields: str, keep: float) -> None:
    def rms_prop(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0][...] = keep * history[0] + (1 - keep) * g**2
        return rate * g / (np.sqrt(history[0]) + 0.125)

    agrees(f'type: "RMSProp" delta: 0.125 {fields}', rms_prop)


def test_the_usual_decay(agrees: Callable[..., None]) -> None:
    keep = float(np.float32(0.99))

    def rms_prop(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0][...] = keep * history[0] + (1 - keep) * g**2
        return rate * g / (np.sqrt(history[0]) + 0.125)

    agrees('type: "RMSProp" delta: 0.125', rms_prop)


def test_rounding(rounds: Callable[..., None]) -> None:
    def exact(g: Any, history: list[Any], rate: Any, fused: Any) -> Any:
        keep = np.float32(0.95)
        h = fused(np.float32(1) - keep, g * g, keep * history[0])
        return rate * (g / (np.sqrt(h) + np.float32(1e-3))), [h]

    rounds('type: "RMSProp", delta: 1e-3, rms_decay: 0.95', exact)


@pytest.mark.parametrize(
    ("fields", "message", "at"),
    [
        ("momentum: 0.9", "Momentum cannot be used with RMSProp, but momentum is 0.9", "0.9"),
        ("rms_decay: 1", "rms_decay should lie between 0 and 1, but is 1", "1"),
        ("rms_decay: -0.5", "rms_decay should lie between 0 and 1, but is -0.5", "-0.5"),
        ("delta: -1", "delta cannot be -1", "-1"),
    ],
)
def test_mistakes(
    refused: Callable[[str], tuple[str, str]], fields: str, message: str, at: str
) -> None:
    assert refused(f'type: "RMSProp"\n{fields}') == (f'solver type "RMSProp": {message}', at)
