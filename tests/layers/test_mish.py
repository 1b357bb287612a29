"""Mish: values of both signs, far from 0, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def mish(x: Any) -> Any:
    return x * np.tanh(np.log1p(np.exp(x)))


CASES = [Case('type: "Mish"', [x], mish) for x in (X, (7,), (0, 3))]

MISTAKES = [
    Mistake('type: "Mish"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Mish" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "Mish"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_it_is_relu(dtype: type[Any]) -> None:
    y, slope = curve('type: "Mish"', [-1000, 0, 1000, np.nan], dtype)
    np.testing.assert_allclose(y, [0, 0, 1000, np.nan], atol=1e-30)
    np.testing.assert_allclose(slope, [0, 0.6, 1, np.nan], rtol=1e-6, atol=1e-30)
