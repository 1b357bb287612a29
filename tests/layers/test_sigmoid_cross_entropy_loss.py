"""SigmoidCrossEntropyLoss: normalizations, ignored targets, targets of any size, huge scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.testing import Case, Draw, Mistake, Trial, labels, normal

X = (4, 5, 3)


def loss(mode: str = "BATCH_SIZE", ignore: int | None = None) -> Callable[..., Any]:
    def expected(x: Any, target: Any) -> Any:
        x, t, n = x.reshape(-1), target.reshape(-1), len(x)
        counted = t.astype(int) != ignore
        p = 1 / (1 + np.exp(-x))
        each = -t * np.log(p) - (1 - t) * np.log(1 - p)
        count = {"VALID": counted.sum(), "FULL": x.size, "BATCH_SIZE": n, "NONE": 1}
        return each[counted].sum() / max(1, count[mode])

    return expected


def case(
    options: str, expected: Callable[..., Any], draw: Draw, x: Shape = X, target: Shape = X
) -> Case:
    return Case(f'type: "SigmoidCrossEntropyLoss" {options}', [x, target], expected, [normal, draw])


BOTH = labels(2)
SOME = labels(2, -1)

CASES = [
    case("", loss(), BOTH),
    case("", loss(), normal),
    case("", loss(), BOTH, target=(4, 15)),
    case("", loss(), BOTH, (1, 7), (1, 7)),
    case("", loss(), BOTH, (6,), (6,)),
    *(
        case(f"loss_param {{ normalization: {mode} }}", loss(mode), BOTH)
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    *(
        case(f"loss_param {{ normalization: {mode} ignore_label: -1 }}", loss(mode, -1), SOME)
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    case("loss_param { ignore_label: -1 }", loss("BATCH_SIZE", -1), SOME),
    # A fraction is cut off: with 0 all targets between -1 and 1 are ignored.
    case("loss_param { ignore_label: 0 }", loss("BATCH_SIZE", 0), normal),
    # The older field, and that the newer one wins over it.
    case("loss_param { normalize: true }", loss("VALID"), BOTH),
    case("loss_param { normalize: false }", loss("BATCH_SIZE"), BOTH),
    case("loss_param { normalize: false normalization: FULL }", loss("FULL"), BOTH),
    case("loss_weight: 0.3", loss(), BOTH),
    case("", loss(), BOTH, (0, 5), (0, 5)),
    case("loss_param { normalization: FULL }", loss("FULL"), BOTH, (2, 0), (2, 0)),
    case(
        "loss_param { normalization: VALID ignore_label: 1 }",
        loss("VALID", 1),
        lambda random, shape: np.ones(shape),
    ),
    # More values than one block of the sum holds.
    case(
        "loss_param { normalization: VALID ignore_label: -1 }",
        loss("VALID", -1),
        SOME,
        (1, 9000),
        (1, 9000),
    ),
]

MISTAKES = [
    Mistake(
        'type: "SigmoidCrossEntropyLoss" loss_param { weight_by_label_freqs: true }',
        [(4, 5), (4, 5)],
        "only losses of classes weigh them",
        "loss_param",
    ),
    Mistake('type: "SigmoidCrossEntropyLoss"', [X], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "SigmoidCrossEntropyLoss"',
        [X, (4, 5)],
        "both bottoms must have the same batch and the same number of values, but they are 4x5x3 "
        "and 4x5",
        '"x1"',
    ),
    Mistake('type: "SigmoidCrossEntropyLoss"', [X, (5, 4, 3)], "are 4x5x3 and 5x4x3", '"x1"'),
    Mistake('type: "SigmoidCrossEntropyLoss"', [(), ()], "are scalar and scalar", '"x1"'),
    Mistake('type: "SigmoidCrossEntropyLoss" top: "a" top: "b"', [X, X], "takes 1 top blob", '"b"'),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_scores_overflow_nothing(dtype: type[Any]) -> None:
    with Trial(case("", loss(), BOTH, (1, 4), (1, 4)), dtype) as trial:
        trial.bottom[0].data[...] = [[1000, -1000, 1000, -1000]]
        trial.bottom[1].data[...] = [[1, 0, 0, 1]]
        trial.forward()
        assert trial.top[0].data == 2000
        trial.top[0].diff.fill(3)
        trial.backward()
        assert trial.bottom[0].diff.tolist() == [[0, 0, 3, -3]]


def test_a_fraction_of_a_target_is_cut_off_only_to_see_whether_it_is_ignored() -> None:
    with Trial(case("loss_param { ignore_label: 1 }", loss(), BOTH, (1, 4), (1, 4))) as trial:
        trial.bottom[0].data[...] = 0
        trial.bottom[1].data[...] = [[1.9, 0.9, -1.5, 2]]
        trial.forward()
        assert trial.top[0].data == pytest.approx(3 * np.log(2))
        trial.top[0].diff.fill(1)
        trial.backward()
        np.testing.assert_allclose(trial.bottom[0].diff, [[0, -0.4, 2, -1.5]])


@pytest.mark.parametrize("index", [0, 1])
def test_nan_is_never_ignored(index: int) -> None:
    with Trial(case("loss_param { ignore_label: 0 }", loss(), normal)) as trial:
        trial.bottom[1].data.fill(1)
        trial.bottom[index].data[0, 0, 0] = np.nan
        trial.run()
        assert np.isnan(trial.top[0].data)
        assert np.isnan(trial.bottom[0].diff).sum() == 1
