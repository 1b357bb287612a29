"""Deconvolution: 1 to 3 spatial axes, groups, stride, pad, dilation; the transpose it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake, Trial


def deconvolution(
    stride: Any = 1, pad: Any = 0, dilation: Any = 1, group: int = 1, axis: int = 1
) -> Callable[..., Any]:
    """A reference that adds what each pixel sends to each place, tap by tap, and then cuts."""

    def one(x: Any, weight: Any, bias: Any) -> Any:
        batch, image = x.shape[:axis], x.shape[axis + 1 :]
        s, p, d = (np.broadcast_to(given, len(image)) for given in (stride, pad, dilation))
        x = x.reshape(-1, *x.shape[axis:])
        kernel, outputs = weight.shape[2:], weight.shape[1] * group
        whole = [
            by * (n - 1) + step * (k - 1) + 1
            for n, by, step, k in zip(image, s, d, kernel, strict=True)
        ]
        y = np.zeros((len(x), outputs, *whole))
        for c in range(x.shape[1]):
            part = c // (x.shape[1] // group)
            for m in range(weight.shape[1]):
                to = part * weight.shape[1] + m
                for at in np.ndindex(*image):
                    for tap in np.ndindex(*kernel):
                        where = np.multiply(at, s) + np.multiply(tap, d)
                        y[(slice(None), to, *where)] += x[(slice(None), c, *at)] * weight[c, m][tap]
        inside = (slice(q, n - q) for q, n in zip(p, whole, strict=True))
        y = y[(slice(None), slice(None), *inside)] + bias.reshape(-1, *[1] * len(image))
        return y.reshape(*batch, *y.shape[1:])

    def expected(*arrays: Any) -> Any:
        has_bias = arrays[-1].ndim == 1
        *bottoms, weight = arrays[:-1] if has_bias else arrays
        bias = arrays[-1] if has_bias else np.zeros(weight.shape[1] * group)
        return tuple(one(x, weight, bias) for x in bottoms)

    return expected


def case(
    options: str,
    expected: Callable[..., Any],
    x: tuple[int, ...] = (2, 4, 3, 4),
    other: tuple[int, ...] = (3, 4, 5, 2),
    bottoms: int = 1,
) -> Case:
    text = f'type: "Deconvolution" convolution_param {{ {options} }}'
    return Case(text, [x] * bottoms, expected, other=[other] * bottoms)


CASES = [
    case("num_output: 3 kernel_size: 3", deconvolution()),
    case("num_output: 3 kernel_size: 2 stride: 2 bias_term: false", deconvolution(2)),
    case("num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 2", deconvolution(2, 1, group=2)),
    case("num_output: 4 kernel_size: 3 group: 4 pad: 1", deconvolution(pad=1, group=4)),
    case("num_output: 2 kernel_size: 2 stride: 3", deconvolution(3)),
    case("num_output: 2 kernel_size: 3 dilation: 2 stride: 2 pad: 2", deconvolution(2, 2, 2)),
    case(
        "num_output: 3 kernel_h: 3 kernel_w: 1 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
        deconvolution((1, 2), (1, 0)),
    ),
    case("num_output: 1 kernel_size: 1", deconvolution(), (1, 1, 1, 1), (2, 1, 1, 1)),
    # Cut to a single value.
    case("num_output: 2 kernel_size: 5 pad: 3", deconvolution(1, 3), (2, 2, 3, 3), (1, 2, 4, 3)),
    case("num_output: 3 kernel_size: 2", deconvolution(), bottoms=2),
    case("num_output: 3 kernel_size: 3 stride: 2", deconvolution(2), (2, 4, 5), (1, 4, 2)),
    case(
        "num_output: 2 kernel_size: 2 kernel_size: 1 kernel_size: 3 stride: 2 stride: 1 stride: 1 "
        "pad: 0 pad: 0 pad: 1",
        deconvolution((2, 1, 1), (0, 0, 1)),
        (1, 2, 2, 3, 2),
        (2, 2, 3, 1, 2),
    ),
    case(
        "num_output: 3 kernel_size: 2 axis: -2", deconvolution(axis=2), (2, 2, 4, 3), (1, 2, 4, 5)
    ),
    case("num_output: 6 kernel_size: 3 group: 2", deconvolution(group=2), (3, 4), (5, 4)),
    case("num_output: 3 kernel_size: 3", deconvolution(), (0, 4, 3, 4), (2, 4, 3, 4)),
    # More than one tile of channels, of outputs and of positions.
    case("num_output: 17 kernel_size: 2 stride: 2", deconvolution(2), (1, 20, 6, 7), (2, 20, 3, 9)),
]


def mistake(options: str, message: str, at: str, *bottoms: tuple[int, ...]) -> Mistake:
    text = f'type: "Deconvolution" convolution_param {{ {options} }}'
    return Mistake(text, bottoms or [(2, 4, 3, 4)], message, at)


MISTAKES = [
    mistake("kernel_size: 3", "num_output is missing", "convolution_param"),
    mistake("num_output: 4", "kernel_size is missing", "convolution_param"),
    mistake(
        "num_output: 4 kernel_size: 3 pad: 3",
        "nothing is left of spatial axis 0: the bottom 2x4x3x4 makes 1 * (3 - 1) + 3 = 5, and "
        "pad 3 cuts off 6",
        "3",
    ),
    mistake("num_output: 4 kernel_size: 2 pad: 2", "nothing is left of spatial axis 0", "2"),
    mistake(
        "num_output: 4 kernel_size: 3 stride: 2 pad: 1 pad: 5",
        "nothing is left of spatial axis 1: the bottom 2x4x3x4 makes 2 * (4 - 1) + 3 = 9",
        "5",
    ),
    mistake(
        "num_output: 6 kernel_size: 3 group: 3",
        "4 channels of the bottom cannot be divided into 3 equal groups",
        "3",
    ),
    mistake(
        "num_output: 6 kernel_size: 3 group: 4",
        "6 num_output cannot be divided into 4 equal groups",
        "4",
    ),
    mistake(
        "num_output: 4 kernel_size: 3",
        "all bottoms must have one shape, but the first is 2x4x3x4 and number 2 is 2x4x3x5",
        '"x1"',
        (2, 4, 3, 4),
        (2, 4, 3, 5),
    ),
    mistake(
        "num_output: 4 kernel_size: 1",
        "spatial axis 0 of the bottom 2x4x0x4 has no values",
        '"x0"',
        (2, 4, 0, 4),
    ),
    mistake(
        "num_output: 4 kernel_size: 1 stride: 40000",
        'top "y0" would be 2x4x80001x120001: more than 2^31 - 1 values',
        "layer",
    ),
]


def test_it_is_the_transpose_of_convolution() -> None:
    """<convolution(y), x> = <y, deconvolution(x)>, with the same weights."""
    options = "kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2 bias_term: false"
    down = Case(
        f'type: "Convolution" convolution_param {{ num_output: 4 {options} }}',
        [(2, 6, 9, 7)],
        lambda *arrays: None,
    )
    with Trial(down) as one:
        one.forward()
        shape = one.top[0].shape
        with Trial(case(f"num_output: 6 {options}", deconvolution(), shape)) as other:
            other.layer.blobs[0].data[...] = one.layer.blobs[0].data
            other.forward()
            assert other.top[0].shape == one.bottom[0].shape
            left = (one.top[0].data * other.bottom[0].data).sum()
            right = (one.bottom[0].data * other.top[0].data).sum()
            assert left == pytest.approx(right, rel=1e-12)


def test_a_bilinear_kernel_continues_a_plane() -> None:
    """Enlarged by 2, a linear function of the place stays one, away from the edges."""
    net = Net.from_text(
        """
        layer {
          name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 6 dim: 5 } }
        }
        layer {
          name: "up" type: "Deconvolution" bottom: "x" top: "y"
          convolution_param {
            num_output: 2 group: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false
            weight_filler { type: "bilinear" }
          }
        }
        """,
        pb.TEST,
        seed=1,
    )
    rows, columns = np.mgrid[:6, :5]
    net.blobs["x"].data[0] = [rows + 10 * columns, 3 - columns]
    net.forward()
    rows, columns = np.mgrid[:12, :10] / 2 - 0.25
    inner = (slice(None), slice(1, -1), slice(1, -1))
    expected = np.stack([rows + 10 * columns, 3 - columns])
    np.testing.assert_allclose(net.blobs["y"].data[0][inner], expected[inner], atol=1e-5)


def test_its_weights_have_the_channels_of_the_bottom_first() -> None:
    layer = case("num_output: 6 kernel_size: 3 group: 2", deconvolution(group=2)).layer()
    shapes = [param.shape for param in layer.params((2, 4, 3, 4))]
    assert shapes == [(4, 3, 3, 3), (6,)]
