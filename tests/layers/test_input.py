"""Input: brings blobs and leaves them to whoever fills them."""

from __future__ import annotations

import numpy as np
import pytest

from netdef.net import Net
from netdef.testing import Case, Mistake

NAN = np.nan  # what every top holds before: nothing may be written to it

CASES = [
    Case('type: "Input" input_param { shape { dim: 2 dim: 3 } }', [], lambda: np.full((2, 3), NAN)),
    Case(
        'type: "Input" input_param { shape { dim: 2 } } top: "a" top: "b"',
        [],
        lambda: (np.full(2, NAN), np.full(2, NAN)),
    ),
    Case(
        'type: "Input" input_param { shape { dim: 2 } shape { } } top: "a" top: "b"',
        [],
        lambda: (np.full(2, NAN), np.full((), NAN)),
    ),
    Case('type: "Input" input_param { shape { dim: 0 dim: 3 } }', [], lambda: np.zeros((0, 3))),
]

MISTAKES = [
    Mistake('type: "Input"', [], "has 1 tops but 0 shapes", "layer"),
    Mistake(
        'type: "Input" input_param { shape { dim: 2 } }', [(2,)], "takes no bottom blobs", '"x0"'
    ),
    Mistake(
        'type: "Input" input_param { shape { } shape { dim: 2 } } top: "a" top: "b" top: "c"',
        [],
        "has 3 tops but 2 shapes",
        "input_param",
    ),
    Mistake(
        'type: "Input" input_param { shape { dim: 2 dim: -1 } }',
        [],
        "a dimension cannot be negative: -1",
        "-1",
    ),
    Mistake(
        'type: "Input" input_param { shape { dim: 65536 dim: 32768 } }',
        [],
        'top "y0" would be 65536x32768: more than 2^31 - 1 values',
        "layer",
    ),
    Mistake(
        'type: "Input" input_param { shape { dim: 9223372036854775807 dim: 9223372036854775807 } }',
        [],
        "more than 2^31 - 1 values",
        "layer",
    ),
]


@pytest.mark.parametrize("shape", [(3, 2), (5, 4), (0, 4)])
def test_a_net_follows_the_shapes_of_its_inputs(shape: tuple[int, ...]) -> None:
    net = Net.from_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }'
        'layer { name: "relu" type: "ReLU" bottom: "x" top: "y" }'
    )
    net.blobs["x"].reshape(*shape)
    given = np.arange(np.prod(shape)).reshape(shape) - 3
    np.testing.assert_array_equal(net.forward(x=given)["y"], np.maximum(given, 0))
