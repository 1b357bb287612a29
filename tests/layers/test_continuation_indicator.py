"""ContinuationIndicator: many steps, one step, one sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.net import Net
from netdef.testing import Case, Mistake

TYPE = 'type: "ContinuationIndicator"'


def case(steps: int, sequences: int) -> Case:
    cont: Any = [[0.0] * sequences, *([1.0] * sequences for _ in range(steps - 1))]
    options = f"time_step: {steps} batch_size: {sequences}"
    return Case(f"{TYPE} continuation_indicator_param {{ {options} }}", [], lambda: np.array(cont))


def like_x(x: Any) -> Any:
    cont = np.ones(x.shape[:2])
    cont[0] = 0
    return cont


CASES = [
    case(5, 3),
    case(1, 4),
    case(6, 1),
    Case(TYPE, [(5, 3, 7)], like_x),
    Case(TYPE, [(1, 2)], like_x),
]


def mistake(options: str, message: str, at: str, bottoms: int = 0) -> Mistake:
    text = f"{TYPE} continuation_indicator_param {{ {options} }}"
    return Mistake(text, [(2, 3)] * bottoms, message, at)


MISTAKES = [
    mistake("batch_size: 3", "time_step is missing", "continuation_indicator_param"),
    mistake("time_step: 3 batch_size: 0", "batch_size is 0, but must be at least 1", "0"),
    mistake("time_step: 3 batch_size: 2", "takes 0 to 1 bottom blobs, but 2 given", '"x1"', 2),
    Mistake(TYPE, [], "time_step is missing", "layer"),
    Mistake(TYPE, [(5,)], "needs a bottom of at least 2 axes", '"x0"'),
]


def test_it_begins_the_sequences_of_an_lstm() -> None:
    """With it an LSTM forgets, at the first step, what the batch before left behind."""
    net = Net.from_text(
        f"""
        layer {{ name: "in" type: "Input" top: "x"
                input_param {{ shape {{ dim: 3 dim: 2 dim: 4 }} }} }}
        layer {{ name: "cont" {TYPE} top: "cont"
                continuation_indicator_param {{ time_step: 3 batch_size: 2 }} }}
        layer {{ name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
                recurrent_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
        """
    )
    net.blobs["x"].data[...] = np.random.default_rng(1).standard_normal((3, 2, 4))
    net.forward()
    once = net.blobs["h"].data.copy()
    net.forward()
    np.testing.assert_array_equal(net.blobs["h"].data, once)
