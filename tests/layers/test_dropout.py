"""Dropout: scaling, both phases, and how random its mask is over iterations, keys and neighbours.

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
from netdef.proto import netdef_pb2 as pb
from netdef.testing import SEED, Case, Mistake, Trial, values

X = (4, 3, 7)

#: A normal number is beyond this many standard deviations once in 5 million.
SIGMAS = 5.2


PLAIN = 'type: "Dropout" dropout_param { dropout_ratio: 0.25 scale_train: false }'
SAMPLED = 'type: "Dropout" dropout_param { sample_weights_test: true }'


def dropped(ratio: float, phase: str = "TRAIN") -> Callable[..., Any]:
    """Keeps what the uniform numbers of the layer's own stream leave above ``ratio``."""

    def expected(x: Any) -> Any:
        unit = np.empty(x.size)
        rng.uniform(rng.key(SEED, f"{phase}/layer"), np.uint64(0), unit)
        return np.where(unit.reshape(x.shape) >= ratio, x / (1 - ratio), 0)

    return expected


def case(ratio: float, **rest: Any) -> Case:
    text = f'type: "Dropout" dropout_param {{ dropout_ratio: {ratio} }}'
    return Case(text, rest.pop("shapes", [X]), dropped(float(np.float32(ratio))), **rest)


CASES = [
    Case('type: "Dropout"', [X], dropped(0.5)),
    case(0.25),
    case(0.9),
    case(0),
    Case('type: "Dropout"', [X], lambda x: x, phase=pb.TEST),
    Case('type: "Dropout"', [(0, 3)], lambda x: x),
    # The mean is kept in testing.
    Case(PLAIN, [X], lambda x: dropped(0.25)(x) * 0.75),
    Case(PLAIN, [X], lambda x: x * 0.75, phase=pb.TEST),
    # Values are dropped in testing, too.
    Case(SAMPLED, [X], dropped(0.5, "TEST"), phase=pb.TEST),
    Case(SAMPLED, [X], dropped(0.5)),
    Case('type: "Dropout"', [(1,)], dropped(0.5)),
]

MISTAKES = [
    Mistake('type: "Dropout"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    *(
        Mistake(
            f'type: "Dropout" dropout_param {{ dropout_ratio: {ratio} }}',
            [X],
            f"dropout_ratio is {ratio}, but must be at least 0 and below 1",
            ratio,
            phase=phase,
        )
        for ratio, phase in (
            ("1", pb.TRAIN),
            ("-0.5", pb.TRAIN),
            ("nan", pb.TRAIN),
            ("1.5", pb.TEST),
        )
    ),
]

SIZE = 100_000


def mask(ratio: float, iteration: int = 0, key: int = 1) -> Any:
    """Where values were kept."""
    with Trial(case(ratio, shapes=[(SIZE,)], draw=values(1))) as trial:
        trial.layer.key = np.uint64(key)
        trial.forward(iteration)
        return trial.top[0].data != 0


def assert_share(hits: Any, share: float) -> None:
    sigma = math.sqrt(hits.size * share * (1 - share))
    assert abs(hits.sum() - hits.size * share) < SIGMAS * sigma


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_ratio_is_dropped(ratio: float) -> None:
    assert_share(~mask(ratio), ratio)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 64])
def test_neighbours_are_independent(lag: int) -> None:
    kept = mask(0.5)
    # Each pair shares its members with others, but pairs are uncorrelated.
    assert_share(kept[:-lag] & kept[lag:] | ~kept[:-lag] & ~kept[lag:], 0.5)


def test_each_iteration_and_each_key_has_a_mask_of_its_own() -> None:
    first = mask(0.5)
    assert_share(first == mask(0.5, iteration=1), 0.5)
    assert_share(first == mask(0.5, key=2), 0.5)
    np.testing.assert_array_equal(first, mask(0.5))


def test_backward_uses_the_mask_of_its_forward() -> None:
    with Trial(case(0.5, draw=values(1))) as trial:
        for iteration in (3, 4):
            trial.forward(iteration)
            trial.top[0].diff.fill(1)
            trial.backward()
            np.testing.assert_array_equal(trial.bottom[0].diff, trial.top[0].data)
