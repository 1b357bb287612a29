"""SPP: levels, bins that do not divide the image, all methods, images that cannot be divided."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.errors import NetError
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Draw, Mistake, Trial, distinct, values


def pyramid(height: int, one: Callable[[Any, float], float]) -> Callable[..., Any]:
    """A reference that cuts out bin after bin; ``one`` pools its pixels and its area."""

    def bin_of(size: int, bins: int, i: int) -> tuple[slice, int]:
        """Its part in the image, and its length in the padded image."""
        wide = math.ceil(size / bins)
        pad = math.ceil((wide * bins - size) / 2)
        begin, end = i * wide - pad, min((i + 1) * wide - pad, size + pad)
        return slice(max(begin, 0), min(end, size)), end - begin

    def expected(x: Any) -> Any:
        levels = []
        for bins in (2**level for level in range(height)):
            y = np.zeros((*x.shape[:2], bins, bins))
            for n, c, i, j in np.ndindex(y.shape):
                rows, tall = bin_of(x.shape[2], bins, i)
                columns, wide = bin_of(x.shape[3], bins, j)
                y[n, c, i, j] = one(x[n, c, rows, columns], tall * wide)
            levels.append(y)
        if height == 1:
            return levels[0]
        return np.concatenate([y.reshape(len(x), math.prod(y.shape[1:])) for y in levels], axis=1)

    return expected


def maximum(seen: Any, area: float) -> float:
    return float(seen.max())


def mean(seen: Any, area: float) -> float:
    return float(seen.sum() / area)


def expectation(seen: Any, area: float) -> float:
    return float((seen**2).sum() / seen.sum())


def positive(random: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(random.uniform(0.1, 2, shape))


def case(
    options: str,
    expected: Callable[..., Any],
    x: Shape = (2, 3, 9, 9),
    other: Shape = (1, 3, 7, 8),
    draw: Draw = distinct,
    phase: int = pb.TRAIN,
) -> Case:
    text = f'type: "SPP" spp_param {{ {options} }}'
    return Case(text, [x], expected, draw, other=[other], phase=phase)


CASES = [
    case("pyramid_height: 1", pyramid(1, maximum)),
    case("pyramid_height: 2", pyramid(2, maximum)),
    case("pyramid_height: 3", pyramid(3, maximum)),
    case("pyramid_height: 1 pool: AVE", pyramid(1, mean)),
    case("pyramid_height: 3 pool: AVE", pyramid(3, mean)),
    # Padding on one axis only, and on none.
    case("pyramid_height: 2 pool: AVE", pyramid(2, mean), (1, 2, 5, 4), (2, 2, 4, 6)),
    case("pyramid_height: 3", pyramid(3, maximum), (1, 2, 4, 8), (2, 2, 10, 11)),
    case(
        "pyramid_height: 2 pool: STOCHASTIC",
        pyramid(2, expectation),
        (2, 2, 4, 6),
        (1, 2, 2, 2),
        positive,
        pb.TEST,
    ),
    case("pyramid_height: 2", pyramid(2, maximum), (0, 2, 4, 4), (1, 2, 4, 4)),
    case("pyramid_height: 1 pool: AVE", pyramid(1, mean), (1, 1, 1, 1), (2, 1, 1, 2)),
]


def mistake(options: str, message: str, at: str, x: Shape = (2, 3, 9, 9)) -> Mistake:
    return Mistake(f'type: "SPP" spp_param {{ {options} }}', [x], message, at)


MISTAKES = [
    Mistake('type: "SPP"', [(2, 3, 9, 9)], "pyramid_height is missing", "layer"),
    mistake("pyramid_height: 0", "pyramid_height is 0, but must be at least 1", "0"),
    mistake(
        "pyramid_height: 3",
        "the bottom 2x3x9x5 cannot be pooled into 4 x 4 bins: 5 pixels need a kernel of 2 and "
        "pad 2, so a bin would see only padding",
        "3",
        (2, 3, 9, 5),
    ),
    mistake(
        "pyramid_height: 4294967295",
        "the bottom 2x3x9x9 cannot be pooled into 8 x 8 bins",
        "4294967295",
    ),
    mistake(
        "pyramid_height: 2 pool: STOCHASTIC",
        "STOCHASTIC pooling goes without padding, but to pool 2x3x9x8 into 2 x 2 bins takes pad "
        "1 and 0",
        "STOCHASTIC",
        (2, 3, 9, 8),
    ),
    mistake(
        "pyramid_height: 2",
        "needs a bottom of 4 axes (N, C, H, W), but it is 2x3x9",
        '"x0"',
        (2, 3, 9),
    ),
    mistake("pyramid_height: 1", "the bottom 2x3x0x9 has an empty image", '"x0"', (2, 3, 0, 9)),
]


def test_each_level_draws_on_its_own() -> None:
    """Rows of 1 and of 2, pooled whole and in quarters: each draws a 2 with probability 2/3.

    Over the choice of the seed this would fail in one of about a million.
    """
    count = 10_000
    one = case(
        "pyramid_height: 2 pool: STOCHASTIC",
        pyramid(2, expectation),
        (count, 1, 4, 4),
        draw=values([[1], [2], [1], [2]] * np.ones((4, 4))),
    )
    with Trial(one) as trial:
        trial.forward()
        y = trial.top[0].data
        assert y.shape == (count, 5)
        for level in (y[:, 0], y[:, 1]):
            assert abs((level == 2).mean() - 2 / 3) < 5.2 * math.sqrt(2 / 9 / count)
        # Not by the same numbers in the same order, either.
        for other in (y[:, 1], y[:, 1:].reshape(-1)[:count]):
            both = ((y[:, 0] == 2) & (other == 2)).mean()
            assert abs(both - 4 / 9) < 5.2 * math.sqrt(4 / 9 * 5 / 9 / count)


@pytest.mark.parametrize("size", range(1, 40))
def test_every_size_gives_all_bins_or_is_refused(size: int) -> None:
    """What Caffe's formula pads must be less than a kernel: then no bin is empty."""
    for height in range(1, 7):
        bins = 2 ** (height - 1)
        wide = math.ceil(size / bins)
        fits = all(
            math.ceil((math.ceil(size / b) * b - size) / 2) < math.ceil(size / b)
            for b in (2**level for level in range(height))
        )
        layer = case(f"pyramid_height: {height}", pyramid(1, maximum)).layer()
        if not fits:
            with pytest.raises(NetError, match="would see only padding"):
                layer.shapes((1, 1, size, size))
            continue
        assert math.prod(layer.shapes((1, 1, size, size))[0]) == (4**height - 1) // 3
        pad = math.ceil((wide * bins - size) / 2)
        assert wide * (bins - 1) - pad < size
