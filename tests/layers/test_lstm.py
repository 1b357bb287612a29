"""LSTM: static inputs, exposed states, cont; the state that goes on from pass to pass."""

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
    assert_same_bits,
    normal,
)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm(static: bool = False, exposed: bool = False) -> Callable[..., Any]:
    """Caffe's unrolled net, one sequence after the other."""

    def expected(x: Any, cont: Any, *rest: Any) -> Any:
        given = list(rest)
        (steps, count), size = x.shape[:2], rest[-1].shape[1]
        x_static = given.pop(0) if static else None
        h_0, c_0 = (given.pop(0), given.pop(0)) if exposed else np.zeros((2, 1, count, size))
        w_xc, b_c = given[:2]
        y, h_end, c_end = np.zeros((steps, count, size)), h_0.copy(), c_0.copy()
        for n in range(count):
            h, c = h_0[0, n], c_0[0, n]
            for t in range(steps):
                total = w_xc @ x[t, n].ravel() + b_c + given[-1] @ (cont[t, n] * h)
                if x_static is not None:
                    total = total + given[2] @ x_static[n].ravel()
                i, f, o, g = np.split(total, 4)
                c = cont[t, n] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                y[t, n] = h
            h_end[0, n], c_end[0, n] = h, c
        return (y, h_end, c_end) if exposed else y

    return expected


def beginning(*conts: float, first: float | None = 0) -> Draw:
    """One of these for each step, and ``first`` for the first: what a state before it is worth."""

    def draw(random: np.random.Generator, shape: Shape) -> Any:
        cont = random.choice(conts, shape)
        if first is not None:
            cont[:1] = first
        return cont

    return draw


CONT = beginning(0, 1, 1)


def calm(random: np.random.Generator, shape: Shape) -> Any:
    """Weights under which steps do not blow up each other's rounding."""
    return 0.4 * random.standard_normal(shape)


def case(
    options: str,
    x: Shape,
    *more: Shape,
    cont: Draw = CONT,
    static: bool = False,
    exposed: bool = False,
    other: Any = None,
) -> Case:
    text = f'type: "LSTM" recurrent_param {{ {options} }}'
    draws = [normal, cont, *[normal] * len(more)]
    expected = lstm(static, exposed)
    return Case(text, [x, x[:2], *more], expected, draws, params=calm, other=other)


STATIC_OTHER = [(5, 3, 3), (5, 3), (3, 2)]
X, STATE = (5, 3, 3), (1, 3, 4)

CASES = [
    case("num_output: 4", X),
    case("num_output: 4", X, other=[(5, 2, 3), (5, 2)]),
    case("num_output: 4", X, cont=beginning(1)),
    case("num_output: 3 debug_info: true", (4, 2, 2, 3), cont=beginning(0, 0.5, 1, -1)),
    case("num_output: 4", X, (3, 2), static=True, other=[(6, 2, 3), (6, 2), (2, 2)]),
    case("num_output: 2", (2, 3, 1), (3, 2, 2), static=True, other=[(2, 4, 1), (2, 4), (4, 2, 2)]),
    case(
        "num_output: 4 expose_hidden: true",
        X,
        STATE,
        STATE,
        cont=beginning(0, 1, 1, first=None),
        exposed=True,
        other=[(5, 2, 3), (5, 2), (1, 2, 4), (1, 2, 4)],
    ),
    case(
        "num_output: 4 expose_hidden: true",
        (3, 2, 3),
        (2, 2),
        (1, 2, 4),
        (1, 2, 4),
        cont=beginning(1, first=None),
        static=True,
        exposed=True,
        other=[(2, 3, 3), (2, 3), (3, 2), (1, 3, 4), (1, 3, 4)],
    ),
    case("num_output: 1", (1, 1, 1)),
    case("num_output: 70", (3, 2, 5)),  # more than one tile, and one block of neighbours
    case("num_output: 4", (5, 0, 3)),
    case("num_output: 4", (5, 0, 3), (0, 2), static=True, other=STATIC_OTHER),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "LSTM" recurrent_param {{ {options} }}', bottoms, message, at)


SIZE = "num_output: 4"
EXPOSED = "expose_hidden: true num_output: 4"

MISTAKES = [
    mistake(SIZE, [X], "takes 2 to 3 bottom blobs, but 1 given", "layer"),
    mistake(SIZE, [X, (5, 3), STATE, STATE], "takes 2 to 3 bottom blobs, but 4 given", '"x3"'),
    mistake(EXPOSED, [X, (5, 3)], "takes 4 to 5 bottom blobs, but 2 given", "layer"),
    Mistake(
        f'type: "LSTM" top: "y" top: "h" recurrent_param {{ {SIZE} }}',
        [X, (5, 3)],
        "takes 1 top blob, but 2 given",
        '"h"',
    ),
    Mistake(
        f'type: "LSTM" top: "y" recurrent_param {{ {EXPOSED} }}',
        [X, (5, 3), STATE, STATE],
        "takes 3 top blobs, but 1 given",
        "layer",
    ),
    mistake(
        "expose_hidden: false",
        [X, (5, 3)],
        "num_output is missing",
        "recurrent_p",
    ),
    mistake("num_output: 0", [X, (5, 3)], "num_output is 0, but must be at least 1", "0"),
    mistake(
        SIZE,
        [(5, 3), (5, 3)],
        "needs a bottom of at least 3 axes (T steps, N sequences, values), but it is 5x3",
        '"x0"',
    ),
    mistake(SIZE, [(5,), (5,)], "needs a bottom of at least 3 axes", '"x0"'),
    mistake(SIZE, [(0, 3, 3), (0, 3)], "the bottom 0x3x3 has no steps", '"x0"'),
    mistake(SIZE, [(5, 3, 0), (5, 3)], "the bottom 5x3x0 has no values to multiply", '"x0"'),
    mistake(SIZE, [X, (3, 5)], "cont must be 5x3 (T x N) for an x of 5x3x3, but is 3x5", '"x1"'),
    mistake(SIZE, [X, (5, 3, 1)], "cont must be 5x3 (T x N) for an x of 5x3x3", '"x1"'),
    mistake(SIZE, [X, (4, 3)], "cont must be 5x3 (T x N) for an x of 5x3x3", '"x1"'),
    mistake(SIZE, [X, (5, 3), (2, 2)], "x_static must be 3x... (N, values), but is 2x2", '"x2"'),
    mistake(SIZE, [X, (5, 3), (3,)], "x_static must be 3x... (N, values), but is 3", '"x2"'),
    mistake(SIZE, [X, (5, 3), (3, 0)], "the bottom 3x0 has no values to multiply", '"x2"'),
    mistake(
        EXPOSED,
        [X, (5, 3), (1, 3, 5), STATE],
        "h0 must be 1x3x4 (1, N, num_output), but is 1x3x5",
        '"x2"',
    ),
    mistake(EXPOSED, [X, (5, 3), STATE, (3, 4)], "c0 must be 1x3x4 (1, N, num_output)", '"x3"'),
    mistake(
        EXPOSED,
        [X, (5, 3), (3, 2), (1, 3, 3), STATE],
        "h0 must be 1x3x4 (1, N, num_output), but is 1x3x3",
        '"x3"',
    ),
    mistake(
        "num_output: 300000000",
        [(1, 2, 1), (1, 2)],
        "its gates would be 1x2x1200000000: more than 2^31 - 1 values",
        "layer",
    ),
    mistake(
        f'{SIZE} weight_filler {{ type: "gausian" }}',
        [X, (5, 3)],
        'unknown filler type "gausian"',
        '"gausian"',
    ),
]

#: Sequences that go on over the first step of the batch.
GOES_ON = case("num_output: 4", (6, 3, 2), cont=beginning(1, first=None))


def test_a_pass_goes_on_where_the_last_one_ended() -> None:
    with Trial(GOES_ON) as whole, Trial(GOES_ON, shapes=[(3, 3, 2), (3, 3)]) as halves:
        x, cont = (blob.data for blob in whole.bottom)
        cont[4, 1] = 0
        whole.forward()
        for part in (slice(0, 3), slice(3, 6)):
            halves.bottom[0].data[...] = x[part]
            halves.bottom[1].data[...] = cont[part]
            halves.forward()
            np.testing.assert_allclose(halves.top[0].data, whole.top[0].data[part], rtol=1e-13)


def test_the_state_is_what_the_loops_say() -> None:
    """The second batch of the unrolled net is one with the state that the first one ended in."""
    with Trial(GOES_ON) as trial:
        given = [blob.data.copy() for blob in (*trial.bottom, *trial.layer.blobs)]
        x, cont, *params = given
        trial.forward()
        _, h, c = lstm(exposed=True)(x, cont, *np.zeros((2, 1, 3, 4)), *params)
        for _ in range(2):
            trial.forward()
            y, h, c = lstm(exposed=True)(x, cont, h, c, *params)
            np.testing.assert_allclose(trial.top[0].data, y, rtol=1e-12)


def test_gradients_end_at_the_batch() -> None:
    """A pass that goes on has the gradients of one whose state was given, and no others."""
    exposed = case(EXPOSED, (6, 3, 2), (1, 3, 4), (1, 3, 4), cont=beginning(1), exposed=True)
    with Trial(GOES_ON) as trial, Trial(exposed) as given:
        trial.forward()
        given.bottom[1].data[...] = 1
        given.bottom[2].data[...], given.bottom[3].data[...] = trial.layer.values[:, None, -1]
        for blob in given.top[1:]:
            blob.diff.fill(0)
        expected, found = given.run(), trial.run()
        for name in ("gradient of bottom 0", "gradient of W_xc", "gradient of W_hc"):
            np.testing.assert_array_equal(found[name], expected[name])


def test_reset_and_other_numbers_of_sequences_begin_anew() -> None:
    with Trial(GOES_ON) as trial:
        trial.forward()
        begun = trial.top[0].data.copy()
        trial.forward()
        assert (trial.top[0].data != begun).any()
        trial.layer.reset()
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, begun)
        for shapes in ([(6, 2, 2), (6, 2)], GOES_ON.bottoms):
            trial.reshape(shapes)
            trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, begun)


def test_other_numbers_of_steps_go_on() -> None:
    with Trial(GOES_ON) as trial, Trial(GOES_ON) as same:
        trial.forward()
        trial.reshape([(2, 3, 2), (2, 3)])
        same.forward()
        trial.bottom[0].data[...] = same.bottom[0].data[:2]
        for each in (trial, same):
            each.bottom[1].data.fill(1)
            each.forward()
        np.testing.assert_array_equal(trial.top[0].data, same.top[0].data[:2])


def test_an_exposed_state_is_the_only_one() -> None:
    exposed = case(EXPOSED, X, STATE, STATE, cont=beginning(1, first=None), exposed=True)
    with Trial(exposed) as trial:
        first = trial.run()
        for blob in trial.layer.blobs:
            blob.diff.fill(0)
        assert_same_bits(trial.run(), first, "a second time")


def test_a_beginning_heals() -> None:
    """A NaN stays in its sequence, and goes when another one begins in its place."""
    with Trial(CASES[0]) as trial, Trial(CASES[0]) as healthy:
        x = trial.bottom[0].data
        before = x[-1, 1].copy()
        x[-1, 1] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data[-1, 1]).all()
        assert np.isfinite(trial.top[0].data[:, [0, 2]]).all()
        x[-1, 1] = before
        assert_same_bits(trial.run(), healthy.run(), "after a NaN")


@pytest.mark.parametrize("case", [CASES[4], CASES[7], CASES[9]], ids=str)
def test_steps_on_many_threads_give_the_same_bits(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases as small as these would run on one."""
    monkeypatch.setattr(recurrent, "FEW", 0)
    any_number_of_threads(case)
