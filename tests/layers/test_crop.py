"""Crop: axes, the forms of offset, references of other ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial

X = (2, 3, 6, 7)


def crop(*begins: int, axis: int = 2) -> Callable[..., Any]:
    """Drops what stands before the cut and behind it, axis by axis."""

    def expected(x: Any, reference: Any) -> Any:
        for i, begin in enumerate(begins, axis):
            x = np.take(x, range(begin, begin + reference.shape[i]), axis=i)
        return x

    return expected


def case(
    options: str, reference: Shape, expected: Callable[..., Any], other: list[Shape] | None = None
) -> Case:
    return Case(f'type: "Crop" crop_param {{ {options} }}', [X, reference], expected, other=other)


CASES = [
    Case('type: "Crop"', [X, (2, 3, 4, 3)], crop(0, 0)),
    case("offset: 2", (2, 3, 4, 3), crop(2, 2)),
    case("offset: 1 offset: 3", (5, 1, 4, 3), crop(1, 3)),
    case("axis: 1 offset: 1 offset: 0 offset: 2", (1, 2, 3, 5), crop(1, 0, 2, axis=1)),
    case("axis: 0 offset: 1 offset: 0 offset: 0 offset: 2", (1, 3, 6, 5), crop(1, 0, 0, 2, axis=0)),
    case("axis: -1 offset: 4", (9, 9, 9, 3), crop(4, axis=3)),
    case("axis: -2 offset: 1 offset: 4", (1, 1, 3, 3), crop(1, 4)),
    # Only so many axes of the reference count.
    case("axis: 3", (1, 1, 1, 2, 5), crop(0, axis=3)),
    # All of it.
    case("", (2, 3, 6, 7), crop(0, 0)),
    Case('type: "Crop" crop_param { axis: 0 offset: 3 }', [(7,), (4,)], crop(3, axis=0)),
    Case('type: "Crop"', [(0, 3, 4, 4), (0, 3, 2, 2)], crop(0, 0)),
]

MISTAKES = [
    Mistake('type: "Crop"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "Crop"',
        [X, (2, 3, 6, 8)],
        "cannot cut 2x3x6x7 to 2x3x6x8: axis 3 would need 0 + 8 values, but has 7",
        '"x1"',
    ),
    Mistake(
        'type: "Crop" crop_param { offset: 2 }',
        [X, (2, 3, 5, 5)],
        "cannot cut 2x3x6x7 to 2x3x5x5: axis 2 would need 2 + 5 values, but has 6",
        "2",
    ),
    Mistake(
        'type: "Crop" crop_param { offset: 0 offset: 4294967295 }',
        [X, (2, 3, 5, 5)],
        "axis 3 would need 4294967295 + 5 values, but has 7",
        "4294967295",
    ),
    Mistake(
        'type: "Crop" crop_param { axis: 1 offset: 5 offset: 2 }',
        [X, X],
        "offset has 2 values, but 3 axes of 2x3x6x7 are cut: give one for all, or one for each",
        "5",
    ),
    Mistake(
        'type: "Crop" crop_param { axis: 4 }', [X, X], "axis is 4, but the bottom is 2x3x6x7", "4"
    ),
    Mistake(
        'type: "Crop"',
        [X, (2, 3, 6)],
        "the reference 2x3x6 has 3 axes, fewer than the 4 of 2x3x6x7, which it is to cut",
        '"x1"',
    ),
]


def test_what_was_cut_off_has_no_gradient() -> None:
    with Trial(case("offset: 1 offset: 2", (2, 3, 4, 3), crop(1, 2))) as trial:
        trial.forward()
        trial.backward()
        expected = np.pad(trial.top[0].diff, [(0, 0), (0, 0), (1, 1), (2, 2)])
        np.testing.assert_array_equal(trial.bottom[0].diff, expected)


def test_the_reference_may_come_from_a_layer_that_learns() -> None:
    """As where a decoder is joined to what the encoder saw."""
    net = Net.from_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 5 dim: '
        '5 } } } layer { name: "big" type: "Convolution" bottom: "x" top: "big" '
        "convolution_param { num_output: 1 kernel_size: 1 } } "
        'layer { name: "small" type: "Convolution" bottom: "big" top: "small" '
        "convolution_param { num_output: 1 kernel_size: 3 } } "
        'layer { name: "crop" type: "Crop" bottom: "big" bottom: "small" top: "crop" } '
        'layer { name: "sum" type: "Reduction" bottom: "crop" top: "sum" loss_weight: 1 }'
    )
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.params["big"][0].diff.item() == 9
    assert net.params["small"][0].diff.tolist() == [[[[0] * 3] * 3]]
