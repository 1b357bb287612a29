"""ReLU: slopes of either sign, the kink, NaN."""

from __future__ import annotations

import numpy as np
import pytest

from netdef.net import Net
from netdef.testing import Case, Mistake, Trial, off_zero

X = (2, 3, 4, 5)

CASES = [
    Case('type: "ReLU"', [X], lambda x: np.maximum(x, 0), off_zero),
    Case(
        'type: "ReLU" relu_param { negative_slope: 0.25 }',
        [X],
        lambda x: np.where(x > 0, x, 0.25 * x),
        off_zero,
    ),
    Case(
        'type: "ReLU" relu_param { negative_slope: -0.5 }',
        [X],
        lambda x: np.where(x > 0, x, -0.5 * x),
        off_zero,
    ),
    Case('type: "ReLU"', [(7,)], lambda x: np.maximum(x, 0), off_zero),
    Case('type: "ReLU"', [(0, 3)], lambda x: x, off_zero),
]

MISTAKES = [
    Mistake('type: "ReLU"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "ReLU" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "ReLU"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize(("case", "slope"), [(CASES[0], 0), (CASES[1], 0.25)])
def test_the_slope_at_zero_is_the_negative_slope(case: Case, slope: float) -> None:
    with Trial(case) as trial:
        trial.bottom[0].data.fill(0)
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        assert (trial.bottom[0].diff == slope).all()


def test_nan_stays_nan() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[0] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data[0]).all()
        assert np.isfinite(trial.top[0].data[1]).all()


def test_a_layer_that_follows_in_place_may_turn_the_sign() -> None:
    net = Net.from_text("""
        force_backward: true
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }
        layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }
        layer { name: "minus" type: "Power" bottom: "y" top: "y" power_param { scale: -1 } }
    """)
    net.blobs["x"].data[...] = [-2, 3]
    net.forward()
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, [0, -1])
