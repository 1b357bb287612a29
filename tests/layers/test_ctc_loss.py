"""CtcLoss: against all paths there are; repeats, blanks, labels that are too long."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Mistake, Trial, normal, values


def spelled(path: tuple[int, ...], blank: int) -> list[int]:
    return [k for k, _ in itertools.groupby(path) if k != blank]


def loss(blank: int = 0) -> Callable[..., Any]:
    """Goes through every path, and adds those that spell the labels."""

    def expected(x: Any, label: Any) -> Any:
        steps, count, classes = x.shape
        p = np.exp(x) / np.exp(x).sum(2, keepdims=True)
        total = 0.0
        for n, wanted in enumerate(label.reshape(count, -1).astype(int)):
            found = sum(
                float(np.prod(p[range(steps), n, path]))
                for path in itertools.product(range(classes), repeat=steps)
                if spelled(path, blank) == [k for k in wanted if k != blank]
            )
            total += -np.log(found) if found else 0.0
        return total / count

    return expected


def case(options: str, x: Shape, label: Any, blank: int = 0, other: Any = None) -> Case:
    label = np.array(label)
    text = f'type: "CtcLoss" ctc_loss_param {{ {options} }}'
    draw = [normal, values(label)]
    return Case(text, [x, label.shape], loss(blank), draw, other=other or [x, label.shape])


CASES = [
    case("", (4, 2, 3), [[1, 2], [2, 1]]),
    # A letter twice needs a blank between.
    case("", (4, 3, 3), [[1, 1], [2, 2], [1, 2]]),
    case("", (5, 2, 3), [[1, 2, 1], [2, 0, 0]]),
    # Blanks anywhere, nothing but blanks, as many letters as steps.
    case("", (3, 4, 3), [[0, 1, 2], [0, 0, 0], [1, 2, 1], [1, 0, 1]]),
    case("blank_label: 2 alphabet_size: 3 time_step: 4", (4, 2, 3), [[0, 1], [1, 2]], 2),
    # Too long for its steps: it counts nothing.
    case("", (3, 3, 3), [[1, 1, 2], [1, 2, 0], [1, 1, 1]]),
    case("", (1, 2, 2), [[1], [0]]),
    case("", (3, 2, 3), [[[[1]], [[2]]], [[[2]], [[0]]]]),
]

X, LABEL = (4, 2, 3), (2, 3)


def mistake(options: str, message: str, at: str, *bottoms: Shape, **more: Any) -> Mistake:
    text = f'type: "CtcLoss" ctc_loss_param {{ {options} }}'
    return Mistake(text, bottoms or [X, LABEL], message, at, **more)


MISTAKES = [
    mistake(
        "", "needs a bottom of 3 axes (T steps, N sequences, C classes)", '"x0"', (4, 2), LABEL
    ),
    mistake(
        "", "needs labels for each of the 2 sequences of 4x2x3, but they are 3x3", '"x1"', X, (3, 3)
    ),
    mistake("time_step: 5", "time_step is 5, but the bottom 4x2x3 has 4 steps", "5"),
    mistake("alphabet_size: 2", "alphabet_size is 2, but the bottom 4x2x3 has 3 classes", "2"),
    mistake("blank_label: 3", "blank_label is 3, which is not one of the 3 classes 0 to 2", "3"),
    mistake(
        "",
        "label 3 (number 0 of the batch, counted from 0) is not one of the 3 classes 0 to 2",
        '"x1"',
        draw=[normal, values(3)],
        error=DataError,
    ),
]


def test_a_long_sequence_does_not_underflow() -> None:
    """Of 400 steps, in all of which all is equally likely, the paths can be counted."""
    with Trial(case("", (400, 1, 5), [[1, 2, 3]]), np.float32) as trial:
        trial.bottom[0].data.fill(0)
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        # Of 2 * 3 + 1 states, paths that end in the last two: choices of where the state moves on.
        states = np.zeros(7, object)
        states[:2] = 1
        for _ in range(399):
            before = states.copy()
            for s in range(7):
                states[s] += (before[s - 1] if s else 0) + (before[s - 2] if s % 2 and s > 1 else 0)
        expected = 400 * math.log(5) - math.log(states[5] + states[6])
        np.testing.assert_allclose(trial.top[0].data, expected, rtol=1e-6)
        assert np.isfinite(trial.bottom[0].diff).all()
        np.testing.assert_allclose(trial.bottom[0].diff.sum(2), 0, atol=1e-5)
