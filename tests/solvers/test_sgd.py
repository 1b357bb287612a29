"""SGD: its formula, and what it rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("keep", [0.75, 0])
def test_training(agrees: Callable[..., None], keep: float) -> None:
    def sgd(g: Any, history: list[Any], rate: float, t: int) -> Any:
        history[0][...] = keep * history[0] + rate * g
        return history[0]

    agrees(f"momentum: {keep}", sgd)


def test_rounding(rounds: Callable[..., None]) -> None:
    def exact(g: Any, history: list[Any], rate: Any, fused: Any) -> Any:
        v = fused(rate, g, np.float32(0.9) * history[0])
        return v, [v]

    rounds('type: "SGD", momentum: 0.9', exact)
