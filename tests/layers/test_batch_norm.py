"""BatchNorm: statistics of the batch and stored ones, what is stored, channels that stand still."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake, Trial, normal

X = (4, 3, 2, 5)


def by_channel(values: Any, shape: Shape) -> Any:
    """One value for each channel, so that it lines up with a blob of this shape."""
    return values.reshape((1, -1, *[1] * (len(shape) - 2)) if len(shape) > 1 else 1)


def batch(eps: float = 1e-5) -> Any:
    def expected(x: Any, *params: Any) -> Any:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        mean = x.mean(axes, keepdims=True)
        return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + np.float32(eps))

    return expected


def stored(eps: float = 1e-5) -> Any:
    def expected(x: Any, mean: Any, variance: Any, factor: Any) -> Any:
        mean, variance = (by_channel(blob / factor, x.shape) for blob in (mean, variance))
        return (x - mean) / np.sqrt(variance + np.float32(eps))

    return expected


def scaled(standard: Any) -> Any:
    """That, times a scale and plus a bias."""

    def expected(x: Any, *params: Any) -> Any:
        *statistics, scale, bias = params
        scale, bias = (by_channel(values, x.shape) for values in (scale, bias))
        return scale * standard(x, *statistics) + bias

    return expected


def eps_outside(eps: float) -> Any:
    def expected(x: Any, mean: Any, variance: Any, factor: Any) -> Any:
        mean, variance = (by_channel(blob / factor, x.shape) for blob in (mean, variance))
        return (x - mean) / (np.sqrt(variance) + np.float32(eps))

    return expected


def shifted(random: np.random.Generator, shape: Shape) -> Array:
    return 3 + 2 * normal(random, shape)


def positive(random: np.random.Generator, shape: Shape) -> Array:
    return random.uniform(0.5, 2, shape)


def case(options: str, x: Shape, expected: Any, **more: Any) -> Case:
    text = f'type: "BatchNorm" batch_norm_param {{ {options} }}'
    return Case(text, [x], expected, shifted, params=positive, **more)


GLOBAL = "use_global_stats: true"
LOCAL = "use_global_stats: false"

CASES = [
    case("", X, batch()),
    case("eps: 0.1 moving_average_fraction: 0.5", X, batch(0.1)),
    case("", (8, 5), batch()),
    case("", (7,), batch()),
    case("", (2, 3, 2, 3, 2), batch()),
    case("", (1, 2, 9), batch()),
    case("", (0, 3, 4), lambda x, *params: x),
    case("", X, stored(), phase=pb.TEST),
    case("eps: 0.1", (8, 5), stored(0.1), phase=pb.TEST),
    case("", (7,), stored(), phase=pb.TEST),
    case("", (0, 3, 4), lambda x, *params: x, phase=pb.TEST),
    case(GLOBAL, X, stored()),
    case(LOCAL, X, batch(), phase=pb.TEST),
    case(LOCAL, X, batch()),
    # With a scale and a bias, as NVIDIA's fork has them.
    case("scale_bias: true", X, scaled(batch())),
    case("scale_filler { value: 2 }", (8, 5), scaled(batch())),
    case("bias_filler { value: 2 } eps: 0.1", X, scaled(batch(0.1))),
    case("scale_bias: true", X, scaled(stored()), phase=pb.TEST),
    case(f"scale_bias: true {GLOBAL}", X, scaled(stored())),
    case("scale_bias: true", (0, 3, 4), lambda x, *params: x),
    # eps where Synopsys' fork can have it.
    case("add_eps_before_sqrt: false eps: 0.1", X, eps_outside(0.1), phase=pb.TEST),
    # Nothing varies, so there is no gradient.
    case("eps: 0.1", (1, 3), lambda x, *params: 0 * x),
]

MISTAKES = [
    Mistake('type: "BatchNorm"', [X, X], "takes 1 bottom blob, but 2 given", '"x1"'),
    Mistake(
        'type: "BatchNorm"', [()], "needs a bottom with a batch axis, but it is a scalar", '"x0"'
    ),
    Mistake('type: "BatchNorm"', [(2, 0, 3)], "the bottom 2x0x3 has no channels", '"x0"'),
    Mistake(
        'type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 1 }',
        [X],
        "its variance is kept up to date by the layer itself, so lr_mult 1 is not possible",
        "1",
    ),
    Mistake(
        'type: "BatchNorm" batch_norm_param { add_eps_before_sqrt: false }',
        [X],
        "add_eps_before_sqrt: false goes with stored statistics only",
        "false",
    ),
    Mistake(
        'type: "BatchNorm" param { } param { } param { } param { }',
        [X],
        "has 4 param entries, but only 3 parameters",
        "param",
    ),
]


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_stored(phase: int, dtype: type[Any]) -> None:
    one = case(f"{LOCAL} moving_average_fraction: 0.75", X, batch(), phase=phase)
    with Trial(one, dtype) as trial:
        x = trial.bottom[0].data.astype(np.float64)
        before = [blob.data.astype(np.float64) for blob in trial.layer.blobs]
        trial.forward()
        mean, variance, factor = (blob.data for blob in trial.layer.blobs)
        assert factor == dtype(0.75) * dtype(before[2]) + 1
        axes = (0, 2, 3)
        np.testing.assert_allclose(mean, 0.75 * before[0] + x.mean(axes), rtol=1e-6)
        np.testing.assert_allclose(variance, 0.75 * before[1] + x.var(axes, ddof=1), rtol=1e-6)


def test_stored_statistics_stay_when_they_are_used() -> None:
    with Trial(case(GLOBAL, X, stored())) as trial:
        before = [blob.data.copy() for blob in trial.layer.blobs]
        trial.run()
        for blob, values in zip(trial.layer.blobs, before, strict=True):
            np.testing.assert_array_equal(blob.data, values)


def test_an_empty_batch_stores_nothing() -> None:
    with Trial(case("", (0, 3), batch())) as trial:
        before = [blob.data.copy() for blob in trial.layer.blobs]
        trial.run()
        for blob, values in zip(trial.layer.blobs, before, strict=True):
            np.testing.assert_array_equal(blob.data, values)


def test_two_values_are_corrected() -> None:
    with Trial(case("moving_average_fraction: 0", (2, 3), batch())) as trial:
        trial.forward()
        variance = trial.bottom[0].data.var(0, ddof=1)
        np.testing.assert_allclose(trial.layer.blobs[1].data, variance, rtol=1e-14)


def test_a_single_value_is_stored_without_correction() -> None:
    with Trial(case("moving_average_fraction: 0", (1, 2), batch())) as trial:
        trial.forward()
        mean, variance, factor = (blob.data for blob in trial.layer.blobs)
        np.testing.assert_array_equal(mean, trial.bottom[0].data[0])
        assert not variance.any()
        assert factor == 1


def test_before_the_first_batch_statistics_count_as_zero() -> None:
    with Trial(case("eps: 0.25", X, stored(), phase=pb.TEST)) as trial:
        trial.layer.blobs[2].data.fill(0)
        trial.forward()
        np.testing.assert_allclose(trial.top[0].data, trial.bottom[0].data / 0.5, rtol=1e-14)


@pytest.mark.parametrize("eps", [0, -0.01])
def test_a_channel_that_stands_still_is_zero(eps: float) -> None:
    with Trial(case(f"eps: {eps}", X, batch())) as trial:
        trial.bottom[0].data[:, 1] = 0.1
        trial.forward()
        trial.backward()
        assert not trial.top[0].data[:, 1].any()
        assert not trial.bottom[0].diff[:, 1].any()
        assert np.isfinite(trial.top[0].data).all()
        assert trial.top[0].data[:, 0].any()


def test_a_negative_variance_is_not_hidden() -> None:
    with Trial(case("", X, stored(), phase=pb.TEST)) as trial:
        trial.layer.blobs[1].data[2] = -1
        trial.forward()
        assert np.isnan(trial.top[0].data[:, 2]).all()
        assert np.isfinite(trial.top[0].data[:, :2]).all()


def test_nan_stays_in_its_channel() -> None:
    with Trial(case("", X, batch())) as trial:
        trial.bottom[0].data[3, 1, 0, 0] = np.nan
        trial.forward()
        trial.backward()
        for values in (trial.top[0].data, trial.bottom[0].diff):
            assert np.isnan(values[:, 1]).all()
            assert np.isfinite(values[:, [0, 2]]).all()


def test_a_mean_far_from_zero_costs_no_accuracy() -> None:
    with Trial(case("", (64, 2, 5), batch()), np.float32) as trial:
        x = trial.bottom[0].data
        x[...] = np.float32(4096) + np.round(x * 8) / 8  # exact in float32
        trial.forward()
        np.testing.assert_allclose(trial.top[0].data, batch()(x.astype(np.float64)), atol=2e-6)


def test_parameters_start_from_zero_and_never_learn() -> None:
    net = Net.from_text(
        """
        force_backward: true
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
        layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" }
        """,
        pb.TRAIN,
        seed=1,
    )
    assert [blob.shape for blob in net.params["bn"]] == [(3,), (3,), (1,)]
    assert not any(blob.data.any() for blob in net.params["bn"])
    assert all(param.lr_mult == 0 for param in net.program.plan.params)


def test_a_scale_begins_at_one_and_a_bias_at_zero() -> None:
    """So the layer is what it is without them, and the two learn."""
    net = Net.from_text(
        """
        force_backward: true
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
        layer { name: "one" type: "BatchNorm" bottom: "x" top: "y" }
        layer { name: "two" type: "BatchNorm" bottom: "x" top: "z"
                param { lr_mult: 1 } batch_norm_param { scale_bias: true } }
        """,
        pb.TRAIN,
    )
    net.blobs["x"].data[...] = np.random.default_rng(1).standard_normal((4, 3))
    net.forward()
    np.testing.assert_array_equal(net.blobs["y"].data, net.blobs["z"].data)
    rates = [param.lr_mult for param in net.program.plan.params]
    assert rates == [0, 0, 0, 0, 0, 0, 1, 1]


def test_statistics_are_not_gathered_unless_wanted() -> None:
    with Trial(case("update_global_stats: false", X, batch())) as trial:
        before = [blob.data.copy() for blob in trial.layer.blobs]
        trial.forward()
        for blob, values in zip(trial.layer.blobs, before, strict=True):
            np.testing.assert_array_equal(blob.data, values)
