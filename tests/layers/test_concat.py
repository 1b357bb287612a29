"""Concat: axes by either field, one bottom and many, parts of length 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.testing import Case, Mistake


def joined(axis: int) -> Callable[..., Any]:
    return lambda *x: np.concatenate(x, axis)


X, Y, Z = (2, 3, 4, 5), (2, 1, 4, 5), (2, 6, 4, 5)

CASES = [
    Case('type: "Concat"', [X, Y], joined(1)),
    Case('type: "Concat"', [X, Y, Z, X], joined(1)),
    Case('type: "Concat"', [X], lambda x: x),
    Case('type: "Concat" concat_param { axis: 0 }', [(2, 3), (1, 3)], joined(0)),
    Case('type: "Concat" concat_param { axis: 2 }', [(2, 3, 4), (2, 3, 1)], joined(2)),
    Case('type: "Concat" concat_param { axis: -1 }', [(2, 3, 4), (2, 3, 1)], joined(2)),
    Case('type: "Concat" concat_param { axis: -4 }', [X, X], joined(0)),
    Case('type: "Concat" concat_param { concat_dim: 2 }', [(2, 3, 4), (2, 3, 1)], joined(2)),
    Case('type: "Concat" concat_param { concat_dim: 0 }', [(4,), (3,)], joined(0)),
    Case('type: "Concat"', [(2, 3), (2, 0), (2, 1)], joined(1)),
    Case('type: "Concat"', [(0, 3), (0, 2)], joined(1)),
    # More columns than one job copies.
    Case('type: "Concat" concat_param { axis: 0 }', [(2, 3000), (1, 3000)], joined(0)),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Concat" concat_param {{ {options} }}', bottoms, message, at)


MISTAKES = [
    mistake("", [], "takes 1 or more bottom blobs, but 0 given", "layer"),
    mistake(
        "",
        [X, Z, (2, 1, 4, 6)],
        "cannot join 2x1x4x6 to 2x3x4x5 along axis 1: all other axes must agree "
        '("x0" is 2x3x4x5 from layer "x0", "x1" is 2x6x4x5',
        '"x2"',
    ),
    mistake("axis: 0", [X, (2, 3, 4)], "cannot join 2x3x4 to 2x3x4x5 along axis 0", '"x1"'),
    # Without the axis they agree, but the second has no such axis.
    mistake("", [(2, 3), (2,)], "cannot join 2 to 2x3 along axis 1", '"x1"'),
    mistake("axis: -1", [(2, 3), (2, 3, 1)], "cannot join 2x3x1 to 2x3 along axis 1", '"x1"'),
    mistake("axis: 4", [X, X], "axis is 4, but the bottom is 2x3x4x5 (4 axes)", "4"),
    mistake("axis: -5", [X, X], "axis is -5, but the bottom is 2x3x4x5", "-5"),
    mistake("concat_dim: 4", [X, X], "axis is 4, but the bottom is 2x3x4x5", "4"),
    mistake(
        "concat_dim: 4294967295", [X, X], "axis is 4294967295, but the bottom is", "4294967295"
    ),
    mistake("axis: 1 concat_dim: 1", [X, X], "give axis or concat_dim, not both", "1 }"),
    mistake("axis: 0", [()], "axis is 0, but the bottom is scalar (0 axes)", "0"),
    Mistake('type: "Concat" top: "x0"', [X, X], 'cannot work in place on "x0"', '"x0"'),
]
