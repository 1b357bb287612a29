"""Fillers: each against its formula; the distributions by Kolmogorov-Smirnov, as in test_rng.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netdef.blob import Shape
from netdef.errors import NetError
from netdef.fillers import FILLERS, fill
from netdef.proto import netdef_pb2 as pb

KEY = np.uint64(5)
SHAPE = (40, 20, 9, 9)
FAN_IN, FAN_OUT = 20 * 9 * 9, 40 * 9 * 9

FANS = [
    ("", FAN_IN),
    ("variance_norm: FAN_IN", FAN_IN),
    ("variance_norm: FAN_OUT", FAN_OUT),
    ("variance_norm: AVERAGE", (FAN_IN + FAN_OUT) / 2),
]


def filled(
    text: str,
    shape: Shape = SHAPE,
    dtype: type[Any] = np.float64,
    key: np.uint64 = KEY,
    iteration: int = 0,
) -> Any:
    out = np.full(shape, np.nan, dtype)
    fill(text_format.Parse(text, pb.FillerParameter()), out, key, iteration)
    return out


def distance(values: Any, distribution: Callable[[float], float]) -> float:
    """The Kolmogorov-Smirnov distance, times the root of the size: beyond 2.8 once in 3 million."""
    expected = np.array([distribution(v) for v in np.sort(values, axis=None).tolist()])
    ranks = np.arange(values.size + 1) / values.size
    worst = max(np.abs(expected - ranks[1:]).max(), np.abs(expected - ranks[:-1]).max())
    return float(worst * math.sqrt(values.size))


def uniform(low: float, high: float) -> Callable[[float], float]:
    return lambda x: min(max((x - low) / (high - low), 0), 1)


def assert_normal(values: Any, mean: float, std: float) -> None:
    assert distance(values, lambda x: 0.5 * (1 + math.erf((x - mean) / std / math.sqrt(2)))) < 2.8
    # The distance sees little of a scale that is off; the standard deviation itself sees 1.5 %.
    found = math.sqrt(((values - mean) ** 2).mean())
    assert abs(found / std - 1) < 5.1 / math.sqrt(2 * values.size)


@pytest.mark.parametrize(("text", "value"), [("", 0), ('type: "constant" value: -2.5', -2.5)])
def test_constant(text: str, value: float) -> None:
    assert (filled(text) == value).all()


@pytest.mark.parametrize(("text", "low", "high"), [("", 0, 1), ("min: -3 max: -1", -3, -1)])
def test_uniform(text: str, low: float, high: float) -> None:
    values = filled(f'type: "uniform" {text}')
    assert low <= values.min() < values.max() <= high
    assert distance(values, uniform(low, high)) < 2.8


@pytest.mark.parametrize(("text", "mean", "std"), [("", 0, 1), ("mean: 3 std: 0.5", 3, 0.5)])
def test_gaussian(text: str, mean: float, std: float) -> None:
    assert_normal(filled(f'type: "gaussian" {text}'), mean, std)


@pytest.mark.parametrize("sparse", [0, 1, 15, 40])
def test_sparse_gaussian(sparse: int) -> None:
    """Each value stays with probability sparse / outputs: about that many of each input."""
    values = filled(f'type: "gaussian" mean: 1 std: 0.5 sparse: {sparse}')
    kept, share = values[values != 0], sparse / SHAPE[0]
    assert abs(kept.size - values.size * share) <= 5.1 * math.sqrt(
        values.size * share * (1 - share)
    )
    if kept.size:
        assert_normal(kept, 1, 0.5)


def test_positive_unitball() -> None:
    values = filled('type: "positive_unitball"')
    assert (values >= 0).all()
    np.testing.assert_allclose(values.reshape(SHAPE[0], -1).sum(axis=1), 1)
    # Before the division, a row was uniform in [0, 1).
    scaled = values[0] / values[0].max()
    assert distance(scaled, uniform(0, 1)) < 2.8


@pytest.mark.parametrize(("norm", "fan"), FANS)
def test_xavier(norm: str, fan: float) -> None:
    limit = math.sqrt(3 / fan)
    values = filled(f'type: "xavier" {norm}')
    assert np.abs(values).max() <= limit
    assert distance(values, uniform(-limit, limit)) < 2.8


@pytest.mark.parametrize(("norm", "fan"), FANS)
def test_msra(norm: str, fan: float) -> None:
    assert_normal(filled(f'type: "msra" {norm}'), 0, math.sqrt(2 / fan))


@pytest.mark.parametrize("shape", [(300,), (300, 70), (30, 70, 10)])
def test_the_fan_of_other_shapes(shape: Shape) -> None:
    """Inputs: count / first extent. Outputs: count / second extent, or count if there is none."""
    count = math.prod(shape)
    fan_out = count / shape[1] if len(shape) > 1 else count
    for norm, fan in (("FAN_IN", count / shape[0]), ("FAN_OUT", fan_out)):
        limit = math.sqrt(3 / fan)
        values = np.abs(filled(f'type: "xavier" variance_norm: {norm}', shape))
        assert 0.9 * limit < values.max() <= limit


@pytest.mark.parametrize(
    ("size", "ramp"),
    [(3, [0.25, 0.75, 0.75]), (4, [0.25, 0.75, 0.75, 0.25]), (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])],
)
def test_bilinear(size: int, ramp: list[float]) -> None:
    values = filled('type: "bilinear"', (2, 3, size, size))
    np.testing.assert_allclose(values, np.broadcast_to(np.outer(ramp, ramp), values.shape))


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_bilinear_upsampling_keeps_constants_and_lines(factor: int) -> None:
    """With kernel 2f - f % 2 and stride f, an output is a weighted mean of its neighbours."""
    size = 2 * factor - factor % 2
    kernel = filled('type: "bilinear"', (1, 1, size, size))[0, 0]
    ramp = kernel.sum(axis=0) / factor
    np.testing.assert_allclose(kernel, np.outer(ramp, ramp))
    pad = (factor - factor % 2) // 2
    line = np.arange(8.0)
    up = np.zeros(factor * len(line) + size)
    for i, value in enumerate(line):
        up[i * factor : i * factor + size] += value * ramp
    inner = up[pad : pad + factor * len(line)][2 * factor : -2 * factor]
    steps = np.diff(inner)
    np.testing.assert_allclose(steps, 1 / factor)


@pytest.mark.parametrize("name", FILLERS)
def test_float32_holds_the_same_numbers(name: str) -> None:
    text = f'type: "{name}"'
    np.testing.assert_allclose(
        filled(text, dtype=np.float32), filled(text), rtol=1e-5 if "ball" in name else 1e-7
    )


@pytest.mark.parametrize("name", ["uniform", "gaussian", "positive_unitball", "xavier", "msra"])
def test_keys_and_iterations_draw_anew(name: str) -> None:
    text = f'type: "{name}"'
    first = filled(text)
    np.testing.assert_array_equal(first, filled(text))
    assert (first != filled(text, key=np.uint64(6))).all()
    assert (first != filled(text, iteration=1)).all()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
@pytest.mark.parametrize("name", ["constant", "uniform", "gaussian"])
def test_nothing_is_filled_with_nothing(name: str, shape: Shape) -> None:
    assert filled(f'type: "{name}"', shape).size == 0


@pytest.mark.parametrize(
    ("text", "shape", "message", "hint"),
    [
        ('type: "xaiver"', SHAPE, 'unknown filler type "xaiver"', 'did you mean "xavier"?'),
        (
            'type: "orthogonal"',
            SHAPE,
            'unknown filler type "orthogonal"',
            "known fillers: constant",
        ),
        (
            'type: "xavier" sparse: 3',
            SHAPE,
            'sparse is only for gaussian fillers, not "xavier"',
            "",
        ),
        ('type: "bilinear"', (2, 3, 4, 5), "a bilinear filler needs a square kernel", ""),
        ('type: "bilinear"', (4, 4), "a bilinear filler needs a square kernel", ""),
    ],
)
def test_a_filler_that_cannot_fill_says_so(
    text: str, shape: Shape, message: str, hint: str
) -> None:
    with pytest.raises(NetError) as caught:
        filled(text, shape)
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.code == "E120"
    assert message in diagnostic.message
    assert hint in diagnostic.hint


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('type: "xavier"', (0, 3)),
        ('type: "msra" variance_norm: FAN_OUT', (3, 0)),
        ('type: "gaussian" sparse: 2', (0, 3)),
        ('type: "positive_unitball"', (0, 3)),
        ('type: "uniform" min: 2 max: 1', (3,)),
        ('type: "gaussian" std: -1', (3,)),
        ('type: "gaussian" sparse: -2', (3,)),
    ],
)
def test_an_odd_filler_or_shape_is_an_error_or_filled(text: str, shape: Shape) -> None:
    try:
        filled(text, shape)
    except NetError:
        return
    assert math.prod(shape) == 0


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ('type: "xavier"', -(3.0**0.5), 3.0**0.5),
        ('type: "positive_unitball"', 1.0, 1.0),
        ('type: "gaussian" std: 0 mean: 2 sparse: 1', 2.0, 2.0),
    ],
)
def test_a_scalar_is_one_unit_with_one_input(text: str, low: float, high: float) -> None:
    assert low <= filled(text, ()) <= high
