"""MVN: with and without the variance, by channel and across them, what does not vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.testing import Case, Mistake, Trial, normal

X = (2, 3, 4, 5)


def mvn(axes: Sequence[int] = (2, 3), eps: float = 1e-9, divide: bool = True) -> Any:
    def expected(x: Any) -> Any:
        centred = x - x.mean(tuple(axes), keepdims=True)
        deviation = np.sqrt((centred**2).mean(tuple(axes), keepdims=True))
        return centred / (deviation + np.float32(eps)) if divide else centred

    return expected


def shifted(random: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(3 + 2 * normal(random, shape))


def case(options: str, x: Shape, expected: Any, **more: Any) -> Case:
    return Case(f'type: "MVN" mvn_param {{ {options} }}', [x], expected, shifted, **more)


ACROSS, ONLY_MEAN = "across_channels: true", "normalize_variance: false"

CASES = [
    case("", X, mvn()),
    case(ACROSS, X, mvn((1, 2, 3))),
    case(ONLY_MEAN, X, mvn(divide=False)),
    case(f"{ACROSS} {ONLY_MEAN}", X, mvn((1, 2, 3), divide=False)),
    case("", (4, 3, 6), lambda x: mvn((2,))(x)[..., None]),
    case(ACROSS, (4, 6), lambda x: mvn((1,))(x)[..., None, None]),
    case("", (0, 3, 4, 5), mvn()),
    # Sets of a single value.
    case("", (4, 6), lambda x: 0 * x[..., None, None]),
    case(ONLY_MEAN, (4, 6), lambda x: 0 * x[..., None, None]),
    case(ACROSS, (4,), lambda x: 0 * x.reshape(4, 1, 1, 1)),
    case("", (), lambda x: 0 * x.reshape(1, 1, 1, 1), other=[()]),
]

MISTAKES = [
    Mistake('type: "MVN"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake('type: "MVN"', [], "takes 1 bottom blob, but 0 given", "layer"),
    Mistake(
        'type: "MVN"',
        [(1, 2, 3, 4, 5)],
        "needs a bottom of at most 4 axes (N, C, H, W), but it is 1x2x3x4x5",
        '"x0"',
    ),
]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("options", "axes"), [("", (2, 3)), (ACROSS, (1, 2, 3))])
def test_the_gradient_is_that_for_an_eps_of_zero(
    options: str, axes: tuple[int, ...], in_place: bool
) -> None:
    """The deviation divides, eps included; the slope of the deviation itself leaves it out.

    With an eps that shows, the finite difference of the contract disagrees: so this is no case.
    """
    one = case(f"{options} eps: 0.5", X, mvn(axes, 0.5))
    with Trial(one, in_place=in_place) as trial:
        x, dy = trial.bottom[0].data.copy(), trial.top[0].diff.copy()
        trial.forward()
        y = trial.top[0].data.copy()
        np.testing.assert_allclose(y, one.expected(x), rtol=0, atol=1e-14)
        trial.backward()
        slope = dy - dy.mean(axes, keepdims=True) - y * (dy * y).mean(axes, keepdims=True)
        expected = slope / (x.std(axes, keepdims=True) + 0.5)
        np.testing.assert_allclose(trial.bottom[0].diff, expected, rtol=0, atol=1e-14)


def test_the_top_has_four_axes_unless_it_is_the_bottom() -> None:
    one = case("", (4, 6), mvn())
    with Trial(one) as apart, Trial(one, in_place=True) as trial:
        assert apart.layer.shapes((4, 6)) == [(4, 6, 1, 1)]
        assert trial.layer.shapes((4, 6)) == [(4, 6)]


def test_what_does_not_vary_is_zero() -> None:
    with Trial(case("eps: 0", X, mvn(eps=0))) as trial:
        trial.bottom[0].data[1, 2] = 0.1
        trial.forward()
        trial.backward()
        assert not trial.top[0].data[1, 2].any()
        assert not trial.bottom[0].diff[1, 2].any()
        assert trial.top[0].data[1, 1].any()


def test_nan_stays_in_its_channel() -> None:
    with Trial(case("", X, mvn())) as trial:
        trial.bottom[0].data[0, 1, 0, 0] = np.nan
        trial.forward()
        nan = np.isnan(trial.top[0].data)
        assert nan[0, 1].all()
        assert nan.sum() == 20
