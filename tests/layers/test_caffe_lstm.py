"""Lstm: the shapes of both forks, sequences that begin and go on, clipped gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.net import Net
from netdef.testing import Case, Draw, Mistake, Trial, normal, values

OPTIONS = "num_output: 4"


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def unrolled(sequences: int | None) -> Callable[..., Any]:
    """Step by step; rows are steps of so many sequences, or axis 1 says how many."""

    def expected(x: Any, *more: Any) -> Any:
        *cont, w_i, w_h, bias = more
        count = sequences or x.shape[1]
        steps = x.reshape(-1, count, w_i.shape[1])
        goes_on = np.ones(steps.shape[:2]) if not cont else cont[0].reshape(steps.shape[:2]) != 0
        if not cont:
            goes_on[0] = 0
        h, c = np.zeros((2, count, w_h.shape[1]))
        found = []
        for row, on in zip(steps, goes_on, strict=True):
            on = on[:, None]
            i, f, o, g = np.split(row @ w_i.T + (on * h) @ w_h.T + bias, 4, axis=1)
            c = on * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            found.append(h)
        return np.reshape(found, (*(x.shape[:1] if sequences else x.shape[:2]), -1))

    return expected


def case(
    options: str,
    x: Shape,
    other: Shape,
    cont: Any = None,
    sequences: int | None = None,
) -> Case:
    bottoms, others = [x], [other]
    draws: list[Draw] = [normal]
    if cont is not None:
        rows = np.asarray(cont, float)
        bottoms.append(rows.shape)
        others.append((other[0],))
        draws.append(lambda random, shape: rows if shape == rows.shape else begins(shape))

    def begins(shape: Shape) -> Any:
        # The first step begins every sequence: so no pass depends on the one before.
        return np.where(np.arange(shape[0]) < (sequences or 1), 0, 1)

    text = f'type: "Lstm" lstm_param {{ {OPTIONS} {options} }}'
    return Case(text, bottoms, unrolled(sequences), draws, other=others)


CASES = [
    # caffe-lstm
    case("", (5, 3), (7, 3), sequences=1),
    case("batch_size: 2", (8, 3), (6, 3), sequences=2),
    case("batch_size: 2", (8, 3, 1, 2), (6, 3, 1, 2), sequences=2),
    case("batch_size: 2", (8, 3, 2), (6, 3, 2), sequences=2),
    case("", (6, 3), (4, 3), [0, 1, 1, 0, 1, 1], 1),
    case("batch_size: 2", (8, 3), (6, 3), [0, 0, 1, 1, 0, 1, 1, 1], 2),
    # Any value but 0 goes on.
    case("", (4, 3), (2, 3), [0, 0.25, -3, 1], 1),
    # So wide a limit changes nothing.
    case("clipping_threshold: 1000", (5, 3), (7, 3), sequences=1),
    # CTPN
    case("", (5, 2, 3), (4, 1, 3)),
    case("", (1, 3, 2), (2, 2, 2)),
]

X = (6, 3)


def mistake(options: str, message: str, at: str, *bottoms: Shape) -> Mistake:
    return Mistake(f'type: "Lstm" lstm_param {{ {options} }}', bottoms or [X], message, at)


MISTAKES = [
    mistake("", "num_output is missing", "lstm_param"),
    mistake("num_output: 4 batch_size: 0", "batch_size is 0, but must be at least 1", "0"),
    mistake(
        "num_output: 4 batch_size: 4",
        "the 6 rows of the bottom 6x3 are no whole steps of 4 sequences each",
        "4 }",
    ),
    mistake(
        "num_output: 4",
        "cont must have one value for each of the 6 rows of the bottom 6x3, but is 5",
        '"x1"',
        X,
        (5,),
    ),
    mistake("num_output: 4", "needs a bottom of rows with values, but it is 6", '"x0"', (6,)),
    mistake("num_output: 4", "has no steps", '"x0"', (0, 3)),
    mistake(
        "num_output: 4 clipping_threshold: -1",
        "clipping_threshold is -1, but must be at least 0",
        "-1",
    ),
    mistake("num_output: 4 num_layers: 2", "num_layers belongs to the LSTM of another fork", "2"),
]


def test_a_pass_with_cont_goes_on_where_the_last_one_ended() -> None:
    whole = case("", (6, 3), (4, 3), [0, 1, 1, 1, 1, 1], 1)
    with Trial(whole) as trial:
        trial.forward()
        x, expected = trial.bottom[0].data.copy(), trial.top[0].data.copy()
        params = [blob.data.copy() for blob in trial.layer.blobs]
    half = Case(
        whole.prototxt,
        [(3, 3), (3,)],
        unrolled(1),
        [normal, values([0, 1, 1])],
        other=[(2, 3), (2,)],
    )
    with Trial(half) as trial:
        for blob, data in zip(trial.layer.blobs, params, strict=True):
            blob.data[...] = data
        found = []
        for rows, cont in ((x[:3], [0, 1, 1]), (x[3:], [1, 1, 1])):
            trial.bottom[0].data[...] = rows
            trial.bottom[1].data[...] = cont
            trial.forward()
            found.append(trial.top[0].data.copy())
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-12)


def test_clipping_bounds_what_a_gate_gets() -> None:
    """Of one step and one cell, everything is known: the gradient of b is that of the sums."""
    text = 'type: "Lstm" lstm_param { num_output: 1 %s }'

    def gradient(options: str) -> Any:
        with Trial(Case(text % options, [(1, 2)], unrolled(1))) as trial:
            trial.forward()
            trial.top[0].diff.fill(3)
            trial.backward()
            return trial.layer.blobs[2].diff.copy()

    free = gradient("")
    assert np.abs(free).max() > 0.05
    np.testing.assert_allclose(
        gradient("clipping_threshold: 0.05"), np.clip(free, -0.05, 0.05), rtol=1e-6
    )


def test_it_is_caffes_own_lstm_under_another_shape() -> None:
    net = Net.from_text(
        """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 5 dim: 2 dim: 3 } } }
        layer { name: "cont" type: "ContinuationIndicator" top: "cont"
                continuation_indicator_param { time_step: 5 batch_size: 2 } }
        layer { name: "a" type: "LSTM" bottom: "x" bottom: "cont" top: "a"
                recurrent_param { num_output: 4 } }
        layer { name: "b" type: "Lstm" bottom: "x" top: "b" lstm_param { num_output: 4 } }
        """
    )
    random = np.random.default_rng(1)
    net.blobs["x"].data[...] = random.standard_normal((5, 2, 3))
    w_i, bias, w_h = net.params["a"]
    for own, other in zip(net.params["b"], (w_i, w_h, bias), strict=True):
        own.data[...] = other.data[...] = random.standard_normal(own.shape)
    net.forward()
    assert net.blobs["a"].data.any()
    np.testing.assert_array_equal(net.blobs["a"].data, net.blobs["b"].data)
