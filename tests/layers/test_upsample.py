"""Upsample: by a mask, every form of its size, what a mask may hold; and without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.errors import DataError
from netdef.net import Net
from netdef.testing import Case, Draw, Mistake, Trial, normal, values

X = (2, 3, 3, 4)


def places(height: int, width: int) -> Draw:
    """For each value of an image another place of an image of this size."""

    def draw(random: np.random.Generator, shape: Shape) -> Array:
        planes = [
            random.permutation(height * width)[: shape[2] * shape[3]]
            for _ in range(shape[0] * shape[1])
        ]
        return np.array(planes, np.float64).reshape(shape)

    return draw


def unpooled(height: int, width: int) -> Callable[..., Any]:
    def expected(x: Any, mask: Any) -> Any:
        y = np.zeros((*x.shape[:2], height, width))
        for n, c, i, j in np.ndindex(x.shape):
            y[n, c].flat[int(mask[n, c, i, j])] = x[n, c, i, j]
        return y

    return expected


def unpool(options: str, height: int, width: int, x: Shape = X) -> Case:
    text = f'type: "Upsample" upsample_param {{ {options} }}'
    return Case(text, [x, x], unpooled(height, width), [normal, places(height, width)])


def repeat(options: str, h: int, w: int, x: Shape = X) -> Case:
    text = f'type: "Upsample" upsample_param {{ {options} }}'
    return Case(text, [x], lambda x: x.repeat(h, axis=2).repeat(w, axis=3))


CASES = [
    unpool("scale: 2", 6, 8),
    unpool("scale: 3", 9, 12),
    unpool("scale_h: 2 scale_w: 3", 6, 12),
    unpool("scale: 2 pad_out_h: true", 5, 8),
    unpool("scale: 2 pad_out_w: true", 6, 7),
    unpool("scale: 2 pad_out_h: true pad_out_w: true", 5, 7),
    unpool("upsample_h: 7 upsample_w: 5", 7, 5),
    # A size counts more than a scale.
    unpool("upsample_h: 5 upsample_w: 8 scale: 2", 5, 8),
    unpool("scale: 2", 2, 2, (2, 3, 1, 1)),
    unpool("scale: 2", 6, 8, (0, 3, 3, 4)),
    repeat("scale: 2", 2, 2),
    repeat("scale: 3", 3, 3),
    repeat("scale: 1", 1, 1),
    repeat("scale_h: 1 scale_w: 2", 1, 2),
    repeat("scale: 2", 2, 2, (0, 3, 3, 4)),
    repeat('height: 6 width: 12 mode: "NEAREST"', 2, 3),
    repeat("", 1, 1),
    Case('type: "Upsample"', [X, X], unpooled(6, 8), [normal, places(6, 8)]),
    Case(
        'type: "UpsampleDarknet" upsample_darknet_param { stride: 2 }',
        [X],
        lambda x: x.repeat(2, axis=2).repeat(2, axis=3),
    ),
]


def mistake(options: str, message: str, at: str, *bottoms: Shape) -> Mistake:
    return Mistake(
        f'type: "Upsample" upsample_param {{ {options} }}', bottoms or [X, X], message, at
    )


MISTAKES = [
    mistake("scale: 0", "scale is 0, but must be at least 1", "0"),
    mistake("scale: 2 scale_h: 2", "give scale, or scale_h, not both", "2 }"),
    mistake("height: 6", "give both height and width", "6", X),
    mistake(
        "height: 6 width: 9",
        "width is 9, but must be a multiple of that of the bottom 2x3x3x4",
        "9",
        X,
    ),
    mistake(
        "height: 6 width: 8",
        "height is 6, but with a mask the size is that of upsample_h and upsample_w",
        "6",
    ),
    mistake('mode: "BILINEAR"', 'mode is "BILINEAR", but only NEAREST is computed', '"B', X),
    mistake('mode: "NEAREST"', 'mode is "NEAREST", but a mask says where pixels go', '"N'),
    mistake("scale_w: 2", "give both scale_h and scale_w", "2"),
    mistake("upsample_h: 5", "give both upsample_h and upsample_w", "5"),
    mistake("upsample_h: 5 upsample_w: 0", "upsample_w is 0, but must be at least 1", "0"),
    mistake(
        "scale: 3 pad_out_h: true",
        "pad_out_h is for unpooling by a scale of 2, but the scale is 3",
        "true",
    ),
    mistake(
        "scale: 2 pad_out_w: true",
        "pad_out_w is for unpooling by a scale of 2, but there is no mask",
        "true",
        X,
    ),
    mistake(
        "upsample_h: 5 upsample_w: 5",
        "upsample_h is for unpooling, which needs a mask as second bottom",
        "5",
        X,
    ),
    mistake("scale: 2", "needs a bottom of 4 axes (N, C, H, W)", '"x0"', (2, 3, 4)),
    mistake(
        "scale: 2",
        "the mask must have the shape of x, 2x3x3x4, but it is 2x3x3x5",
        '"x1"',
        X,
        (2, 3, 3, 5),
    ),
    Mistake(
        'type: "Upsample" upsample_param { scale: 2 }',
        [X, X],
        "the mask points at 48, but an image of 6x8 ends at 47: this is not the size that was "
        "pooled",
        '"x1"',
        [normal, values(48)],
        error=DataError,
    ),
    *(
        Mistake(
            f'type: "UpsampleDarknet" upsample_darknet_param {{ stride: {stride} }}',
            bottoms,
            message,
            at,
        )
        for stride, bottoms, message, at in (
            (0, [X], "stride is 0, but must be at least 1", "0"),
            (2, [(2, 3, 4)], "needs a bottom of 4 axes (N, C, H, W)", '"x0"'),
            (2, [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
        )
    ),
    Mistake(
        'type: "Upsample" upsample_param { scale: 2 }',
        [X, X],
        "the mask points at nan",
        '"x1"',
        [normal, values(np.nan)],
        error=DataError,
    ),
]


@pytest.mark.parametrize(
    ("height", "width", "options"), [(6, 8, ""), (5, 7, "pad_out_h: true pad_out_w: true")]
)
def test_it_undoes_pooling(height: int, width: int, options: str) -> None:
    """Every maximum goes back to where it was, and everything else is 0."""
    net = Net.from_text(
        f"""
        force_backward: true
        layer {{ name: "in" type: "Input" top: "x"
                input_param {{ shape {{ dim: 2 dim: 3 dim: {height} dim: {width} }} }} }}
        layer {{ name: "pool" type: "Pooling" bottom: "x" top: "pool" top: "mask"
                pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
        layer {{ name: "up" type: "Upsample" bottom: "pool" bottom: "mask" top: "up"
                upsample_param {{ scale: 2 {options} }} }}
        """
    )
    x = net.blobs["x"].data
    x[...] = np.random.default_rng(1).standard_normal(x.shape)
    net.forward()
    pool, up = net.blobs["pool"].data, net.blobs["up"].data
    assert up.shape == x.shape
    assert np.count_nonzero(up) == pool.size
    np.testing.assert_array_equal(up[up != 0], x[up != 0])
    np.testing.assert_array_equal(np.sort(up[up != 0]), np.sort(pool.ravel()))
    net.blobs["up"].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, up != 0)


def test_what_a_mask_may_hold() -> None:
    """-1 points nowhere, a fraction is cut off, and of two values the last stays."""
    case = Case(
        'type: "Upsample" upsample_param { scale: 2 }',
        [(1, 1, 2, 2), (1, 1, 2, 2)],
        unpooled(4, 4),
        [normal, values([[[[-1, 3.75], [6, 6]]]])],
    )
    with Trial(case) as trial:
        trial.forward()
        _, second, third, fourth = trial.bottom[0].flat
        expected = np.zeros(16)
        expected[[3, 6]] = second, fourth
        np.testing.assert_array_equal(trial.top[0].flat, expected)
        trial.backward()
        dy = trial.top[0].diff.ravel()
        np.testing.assert_array_equal(trial.bottom[0].diff.ravel(), [0, dy[3], dy[6], dy[6]])
        assert third != fourth
