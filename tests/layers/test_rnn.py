"""RNN: static inputs, exposed states, cont; the state that goes on from pass to pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.layers.common import recurrent
from netdef.testing import (
    Case,
    Draw,
    Mistake,
    Trial,
    any_number_of_threads,
    normal,
)


def rnn(static: bool = False, exposed: bool = False) -> Callable[..., Any]:
    """Caffe's unrolled net, one sequence after the other."""

    def expected(x: Any, cont: Any, *rest: Any) -> Any:
        given = list(rest)
        (steps, count), size = x.shape[:2], rest[-1].size
        x_static = given.pop(0) if static else None
        h_0 = given.pop(0) if exposed else np.zeros((1, count, size))
        (w_xh, b_h), (w_hh, w_ho, b_o) = given[:2], given[-3:]
        o, end = np.zeros((steps, count, size)), h_0.copy()
        for n in range(count):
            h = h_0[0, n]
            for t in range(steps):
                total = w_xh @ x[t, n].ravel() + b_h + w_hh @ (cont[t, n] * h)
                if x_static is not None:
                    total = total + given[2] @ x_static[n].ravel()
                h = np.tanh(total)
                o[t, n] = np.tanh(w_ho @ h + b_o)
            end[0, n] = h
        return (o, end) if exposed else o

    return expected


def begins(random: np.random.Generator, shape: Shape) -> Any:
    cont = random.choice([0, 1, 1], shape)
    cont[:1] = 0
    return cont


def goes_on(random: np.random.Generator, shape: Shape) -> Any:
    return random.choice([0, 0.5, 1, 1], shape)


def calm(random: np.random.Generator, shape: Shape) -> Any:
    """Weights under which steps do not blow up each other's rounding."""
    return 0.4 * random.standard_normal(shape)


def case(
    options: str,
    x: Shape,
    *more: Shape,
    cont: Draw = begins,
    static: bool = False,
    exposed: bool = False,
    other: Any = None,
) -> Case:
    text = f'type: "RNN" recurrent_param {{ {options} }}'
    draws = [normal, cont, *[normal] * len(more)]
    expected = rnn(static, exposed)
    return Case(text, [x, x[:2], *more], expected, draws, params=calm, other=other)


X, STATE = (5, 3, 3), (1, 3, 4)

CASES = [
    case("num_output: 4", X),
    case("num_output: 3 debug_info: true", (4, 2, 2, 3), other=[(4, 3, 2, 3), (4, 3)]),
    case("num_output: 4", X, (3, 2), static=True, other=[(6, 2, 3), (6, 2), (2, 2)]),
    case(
        "num_output: 4 expose_hidden: true",
        X,
        STATE,
        cont=goes_on,
        exposed=True,
        other=[(4, 2, 3), (4, 2), (1, 2, 4)],
    ),
    case(
        "num_output: 4 expose_hidden: true",
        (3, 2, 3),
        (2, 2),
        (1, 2, 4),
        cont=goes_on,
        static=True,
        exposed=True,
        other=[(2, 3, 3), (2, 3), (3, 2), (1, 3, 4)],
    ),
    case("num_output: 1", (1, 1, 1)),
    case("num_output: 70", (2, 2, 5)),  # more than one tile, and one block of neighbours
    case("num_output: 4", (5, 0, 3)),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "RNN" recurrent_param {{ {options} }}', bottoms, message, at)


SIZE = "num_output: 4"
EXPOSED = "expose_hidden: true num_output: 4"

MISTAKES = [
    mistake(SIZE, [X], "takes 2 to 3 bottom blobs, but 1 given", "layer"),
    mistake(EXPOSED, [X, (5, 3)], "takes 3 to 4 bottom blobs, but 2 given", "layer"),
    mistake("", [X, (5, 3)], "num_output is missing", "recurrent_param"),
    mistake(SIZE, [(5, 3), (5, 3)], "needs a bottom of at least 3 axes", '"x0"'),
    mistake(SIZE, [X, (3, 5)], "cont must be 5x3 (T x N) for an x of 5x3x3, but is 3x5", '"x1"'),
    mistake(SIZE, [X, (5, 3), STATE], "x_static must be 3x... (N, values), but is 1x3x4", '"x2"'),
    mistake(EXPOSED, [X, (5, 3), (3, 4)], "h0 must be 1x3x4 (1, N, num_output), but", '"x2"'),
    mistake(
        "num_output: 1100000000",
        [(1, 2, 1), (1, 2)],
        "its gates would be 1x2x1100000000: more than 2^31 - 1 values",
        "layer",
    ),
]

GOES_ON = case(SIZE, (6, 3, 2), cont=goes_on)


def test_a_pass_goes_on_where_the_last_one_ended() -> None:
    with Trial(GOES_ON) as whole, Trial(GOES_ON, shapes=[(3, 3, 2), (3, 3)]) as halves:
        x, cont = (blob.data for blob in whole.bottom)
        cont[3] = [0, 0.5, 1]
        whole.forward()
        for part in (slice(0, 3), slice(3, 6)):
            halves.bottom[0].data[...] = x[part]
            halves.bottom[1].data[...] = cont[part]
            halves.forward()
            np.testing.assert_allclose(halves.top[0].data, whole.top[0].data[part], rtol=1e-13)


@pytest.mark.parametrize("case", [CASES[2], CASES[3], CASES[6]], ids=str)
def test_steps_on_many_threads_give_the_same_bits(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases as small as these would run on one."""
    monkeypatch.setattr(recurrent, "FEW", 0)
    any_number_of_threads(case)
