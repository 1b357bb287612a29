"""Pooling: MAX, AVE and STOCHASTIC, both roundings, windows that padding cuts or that see nothing.

The statistics are of fixed keys, so they never fail by chance once they pass; over the choice of
key each would in one of about five million.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef import rng
from netdef.blob import Array, Shape
from netdef.proto import netdef_pb2 as pb
from netdef.testing import SEED, Case, Mistake, Trial, distinct, values

#: What Caffe gives a window that sees nothing.
LOWEST = -np.finfo(np.float32).max


def windows(size: int, kernel: int, stride: int, pad: int, clip: bool, up: bool) -> int:
    """How many windows there are, by laying them one after the other."""
    count = 1
    if up:
        while (count - 1) * stride + kernel < size + 2 * pad:
            count += 1
    else:
        while count * stride + kernel <= size + 2 * pad:
            count += 1
    return count - 1 if clip and (count - 1) * stride >= size + pad else count


def pooling(
    kernel: Any = None,
    stride: Any = 1,
    pad: Any = 0,
    mean: bool = False,
    up: bool = True,
    mask: bool = False,
) -> Callable[..., Any]:
    """A reference that looks into every window; without ``kernel`` there is a single one."""

    def expected(x: Any) -> Any:
        image = x.shape[2:]
        k, s, p = (np.broadcast_to(g, 2).tolist() for g in (kernel or image, stride, pad))
        size = [windows(image[i], k[i], s[i], p[i], any(p), up) for i in (0, 1)]
        y, at = np.zeros((*x.shape[:2], *size)), np.zeros((*x.shape[:2], *size))
        for n, c, i, j in np.ndindex(y.shape):
            first = [i * s[0] - p[0], j * s[1] - p[1]]
            end = [min(first[a] + k[a], image[a] + p[a]) for a in (0, 1)]
            rows, columns = (range(max(first[a], 0), min(end[a], image[a])) for a in (0, 1))
            seen = [(x[n, c, h, w], h * image[1] + w) for h in rows for w in columns]
            if mean:
                total = sum(value for value, _ in seen)
                y[n, c, i, j] = total / ((end[0] - first[0]) * (end[1] - first[1]))
            else:
                y[n, c, i, j], at[n, c, i, j] = max(seen, default=(LOWEST, -1))
        return (y, at) if mask else y

    return expected


def case(
    options: str,
    expected: Callable[..., Any],
    x: Shape = (2, 3, 6, 5),
    other: Shape = (1, 3, 7, 8),
    tops: str = "",
) -> Case:
    text = f'type: "Pooling" pooling_param {{ {options} }} {tops}'
    return Case(text, [x], expected, distinct, other=[other])


MASK = 'top: "y" top: "mask"'


def positive(random: np.random.Generator, shape: Shape) -> Array:
    """Values that can be probabilities."""
    return np.asarray(random.uniform(0.1, 2, shape))


def stochastic(
    kernel: Any = None, stride: Any = 1, up: bool = True, train: bool = True
) -> Callable[..., Any]:
    """Draws by the uniform numbers of the layer's own stream; in TEST it takes their mean."""

    def expected(x: Any) -> Any:
        image = x.shape[2:]
        k, s = (np.broadcast_to(g, 2).tolist() for g in (kernel or image, stride))
        y = np.zeros((*x.shape[:2], *(windows(image[a], k[a], s[a], 0, False, up) for a in (0, 1))))
        unit = np.empty(y.size)
        rng.uniform(rng.key(SEED, "TRAIN/layer"), np.uint64(0), unit)
        for (n, c, i, j), u in zip(np.ndindex(y.shape), unit, strict=True):
            seen = x[n, c, i * s[0] :, j * s[1] :][: k[0], : k[1]].reshape(-1)
            if train:
                reached = np.flatnonzero(seen.cumsum() >= (1 - u) * seen.sum())
                y[n, c, i, j] = seen[reached[0]] if seen.size else 0
            else:
                y[n, c, i, j] = (seen**2).sum() / seen.sum() if seen.size else 0
        return y

    return expected


def drawn(options: str, x: Shape = (2, 3, 6, 5), phase: int = pb.TRAIN, **how: Any) -> Case:
    text = f'type: "Pooling" pooling_param {{ pool: STOCHASTIC {options} }}'
    expected = stochastic(train=phase == pb.TRAIN, **how)
    return Case(text, [x], expected, positive, phase=phase, other=[(1, 3, 7, 8)])


def beyond(options: str, expected: Callable[..., Any], x: Shape) -> Case:
    """A case whose last windows see nothing: their huge value drowns a finite difference."""
    text = f'type: "Pooling" pooling_param {{ pool: MAX {options} }} {MASK}'
    return Case(text, [x], expected, distinct, forward_only=True)


CASES = [
    case("pool: MAX kernel_size: 2", pooling(2)),
    case("pool: AVE kernel_size: 2", pooling(2, mean=True)),
    case("pool: MAX kernel_size: 3 stride: 2", pooling(3, 2)),
    case("pool: AVE kernel_size: 3 stride: 2", pooling(3, 2, mean=True)),
    case("pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR", pooling(3, 2, up=False)),
    case("pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR", pooling(3, 2, 0, True, False)),
    case("pool: MAX kernel_size: 3 stride: 2 pad: 1", pooling(3, 2, 1)),
    case("pool: AVE kernel_size: 3 stride: 2 pad: 1", pooling(3, 2, 1, True)),
    # With padding, the last window of an even image would begin beyond it and is left out.
    case("pool: MAX kernel_size: 2 stride: 2 pad: 1", pooling(2, 2, 1), (1, 2, 6, 7)),
    case("pool: AVE kernel_size: 2 stride: 2 pad: 1", pooling(2, 2, 1, True), (1, 2, 6, 7)),
    case("pool: AVE kernel_size: 4 stride: 3 pad: 3", pooling(4, 3, 3, True)),
    # Any padded axis has windows left out on all axes.
    case(
        "pool: MAX kernel_h: 2 kernel_w: 1 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
        pooling((2, 1), (1, 2), (1, 0)),
        (1, 2, 4, 6),
    ),
    case(
        "pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 1",
        pooling((3, 2), (2, 1), (0, 1), True),
    ),
    case("pool: MAX kernel_size: 2 stride: 4", pooling(2, 4), (1, 2, 6, 10), (1, 2, 10, 6)),
    case(
        "pool: AVE kernel_size: 2 stride: 4", pooling(2, 4, mean=True), (1, 2, 6, 10), (1, 2, 10, 6)
    ),
    case("pool: MAX kernel_size: 1", pooling(1)),
    case("pool: MAX global_pooling: true", pooling()),
    case("pool: AVE global_pooling: true", pooling(mean=True)),
    case("pool: MAX kernel_size: 3 stride: 2", pooling(3, 2, mask=True), tops=MASK),
    case("pool: MAX kernel_size: 3 stride: 2 pad: 1", pooling(3, 2, 1, mask=True), tops=MASK),
    case("pool: MAX global_pooling: true", pooling(mask=True), tops=MASK),
    # Without padding none is left out: at a stride beyond the kernel the last one sees nothing.
    beyond("kernel_size: 1 stride: 2", pooling(1, 2, mask=True), (1, 2, 4, 6)),
    beyond("kernel_size: 2 stride: 5", pooling(2, 5, mask=True), (1, 2, 8, 7)),
    case("pool: MAX kernel_size: 2", pooling(2), (0, 3, 4, 4), (2, 3, 4, 4)),
    case("pool: AVE kernel_size: 2", pooling(2, mean=True), (2, 0, 4, 4), (2, 3, 4, 4)),
    # A kernel that is too wide by less than the stride.
    case("pool: MAX kernel_size: 7 stride: 3", pooling(7, 3), other=(1, 3, 6, 8)),
    *(
        one
        for phase in (pb.TRAIN, pb.TEST)
        for one in (
            drawn("kernel_size: 2", phase=phase, kernel=2),
            drawn("kernel_size: 3 stride: 2", phase=phase, kernel=3, stride=2),
            drawn(
                "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 round_mode: FLOOR",
                phase=phase,
                kernel=(2, 3),
                stride=(1, 2),
                up=False,
            ),
            drawn("global_pooling: true", phase=phase),
            # The last windows see nothing.
            drawn("kernel_size: 1 stride: 2", (1, 2, 4, 6), phase, kernel=1, stride=2),
            drawn("kernel_size: 2", (0, 3, 4, 4), phase, kernel=2),
        )
    ),
]


def mistake(
    options: str, message: str, at: str, x: Shape = (2, 3, 6, 5), rest: str = ""
) -> Mistake:
    text = f'type: "Pooling" pooling_param {{ {options} }} {rest}'
    return Mistake(text, [x], message, at)


MISTAKES = [
    mistake(
        "kernel_size: 2",
        "needs a bottom of 4 axes (N, C, H, W), but it is 2x3x6",
        '"x0"',
        (2, 3, 6),
    ),
    mistake("pool: MAX", "kernel_size is missing", "pooling_param"),
    mistake("kernel_size: 0", "kernel_size is 0, but must be at least 1", "0"),
    mistake("kernel_h: 2 kernel_w: 0", "kernel_w is 0, but must be at least 1", "0"),
    mistake("kernel_size: 2 stride: 0", "stride is 0, but must be at least 1", "0"),
    mistake("kernel_size: 5 pad: 5", "pad 5 must be less than the kernel, 5", "5 }"),
    mistake("kernel_h: 3 kernel_w: 2 pad: 2", "pad 2 must be less than the kernel, 2", "2 }"),
    mistake(
        "kernel_size: 6",
        "the kernel is 6 wide, but the bottom 2x3x6x5 has only 5 + 2 * 0 = 5",
        "6",
    ),
    mistake("kernel_h: 2", "give both kernel_h and kernel_w", "pooling_param"),
    mistake(
        "kernel_size: 2 kernel_w: 2", "give kernel_size, or kernel_h and kernel_w, not both", "2"
    ),
    mistake("kernel_size: 2 pad_w: 1", "give both pad_h and pad_w", "pooling_param"),
    mistake("global_pooling: true kernel_size: 2", "takes the whole image: no kernel_size", "2"),
    mistake(
        "global_pooling: true stride: 2",
        "global_pooling goes with pad 0 and stride 1",
        "pooling_param",
    ),
    mistake(
        "pool: STOCHASTIC kernel_size: 2 pad_h: 0 pad_w: 1",
        "only MAX and AVE pooling have padding, STOCHASTIC has none",
        "1",
    ),
    mistake(
        "pool: STOCHASTIC kernel_size: 2", "only MAX pooling has a second top", '"mask"', rest=MASK
    ),
    mistake("pool: AVE kernel_size: 2", "only MAX pooling has a second top", '"mask"', rest=MASK),
    mistake("kernel_size: 2 pad: 1", "the bottom 2x3x0x5 has an empty image", '"x0"', (2, 3, 0, 5)),
    mistake("global_pooling: true", "the bottom 2x3x6x0 has an empty image", '"x0"', (2, 3, 6, 0)),
]


def test_the_first_of_equal_values_gets_the_gradient() -> None:
    with Trial(case("pool: MAX kernel_size: 2", pooling(2), (1, 1, 2, 2))) as trial:
        trial.bottom[0].data.fill(3)
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        assert trial.bottom[0].diff.tolist() == [[[[1, 0], [0, 0]]]]


def test_a_window_that_sees_nothing_has_no_gradient() -> None:
    with Trial(case("pool: MAX kernel_size: 1 stride: 2", pooling(1, 2), (1, 1, 1, 2))) as trial:
        trial.forward()
        trial.backward()
        assert trial.top[0].shape == (1, 1, 1, 2)
        assert trial.bottom[0].diff.tolist() == [[[[trial.top[0].diff[0, 0, 0, 0], 0]]]]


@pytest.mark.parametrize("stride", [2, 3])
def test_a_mean_of_nothing_is_what_caffe_divides(stride: int) -> None:
    """A window right behind the image divides 0 by 0, one further out by a negative area."""
    one = case(f"pool: AVE kernel_size: 1 stride: {stride}", pooling(1), (1, 1, 1, 2))
    with Trial(one) as trial:
        trial.forward()
        last = trial.top[0].data[0, 0, 0, -1]
        assert np.isnan(last) if stride == 2 else last == 0
        trial.backward()
        assert trial.bottom[0].diff[0, 0, 0, 0] == trial.top[0].diff[0, 0, 0, 0]
        assert trial.bottom[0].diff[0, 0, 0, 1] == 0


@pytest.mark.parametrize("nothing", [np.nan, -np.inf])
def test_a_maximum_passes_over_what_is_not_above_the_lowest(nothing: float) -> None:
    with Trial(case("pool: MAX kernel_size: 2 stride: 2", pooling(2), (1, 1, 2, 4))) as trial:
        trial.bottom[0].data[...] = [[nothing, 1, nothing, nothing], [nothing, 2, nothing, nothing]]
        trial.forward()
        assert trial.top[0].data.tolist() == [[[[2, LOWEST]]]]
        trial.top[0].diff.fill(1)
        trial.backward()
        assert trial.bottom[0].diff.tolist() == [[[[0, 0, 0, 0], [0, 1, 0, 0]]]]


# -- what STOCHASTIC draws -------------------------------------------------------------------------

#: A normal number is beyond this many standard deviations once in 5 million.
SIGMAS = 5.2

#: Windows of the statistics, a row of four values each.
ROWS = 50_000

FOUR = np.array([1, 2, 0, 5])


def rows(given: Any, count: int = ROWS) -> Case:
    """One window in each of ``count`` equal rows."""
    width = len(given)
    return Case(
        f'type: "Pooling" pooling_param {{ pool: STOCHASTIC kernel_h: 1 kernel_w: {width} }}',
        [(1, 1, count, width)],
        lambda x: x,
        values(given),
    )


def drawings(iteration: int = 0, key: int = 1) -> Any:
    with Trial(rows(FOUR), np.float32) as trial:
        trial.layer.key = np.uint64(key)
        trial.forward(iteration)
        return trial.top[0].data.reshape(-1).copy()


def assert_share(hits: Any, share: float) -> None:
    sigma = math.sqrt(hits.size * share * (1 - share))
    assert abs(hits.sum() - hits.size * share) <= SIGMAS * sigma


@pytest.mark.parametrize("value", FOUR)
def test_values_are_drawn_in_proportion(value: int) -> None:
    assert_share(drawings() == value, value / FOUR.sum())


def test_windows_iterations_and_keys_draw_independently() -> None:
    same = float(((FOUR / FOUR.sum()) ** 2).sum())
    first = drawings()
    assert_share(first[1:] == first[:-1], same)
    assert_share(first == drawings(iteration=1), same)
    assert_share(first == drawings(key=2), same)
    np.testing.assert_array_equal(first, drawings())


def test_the_gradient_goes_to_what_was_drawn() -> None:
    with Trial(rows(FOUR, 100)) as trial:
        for iteration in (3, 4):
            trial.forward(iteration)
            trial.backward()
            chosen = trial.bottom[0].data == trial.top[0].data
            expected = np.where(chosen, trial.top[0].diff, 0)
            np.testing.assert_array_equal(trial.bottom[0].diff, expected)


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ([0, 0, 0], [0]),
        ([-1, -2, -3], [0, -1, -2, -3]),
        ([1, -3, 1], [0, 1, -3]),
        ([np.inf, 1, 0], [np.inf, np.nan]),
        ([1, np.nan, 2], [np.nan]),
    ],
)
def test_values_that_are_no_probabilities_do_no_harm(
    given: list[float], allowed: list[float], phase: int
) -> None:
    one = rows(given, 200)
    with Trial(Case(one.prototxt, one.bottoms, one.expected, one.draw, phase=phase)) as trial:
        trial.forward()
        assert np.isin(trial.top[0].data, [v for v in allowed if v == v]).all() or (
            np.isnan(allowed).any() and np.isnan(trial.top[0].data).all()
        )
        trial.top[0].diff.fill(1)
        trial.backward()
        if phase == pb.TRAIN:
            # Each window has routed its gradient to one of its own.
            assert (trial.bottom[0].diff.sum(axis=3) == 1).all()


def test_in_test_nothing_is_drawn() -> None:
    case = drawn("kernel_size: 2", phase=pb.TEST, kernel=2)
    with Trial(case) as trial:
        trial.forward(1)
        once = trial.top[0].data.copy()
        trial.forward(2)
        np.testing.assert_array_equal(trial.top[0].data, once)
