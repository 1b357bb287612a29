"""TanH: values, saturation, NaN, the engine that means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def tanh(x: Any) -> Any:
    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))


CASES = [
    Case('type: "TanH"', [X], tanh),
    Case('type: "TanH" tanh_param { engine: CUDNN }', [(1, 2, 3, 4, 2)], tanh),
    Case('type: "TanH" tanh_param { engine: CAFFE }', [(1,)], tanh),
    Case('type: "TanH"', [(0, 3)], tanh),
    Case('type: "TanH"', [(50,)], tanh, lambda random, shape: random.uniform(-9, 9, shape)),
]

MISTAKES = [
    Mistake('type: "TanH"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "TanH" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "TanH"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_saturates(dtype: type[Any]) -> None:
    y, slope = curve('type: "TanH"', [-np.inf, -1000, 0, 1000, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(y, [-1, -1, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(slope, [0, 0, 1, 0, 0, np.nan])
