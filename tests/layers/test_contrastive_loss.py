"""ContrastiveLoss: like and unlike pairs, the margin, both versions, what marks a pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, labels, normal, values

X, Y = (6, 5), (6,)

BOTH = labels(2)


def marks(random: np.random.Generator, shape: Shape) -> Any:
    """Unlike pairs, and like ones."""
    return random.choice([0, 0.9, -0.5, 1, -1.5], shape)


LEGACY = "contrastive_loss_param { margin: 12 legacy_version: true }"


def loss(margin: float = 1, legacy: bool = False) -> Callable[..., Any]:
    def expected(a: Any, b: Any, y: Any) -> Any:
        total = 0.0
        for one, other, mark in zip(a, b, y.reshape(-1), strict=True):
            d = np.linalg.norm(one.reshape(-1) - other.reshape(-1))
            if int(mark) != 0:
                total += d**2
            elif legacy:
                total += max(margin - d**2, 0)
            else:
                total += max(margin - d, 0) ** 2
        return total / (2 * max(1, len(a)))

    return expected


def slopes(a: Any, b: Any, y: Any, margin: float, legacy: bool) -> Any:
    """The gradient for ``a`` that Caffe gives, which divides by d + 1e-4."""
    y = np.trunc(y)
    d = np.sqrt(((a - b) ** 2).sum(1, keepdims=True))
    within = np.maximum(margin - d, 0)
    unlike = -1.0 * (d**2 < margin) if legacy else -within / (d + 1e-4)
    return np.where(y[:, None] != 0, 1, unlike) * (a - b) / len(a)


def case(
    options: str,
    expected: Callable[..., Any],
    a: Shape = X,
    b: Shape = X,
    y: Shape = Y,
    *,
    mark: Draw = BOTH,
    forward_only: bool = False,
) -> Case:
    text = f'type: "ContrastiveLoss" {options}'
    return Case(text, [a, b, y], expected, [normal, normal, mark], forward_only=forward_only)


CASES = [
    case(LEGACY, loss(12, True)),
    case(LEGACY, loss(12, True), (6, 5, 1, 1), X, (6, 1, 1, 1)),
    case(LEGACY, loss(12, True), (1, 3), (1, 3), (1,), mark=values(0)),
    case(f"{LEGACY} loss_weight: 0.5", loss(12, True), (3, 2, 2), (3, 4), (3,)),
    # Unlike pairs beyond the margin have no gradient, so no 1e-4 disturbs the finite difference.
    case("contrastive_loss_param { margin: 0.5 }", loss(0.5)),
    case("", loss(), mark=values(1)),
    # A fraction is cut off; any whole number but 0 is a like pair.
    case("", loss(), mark=marks, forward_only=True),
    case("contrastive_loss_param { margin: 4 }", loss(4), forward_only=True),
    case("", loss(), (0, 5), (0, 5), (0,)),
    case("", loss(), (2, 0), (2, 0), (2,), mark=values(1)),
]


def mistake(y: Any, message: str) -> Mistake:
    draws = [normal, normal, values(y)]
    return Mistake('type: "ContrastiveLoss"', [X, X, Y], message, '"x2"', draws, error=DataError)


MISTAKES = [
    Mistake('type: "ContrastiveLoss"', [X, X], "takes 3 bottom blobs, but 2 given", "layer"),
    Mistake(
        'type: "ContrastiveLoss"',
        [X, (6, 4), Y],
        "both bottoms must have the same batch and the same number of values, but they are 6x5 "
        "and 6x4",
        '"x1"',
    ),
    Mistake('type: "ContrastiveLoss"', [X, (5, 6), Y], "but they are 6x5 and 5x6", '"x1"'),
    Mistake(
        'type: "ContrastiveLoss"',
        [X, X, (6, 2)],
        "needs one number for each of the 6 pairs 6x5, but the third bottom is 6x2",
        '"x2"',
    ),
    mistake([0, 1, 1, np.nan, 0, 0], "the pair 3 (counted from 0) is marked nan"),
    mistake([np.inf, 1, 1, 0, 0, 0], "the pair 0 (counted from 0) is marked inf"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("margin", "legacy"), [(1, False), (3, False), (8, False), (9, True)])
def test_the_gradient_is_caffes(dtype: type[Any], margin: float, legacy: bool) -> None:
    options = f"margin: {margin} legacy_version: {str(legacy).lower()}"
    one = case(f"contrastive_loss_param {{ {options} }}", loss(), (8, 3), (8, 3), (8,), mark=marks)
    with Trial(one, dtype) as trial:
        trial.forward()
        trial.top[0].diff.fill(2)
        trial.backward()
        wanted = slopes(*(blob.data.astype(np.float64) for blob in trial.bottom), margin, legacy)
        for blob, sign in zip(trial.bottom[:2], (1, -1), strict=True):
            np.testing.assert_allclose(blob.diff, 2 * sign * wanted, rtol=1e-5, atol=1e-6)
        assert trial.bottom[2].diff is None


@pytest.mark.parametrize("legacy", ["false", "true"])
def test_equal_features_have_no_gradient(legacy: str) -> None:
    with Trial(case(f"contrastive_loss_param {{ legacy_version: {legacy} }}", loss())) as trial:
        trial.bottom[0].data.fill(1)
        trial.bottom[1].data.fill(1)
        trial.bottom[2].data.fill(0)
        trial.run()
        assert trial.top[0].data == 0.5
        assert (trial.bottom[0].diff == 0).all()


def test_at_the_margin_of_the_legacy_version_there_is_no_gradient() -> None:
    one = case("contrastive_loss_param { margin: 4 legacy_version: true }", loss(), (1, 1), (1, 1),
               (1,), mark=values(0))  # fmt: skip
    with Trial(one) as trial:
        trial.bottom[0].data.fill(2)
        trial.bottom[1].data.fill(0)
        trial.run()
        assert trial.bottom[0].diff == 0


@pytest.mark.parametrize("legacy", ["false", "true"])
@pytest.mark.parametrize("mark", [0, 1])
def test_a_diverged_net_says_so(mark: int, legacy: str) -> None:
    with Trial(case(f"contrastive_loss_param {{ legacy_version: {legacy} }}", loss())) as trial:
        trial.bottom[2].data.fill(mark)
        trial.bottom[1].data[2, 3] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data)
