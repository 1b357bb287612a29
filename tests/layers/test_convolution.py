"""Convolution: 1 to 3 spatial axes, groups, stride, pad, dilation, the forms of kernel_size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake


def convolution(
    stride: Any = 1, pad: Any = 0, dilation: Any = 1, group: int = 1, axis: int = 1
) -> Callable[..., Any]:
    """A reference that goes through the taps of the kernel one by one."""

    def one(x: Any, weight: Any, bias: Any) -> Any:
        batch, image = x.shape[:axis], x.shape[axis + 1 :]
        s, p, d = (np.broadcast_to(given, len(image)) for given in (stride, pad, dilation))
        x = x.reshape(-1, *x.shape[axis:])
        kernel = weight.shape[2:]
        spans = [by * (k - 1) + 1 for by, k in zip(d, kernel, strict=True)]
        missing = [max(0, e - n - 2 * q) for e, n, q in zip(spans, image, p, strict=True)]
        ends = [(q, q + more) for q, more in zip(p, missing, strict=True)]
        x = np.pad(x, [(0, 0), (0, 0), *ends])
        size = [(n - e) // by + 1 for n, e, by in zip(x.shape[2:], spans, s, strict=True)]
        y = np.zeros((len(x), len(weight), *size))
        for tap in np.ndindex(*kernel):
            window = [
                slice(t * by, t * by + (n - 1) * step + 1, step)
                for t, by, n, step in zip(tap, d, size, s, strict=True)
            ]
            seen = x[(slice(None), slice(None), *window)]
            for inputs, outputs in zip(
                np.split(np.arange(x.shape[1]), group),
                np.split(np.arange(len(weight)), group),
                strict=True,
            ):
                w = weight[(outputs, slice(None), *tap)]
                y[:, outputs] += np.einsum("nc...,mc->nm...", seen[:, inputs], w)
        y += bias.reshape(-1, *[1] * len(image))
        return y.reshape(*batch, *y.shape[1:])

    def expected(*arrays: Any) -> Any:
        has_bias = arrays[-1].ndim == 1
        *bottoms, weight = arrays[:-1] if has_bias else arrays
        bias = arrays[-1] if has_bias else np.zeros(len(weight))
        return tuple(one(x, weight, bias) for x in bottoms)

    return expected


def case(
    options: str,
    expected: Callable[..., Any],
    x: tuple[int, ...] = (2, 4, 7, 6),
    other: tuple[int, ...] | None = (3, 4, 9, 8),
    bottoms: int = 1,
) -> Case:
    return Case(
        f'type: "Convolution" convolution_param {{ {options} }}',
        [x] * bottoms,
        expected,
        other=other and [other] * bottoms,
    )


CASES = [
    case("num_output: 6 kernel_size: 3", convolution()),
    case("num_output: 6 kernel_size: 3 bias_term: false", convolution()),
    case("num_output: 6 kernel_size: 1", convolution()),
    case("num_output: 6 kernel_size: 1 stride: 2", convolution(2)),
    case("num_output: 6 kernel_size: 3 pad: 1", convolution(pad=1)),
    case("num_output: 6 kernel_size: 3 pad: 2 stride: 2", convolution(2, 2)),
    case("num_output: 6 kernel_size: 3 pad: 4 stride: 3", convolution(3, 4)),
    case("num_output: 6 kernel_size: 2 stride: 4", convolution(4)),
    case("num_output: 6 kernel_size: 3 dilation: 2 pad: 1", convolution(1, 1, 2)),
    case(
        "num_output: 6 kernel_size: 3 kernel_size: 2 stride: 2 stride: 1 pad: 0 pad: 1 "
        "dilation: 1 dilation: 3",
        convolution((2, 1), (0, 1), (1, 3)),
    ),
    case(
        "num_output: 6 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
        convolution((1, 2), (1, 0)),
    ),
    case("num_output: 6 kernel_h: 1 kernel_w: 4", convolution()),
    case("num_output: 6 kernel_size: 3 stride_w: 2", convolution((1, 2))),
    case("num_output: 6 kernel_size: 3 group: 2", convolution(group=2)),
    case("num_output: 4 kernel_size: 3 group: 4 pad: 1", convolution(pad=1, group=4)),
    case("num_output: 8 kernel_size: 2 group: 4 stride: 2", convolution(2, group=4)),
    case("num_output: 6 kernel_size: 3", convolution(), bottoms=3),
    case("num_output: 1 kernel_size: 3", convolution(), (2, 1, 5, 4), (1, 1, 4, 6)),
    case("num_output: 5 kernel_h: 7 kernel_w: 6", convolution(), other=(3, 4, 7, 6)),
    case("num_output: 1 kernel_size: 1", convolution(), (1, 1, 1, 1), (2, 1, 1, 1)),
    case("num_output: 3 kernel_size: 3 pad: 1", convolution(pad=1), (2, 4, 9), (1, 4, 5)),
    case(
        "num_output: 4 kernel_size: 2 stride: 2 stride: 1 stride: 2 pad: 1 group: 2",
        convolution((2, 1, 2), 1, group=2),
        (2, 2, 4, 3, 5),
        (1, 2, 5, 4, 3),
    ),
    case("num_output: 3 kernel_size: 2 axis: 2", convolution(axis=2), (2, 3, 2, 5), (1, 2, 2, 4)),
    case(
        "num_output: 3 kernel_size: 2 axis: -3",
        convolution(axis=2),
        (2, 3, 2, 5, 4),
        (1, 1, 2, 4, 6),
    ),
    case("num_output: 3 kernel_size: 2 axis: 0", convolution(axis=0), (2, 5, 4), (2, 3, 3)),
    # More than one tile of outputs, of positions and of taps.
    case("num_output: 26 kernel_size: 3 pad: 1", convolution(pad=1), (3, 30, 9, 8), (2, 30, 7, 5)),
    case("num_output: 6 kernel_size: 3", convolution(), (0, 4, 7, 6), (2, 4, 7, 6)),
    # Wider than the bottom by less than the stride: the kernel stands once.
    case("num_output: 3 kernel_size: 8 stride: 3", convolution(3), (2, 4, 7, 6), (3, 4, 6, 9)),
    case(
        "num_output: 4 kernel_size: 5 stride: 2 stride: 4 pad: 0 pad: 1 dilation: 2 group: 2",
        convolution((2, 4), (0, 1), 2, 2),
        (2, 4, 8, 5),
        (1, 4, 9, 7),
    ),
    # Without spatial axes an image is one pixel, whatever the kernel.
    case("num_output: 6 kernel_size: 3 pad: 1 group: 2", convolution(group=2), (3, 4), (5, 4)),
    case("num_output: 6 axis: -1", convolution(axis=2), (2, 3, 4), (1, 2, 4)),
]


def mistake(options: str, message: str, at: str, *bottoms: tuple[int, ...]) -> Mistake:
    text = f'type: "Convolution" convolution_param {{ {options} }}'
    return Mistake(text, bottoms or [(2, 4, 7, 6)], message, at)


MISTAKES = [
    mistake("kernel_size: 3", "num_output is missing", "convolution_param"),
    mistake("num_output: 4", "kernel_size is missing", "convolution_param"),
    mistake("num_output: 4 kernel_size: 0", "kernel_size is 0, but must be at least 1", "0"),
    mistake("num_output: 4 kernel_size: 3 stride: 0", "stride is 0, but must be at least 1", "0"),
    mistake(
        "num_output: 4 kernel_size: 3 dilation: 0", "dilation is 0, but must be at least 1", "0"
    ),
    mistake("num_output: 4 kernel_h: 3", "give both kernel_h and kernel_w", "convolution_param"),
    mistake(
        "num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3",
        "give kernel_size, or kernel_h and kernel_w, not both",
        "3",
    ),
    mistake(
        "num_output: 4 kernel_h: 3 kernel_w: 3",
        "kernel_h and kernel_w are for 2 spatial axes, but the bottom has 1",
        "3",
        (2, 4, 7),
    ),
    mistake(
        "num_output: 4 kernel_size: 3 pad: 1 pad: 2 pad: 3",
        "pad has 3 values for 2 spatial axes: give one for all, or one for each",
        "1",
    ),
    mistake(
        "num_output: 4 kernel_size: 8 pad: 0",
        "the kernel spans 8 but spatial axis 0 of the bottom 2x4x7x6 has 7 + 2 * 0 = 7",
        "8",
    ),
    mistake(
        "num_output: 4 kernel_size: 3 dilation: 3",
        "the kernel spans 7 but spatial axis 1 of the bottom 2x4x7x6 has 6 + 2 * 0 = 6",
        "3",
    ),
    mistake("num_output: 4 kernel_size: 3 group: 0", "group is 0, but must be at least 1", "0"),
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
    mistake("num_output: 4 kernel_size: 3 axis: 4", "axis is 4, but the bottom is 2x4x7x6", "4"),
    mistake(
        "num_output: 4 kernel_size: 9 stride: 3",
        "the kernel spans 9 but spatial axis 1 of the bottom 2x4x7x6 has 6 + 2 * 0 = 6",
        "9",
    ),
    mistake(
        "num_output: 4 kernel_h: 3 kernel_w: 7",
        "the kernel spans 7 but spatial axis 1 of the bottom 2x4x7x6 has 6 + 2 * 0 = 6",
        "7",
    ),
    mistake("num_output: 4 kernel_h: 3 kernel_w: 0", "kernel_w is 0, but must be at least 1", "0"),
    mistake(
        "num_output: 4 kernel_size: 3 kernel_size: 5",
        "kernel_size has 2 values for 0 spatial axes: give one for all, or one for each",
        "3",
        (2, 4),
    ),
    mistake(
        "num_output: 4 kernel_size: 3",
        "all bottoms must have one shape, but the first is 2x4x7x6 and number 2 is 2x4x7x5",
        '"x1"',
        (2, 4, 7, 6),
        (2, 4, 7, 5),
    ),
    mistake(
        'num_output: 4 kernel_size: 3 } top: "y" top: "z" loss_param {',
        "needs as many tops as bottoms, but has 2 and 1",
        "layer",
    ),
    mistake(
        "num_output: 4 kernel_size: 1 pad: 1",
        "spatial axis 1 of the bottom 2x4x7x0 has no values",
        '"x0"',
        (2, 4, 7, 0),
    ),
    mistake(
        "num_output: 4 kernel_size: 1",
        "the bottom 2x0x7x6 has no channels",
        '"x0"',
        (2, 0, 7, 6),
    ),
    mistake(
        "num_output: 1 kernel_size: 1 pad: 1000000",
        'top "y0" would be 2x1x2000007x2000006: more than 2^31 - 1 values',
        "layer",
    ),
    mistake(
        "num_output: 1 kernel_size: 1000000 stride: 1000000",
        "its weight would be 1x4x1000000x1000000: more than 2^31 - 1 values",
        "layer",
    ),
]
