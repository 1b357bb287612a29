"""Parameter: a blob that is learned; shared by name, trained through what reads it."""

from __future__ import annotations

import numpy as np

from netdef.net import Net
from netdef.testing import Case, Mistake


def case(dims: str) -> Case:
    text = f'type: "Parameter" parameter_param {{ shape {{ {dims} }} }}'
    return Case(text, [], lambda value: value)


CASES = [
    case("dim: 2 dim: 3"),
    case("dim: 1 dim: 2 dim: 3 dim: 4 dim: 1"),
    case("dim: 5"),
    case(""),
    case("dim: 0 dim: 3"),
    Case('type: "Parameter"', [], lambda value: value),
    Case('type: "Parameter" param { lr_mult: 2 }', [], lambda value: value),
]


def mistake(dims: str, message: str, at: str, rest: str = "") -> Mistake:
    text = f'type: "Parameter" {rest} parameter_param {{ shape {{ {dims} }} }}'
    return Mistake(text, [], message, at)


MISTAKES = [
    Mistake('type: "Parameter"', [(2,)], "takes no bottom blobs, but 1 given", '"x0"'),
    mistake("dim: 2", "takes 1 top blob, but 2 given", '"b"', 'top: "a" top: "b"'),
    mistake("dim: 2 dim: -3", "a dimension cannot be negative: -3", "-3"),
    mistake("dim: 65536 dim: 32768", "more than 2^31 - 1 values", "layer"),
    mistake("dim: 2", "has 2 param entries, but only 1 parameters", "param", "param { } param { }"),
]

PAIR = """
    force_backward: true
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "a" type: "Parameter" top: "a" param { name: "p" }
            parameter_param { shape { dim: 2 dim: 3 } } }
    layer { name: "b" type: "Parameter" top: "b" param { name: "p" }
            parameter_param { shape { dim: 2 dim: 3 } } }
    layer { name: "loss_a" type: "EuclideanLoss" bottom: "a" bottom: "x" top: "loss_a" }
    layer { name: "loss_b" type: "EuclideanLoss" bottom: "b" bottom: "x" top: "loss_b" }
"""


def test_it_starts_at_zero() -> None:
    net = Net.from_text(PAIR, seed=1)
    net.forward()
    assert net.params["a"][0].shape == (2, 3)
    assert not net.params["a"][0].data.any()
    assert not net.blobs["a"].data.any()


def test_gradients_of_sharers_and_of_passes_add_up() -> None:
    net = Net.from_text(PAIR, seed=1)
    net.params["a"][0].data[...] = 3
    for _ in range(2):
        net.forward()
        net.backward()
    np.testing.assert_array_equal(net.blobs["b"].data, np.full((2, 3), 3))
    # Each of two losses, in each of two passes, gives (3 - 0) / 2.
    np.testing.assert_array_equal(net.params["a"][0].diff, np.full((2, 3), 2 * 2 * 1.5))


def test_a_rate_of_zero_stops_its_gradient() -> None:
    net = Net.from_text(
        PAIR.replace("force_backward: true", "").replace('name: "p"', "lr_mult: 0", 1), seed=1
    )
    net.params["a"][0].data[...] = net.params["b"][0].data[...] = 3
    net.forward()
    net.backward()
    assert not net.params["a"][0].diff.any()
    assert net.params["b"][0].diff.all()


def test_the_inputs_may_change_their_shapes_around_it() -> None:
    text = PAIR.replace('bottom: "b" bottom: "x"', 'bottom: "b" bottom: "a"')
    text = text.replace('bottom: "a" bottom: "x"', 'bottom: "x" bottom: "x"')
    net = Net.from_text(text, seed=1)
    net.params["a"][0].data[...] = 7
    net.blobs["x"].reshape(5, 4)
    net.forward()
    np.testing.assert_array_equal(net.blobs["a"].data, np.full((2, 3), 7))
