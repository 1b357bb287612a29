"""SmoothL1Loss: two, three and four bottoms, sigma, and both sides of the kink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, Trial, normal


def smooth(sigma: float = 1) -> Callable[..., Any]:
    def expected(a: Any, b: Any, inside: Any = None, outside: Any = None) -> Any:
        inside = np.ones_like(a) if inside is None else inside.reshape(a.shape)
        outside = np.ones_like(a) if outside is None else outside.reshape(a.shape)
        d = inside * (a - b.reshape(a.shape))
        near = np.abs(d) < 1 / sigma**2
        each = np.where(near, (sigma * d) ** 2 / 2, np.abs(d) - 0.5 / sigma**2)
        return (outside * each).sum() / max(1, len(a))

    return expected


def wide(random: np.random.Generator, shape: Shape) -> Array:
    """So far apart that some are beyond the kink for each sigma that is tried."""
    return np.asarray(3 * random.standard_normal(shape))


X = (4, 3, 2, 5)
TYPE = 'type: "SmoothL1Loss"'

CASES = [
    Case(TYPE, [X, X], smooth(), wide),
    Case(TYPE, [X, X, X], smooth(), [wide, wide, normal]),
    Case(TYPE, [X, X, X, X], smooth(), [wide, wide, normal, normal]),
    Case(f"{TYPE} smooth_l1_loss_param {{ sigma: 3 }}", [X] * 4, smooth(3)),
    Case(f"{TYPE} smooth_l1_loss_param {{ sigma: 0.5 }}", [X] * 2, smooth(0.5), wide),
    Case(TYPE, [(4, 6), (4, 6, 1, 1)], smooth(), wide),
    Case(TYPE, [(6,), (6,)], smooth(), wide),
    # More than one block of a sum.
    Case(TYPE, [(3, 3000), (3, 3000)], smooth(), wide),
    Case(TYPE, [(0, 4), (0, 4)], smooth()),
    Case(f"{TYPE} loss_weight: 0.5", [X, X], smooth(), wide),
]

MISTAKES = [
    Mistake(TYPE, [X], "takes 2 to 4 bottom blobs, but 1 given", "layer"),
    Mistake(TYPE, [X] * 5, "takes 2 to 4 bottom blobs, but 5 given", '"x4"'),
    Mistake(TYPE, [X, (4, 3, 2, 4)], "both bottoms must have the same batch", '"x1"'),
    Mistake(TYPE, [X, X, (4, 3)], "needs a weight for each value of 4x3x2x5, but bottom 2", '"x2"'),
    Mistake(TYPE, [X, X, X, (1,)], "but bottom 3 is 1", '"x3"'),
    Mistake(
        f"{TYPE} smooth_l1_loss_param {{ sigma: 0 }}", [X, X], "sigma is 0, but must be above", "0"
    ),
]


def test_weights_have_no_gradient() -> None:
    with Trial(CASES[2]) as trial:
        assert [blob.diff is None for blob in trial.bottom] == [False, False, True, True]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_net_says_so(value: float) -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[0, 0, 0, 0] = value
        trial.forward()
        assert not np.isfinite(trial.top[0].data)
