"""Axpy: ranks of a and x, a single pixel, nothing at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.net import Net
from netdef.testing import Case, Mistake


def axpy(a: Any, x: Any, y: Any) -> Any:
    return a.reshape(*x.shape[:2], *[1] * (x.ndim - 2)) * x + y


def case(a: tuple[int, ...], x: tuple[int, ...]) -> Case:
    return Case('type: "Axpy"', [a, x, x], axpy)


CASES = [
    case((2, 3, 1, 1), (2, 3, 4, 5)),
    case((2, 3), (2, 3, 4, 5)),
    case((2, 3), (2, 3)),
    case((2, 3, 1, 1), (2, 3, 1, 1)),
    case((2, 3, 1), (2, 3, 700)),
    case((1, 1), (1, 1, 2, 3, 2)),
    case((0, 3), (0, 3, 2)),
]

X = (2, 3, 4, 5)

MISTAKES = [
    Mistake('type: "Axpy"', [(2, 3), X], "takes 3 bottom blobs, but 2 given", "layer"),
    Mistake(
        'type: "Axpy"',
        [(2, 1, 1, 1), X, X],
        "a must have one value for each channel of x, 2x3 for 2x3x4x5, but it is 2x1x1x1",
        '"x0"',
    ),
    Mistake('type: "Axpy"', [(2, 3, 1, 5), X, X], "but it is 2x3x1x5", '"x0"'),
    Mistake(
        'type: "Axpy"',
        [(2, 3), X, (2, 3, 4, 4)],
        "y must have the shape of x, 2x3x4x5, but it is 2x3x4x4",
        '"x2"',
    ),
    Mistake('type: "Axpy"', [(2,), (2,), (2,)], "x must have at least 2 axes", '"x1"'),
]


def test_it_is_scale_and_eltwise_in_one() -> None:
    """A block that squeezes and excites gives what the layers of Caffe 1.0 give."""
    shapes = {"a": (2, 3), "x": X, "y": X}
    text = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }\n"
        for name, shape in shapes.items()
    )
    net = Net.from_text(
        text
        + """
        layer { name: "one" type: "Axpy" bottom: "a" bottom: "x" bottom: "y" top: "one" }
        layer { name: "scale" type: "Scale" bottom: "x" bottom: "a" top: "ax"
                scale_param { axis: 0 } }
        layer { name: "two" type: "Eltwise" bottom: "ax" bottom: "y" top: "two" }
        """
    )
    random = np.random.default_rng(1)
    for name in shapes:
        net.blobs[name].data[...] = random.standard_normal(shapes[name])
    net.forward()
    np.testing.assert_allclose(net.blobs["one"].data, net.blobs["two"].data, rtol=1e-6, atol=1e-6)
