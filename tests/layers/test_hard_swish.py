"""HardSwish: its three pieces, the joints between them, far from 0, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def hard_swish(x: Any) -> Any:
    return x * np.clip(x + 3, 0, 6) / 6


def off_the_joints(random: np.random.Generator, shape: Shape) -> Array:
    """Values in each of the three pieces, but not near -3 or 3."""
    return np.asarray(random.choice([-5, 0, 5], shape) + random.uniform(-1.8, 1.8, shape))


CASES = [
    Case('type: "HardSwish"', [X], hard_swish, off_the_joints),
    Case('type: "HardSwish"', [(7,)], hard_swish, off_the_joints),
    Case('type: "HardSwish"', [(0, 3)], hard_swish, off_the_joints),
]

MISTAKES = [
    Mistake('type: "HardSwish"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "HardSwish" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "HardSwish"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


def test_joints_and_beyond() -> None:
    y, slope = curve('type: "HardSwish"', [-np.inf, -4, -3, -1.5, 0, 3, 4, np.inf, np.nan])
    np.testing.assert_array_equal(y, [0, 0, 0, -0.375, 0, 3, 4, np.inf, np.nan])
    np.testing.assert_array_equal(slope, [0, 0, 0, 0, 0.5, 1, 1, 1, np.nan])
