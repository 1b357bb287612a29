"""SpatialDropout: whole channels, both phases, ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef import rng
from netdef.proto import netdef_pb2 as pb
from netdef.testing import SEED, Case, Mistake, Trial

X = (4, 3, 5, 2)


def dropped(ratio: float) -> Callable[..., Any]:
    """Keeps the channels that the uniform numbers of the layer's own stream leave above it."""
    ratio = float(np.float32(ratio))

    def expected(x: Any) -> Any:
        unit = np.empty(x.shape[0] * x.shape[1])
        rng.uniform(rng.key(SEED, "TRAIN/layer"), np.uint64(0), unit)
        kept = unit.reshape(*x.shape[:2], *[1] * (x.ndim - 2)) >= ratio
        return np.where(kept, x / (1 - ratio), 0)

    return expected


def case(ratio: float, x: tuple[int, ...] = X) -> Case:
    text = f'type: "SpatialDropout" spatial_dropout_param {{ dropout_ratio: {ratio} }}'
    return Case(text, [x], dropped(ratio))


CASES = [
    Case('type: "SpatialDropout"', [X], dropped(0.5)),
    case(0.25),
    case(0.9),
    case(0),
    case(0.5, (6, 3)),
    case(0.5, (2, 3, 4, 2, 3)),
    case(0.5, (0, 3, 2)),
    Case('type: "SpatialDropout"', [X], lambda x: x, phase=pb.TEST),
]

MISTAKES = [
    Mistake('type: "SpatialDropout"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "SpatialDropout"', [(3,)], "needs a bottom of at least 2 axes", '"x0"'),
    Mistake(
        'type: "SpatialDropout" spatial_dropout_param { dropout_ratio: 1 }',
        [X],
        "dropout_ratio is 1, but must be at least 0 and below 1",
        "1",
    ),
]


def test_a_channel_is_dropped_as_a_whole_and_others_in_other_passes() -> None:
    with Trial(case(0.5, (8, 8, 3, 3))) as trial:
        trial.bottom[0].data.fill(1)
        masks = []
        for iteration in range(4):
            trial.forward(iteration)
            channels = trial.top[0].data.reshape(64, 9)
            assert set(channels.sum(1)) == {0, 18}
            masks.append(channels[:, 0].copy())
        assert len({mask.tobytes() for mask in masks}) == 4
