"""InnerProduct: axes, transposition, bias, sizes of less than a tile and of several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from netdef import graph, prototxt
from netdef.errors import NetError
from netdef.net import Net
from netdef.plan import plan
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake


def linear(axis: int = 1, transpose: bool = False) -> Callable[..., Any]:
    def expected(x: Any, weight: Any, bias: Any = 0) -> Any:
        rows = x.shape[:axis]
        x = x.reshape(math.prod(rows), math.prod(x.shape[axis:]))
        y = x @ (weight if transpose else weight.T) + bias
        return y.reshape(*rows, y.shape[1])

    return expected


def case(options: str, x: tuple[int, ...], expected: Any, other: Any = None) -> Case:
    text = f'type: "InnerProduct" inner_product_param {{ {options} }}'
    return Case(text, [x], expected, other=other)


CASES = [
    case("num_output: 4", (3, 2, 5), linear()),
    case("num_output: 4 bias_term: false", (3, 2, 5), linear()),
    case("num_output: 4 transpose: true", (3, 2, 5), linear(transpose=True)),
    case("num_output: 4 transpose: true bias_term: false", (3, 2, 5), linear(transpose=True)),
    case("num_output: 4 axis: 2", (3, 2, 5), linear(2), [(2, 4, 5)]),
    case("num_output: 4 axis: -1", (3, 2, 5), linear(2), [(2, 4, 5)]),
    case("num_output: 4 axis: 2 transpose: true", (3, 2, 5, 1), linear(2, transpose=True)),
    case("num_output: 4 axis: 0", (3, 2), linear(0), [(2, 3)]),
    case("num_output: 1", (1, 1), linear()),
    case("num_output: 37", (29, 300), linear()),
    case("num_output: 37 transpose: true", (29, 300), linear(transpose=True)),
    case("num_output: 4", (0, 5), linear()),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    text = f'type: "InnerProduct" inner_product_param {{ {options} }}'
    return Mistake(text, bottoms, message, at)


MISTAKES = [
    mistake("num_output: 4", [(2, 3), (2, 3)], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake(
        "bias_term: false",
        [(2, 3)],
        "num_output is missing",
        "inner_product_param",
    ),
    mistake("num_output: 0", [(2, 3)], "num_output is 0, but must be at least 1", "0"),
    mistake("num_output: 4 axis: 2", [(2, 3)], "axis is 2, but the bottom is 2x3 (2 axes)", "2"),
    mistake("num_output: 4 axis: -3", [(2, 3)], "axis is -3, but the bottom is 2x3", "-3"),
    mistake(
        "num_output: 4",
        [(2, 0)],
        'the bottom 2x0 has no values to multiply ("x0" is 2x0 from',
        '"x0"',
    ),
    mistake(
        "num_output: 4000000000",
        [(2, 3)],
        'top "y0" would be 2x4000000000: more than 2^31 - 1 values',
        "layer",
    ),
    mistake(
        "num_output: 4 } param { } param { } param { lr_mult: 2",
        [(2, 3)],
        "has 3 param entries, but only 2 parameters",
        "param",
    ),
    mistake(
        'num_output: 4 weight_filler { type: "xavir" }',
        [(2, 3)],
        'unknown filler type "xavir"',
        '"xavir"',
    ),
]


def test_more_weights_than_caffe_can_count_are_refused() -> None:
    """Only planned, never allocated: these would be 80 GB."""
    text = """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 10 } } }
        layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y"
                inner_product_param { num_output: 2147483647 } }
    """
    net = prototxt.parse(text, pb.NetParameter).message
    with pytest.raises(NetError, match=r"more than 2\^31 - 1 values"):
        plan(graph.split(net))


@pytest.mark.parametrize(("transpose", "fan_in"), [("false", 300), ("true", 200)])
def test_fillers(transpose: str, fan_in: int) -> None:
    """What xavier takes for the inputs is the count of all axes but the first, as in Caffe."""
    net = Net.from_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 300 } } }'
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {'
        f'num_output: 200 transpose: {transpose} weight_filler {{ type: "xavier" }}'
        "bias_filler { value: 3 } } }",
        seed=1,
    )
    weight, bias = net.params["fc"]
    assert weight.shape == ((300, 200) if transpose == "true" else (200, 300))
    bound = math.sqrt(3 / fan_in)
    assert 0.999 * bound < abs(weight.data).max() <= bound
    assert (bias.data == 3).all()
