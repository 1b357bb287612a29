"""BN: its three dialects, how they are told apart, what each stores, in TRAIN and TEST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef import prototxt
from netdef.blob import Array, Shape
from netdef.layer import create
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Draw, Mistake, Trial, normal

X = (4, 3, 2, 5)
OTHER: list[Shape] = [(2, 3, 4, 2)]

SEGNET = "scale_filler { value: 1 } shift_filler { value: 0 }"


def positive(random: np.random.Generator, shape: Shape) -> Array:
    """Values that can be variances."""
    return np.asarray(random.uniform(0.5, 2, shape))


def over_channel(values: Any, x: Any) -> Any:
    return np.reshape(values, (1, -1, *[1] * (x.ndim - 2)))


def batch(eps: float) -> Callable[..., Any]:
    """By the mean and the biased variance of each channel."""

    def expected(x: Any, scale: Any, shift: Any, *stored: Any) -> Any:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        standard = (x - mean) / np.sqrt(variance + np.float32(eps))
        return over_channel(scale, x) * standard + over_channel(shift, x)

    return expected


def stored(eps: float) -> Callable[..., Any]:
    """By the third and fourth parameter."""

    def expected(x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
        deviation = np.sqrt(over_channel(variance, x) + np.float32(eps))
        standard = (x - over_channel(mean, x)) / deviation
        return over_channel(scale, x) * standard + over_channel(shift, x)

    return expected


def folded(x: Any, scale: Any, shift: Any) -> Any:
    return over_channel(scale, x) * x + over_channel(shift, x)


def with_statistics(x: Any, scale: Any, shift: Any) -> Any:
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    return batch(1e-9)(x, scale, shift), mean.reshape(1, 3, 1, 1), variance.reshape(1, 3, 1, 1)


def case(
    options: str,
    expected: Callable[..., Any],
    x: Shape = X,
    *,
    phase: int = pb.TRAIN,
    other: list[Shape] | None = OTHER,
    **how: Any,
) -> Case:
    two = "scale_filler" in options and "param" not in options and "decay" not in options
    arrays: list[Draw] = [normal] * 2 if two or "bn_mode" in options else [normal] * 3 + [positive]
    text = f'type: "BN" bn_param {{ {options} }}'
    return Case(text, [x], expected, params=arrays, phase=phase, other=other, **how)


FOUR_PARAMS = 'type: "BN" param {} param {} param {} param {} bn_param { scale_filler {} }'

CASES = [
    # SegNet
    case(SEGNET, batch(1e-9)),
    case("bn_mode: LEARN", batch(1e-9)),
    case(SEGNET, batch(1e-9), phase=pb.TEST),
    case("bn_mode: INFERENCE", folded),
    case("bn_mode: INFERENCE", folded, phase=pb.TEST),
    Case(
        'type: "BN" bn_param { bn_mode: LEARN } top: "y" top: "mean" top: "variance"',
        [X],
        with_statistics,
        other=OTHER,
        forward_only=True,
        in_place=True,
    ),
    # PSPNet
    Case('type: "BN"', [X], batch(1e-5), params=[normal] * 3 + [positive], other=OTHER),
    case("eps: 0.01 momentum: 0.5", batch(0.01)),
    case("momentum: 0.5", stored(1e-5), phase=pb.TEST),
    case("frozen: true eps: 0.01", stored(0.01)),
    case("frozen: true", stored(1e-5), phase=pb.TEST),
    case("slope_filler { value: 2 }", batch(1e-5), (6, 3), other=[(2, 3)]),
    case("eps: 0.5", batch(0.5), (2, 3, 2, 2, 3), other=[(1, 3, 2)]),
    # ParseNet
    case("var_eps: 0.01", batch(0.01)),
    case("decay: 0.5", stored(1e-10), phase=pb.TEST),
    case("moving_average: false var_eps: 1e-5", batch(1e-5), phase=pb.TEST),
    Case(FOUR_PARAMS, [X], batch(1e-10), params=[normal] * 3 + [positive], other=OTHER),
    case("frozen: true", stored(1e-5), (0, 3, 2), other=[(2, 3, 2)]),
]


def mistake(options: str, message: str, at: str, x: Shape = X, rest: str = "") -> Mistake:
    return Mistake(f'type: "BN" bn_param {{ {options} }} {rest}', [x], message, at)


MISTAKES = [
    mistake(
        "bn_mode: LEARN momentum: 0.9",
        "bn_mode and momentum belong to different layers of this name",
        "0.9",
    ),
    mistake("var_eps: 1e-5 eps: 1e-3", "eps and var_eps belong to different layers", "1e-5"),
    mistake(
        "scale_filler {} frozen: true",
        "scale_filler and frozen belong to different layers of this name",
        "true",
    ),
    mistake("", "needs a bottom of at least 2 axes (N, C, ...), but it is 3", '"x0"', (3,)),
    mistake("", "the bottom 3x0x2 has no channels", '"x0"', (3, 0, 2)),
    mistake(
        "momentum: 0.9",
        "only SegNet's BN in the mode LEARN has further tops: mean and variance",
        '"mean"',
        rest='top: "y" top: "mean"',
    ),
    mistake(
        "bn_mode: INFERENCE",
        "only SegNet's BN in the mode LEARN has further tops",
        '"mean"',
        rest='top: "y" top: "mean"',
    ),
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["scale", "shift", "mean", "variance"]),
        (f"bn_param {{ {SEGNET} }}", ["scale", "shift"]),
        (f"param {{}} param {{}} bn_param {{ {SEGNET} }}", ["scale", "shift"]),
        (
            f"param {{}} param {{}} param {{}} param {{}} bn_param {{ {SEGNET} }}",
            ["scale", "shift", "mean", "variance"],
        ),
        ("bn_param { bn_mode: INFERENCE }", ["scale", "shift"]),
        ("bn_param { icnet: true }", ["scale", "shift", "mean", "variance"]),
        ("bn_param { frozen: true }", ["scale", "shift", "mean", "variance"]),
        (f"bn_param {{ {SEGNET} decay: 0.9 }}", ["scale", "shift", "mean", "variance"]),
    ],
)
def test_fields_and_params_tell_the_dialect(text: str, names: list[str]) -> None:
    message = prototxt.parse(f'type: "BN" {text}', pb.LayerParameter).message
    params = list(create(message).params(X))
    assert [param.name for param in params] == names
    assert {param.shape for param in params} == {(1, 3, 1, 1)}
    frozen = "frozen" in text
    assert [param.learns for param in params] == [not frozen] * 2 + [False] * (len(names) - 2)


@pytest.mark.parametrize(
    ("options", "kept"),
    [("momentum: 0.75", 0.75), ("decay: 0.25", 0.75), ("", 0.9), ("var_eps: 0", 0.05)],
)
def test_a_training_pass_stores_its_statistics(options: str, kept: float) -> None:
    with Trial(case(options, batch(0))) as trial:
        _, _, mean, variance = (blob.data.copy() for blob in trial.layer.blobs)
        x = trial.bottom[0].data
        trial.forward()
        for before, blob, new in zip(
            (mean, variance),
            trial.layer.blobs[2:],
            (x.mean((0, 2, 3)), x.var((0, 2, 3))),
            strict=True,
        ):
            expected = kept * before.ravel() + (1 - kept) * new
            np.testing.assert_allclose(blob.flat, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "phase"),
    [
        ("momentum: 0.75", pb.TEST),
        ("frozen: true", pb.TRAIN),
        ("moving_average: false", pb.TEST),
    ],
)
def test_other_passes_store_nothing(options: str, phase: int) -> None:
    with Trial(case(options, batch(0), phase=phase)) as trial:
        before = [blob.data.copy() for blob in trial.layer.blobs]
        trial.forward()
        for blob, values in zip(trial.layer.blobs, before, strict=True):
            np.testing.assert_array_equal(blob.data, values)


def test_segnet_worked_into_scale_and_shift_is_its_inference() -> None:
    """What SegNet's own script does with the statistics of the training set."""
    with Trial(case("bn_mode: LEARN", batch(1e-9))) as learn:
        learn.forward()
        x, (scale, shift) = learn.bottom[0].data, (b.data for b in learn.layer.blobs)
        mean, deviation = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
        with Trial(case("bn_mode: INFERENCE", folded)) as infer:
            infer.bottom[0].data[...] = x
            infer.layer.blobs[0].data[...] = scale / deviation
            infer.layer.blobs[1].data[...] = shift - mean * scale / deviation
            infer.forward()
            np.testing.assert_allclose(infer.top[0].data, learn.top[0].data, rtol=1e-6, atol=1e-6)
