"""Im2col: 1 to 3 spatial axes, stride, pad, dilation; and that Convolution is a product with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial


def im2col(
    kernel: Any, stride: Any = 1, pad: Any = 0, dilation: Any = 1, axis: int = 1
) -> Callable[..., Any]:
    """A reference that looks up every value by itself."""

    def expected(x: Any) -> Any:
        batch, image = x.shape[:axis], x.shape[axis + 1 :]
        k, s, p, d = (
            np.broadcast_to(g, len(image)).tolist() for g in (kernel, stride, pad, dilation)
        )
        x = x.reshape(-1, *x.shape[axis:])
        room = [n + 2 * q - by * (w - 1) - 1 for n, q, by, w in zip(image, p, d, k, strict=True)]
        size = [int(free / by) + 1 for free, by in zip(room, s, strict=True)]
        y = np.zeros((*x.shape[:2], *k, *size))
        for tap in np.ndindex(*k):
            for place in np.ndindex(*size):
                at = np.multiply(place, s) + np.multiply(tap, d) - p
                if all(0 <= a < n for a, n in zip(at, image, strict=True)):
                    y[(slice(None), slice(None), *tap, *place)] = x[(slice(None), slice(None), *at)]
        return y.reshape(*batch, x.shape[1] * int(np.prod(k)), *size)

    return expected


def case(
    options: str,
    expected: Callable[..., Any],
    x: tuple[int, ...] = (2, 3, 6, 5),
    other: tuple[int, ...] = (1, 2, 7, 8),
) -> Case:
    return Case(f'type: "Im2col" convolution_param {{ {options} }}', [x], expected, other=[other])


CASES = [
    case("kernel_size: 3", im2col(3)),
    case("kernel_size: 1", im2col(1)),
    case("kernel_size: 2 stride: 2 pad: 1", im2col(2, 2, 1)),
    case("kernel_size: 2 stride: 3 dilation: 2 force_nd_im2col: true", im2col(2, 3, 0, 2)),
    case(
        "kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 0 stride_h: 1 stride_w: 2",
        im2col((3, 2), (1, 2), (2, 0)),
    ),
    case("kernel_size: 2 kernel_size: 3 dilation: 3 dilation: 1", im2col((2, 3), dilation=(3, 1))),
    case("kernel_size: 7 stride: 3", im2col(7, 3)),
    case("kernel_size: 3 stride: 2 pad: 1", im2col(3, 2, 1), (2, 3, 7), (1, 2, 4)),
    case("kernel_size: 2 pad: 1 axis: 0", im2col(2, pad=1, axis=0), (2, 2, 3, 2), (1, 2, 1, 3)),
    case("kernel_size: 2 axis: -3", im2col(2, axis=2), (2, 2, 3, 3, 4), (1, 3, 2, 4, 3)),
    case("kernel_size: 3", im2col(3), (0, 3, 6, 5)),
    case(
        "kernel_size: 1 pad: 0 pad: 2000000000 stride: 1 stride: 4000000000",
        im2col(1, (1, 4000000000), (0, 2000000000)),
    ),
]


def mistake(options: str, message: str, at: str, x: tuple[int, ...] = (2, 3, 6, 5)) -> Mistake:
    return Mistake(f'type: "Im2col" convolution_param {{ {options} }}', [x], message, at)


MISTAKES = [
    mistake("stride: 2", "kernel_size is missing", "convolution_param"),
    mistake(
        "kernel_size: 6",
        "the kernel spans 6 but spatial axis 1 of the bottom 2x3x6x5 has 5 + 2 * 0 = 5",
        "6",
    ),
    mistake("kernel_size: 3", "the bottom 2x3 has no axes behind the channels", '"x0"', (2, 3)),
    mistake("kernel_size: 3 axis: 4", "axis is 4, but the bottom is 2x3x6x5", "4"),
    mistake("kernel_size: 1", "the bottom 2x0x6x5 has no channels", '"x0"', (2, 0, 6, 5)),
]


def test_convolution_is_a_product_with_it() -> None:
    options = "kernel_size: 3 stride: 2 pad: 1 dilation: 2"
    filters = Case(
        f'type: "Convolution" convolution_param {{ num_output: 4 bias_term: false {options} }}',
        [(2, 3, 6, 5)],
        lambda *arrays: None,
    )
    with Trial(case(options, im2col(3))) as columns, Trial(filters) as convolved:
        columns.forward()
        convolved.forward()
        weight = convolved.layer.blobs[0].data.reshape(4, -1)
        product = np.einsum("mt,nt...->nm...", weight, columns.top[0].data)
        np.testing.assert_allclose(convolved.top[0].data, product, rtol=1e-12, atol=1e-12)
