"""Tile: axes from either end, a single tile, rows beyond one job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.testing import Case, Mistake

X = (2, 3, 4)


def repeated(axis: int, tiles: int) -> Callable[..., Any]:
    return lambda x: np.concatenate([x] * tiles, axis)


def case(options: str, axis: int, tiles: int, x: Shape = X) -> Case:
    return Case(f'type: "Tile" tile_param {{ {options} }}', [x], repeated(axis, tiles))


CASES = [
    case("tiles: 3", 1, 3),
    case("tiles: 1", 1, 1),
    case("axis: 0 tiles: 2", 0, 2),
    case("axis: 2 tiles: 5", 2, 5),
    case("axis: -1 tiles: 2", 2, 2),
    case("axis: -3 tiles: 2", 0, 2),
    case("axis: 0 tiles: 4", 0, 4, (3,)),
    case("tiles: 2", 1, 2, (0, 3)),
    case("tiles: 2", 1, 2, (2, 0)),
    case("axis: 0 tiles: 2", 0, 2, (1, 4100)),
]


def mistake(options: str, bottoms: Any, message: str, at: str) -> Mistake:
    return Mistake(f'type: "Tile" tile_param {{ {options} }}', bottoms, message, at)


MISTAKES = [
    mistake("tiles: 2", [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    mistake("", [X], "tiles is missing", "tile_param"),
    mistake("tiles: 0", [X], "tiles is 0, but must be at least 1", "0"),
    mistake("tiles: -2", [X], "tiles is -2, but must be at least 1", "-2"),
    mistake("tiles: 2 axis: 3", [X], "axis is 3, but the bottom is 2x3x4 (3 axes)", "3"),
    mistake("tiles: 2 axis: -4", [X], "axis is -4, but the bottom is 2x3x4 (3 axes)", "-4"),
    mistake("tiles: 2", [(4,)], "axis is 1, but the bottom is 4 (1 axes)", "tile_param"),
    mistake(
        "tiles: 2147483647",
        [X],
        'top "y0" would be 2x6442450941x4: more than 2^31 - 1 values',
        "layer",
    ),
    Mistake('type: "Tile" top: "x0"', [X], 'cannot work in place on "x0"', '"x0"'),
]
