"""Softmax: axes, one class, values beyond the range of exp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial

X = (3, 4, 2, 5)


def softmax(axis: int = 1) -> Callable[..., Any]:
    def expected(x: Any) -> Any:
        e = np.exp(x - x.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    return expected


CASES = [
    Case('type: "Softmax"', [X], softmax()),
    Case('type: "Softmax" softmax_param { axis: 0 }', [X], softmax(0)),
    Case('type: "Softmax" softmax_param { axis: 2 }', [X], softmax(2)),
    Case('type: "Softmax" softmax_param { axis: -1 }', [X], softmax(3)),
    Case('type: "Softmax" softmax_param { engine: CUDNN }', [X], softmax()),
    Case('type: "Softmax"', [(6, 10)], softmax()),
    Case('type: "Softmax" softmax_param { axis: 0 }', [(7,)], softmax(0)),
    Case('type: "Softmax"', [(6, 1)], softmax()),
    Case('type: "Softmax"', [(0, 4)], lambda x: x),
]

MISTAKES = [
    Mistake('type: "Softmax"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "Softmax"', [(5,)], "axis is 1, but the bottom is 5 (1 axes)", "layer"),
    Mistake(
        'type: "Softmax" softmax_param { axis: -5 }',
        [X],
        "axis is -5, but the bottom is 3x4x2x5",
        "-5",
    ),
    Mistake('type: "Softmax"', [(3, 0)], "the bottom 3x0 has no classes on axis 1", '"x0"'),
]


def test_values_beyond_the_range_of_exp() -> None:
    with Trial(Case('type: "Softmax"', [(2, 3)], softmax())) as trial:
        trial.bottom[0].data[...] = [[-1e4, 1e4, 0], [1e30] * 3]
        trial.forward()
        np.testing.assert_allclose(trial.top[0].data, [[0, 1, 0], [1 / 3] * 3])


def test_nan_stays_in_its_row() -> None:
    with Trial(Case('type: "Softmax"', [(2, 3)], softmax())) as trial:
        trial.bottom[0].data[0, 1] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data[0]).all()
        assert np.isfinite(trial.top[0].data[1]).all()
