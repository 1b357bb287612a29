"""Reorg: both directions, strides, what darknet's own loops give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial


def reorg(s: int, reverse: bool = False) -> Callable[..., Any]:
    """One value after the other, by indices into flat memory."""

    def expected(x: Any) -> Any:
        n, c, h, w = x.shape
        small = c // (s * s)
        source, target = x.ravel(), np.empty(x.size)
        for at, (b, k, j, i) in enumerate(np.ndindex(x.shape)):
            block, channel = divmod(k, small)
            row, column = j * s + block // s, i * s + block % s
            there = ((b * small + channel) * h * s + row) * w * s + column
            if reverse:
                target[there] = source[at]
            else:
                target[at] = source[there]
        shape = (n, small, h * s, w * s) if reverse else (n, c * s * s, h // s, w // s)
        return target.reshape(shape)

    return expected


def case(options: str, x: tuple[int, ...], expected: Callable[..., Any]) -> Case:
    return Case(f'type: "Reorg" reorg_param {{ {options} }}', [x], expected)


CASES = [
    case("stride: 2", (2, 8, 4, 6), reorg(2)),
    case("stride: 2", (1, 4, 2, 2), reorg(2)),
    case("stride: 3", (2, 9, 3, 6), reorg(3)),
    case("stride: 1", (2, 3, 4, 5), reorg(1)),
    case("stride: 2 reverse: true", (2, 8, 3, 5), reorg(2, True)),
    case("stride: 3 reverse: true", (1, 9, 2, 1), reorg(3, True)),
    case("stride: 2", (0, 4, 2, 2), reorg(2)),
]

MISTAKES = [
    Mistake('type: "Reorg"', [(2, 8, 4)], "needs a bottom of 4 axes (N, C, H, W)", '"x0"'),
    Mistake(
        'type: "Reorg" reorg_param { stride: 2 }',
        [(2, 6, 4, 4)],
        "the bottom 2x6x4x4 must have a multiple of 4 channels, the square of stride",
        "2",
    ),
    Mistake(
        'type: "Reorg" reorg_param { stride: 2 }',
        [(2, 8, 4, 5)],
        "height and width of the bottom 2x8x4x5 must be multiples of the stride, 2",
        "2",
    ),
    Mistake(
        'type: "Reorg" reorg_param { stride: 0 }',
        [(2, 8, 4, 4)],
        "stride is 0, but must be at least 1",
        "0",
    ),
]


def test_reverse_brings_back_what_was_reorganised() -> None:
    with Trial(CASES[0]) as there:
        there.forward()
        y = there.top[0].data.reshape(2, 8, 4, 6)
    with Trial(case("stride: 2 reverse: true", y.shape, reorg(2, True))) as back:
        back.bottom[0].data[...] = y
        back.forward()
        np.testing.assert_array_equal(back.top[0].flat, there.bottom[0].flat)


def test_reverse_is_depth_to_space() -> None:
    x = np.arange(4.0).reshape(1, 4, 1, 1)
    with Trial(case("stride: 2 reverse: true", x.shape, reorg(2, True))) as trial:
        trial.bottom[0].data[...] = x
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, [[[[0, 1], [2, 3]]]])
