"""Random numbers: Philox against its published vectors, distributions, independence of threads.

The statistics are of fixed keys, so they never fail by chance once they pass. Over the choice of
key each would fail in about one of three million: a Kolmogorov-Smirnov distance of n values beyond
2.8 / sqrt(n), or a count beyond 5.1 standard deviations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netdef import rng
from netdef.testing import threads

SIZE = 100_000
KEY = np.uint64(0x0123456789ABCDEF)
FIRST = np.uint64(0)

#: Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def joined(low: str, high: str) -> np.uint64:
    return np.uint64(int(high + low, 16))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    c0, c1, c2, c3 = counter.split()
    words = rng.philox(joined(*key.split()), joined(c2, c3), joined(c0, c1))
    assert [f"{int(word):08x}" for word in words] == answer.split()


def words(key: np.uint64, iteration: np.uint64, count: int) -> Any:
    blocks = (rng.philox(key, iteration, np.uint64(i)) for i in range(-(-count // 4)))
    return np.array([int(word) for block in blocks for word in block][:count], np.uint64)


def test_bits_are_the_words_in_order() -> None:
    single = [int(rng.bits(KEY, FIRST, np.uint64(i))) for i in range(10)]
    assert single == words(KEY, FIRST, 10).tolist()


def test_below_is_a_fraction_of_64_bits() -> None:
    key, iteration = np.uint64(3), np.uint64(5)
    for block in range(50):
        high, low, _, _ = rng.philox(key, iteration, np.uint64(block))
        for count in (1, 2, 7, 1000, 2**31 - 1, 2**32):
            drawn = rng.below(key, iteration, np.uint64(block), np.uint64(count))
            assert drawn == ((int(high) << 32 | int(low)) * count) >> 64


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize("iteration", [0, 1, 2**32, 2**64 - 1])
def test_uniform_is_a_word_over_two_to_the_32(size: int, iteration: int) -> None:
    out = np.full(size + 1, -1.0)
    rng.uniform(KEY, np.uint64(iteration), out[:size])
    np.testing.assert_array_equal(out[:size], words(KEY, np.uint64(iteration), size) / 2**32)
    assert out[size] == -1


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 11])
def test_gaussian_is_box_muller_of_pairs(size: int) -> None:
    out = np.full(size + 1, -1.0)
    rng.gaussian(KEY, FIRST, out[:size])
    unit = words(KEY, FIRST, 12).reshape(-1, 2) / 2**32
    radius, angle = np.sqrt(-2 * np.log(unit[:, 0] + 2**-32)), 2 * np.pi * unit[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(out[:size], pairs.reshape(-1)[:size], rtol=1e-12, atol=1e-14)
    assert out[size] == -1


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 11])
def test_keep_mask_keeps_words_from_the_threshold_on(size: int) -> None:
    drawn = words(KEY, FIRST, size)
    for threshold in (0, 2**31, *drawn[:2].tolist(), 2**32):
        out = np.full(size + 1, -1, np.float32)
        rng.keep_mask(KEY, FIRST, np.uint64(threshold), np.float32(1.5), out[:size])
        np.testing.assert_array_equal(out[:size], np.where(drawn >= threshold, 1.5, 0))
        assert out[size] == -1


def distance(values: Any, distribution: Any) -> float:
    """The Kolmogorov-Smirnov distance to a distribution function, times the root of the size."""
    expected = np.array([distribution(v) for v in np.sort(values).tolist()])
    ranks = np.arange(values.size + 1) / values.size
    worst = max(np.abs(expected - ranks[1:]).max(), np.abs(expected - ranks[:-1]).max())
    return float(worst * math.sqrt(values.size))


def normal(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def uniforms(dtype: type[Any] = np.float64, key: np.uint64 = KEY, iteration: int = 0) -> Any:
    out = np.empty(SIZE, dtype)
    rng.uniform(key, np.uint64(iteration), out)
    return out


def gaussians(dtype: type[Any] = np.float64, key: np.uint64 = KEY, iteration: int = 0) -> Any:
    out = np.empty(SIZE, dtype)
    rng.gaussian(key, np.uint64(iteration), out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_is_uniform(dtype: type[Any]) -> None:
    assert distance(uniforms(dtype), lambda x: x) < 2.8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaussian_is_normal(dtype: type[Any]) -> None:
    values = gaussians(dtype)
    assert distance(values, normal) < 2.8
    # The tails, where that distance sees little.
    for bound, share in ((3.0, 2.6998e-3), (4.0, 6.334e-5)):
        expected = SIZE * share
        assert abs((np.abs(values) > bound).sum() - expected) < 5.1 * math.sqrt(expected)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.9])
def test_keep_mask_drops_its_share(ratio: float) -> None:
    out = np.empty(SIZE, np.float32)
    rng.keep_mask(KEY, FIRST, np.uint64(ratio * 2**32), np.float32(2), out)
    sigma = math.sqrt(SIZE * ratio * (1 - ratio))
    assert abs((out == 0).sum() - SIZE * ratio) < 5.1 * sigma


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 1024])
@pytest.mark.parametrize("draw", [uniforms, gaussians])
def test_neighbours_are_uncorrelated(draw: Any, lag: int) -> None:
    values = draw()
    values = (values - values.mean()) / values.std()
    correlation = (values[lag:] * values[:-lag]).mean()
    assert abs(correlation) < 5.1 / math.sqrt(SIZE - lag)


@pytest.mark.parametrize("draw", [uniforms, gaussians])
def test_streams_and_iterations_are_uncorrelated(draw: Any) -> None:
    streams = [
        draw(key=key, iteration=iteration)
        for key in (KEY, KEY + np.uint64(1), rng.key(1, "a"), rng.key(1, "b"), rng.key(2, "a"))
        for iteration in (0, 1, 2**32)
    ]
    correlation = np.corrcoef(streams)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5.6 / math.sqrt(SIZE)  # over 105 pairs, one in 400,000


def test_a_value_depends_on_its_index_only() -> None:
    for draw in (rng.uniform, rng.gaussian):
        long, short = np.empty(1000), np.empty(501)
        draw(KEY, FIRST, long)
        draw(KEY, FIRST, short)
        np.testing.assert_array_equal(long[:501], short)


def test_threads_change_nothing() -> None:
    with threads(1):
        alone = uniforms(), gaussians()
    with threads(None):
        together = uniforms(), gaussians()
    np.testing.assert_array_equal(together, alone)


def test_keys_are_of_seed_and_name() -> None:
    keys = [rng.key(seed, name) for seed in (0, 1, 11, 2**31) for name in ("", "a", "1/a", "conv1")]
    assert len(set(map(int, keys))) == len(keys)
    assert rng.key(1, "conv1") == rng.key(1, "conv1")


def test_fresh_seeds_fit_caffe_and_differ() -> None:
    """Equal once in 2**31 runs."""
    seeds = [rng.fresh_seed(), rng.fresh_seed()]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[0] != seeds[1]
