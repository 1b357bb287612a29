"""LRN: both regions, neighbours beyond the edge, more neighbours than there are, k and beta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.testing import Case, Mistake, Trial

X = (2, 5, 4, 3)


def lrn(
    size: int = 5, alpha: float = 1, beta: float = 0.75, k: float = 1, within: bool = False
) -> Callable[..., Any]:
    """A reference that visits the neighbours of every value."""
    reach = size // 2

    def expected(x: Any) -> Any:
        y = np.zeros(x.shape)
        for n, c, h, w in np.ndindex(x.shape):
            if within:
                rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (h, w))
                near, count = x[n, c, rows, columns], size**2
            else:
                near, count = x[n, max(0, c - reach) : c + reach + 1, h, w], size
            y[n, c, h, w] = x[n, c, h, w] * (k + alpha / count * (near**2).sum()) ** -beta
        return y

    return expected


def case(options: str, expected: Callable[..., Any], x: Shape = X) -> Case:
    return Case(f'type: "LRN" lrn_param {{ {options} }}', [x], expected, other=[(1, 2, 3, 6)])


def single(value: float) -> float:
    """The value that a field of type float holds."""
    return float(np.float32(value))


WITHIN = "norm_region: WITHIN_CHANNEL"

CASES = [
    Case('type: "LRN"', [X], lrn()),
    case("local_size: 3 alpha: 0.5", lrn(3, 0.5)),
    case("local_size: 3 alpha: 2 beta: 0.6 k: 2", lrn(3, 2, single(0.6), 2)),
    case("local_size: 1 beta: 1.5 k: 0.5", lrn(1, 1, 1.5, 0.5)),
    case("local_size: 3 beta: -0.5", lrn(3, 1, -0.5)),
    # More neighbours than channels.
    case("local_size: 13 alpha: 5", lrn(13, 5)),
    case("local_size: 4294967295", lrn(4294967295)),
    case(f"{WITHIN} local_size: 3 alpha: 2", lrn(3, 2, within=True)),
    case(f"{WITHIN} beta: 0.5", lrn(5, 1, 0.5, within=True)),
    case(f"{WITHIN} local_size: 1 alpha: 3", lrn(1, 3, within=True)),
    # More neighbours than pixels; k has no effect here.
    case(f"{WITHIN} local_size: 15 alpha: 9 k: 5", lrn(15, 9, within=True)),
    case("", lrn(), (1, 1, 1, 1)),
    case("", lrn(), (0, 3, 2, 2)),
    case(WITHIN, lrn(within=True), (2, 0, 3, 3)),
]

MISTAKES = [
    Mistake(
        'type: "LRN" lrn_param { local_size: 4 }',
        [X],
        "local_size is 4, but must be odd",
        "4",
    ),
    Mistake('type: "LRN" lrn_param { local_size: 0 }', [X], "local_size is 0", "0"),
    Mistake(
        'type: "LRN"', [(2, 3, 4)], "needs a bottom of 4 axes (N, C, H, W), but it is 2x3x4", '"x0"'
    ),
    Mistake('type: "LRN"', [(2, 3, 0, 4)], "the bottom 2x3x0x4 has an empty image", '"x0"'),
    Mistake('type: "LRN"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
]


def test_an_alpha_whose_gradient_leaves_float32() -> None:
    with Trial(case("local_size: 1 alpha: 3e38", lrn()), np.float32) as trial:
        trial.run()
        assert (np.abs(trial.top[0].data) < 1e-20).all()


@pytest.mark.parametrize("options", ["local_size: 3", f"local_size: 3 {WITHIN}"])
def test_nan_stays_among_its_neighbours(options: str) -> None:
    with Trial(case(options, lrn())) as trial:
        trial.bottom[0].data[1, 2, 1, 1] = np.nan
        trial.forward()
        lost = np.isnan(trial.top[0].data)
        near = np.zeros(X, bool)
        near[(1, 2, slice(0, 3), slice(0, 3)) if WITHIN in options else (1, slice(1, 4), 1, 1)] = (
            True
        )
        np.testing.assert_array_equal(lost, near)
