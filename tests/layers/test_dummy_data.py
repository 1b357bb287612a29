"""DummyData: every way to give shapes and fillers; constants once, random values in each pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.testing import Case, Mistake, Trial


def case(options: str, *expected: Any, tops: str = "") -> Case:
    text = f'type: "DummyData" dummy_data_param {{ {options} }} {tops}'
    return Case(text, [], lambda: expected)


TWO = 'top: "a" top: "b"'
SHAPE = "shape { dim: 2 dim: 3 }"

CASES = [
    case(SHAPE, np.zeros((2, 3))),
    case(f"{SHAPE} data_filler {{ value: 7 }}", np.full((2, 3), 7)),
    case(f'{SHAPE} data_filler {{ type: "constant" value: -1 }}', np.full((2, 3), -1)),
    case(f"{SHAPE} data_filler {{ value: 7 }}", np.full((2, 3), 7), np.full((2, 3), 7), tops=TWO),
    case(
        f"{SHAPE} shape {{ dim: 4 }} data_filler {{ value: 7 }} data_filler {{ value: 8 }}",
        np.full((2, 3), 7),
        np.full(4, 8),
        tops=TWO,
    ),
    case(f"{SHAPE} shape {{ }}", np.zeros((2, 3)), np.array(0), tops=TWO),
    case("num: 2 channels: 3 height: 4 width: 5", np.zeros((2, 3, 4, 5))),
    case(
        "num: 2 channels: 3 height: 4 width: 5",
        np.zeros((2, 3, 4, 5)),
        np.zeros((2, 3, 4, 5)),
        tops=TWO,
    ),
    case(
        "num: 2 channels: 3 channels: 1 height: 4 width: 5 width: 1",
        np.zeros((2, 3, 4, 5)),
        np.zeros((2, 1, 4, 1)),
        tops=TWO,
    ),
    case("shape { dim: 0 dim: 3 } data_filler { value: 7 }", np.zeros((0, 3))),
]


def mistake(options: str, message: str, at: str, tops: str = "", bottoms: Any = ()) -> Mistake:
    text = f'type: "DummyData" dummy_data_param {{ {options} }} {tops}'
    return Mistake(text, bottoms, message, at)


MISTAKES = [
    mistake("", "has 1 tops but 0 shapes", "dummy_data_param"),
    mistake(SHAPE, "takes no bottom blobs, but 1 given", '"x0"', bottoms=[(2,)]),
    mistake(
        "shape { dim: 2 } shape { dim: 3 }",
        "has 3 tops but 2 shapes",
        "dummy_data_param",
        'top: "a" top: "b" top: "c"',
    ),
    mistake(
        f"{SHAPE} data_filler {{ }} data_filler {{ }}",
        "has 1 tops but 2 data_filler: give none, one, or one for each",
        "data_filler",
    ),
    mistake(
        f"{SHAPE} num: 2",
        "give shape, or num, channels, height and width, not both",
        "shape",
    ),
    mistake(
        "num: 2 channels: 3",
        "has 1 tops but 0 height: give one for all, or one for each",
        "dummy_data_param",
    ),
    mistake(
        "num: 2 channels: 3 channels: 4 height: 1 width: 1",
        "has 3 tops but 2 channels: give one for all, or one for each",
        "3",
        'top: "a" top: "b" top: "c"',
    ),
    mistake("shape { } shape { dim: 1 dim: -2 }", "a dimension cannot be negative", "-2", TWO),
    mistake(
        f'{SHAPE} data_filler {{ type: "gausian" }}', 'unknown filler type "gausian"', '"gausian"'
    ),
    mistake(
        f'{SHAPE} data_filler {{ }} data_filler {{ type: "bilinear" }}',
        "a bilinear filler needs a square kernel",
        '"bilinear"',
        TWO,
    ),
    mistake("num: 65536 channels: 65536 height: 1 width: 1", "more than 2^31 - 1 values", "layer"),
]

RANDOM = case('shape { dim: 4 dim: 500 } data_filler { type: "gaussian" mean: 5 std: 2 }', tops=TWO)


def draw(iteration: int) -> tuple[Any, Any]:
    with Trial(RANDOM) as trial:
        trial.forward(iteration)
        return trial.top[0].data, trial.top[1].data


def test_random_values_are_those_of_the_filler() -> None:
    """Over the choice of seed, a mean 5.2 standard errors off happens once in 5 million."""
    for values in draw(0):
        assert abs(values.mean() - 5) < 5.2 * 2 / np.sqrt(values.size)
        assert 1.7 < values.std() < 2.3


def test_random_values_differ_in_each_top_and_iteration_and_nothing_else_changes_them() -> None:
    drawn = [*draw(0), *draw(1)]
    for i, values in enumerate(drawn):
        assert not any((values == others).any() for others in drawn[:i])
    np.testing.assert_array_equal(draw(1), drawn[2:])


def test_a_constant_is_written_once() -> None:
    with Trial(CASES[1]) as trial:
        trial.top[0].data.fill(3)
        trial.forward()
        assert (trial.top[0].data == 3).all()


def test_each_top_goes_by_its_own_filler() -> None:
    fillers = 'data_filler { value: 7 } data_filler { type: "uniform" min: 2 max: 3 }'
    with Trial(case(f"{SHAPE} {fillers}", tops=TWO)) as trial:
        constant, uniform = (blob.data for blob in trial.top)
        assert (constant == 7).all()
        seen = []
        for iteration in (0, 1):
            constant.fill(5)
            uniform.fill(5)
            trial.forward(iteration)
            assert (constant == 5).all()
            assert ((uniform >= 2) & (uniform < 3)).all()
            seen.append(uniform.copy())
        assert not (seen[0] == seen[1]).any()
