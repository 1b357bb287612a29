"""PReLU: one slope per channel or for all, slopes of either sign, the kink, sums in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netdef.layers.prelu import PReLU
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial, normal, off_zero, threads, values

X = (2, 3, 4, 5)


def leaky(x: Any, slope: Any) -> Any:
    """Slopes of one axis lie along the channels."""
    along = slope.reshape(-1, *[1] * (x.ndim - 2))
    return np.maximum(x, 0) + along * np.minimum(x, 0)


def case(options: str, x: tuple[int, ...], **rest: Any) -> Case:
    return Case(f'type: "PReLU" {options}', [x], leaky, off_zero, **rest)


SHARED = "prelu_param { channel_shared: true }"

CASES = [
    case("", X),
    case("", (4, 3)),
    case("", (1, 1)),
    case("", (1, 2, 3, 4, 2)),
    case("", (0, 3, 2)),
    case("", (2, 3, 0)),
    case("", X, params=values([0, -1, 2])),
    case(SHARED, X),
    case(SHARED, (4, 3), other=[(2, 5)]),
    case(SHARED, X, params=values(-0.5)),
    case("prelu_param { filler { value: 0.5 } channel_shared: false }", X),
]

MISTAKES = [
    Mistake(
        'type: "PReLU" prelu_param { filler { type: "xxx" } }',
        [(2, 3)],
        'unknown filler type "xxx"',
        '"xxx"',
    ),
    Mistake('type: "PReLU"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake(
        'type: "PReLU"',
        [(7,)],
        "needs a bottom of at least 2 axes (N, C, ...), but it is 7",
        '"x0"',
    ),
    Mistake('type: "PReLU"', [(2, 0, 3)], "the bottom 2x0x3 has no channels", '"x0"'),
    Mistake(
        'type: "PReLU" param { } param { lr_mult: 2 }',
        [X],
        "has 2 param entries, but only 1 parameters",
        "param",
    ),
]


def slopes(options: str) -> Any:
    """The slopes of a new net."""
    net = Net.from_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
        f'layer {{ name: "p" type: "PReLU" bottom: "x" top: "y" {options} }}'
    )
    return net.params["p"][0].data


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ("", [0.25, 0.25, 0.25]),
        (SHARED, 0.25),
        ("prelu_param { filler { value: 0.5 } }", [0.5, 0.5, 0.5]),
        # As in Caffe, a filler without a value is constant 0.
        ("prelu_param { filler { } }", [0, 0, 0]),
    ],
)
def test_what_slopes_start_from(options: str, start: Any) -> None:
    found = slopes(options)
    assert found.shape == np.shape(start)
    np.testing.assert_array_equal(found, start)


def test_the_gradient_at_zero_is_the_slope() -> None:
    with Trial(case("", (1, 3), params=values([0.25, -2, 0]))) as trial:
        trial.bottom[0].data.fill(0)
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        np.testing.assert_array_equal(trial.bottom[0].diff, [[0.25, -2, 0]])
        np.testing.assert_array_equal(trial.layer.blobs[0].diff, [0, 0, 0])


def test_nan_stays_nan() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[0, 1] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data[0, 1]).all()
        assert np.isfinite(trial.top[0].data[1]).all()


@pytest.mark.parametrize("options", ["", SHARED])
def test_gradients_of_slopes_are_exact_on_any_number_of_threads(options: str) -> None:
    """Rounded to float32 after each addition, a sum of this many would be off by 1e-4."""
    big = Case(f'type: "PReLU" {options}', [(5, 2, 90, 110)], leaky, normal)
    found = []
    for count in (1, None):
        with threads(count), Trial(big, np.float32) as trial:
            trial.top[0].diff[...] = 1
            trial.run()
            found.append(trial.layer.blobs[0].diff.copy())
            below = np.minimum(trial.bottom[0].data, 0).astype(np.float64)
    np.testing.assert_array_equal(found[0], found[1])
    channels = [below] if options else [below[:, 0], below[:, 1]]
    exact = [math.fsum(channel.ravel()) for channel in channels]
    np.testing.assert_allclose(found[0].ravel(), exact, rtol=1e-7)


def test_in_place_on_an_input_the_slope_still_learns() -> None:
    with Trial(CASES[0]) as apart, Trial(CASES[0], in_place=True) as trial:
        bottom, top = trial.bottom[0], trial.top[0]
        top.bind(top.data, top.diff.copy())
        bottom.bind(bottom.data, None)
        trial.layer.setup(trial.bottom, trial.top)
        apart.run()
        trial.forward()
        trial.backward()
        np.testing.assert_array_equal(trial.layer.blobs[0].diff, apart.layer.blobs[0].diff)
        np.testing.assert_array_equal(top.diff, apart.top[0].diff)


IN_PLACE = """
    layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "p" type: "PReLU" bottom: "x" top: "x" }
"""
APART = IN_PLACE.replace('bottom: "x" top: "x"', 'bottom: "x" top: "y"')
LOSS = 'layer { name: "l" type: "EuclideanLoss" bottom: "%s" bottom: "t" top: "l" }'


@pytest.mark.parametrize(
    ("text", "keeps"),
    [(IN_PLACE, False), (IN_PLACE + LOSS % "x", True), (APART + LOSS % "y", False)],
    ids=["in place", "in place under a loss", "apart under a loss"],
)
def test_x_is_copied_only_where_backward_would_miss_it(text: str, keeps: bool) -> None:
    net = Net.from_text(text)
    [layer] = [step.layer for step in net.program.steps if step.layer.type == "PReLU"]
    assert isinstance(layer, PReLU)
    assert (layer._kept._copy is not None) == keeps
