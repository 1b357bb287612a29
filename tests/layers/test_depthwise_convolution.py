"""DepthwiseConvolution and ConvolutionDepthwise: multipliers, forms of group, stride, dilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.net import Net
from netdef.testing import Case, Mistake

X = (2, 4, 7, 6)


def depthwise(stride: Any = 1, pad: Any = 0, dilation: Any = 1) -> Callable[..., Any]:
    """A reference that goes through the taps; filter m sees channel m / multiplier."""

    def one(x: Any, weight: Any, bias: Any) -> Any:
        image = x.shape[2:]
        s, p, d = (np.broadcast_to(given, len(image)) for given in (stride, pad, dilation))
        x = np.repeat(x, len(weight) // x.shape[1], axis=1)
        x = np.pad(x, [(0, 0), (0, 0), *((q, q) for q in p)])
        taps = weight.shape[2:]
        size = [
            (n - by * (k - 1) - 1) // step + 1
            for n, by, k, step in zip(x.shape[2:], d, taps, s, strict=True)
        ]
        y = np.zeros((len(x), len(weight), *size))
        for tap in np.ndindex(*taps):
            window = tuple(
                slice(t * by, t * by + (n - 1) * step + 1, step)
                for t, by, n, step in zip(tap, d, size, s, strict=True)
            )
            w = weight[(slice(None), 0, *tap)]
            y += x[(slice(None), slice(None), *window)] * w.reshape(-1, *[1] * len(image))
        return y + bias.reshape(-1, *[1] * len(image))

    def expected(*arrays: Any) -> Any:
        has_bias = arrays[-1].ndim == 1
        *bottoms, weight = arrays[:-1] if has_bias else arrays
        bias = arrays[-1] if has_bias else np.zeros(len(weight))
        return tuple(one(x, weight, bias) for x in bottoms)

    return expected


def case(
    type_name: str,
    options: str,
    expected: Callable[..., Any],
    x: tuple[int, ...] = X,
    other: tuple[int, ...] | None = (3, 4, 9, 8),
    bottoms: int = 1,
) -> Case:
    text = f'type: "{type_name}" convolution_param {{ {options} }}'
    return Case(text, [x] * bottoms, expected, other=other and [other] * bottoms)


DW, CDW = "DepthwiseConvolution", "ConvolutionDepthwise"

CASES = [
    case(DW, "num_output: 4 kernel_size: 3 pad: 1 group: 4", depthwise(pad=1)),
    case(DW, "num_output: 4 kernel_size: 3 pad: 1", depthwise(pad=1)),
    case(DW, "num_output: 4 kernel_size: 3 stride: 2 bias_term: false", depthwise(2)),
    case(DW, "num_output: 8 kernel_size: 3 group: 4", depthwise()),
    case(DW, "num_output: 12 kernel_size: 2 dilation: 2", depthwise(dilation=2)),
    case(DW, "num_output: 4 kernel_size: 3", depthwise(), bottoms=2),
    case(DW, "num_output: 3 kernel_size: 3", depthwise(), (2, 3, 9), (1, 3, 5)),
    case(DW, "num_output: 1 kernel_size: 3", depthwise(), (2, 1, 4, 5), None),
    case(CDW, "kernel_size: 3 pad: 1", depthwise(pad=1)),
    case(CDW, "num_output: 4 group: 4 kernel_size: 3 stride: 2 pad: 1", depthwise(2, 1)),
    # What num_output and group say does not count.
    case(CDW, "num_output: 7 group: 2 kernel_size: 3", depthwise()),
    case(
        CDW,
        "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0 bias_term: false",
        depthwise((1, 2), (1, 0)),
    ),
    case(CDW, "kernel_size: 2 dilation: 3", depthwise(dilation=3)),
    case(CDW, "kernel_size: 3", depthwise(), (0, 3, 4, 4), (2, 3, 4, 4)),
]


def mistake(
    type_name: str, options: str, message: str, at: str, *bottoms: tuple[int, ...]
) -> Mistake:
    text = f'type: "{type_name}" convolution_param {{ {options} }}'
    return Mistake(text, bottoms or [X], message, at)


MISTAKES = [
    mistake(
        DW,
        "num_output: 4 kernel_size: 3 group: 2",
        "group is 2, but a depthwise convolution has one for each of the 4 channels of its bottom",
        "2",
    ),
    mistake(
        DW,
        "num_output: 6 kernel_size: 3",
        "6 num_output cannot be divided into 4 equal groups",
        "convolution_param",
    ),
    mistake(DW, "kernel_size: 3", "num_output is missing", "convolution_param"),
    mistake(DW, "num_output: 4", "kernel_size is missing", "convolution_param"),
    mistake(CDW, "num_output: 4", "kernel_size is missing", "convolution_param"),
    mistake(
        CDW,
        "kernel_size: 3",
        "needs a bottom of 4 axes (N, C, H, W), but it is 2x4x7",
        '"x0"',
        (2, 4, 7),
    ),
    mistake(CDW, "kernel_size: 3 axis: 2", "axis is 2, but channels are axis 1", "2"),
    mistake(
        CDW,
        "kernel_size: 9",
        "the kernel spans 9 but spatial axis 0 of the bottom 2x4x7x6 has 7 + 2 * 0 = 7",
        "9",
    ),
]


@pytest.mark.parametrize("type_name", [DW, CDW])
def test_it_is_convolution_with_a_group_for_each_channel(type_name: str) -> None:
    settings = "convolution_param { num_output: 4 kernel_size: 3 pad: 1 %s }"
    net = Net.from_text(
        f"""
        layer {{ name: "in" type: "Input" top: "x"
                input_param {{ shape {{ dim: 2 dim: 4 dim: 7 dim: 6 }} }} }}
        layer {{ name: "a" type: "{type_name}" bottom: "x" top: "a" {settings % ""} }}
        layer {{ name: "b" type: "Convolution" bottom: "x" top: "b" {settings % "group: 4"} }}
        """
    )
    random = np.random.default_rng(1)
    net.blobs["x"].data[...] = random.standard_normal(X)
    for a, b in zip(net.params["a"], net.params["b"], strict=True):
        a.data[...] = b.data[...] = random.standard_normal(a.shape)
    net.forward()
    assert net.blobs["a"].data.tobytes() == net.blobs["b"].data.tobytes()
