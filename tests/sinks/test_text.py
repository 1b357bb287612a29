from __future__ import annotations

import math

import numpy as np
import pytest

from netdef.events import (
    LayerTime,
    Output,
    Pass,
    SolveFinished,
    TestFinished,
    TimingFinished,
    WeightsLoaded,
)
from netdef.sinks.text import (
    layer_table,
    number,
    output_lines,
    scores,
    summary,
    timing_lines,
    weights_table,
)


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.01, "0.01"),
        (1e-5, "1e-05"),
        (0.0001, "0.0001"),
        (1.0, "1"),
        (-0.0, "-0"),
        (100000.0, "100000"),
        (1000000.0, "1e+06"),
        (123456.5, "123456"),  # half to even
        (1234567.0, "1.23457e+06"),
        (np.float32(0.00988457), "0.00988457"),
        (np.float32(0.1), "0.1"),
        (1e-45, "1e-45"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (math.copysign(math.nan, -1), "-nan"),
    ],
)
def test_number_is_printed_as_by_a_cpp_stream(value: float, printed: str) -> None:
    assert number(value) == printed


def test_outputs_are_counted_by_value() -> None:
    outputs = [Output("p", np.array([0.5, 0.25], np.float32)), Output("loss", [2.0], 0.5)]
    assert list(output_lines(outputs)) == [
        "#0: p = 0.5",
        "#1: p = 0.25",
        "#2: loss = 2 (* 0.5 = 1 loss)",
    ]


def test_loss_share_is_a_float32_product() -> None:
    assert list(output_lines([Output("l", [3e38], 10.0)])) == ["#0: l = 3e+38 (* 10 = inf loss)"]


def test_scores_tell_the_first_values() -> None:
    test = TestFinished(0, 0, [Output("p", range(9))], loss=1.5)
    assert scores(test) == "p 0, p 1, p 2, p 3, 5 more, total loss 1.5"


def test_summary_tells_only_tests_made_at_the_end() -> None:
    old, new = (TestFinished(i, 0, [Output("accuracy", [0.9])]) for i in (100, 200))
    end = SolveFinished(200)
    assert summary(end, 0.25, {0: old}) == "done after 200 iterations: loss 0.25"
    assert summary(end, 0.25, {0: new}) == (
        "done after 200 iterations: loss 0.25; test accuracy 0.9"
    )
    assert summary(SolveFinished(7, early=True), None, {}) == "stopped after 7 iterations"


CONVOLUTION = LayerTime(
    "conv1/7x7", "Convolution", Pass(0.002, 10**9, 10**7), Pass(0.0055, 2 * 10**9, 10**7)
)
LAYERS = [
    LayerTime("data", "Input", Pass(0.0), Pass(0.0)),
    CONVOLUTION,
    LayerTime("relu", "ReLU", Pass(0.001, 0, 4 * 10**6), Pass(0.0015, 0, 6 * 10**6)),
]


def test_table_of_layers() -> None:
    assert list(layer_table(LAYERS)) == [
        "layer      type         forward ms  GFLOP/s  GB/s  backward ms  GFLOP/s  GB/s   share",
        "data       Input             0.000        -     -        0.000        -     -   0.0 %",
        "conv1/7x7  Convolution       2.000    500.0   5.0        5.500    363.6   1.8  75.0 %",
        "relu       ReLU              1.000        -   4.0        1.500        -   4.0  25.0 %",
    ]


def test_a_table_of_layers_that_took_no_time() -> None:
    *_, line = layer_table([LayerTime("data", "Input", Pass(0.0, 5, 5), Pass(0.0))])
    assert line.split() == ["data", "Input", "0.000", "-", "-", "0.000", "-", "-", "-"]


def test_whole_passes() -> None:
    *_, line = timing_lines(TimingFinished(4, LAYERS, 0.003, 0.007, 0.05, batch_size=16))
    assert line == (
        "forward 3 ms, backward 7 ms, together 12.5 ms; mean of 4 iterations, 1280 records/s"
    )
    *_, line = timing_lines(TimingFinished(4, LAYERS, 0.003, 0.007, 0.05))
    assert line.endswith("mean of 4 iterations")


def test_what_became_of_weights() -> None:
    loaded = WeightsLoaded(
        "w.caffemodel",
        copied=[f"conv{i}" for i in range(1, 13)],
        ignored=["data", "fc8"],
        missing=["fc9"],
        mismatched=["blob 0 is odd", "blob 1 is odd"],
        unused=["fc8"],
    )
    assert list(weights_table(loaded)) == [
        "weights from w.caffemodel",
        "  copied             12  conv1, conv2, conv3, conv4, conv5, 7 more",
        "  not in the net      1  fc8",
        "  not in the file     1  fc9",
        "  do not fit          2  blob 0 is odd",
        "                         blob 1 is odd",
    ]
    assert list(weights_table(WeightsLoaded("w", copied=["a"]))) == [
        "weights from w",
        "  copied              1  a",
    ]
