"""Normalize: over positions and over items, shared scales, and the layer of another fork."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, Trial, values

EPS = 1e-10


def normalized(across: bool = True, eps: float = EPS) -> Callable[..., Any]:
    def expected(x: Any, scale: Any = 1.0) -> Any:
        axes = tuple(range(1, x.ndim)) if across else 1
        lengths = np.sqrt((x**2).sum(axes, keepdims=True) + eps)
        return x / lengths * np.reshape(scale, (1, -1) + (1,) * (x.ndim - 2))

    return expected


def case(options: str, x: tuple[int, ...], expected: Callable[..., Any], **more: Any) -> Case:
    return Case(f'type: "Normalize" norm_param {{ {options} }}', [x], expected, **more)


def far(random: np.random.Generator, shape: Shape) -> Array:
    """Values so far from zero that the length of a few does not bend too much to differentiate."""
    return np.asarray(random.choice([-1, 1], shape) * random.uniform(1, 2, shape))


X = (2, 3, 4, 5)

CASES = [
    case("across_spatial: false channel_shared: false", X, normalized(False)),
    case("across_spatial: false", X, normalized(False)),
    case("channel_shared: false", X, normalized()),
    case("", X, normalized()),
    case("across_spatial: false channel_shared: false eps: 0.5", X, normalized(False, 0.5)),
    case("eps: 0.5", X, normalized(eps=0.5)),
    case("across_spatial: false channel_shared: false", (4, 3), normalized(False)),
    case("channel_shared: false", (4, 3), normalized()),
    case("across_spatial: false", (2, 4, 3), normalized(False)),
    case("across_spatial: false eps: 0.125", (2, 1, 3, 2), normalized(False, 0.125)),
    case(
        "across_spatial: false channel_shared: false", (1, 3, 70, 70), normalized(False), draw=far
    ),
    case("across_spatial: false", (0, 3, 2, 2), normalized(False)),
    case("", (0, 3, 2, 2), normalized()),
    case("across_spatial: false", (2, 3, 0, 2), normalized(False)),
    # ParseNet's, whose scale does not learn, and NormFace's, which has none.
    case("across_spatial: false fix_scale: true channel_shared: false", X, normalized(False)),
    Case('type: "Normalize"', [X], normalized(eps=0)),
    Case('type: "Normalize" normalize_param { normalize_type: "L2" }', [(4, 7)], normalized(eps=0)),
]

MISTAKES = [
    Mistake('type: "Normalize"', [(3,)], "needs a bottom of at least 2 axes", '"x0"'),
    Mistake('type: "Normalize"', [(2, 0, 3)], "the bottom 2x0x3 has no channels", '"x0"'),
    Mistake(
        'type: "Normalize" norm_param { eps: -1 }', [X], "eps is -1, but must be at least 0", "-1"
    ),
    Mistake(
        'type: "Normalize" norm_param { add_eps_before_sqrt: false }',
        [X],
        "add_eps_before_sqrt is of Synopsys' fork, whose Normalize is another layer",
        "false",
    ),
    Mistake(
        'type: "Normalize" normalize_param { normalize_type: "L1" }',
        [X],
        "normalize_type is of caffe-windows, whose Normalize is another layer",
        '"L1"',
    ),
    Mistake('type: "Normalize" top: "a" top: "b"', [X], "takes 1 top blob, but 2 given", '"b"'),
]


def test_the_scale_starts_at_one_or_where_its_filler_says() -> None:
    for filler, wanted in (("", 1), ("scale_filler { value: 20 }", 20)):
        layer = case(f"channel_shared: false {filler}", X, normalized()).layer()
        (param,) = layer.params(X)
        assert (param.name, param.shape) == ("scale", (3,))
        assert param.filler.value == wanted


@pytest.mark.parametrize("options", ["", "across_spatial: false"])
def test_nothing_but_zeros_gives_zeros(options: str) -> None:
    """And so does their gradient, where eps is 0 too."""
    with Trial(case(f"{options} eps: 0", X, normalized(), draw=values(0))) as trial:
        trial.forward()
        trial.backward()
        assert not trial.top[0].data.any()
        assert not trial.bottom[0].diff.any()


def test_a_nan_shows_in_its_position_alone() -> None:
    with Trial(case("across_spatial: false", (1, 2, 1, 3), normalized(False))) as trial:
        trial.bottom[0].data[0, 1, 0, 2] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data[0, :, 0]).tolist() == [[False, False, True]] * 2
