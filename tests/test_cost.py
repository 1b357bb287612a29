"""Operations and bytes of layers, counted by hand."""

from __future__ import annotations

import pytest

from netdef import cost, graph, prototxt
from netdef.cost import Cost
from netdef.memory import Ends, arrange
from netdef.plan import LayerPlan, Plan, plan
from netdef.proto import netdef_pb2 as pb

#: Where something learns before the layer in question, it needs a gradient for its bottom.
LEARNED = 'layer { name: "before" type: "Scale" bottom: "data" top: "x" }'
LOSS = 'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'


def planned(
    layer: str, shape: tuple[int, ...], learned: bool = True, it: str = "it"
) -> tuple[Plan, LayerPlan, Ends]:
    """A net around ``layer``, which is called "it" and goes from x to y; and the layer ``it``."""
    dims = " ".join(f"dim: {n}" for n in shape)
    name = "data" if learned else "x"
    data = (
        f'layer {{ name: "data" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
    )
    text = "\n".join([data, LEARNED if learned else "", layer, LOSS])
    net = prototxt.parse(text, pb.NetParameter).message
    made = plan(graph.split(graph.keep(net, pb.NetState(phase=pb.TRAIN))))
    pairs = zip(made.layers, arrange(made, keep=()).layers, strict=True)
    return made, *next((one, ends) for one, ends in pairs if one.name == it)


def costs(layer: str, shape: tuple[int, ...], learned: bool = True) -> tuple[Cost, Cost]:
    around = planned(layer, shape, learned)
    return cost.forward(*around), cost.backward(*around)


CONVOLUTION = """layer { name: "it" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 } }"""


def test_convolution() -> None:
    # 8 filters of 3x3 over 2 of 4 channels, at each of 5x6 pixels of 2 images.
    forward, backward = costs(CONVOLUTION, (2, 4, 5, 6))
    flops = 2 * (8 * 2 * 3 * 3) * (2 * 5 * 6)
    x, y, params = 2 * 4 * 5 * 6, 2 * 8 * 5 * 6, 8 * 2 * 3 * 3 + 8
    assert forward == Cost(flops, 4 * (x + y + params))
    # dy and x are read, dx written; weights read, and their gradients read and written.
    assert backward == Cost(2 * flops, 4 * (y + x + x + 3 * params))


def test_the_first_layer_has_no_gradient_for_its_bottom() -> None:
    forward, backward = costs(CONVOLUTION, (2, 4, 5, 6), learned=False)
    x, y, params = 2 * 4 * 5 * 6, 2 * 8 * 5 * 6, 8 * 2 * 3 * 3 + 8
    assert backward == Cost(forward.flops, 4 * (y + x + 2 * params))


def test_a_layer_that_does_not_learn_has_no_gradient_of_its_weights() -> None:
    frozen = CONVOLUTION.replace("bottom", "param { lr_mult: 0 } param { lr_mult: 0 } bottom")
    forward, backward = costs(frozen, (2, 4, 5, 6))
    assert backward.flops == forward.flops


def test_depthwise_convolution() -> None:
    # A filter of 3x3 for each of 4 channels, at each of 5x6 pixels of 2 images.
    for kind, settings in (("DepthwiseConvolution", "num_output: 4"), ("ConvolutionDepthwise", "")):
        forward, backward = costs(
            f"""layer {{ name: "it" type: "{kind}" bottom: "x" top: "y"
              convolution_param {{ {settings} kernel_size: 3 pad: 1 }} }}""",
            (2, 4, 5, 6),
        )
        assert forward.flops == 2 * (4 * 3 * 3) * (2 * 5 * 6)
        assert backward.flops == 2 * forward.flops


def test_lstm_of_rows() -> None:
    # 3 steps of 2 sequences: 4 gates of 5 cells from 7 values and 5 states.
    forward, _ = costs(
        """layer { name: "it" type: "Lstm" bottom: "x" top: "y"
          lstm_param { num_output: 5 batch_size: 2 } }""",
        (6, 7),
    )
    assert forward.flops == 2 * (4 * 5 * (7 + 5)) * (3 * 2)


def test_deconvolution() -> None:
    # Each of 3x4 pixels of 2 images and 4 channels places 2x2 filters on 6 channels.
    forward, backward = costs(
        """layer { name: "it" type: "Deconvolution" bottom: "x" top: "y"
          convolution_param { num_output: 6 kernel_size: 2 stride: 2 bias_term: false } }""",
        (2, 4, 3, 4),
    )
    assert forward.flops == 2 * (4 * 6 * 2 * 2) * (2 * 3 * 4)
    assert backward.flops == 2 * forward.flops


def test_inner_product() -> None:
    forward, backward = costs(
        """layer { name: "it" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 7 } }""",
        (3, 4, 5),
    )
    params = 20 * 7 + 7
    assert forward == Cost(2 * 3 * 20 * 7, 4 * (3 * 20 + 3 * 7 + params))
    assert backward == Cost(2 * forward.flops, 4 * (3 * 7 + 2 * 3 * 20 + 3 * params))


def test_lstm() -> None:
    text = """
      layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 5 dim: 2 } } }
      layer { name: "it" type: "LSTM" bottom: "x" bottom: "cont" top: "y"
        recurrent_param { num_output: 4 } }"""
    forward, _ = costs(text, (5, 2, 3))
    # Four gates, each from 3 inputs and 4 hidden values, at 5 steps of 2 streams.
    assert forward.flops == 2 * (4 * 4 * 3 + 4 * 4 * 4) * (5 * 2)


N = 4 * 2 * 3 * 4 * 4  # bytes of a blob of 2x3x4x4


@pytest.mark.parametrize(
    ("layer", "forward", "backward"),
    [
        # x, y; dy, x, dx
        ('type: "Sigmoid"', 2 * N, 3 * N),
        # which were dropped; dy, that again, dx
        ('type: "Dropout"', 2 * N, 3 * N),
        # x and a quarter for y; dy and the place of each maximum, a quarter each, and dx
        (
            'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }',
            N + N // 4,
            2 * N // 4 + N,
        ),
        (
            'type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 2 }',
            5 * N // 4,
            5 * N // 4,
        ),
        # twice x; dy, and dx twice, of which the second is added to the first
        ('type: "Eltwise" bottom: "x"', 3 * N, 4 * N),
        ('type: "Eltwise" bottom: "x" eltwise_param { operation: PROD }', 3 * N, 6 * N),
        ('type: "Tile" tile_param { tiles: 2 }', 3 * N, 3 * N),
    ],
)
def test_bytes_of_layers_without_products(layer: str, forward: int, backward: int) -> None:
    found = costs(f'layer {{ name: "it" bottom: "x" top: "y" {layer} }}', (2, 3, 4, 4))
    assert found == (Cost(0, forward), Cost(0, backward))


@pytest.mark.parametrize(
    ("layer", "free"),
    [
        (CONVOLUTION, "data"),
        # Layers whose tops are their bottom.
        (
            'layer { name: "it" type: "Eltwise" bottom: "x" bottom: "x" top: "y" }',
            "x_before_0_split",
        ),
        ('layer { name: "it" type: "Flatten" bottom: "x" top: "y" }', "it"),
    ],
)
def test_what_costs_nothing(layer: str, free: str) -> None:
    around = planned(layer, (2, 4, 5, 6), it=free)
    assert cost.forward(*around) == cost.backward(*around) == Cost()


def test_doubles_are_twice_as_long() -> None:
    around = planned(CONVOLUTION, (2, 4, 5, 6))
    assert cost.forward(*around, itemsize=8).bytes == 2 * cost.forward(*around).bytes
    assert cost.backward(*around, itemsize=8).bytes == 2 * cost.backward(*around).bytes


def test_costs_add_up() -> None:
    assert Cost(1, 2) + Cost(10, 20) == Cost(11, 22)
