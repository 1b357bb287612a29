"""Squeeze: some axes, all of length 1, none."""

from __future__ import annotations

import numpy as np

from netdef.testing import Case, Mistake


def case(options: str, x: tuple[int, ...], axes: tuple[int, ...]) -> Case:
    text = f'type: "Squeeze" squeeze_param {{ {options} }}'
    # A batch of 1 is an axis that can be left out: the rank must not change with the batch.
    return Case(text, [x], lambda x: np.squeeze(x, axes), other=[x])


CASES = [
    case("axis: 1 axis: 2", (3, 1, 1, 5), (1, 2)),
    case("axis: 2", (3, 1, 1, 5), (2,)),
    case("axis: -2", (3, 1, 1, 5), (2,)),
    Case('type: "Squeeze"', [(3, 1, 1, 5)], lambda x: x[:, 0, 0]),
    Case('type: "Squeeze"', [(3, 5)], lambda x: x),
    case("axis: 0", (1,), (0,)),
    case("axis: 1", (0, 1, 4), (1,)),
]

MISTAKES = [
    Mistake(
        'type: "Squeeze" squeeze_param { axis: 1 axis: 3 }',
        [(3, 1, 1, 5)],
        "axis 3 of the bottom 3x1x1x5 is 5 long: only an axis of length 1 can be left out",
        "3",
    ),
    Mistake(
        'type: "Squeeze" squeeze_param { axis: 4 }',
        [(3, 1, 1, 5)],
        "axis is 4, but the bottom is 3x1x1x5",
        "4",
    ),
    Mistake('type: "Squeeze"', [(3, 1), (3, 1)], "takes 1 bottom blob, but 2 given", '"x1"'),
]
