"""AbsVal: both signs, the kink, NaN."""

from __future__ import annotations

import numpy as np

from netdef.testing import Case, Mistake, curve, off_zero

X = (2, 3, 4, 5)

CASES = [
    Case('type: "AbsVal"', [X], lambda x: np.sqrt(x * x), off_zero),
    Case('type: "AbsVal"', [(1, 2, 3, 4, 2)], lambda x: np.sqrt(x * x), off_zero),
    Case('type: "AbsVal"', [(1,)], lambda x: np.sqrt(x * x), off_zero),
    Case('type: "AbsVal"', [(0, 3)], lambda x: x, off_zero),
]

MISTAKES = [
    Mistake('type: "AbsVal"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "AbsVal" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "AbsVal"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


def test_the_gradient_is_the_sign_and_0_at_0() -> None:
    y, slope = curve('type: "AbsVal"', [-np.inf, -2, -0.0, 0, 3, np.inf])
    np.testing.assert_array_equal(y, [np.inf, 2, 0, 0, 3, np.inf])
    np.testing.assert_array_equal(slope, [-1, -1, 0, 0, 1, 1])


def test_nan_stays_nan() -> None:
    y, _ = curve('type: "AbsVal"', [1, np.nan])
    np.testing.assert_array_equal(y, [1, np.nan])
