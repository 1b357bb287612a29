"""Sigmoid: values, saturation, NaN, the engine that means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.testing import Case, Mistake, curve

X = (2, 3, 4, 5)


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


CASES = [
    Case('type: "Sigmoid"', [X], logistic),
    Case('type: "Sigmoid" sigmoid_param { engine: CUDNN }', [(1, 2, 3, 4, 2)], logistic),
    Case('type: "Sigmoid" sigmoid_param { engine: CAFFE }', [(1,)], logistic),
    Case('type: "Sigmoid"', [(0, 3)], logistic),
    Case('type: "Sigmoid"', [(50,)], logistic, lambda random, shape: random.uniform(-9, 9, shape)),
]

MISTAKES = [
    Mistake('type: "Sigmoid"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Sigmoid" top: "y" top: "z"', [X], "takes 1 top blob, but 2 given", '"z"'),
    Mistake('type: "Sigmoid"', [], "takes 1 bottom blob, but 0 given", "layer"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_saturates(dtype: type[Any]) -> None:
    y, slope = curve('type: "Sigmoid"', [-np.inf, -1000, 0, 1000, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(y, [0, 0, 0.5, 1, 1, np.nan])
    np.testing.assert_array_equal(slope, [0, 0, 0.25, 0, 0, np.nan])
