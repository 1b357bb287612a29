"""ShuffleChannel: groups of one, of all, of some; ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake


def shuffled(group: int) -> Callable[..., Any]:
    """Deals channels like cards that lie in ``group`` heaps."""

    def expected(x: Any) -> Any:
        size = x.shape[1] // group
        order = [heap * size + card for card in range(size) for heap in range(group)]
        return x[:, order]

    return expected


def case(group: int, x: tuple[int, ...] = (2, 12, 3, 5)) -> Case:
    text = f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}'
    return Case(text, [x], shuffled(group))


CASES = [
    case(3),
    case(4),
    case(1),
    case(12),
    case(2, (2, 6)),
    case(2, (1, 4, 2, 2, 3)),
    case(2, (0, 4, 2)),
    case(2, (2, 0, 2)),
    Case('type: "ShuffleChannel"', [(2, 3, 4)], lambda x: x),
]

MISTAKES = [
    Mistake(
        'type: "ShuffleChannel" shuffle_channel_param { group: 5 }',
        [(2, 12, 3)],
        "12 channels of the bottom cannot be divided into 5 equal groups",
        "5",
    ),
    Mistake(
        'type: "ShuffleChannel" shuffle_channel_param { group: 0 }',
        [(2, 12, 3)],
        "group is 0, but must be at least 1",
        "0",
    ),
    Mistake(
        'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
        [(12,)],
        "needs a bottom of at least 2 axes (N, C, ...), but it is 12",
        '"x0"',
    ),
    Mistake('type: "ShuffleChannel"', [(1, 2), (1, 2)], "takes 1 bottom blob, but 2 given", '"x1"'),
]


def test_the_channels_of_two_groups() -> None:
    x = np.arange(6).reshape(1, 6, 1)
    np.testing.assert_array_equal(shuffled(2)(x).ravel(), [0, 3, 1, 4, 2, 5])
