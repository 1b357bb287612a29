"""Scale: learned and given scales, axes, the bias, what is kept of a bottom that is overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial

X = (2, 3, 4, 5)
LONGER = (3, 3, 4, 5)


def scaled(axis: int = 1, bias: bool = False) -> Any:
    def expected(x: Any, s: Any, *b: Any) -> Any:
        after = (1,) * (x.ndim - axis - s.ndim)
        y = x * s.reshape(*s.shape, *after)
        return y + b[0].reshape(*s.shape, *after) if bias else y

    return expected


def scalar(bias: bool = False) -> Any:
    return lambda x, s, *b: x * s + (b[0] if bias else 0)


def case(
    options: str, bottoms: Sequence[Shape], expected: Any, other: Sequence[Shape] | None = None
) -> Case:
    return Case(f'type: "Scale" scale_param {{ {options} }}', bottoms, expected, other=other)


CASES = [
    case("", [X], scaled()),
    case("bias_term: true", [X], scaled(bias=True)),
    case("axis: -2", [X], scaled(2)),
    case("axis: -1 bias_term: true", [X], scaled(3, True)),
    case("axis: 0 num_axes: 2 bias_term: true", [X], scaled(0, True), [(2, 3, 6, 1)]),
    case("axis: 1 num_axes: -1", [X], scaled()),
    case("axis: 0 num_axes: -1 bias_term: true", [X], scaled(0, True), [X]),
    case("num_axes: 0", [X], scalar()),
    case("num_axes: 0 bias_term: true", [X], scalar(True)),
    case("axis: 0", [(6,)], scaled(0), [(6,)]),
    case("bias_term: true", [(1, 5)], scaled(bias=True)),
    case("bias_term: true", [(0, 5, 2)], scaled(bias=True)),
    case("", [X, (3,)], scaled(), [LONGER, (3,)]),
    case("bias_term: true", [X, (3, 4)], scaled(bias=True), [LONGER, (3, 4)]),
    case("axis: 0 num_axes: 7", [X, X], scaled(0)),
    case("axis: 0", [X, (2,)], scaled(0)),
    case("axis: -1", [X, (5,)], scaled(3), [LONGER, (5,)]),
    case("axis: 9", [X, ()], scalar(), [LONGER, ()]),
    case("bias_term: true", [X, ()], scalar(True), [LONGER, ()]),
    case("", [(), ()], scalar(), [(), ()]),
]

MISTAKES = [
    Mistake(
        'type: "Scale" scale_param { bias_term: true bias_filler { type: "xxx" } }',
        [(2, 3)],
        'unknown filler type "xxx"',
        '"xxx"',
    ),
    Mistake('type: "Scale"', [X, X, X], "takes 1 to 2 bottom blobs, but 3 given", '"x2"'),
    Mistake(
        'type: "Scale" scale_param { axis: 4 }',
        [X],
        "axis is 4, but the bottom is 2x3x4x5 (4 axes)",
        "4",
    ),
    Mistake(
        'type: "Scale" scale_param { axis: -5 }', [X, (2,)], "axis is -5, but the bottom", "-5"
    ),
    Mistake(
        'type: "Scale" scale_param { axis: 4 bias_term: true }',
        [X, ()],
        "axis is 4, but the bottom is 2x3x4x5",
        "4",
    ),
    Mistake(
        'type: "Scale" scale_param { num_axes: -2 }',
        [X],
        "num_axes is -2, but must be at least 0, or -1 for all axes from axis on",
        "-2",
    ),
    Mistake(
        'type: "Scale" scale_param { axis: 2 num_axes: 3 }',
        [X],
        "num_axes is 3 from axis 2 on, but the bottom is 2x3x4x5 (4 axes)",
        "3",
    ),
    Mistake(
        'type: "Scale"',
        [X, (3, 5)],
        "its second bottom is 3x5, but from axis 1 on the first, 2x3x4x5, is 3x4",
        '"x1"',
    ),
    Mistake(
        'type: "Scale" scale_param { axis: 3 }',
        [X, (5, 6)],
        "its second bottom is 5x6, but from axis 3 on the first, 2x3x4x5, is 5",
        '"x1"',
    ),
    Mistake('type: "Scale"', [(6,)], "axis is 1, but the bottom is 6 (1 axes)", "layer"),
]


@pytest.mark.parametrize(
    ("options", "bottoms", "starts"),
    [
        ("", "x", [((3,), 1)]),
        ("bias_term: true", "x", [((3,), 1), ((3,), 0)]),
        ("axis: 1 num_axes: -1 bias_term: true", "x", [((3, 4, 5), 1), ((3, 4, 5), 0)]),
        ("num_axes: 0 bias_term: true", "x", [((), 1), ((), 0)]),
        (
            "filler { value: 2 } bias_term: true bias_filler { value: 3 }",
            "x",
            [((3,), 2), ((3,), 3)],
        ),
        ("num_axes: 0 bias_term: true", "xs", [((3, 4), 0)]),
        ("", "xs", []),
    ],
)
def test_what_the_parameters_start_from(
    options: str, bottoms: str, starts: list[tuple[Shape, float]]
) -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3, 4, 5] } } }
        layer { name: "s" type: "Input" top: "s" input_param { shape { dim: [3, 4] } } }
    """
    names = " ".join(f'bottom: "{name}"' for name in bottoms)
    text += f'layer {{ name: "sc" type: "Scale" {names} top: "y" scale_param {{ {options} }} }}'
    blobs = Net.from_text(text, seed=1).params.get("sc", [])
    assert [blob.shape for blob in blobs] == [shape for shape, _ in starts]
    for blob, (_, value) in zip(blobs, starts, strict=True):
        assert (blob.data == value).all()


def test_a_filler_without_a_value_is_zero() -> None:
    layer = case("filler { }", [X], scaled()).layer()
    [param] = layer.params(X)
    assert (param.filler.type, param.filler.value) == ("constant", 0)


@pytest.mark.parametrize("needs_x", [False, True])
def test_in_place_the_bottom_is_kept_only_for_the_gradient_of_the_scale(needs_x: bool) -> None:
    with Trial(case("", [X], scaled()), in_place=True) as trial:
        trial.layer.learn = [needs_x]
        trial.layer.setup(trial.bottom, trial.top)
        x = trial.bottom[0].data.copy()
        dy = trial.top[0].diff.copy()
        trial.forward()
        trial.backward()
        expected = (x * dy).sum((0, 2, 3)) if needs_x else np.zeros(3)
        np.testing.assert_allclose(trial.layer.blobs[0].diff, expected, atol=1e-13)


def test_a_gradient_summed_over_many_values_is_accurate() -> None:
    big = (1, 1, 300, 1000)
    with Trial(case("bias_term: true", [big], scaled(bias=True)), np.float32) as trial:
        trial.run()
        x, dy = (a.astype(np.float64) for a in (trial.bottom[0].data, trial.top[0].diff))
        slope, constant = (blob.diff for blob in trial.layer.blobs)
        np.testing.assert_allclose(slope, [(x * dy).sum()], rtol=1e-6)
        np.testing.assert_allclose(constant, [dy.sum()], rtol=1e-6)
