"""Winograd's filtering against the plain sum in float64: sizes around tiles, groups, epilogues."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef import jit
from netdef.kernels import convolution as kernels
from netdef.kernels import implicit_gemm, weight_gradient, winograd
from netdef.kernels.geometry import flipped
from netdef.testing import threads

#: (images, channels, height, width, outputs, pad, groups, window); channels and outputs are those
#: of all groups. Images that end with a tile, and in every place within one; more tiles than a
#: vector has lanes, and more channels than a slice of depth.
SIZES = [
    (9, 32, 8, 8, 32, 1, 1, 3),
    (5, 33, 7, 14, 40, 1, 1, 3),
    (2, 40, 30, 17, 50, 0, 1, 3),
    (5, 64, 13, 10, 70, 2, 2, 3),
    (9, 300, 9, 8, 33, 1, 1, 3),
    (1, 32, 70, 71, 32, 1, 1, 3),
    (9, 32, 8, 8, 32, 2, 1, 5),
    (3, 40, 9, 13, 33, 0, 1, 5),
    (6, 64, 11, 10, 70, 1, 2, 5),
    (1, 300, 40, 39, 32, 2, 1, 5),
]

#: A bound of the error, as a share of the largest value: far below the 1e-4 that models bear, and
#: far below what a wrong term would be. With 1 and 2 for 5/8 and 3/2, some sizes exceed it.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


def made(size: tuple[int, ...], dtype: type[Any]) -> tuple[Any, ...]:
    """(geometry, x, weight, dy)"""
    n, channels, height, width, outputs, pad, groups, window = size
    output = height + 2 * pad - window + 1, width + 2 * pad - window + 1
    pairs = [(k, k) for k in (window, 1, pad, 1)]
    g = kernels.geometry(channels, outputs, groups, (height, width), output, *pairs)
    random = np.random.default_rng(size)
    shapes = (
        (n, channels, height, width),
        (outputs, channels // groups, window, window),
        (n, outputs, *output),
    )
    return g, *(random.standard_normal(shape).astype(dtype) for shape in shapes)


def reference(g: Any, x: Any, weight: Any, dy: Any) -> tuple[Any, Any, Any]:
    """(y, dweight, dx), one tap after the other."""
    x, weight, dy = (values.astype(np.float64) for values in (x, weight, dy))
    pad, groups, (height, width) = g.pad[0], g.extents.groups, g.output
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    y, dweight, dpadded = np.zeros(dy.shape), np.zeros(weight.shape), np.zeros(padded.shape)
    for group in range(groups):
        inputs = slice(group * g.extents.channels, (group + 1) * g.extents.channels)
        outputs = slice(group * g.extents.outputs, (group + 1) * g.extents.outputs)
        for i in range(g.window[0]):
            for j in range(g.window[1]):
                at = np.s_[:, inputs, i : i + height, j : j + width]
                w = weight[outputs, :, i, j]
                y[:, outputs] += np.einsum("nchw,mc->nmhw", padded[at], w, optimize=True)
                dweight[outputs, :, i, j] = np.einsum(
                    "nmhw,nchw->mc", dy[:, outputs], padded[at], optimize=True
                )
                dpadded[at] += np.einsum("nmhw,mc->nchw", dy[:, outputs], w, optimize=True)
    inside = np.s_[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]]
    return y, dweight, dpadded[inside]


def run(g: Any, x: Any, weight: Any, dy: Any) -> tuple[Any, Any, Any]:
    y, dweight, dx = np.full_like(dy, np.nan), np.ones_like(weight), np.full_like(x, np.nan)
    flat_x, flat_weight, flat_dy = x.reshape(-1), weight.reshape(-1), dy.reshape(-1)
    scratch = jit.workspace(1, x.dtype)
    scratch.fill(np.nan)
    nothing = implicit_gemm.no_epilogue(x)
    winograd.multiply(g, flat_x, flat_weight, y.reshape(-1), nothing, turned=False)
    scratch.fill(np.nan)
    winograd.add_weights(g, flat_x, flat_dy, dweight.reshape(-1))
    scratch.fill(np.nan)
    turned = flipped(g)
    assert turned is not None
    winograd.multiply(turned, flat_dy, flat_weight, dx.reshape(-1), nothing, turned=True)
    return y, dweight - 1, dx


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_plain_sum(size: tuple[int, ...], dtype: type[Any]) -> None:
    given = made(size, dtype)
    for found, expected in zip(run(*given), reference(*given), strict=True):
        bound = TOLERANCE[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("size", SIZES[2:9:3])
def test_a_weight_gradient_in_several_chunks(
    size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST_SCRATCH", 1)
    monkeypatch.setattr(winograd, "MOST_SCRATCH", 1)
    given = made(size, np.float64)
    expected = reference(*given)[1]
    np.testing.assert_allclose(
        run(*given)[1], expected, rtol=0, atol=1e-13 * np.abs(expected).max()
    )


@pytest.mark.parametrize("size", SIZES)
def test_threads_change_nothing(size: tuple[int, ...]) -> None:
    given = made(size, np.float32)
    alone = run(*given)
    with threads(None):
        for found, expected in zip(run(*given), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("size", [SIZES[1], SIZES[3], SIZES[8], (2, 3, 9, 8, 5, 1, 1, 3)])
def test_what_follows_the_product(
    size: tuple[int, ...], biased: bool, added: bool, scaled: bool, rectify: bool
) -> None:
    """By both algorithms: the smallest size is one that implicit GEMM takes."""
    g, x, weight, dy = made(size, np.float64)
    assert winograd.suits(g, len(x), 8) == (size[1] > 3)
    random = np.random.default_rng(2)
    scale, bias = (random.standard_normal(size[4]) for _ in range(2))
    addend = random.standard_normal(dy.shape)
    y = np.empty_like(dy)
    kernels.forward(
        g,
        x,
        weight,
        bias if biased else np.empty(0),
        y,
        scale=scale if scaled else None,
        addend=addend if added else None,
        rectify=rectify,
    )
    expected, _, _ = reference(g, x, weight, dy)
    per_output = (slice(None), None, None)
    expected = expected * (scale[per_output] if scaled else 1) + (bias[per_output] if biased else 0)
    expected += addend if added else 0
    expected = np.maximum(expected, 0) if rectify else expected
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_a_nan_stays_one() -> None:
    for size in (SIZES[0], (2, 3, 9, 8, 5, 1, 1, 3)):
        g, x, weight, dy = made(size, np.float32)
        x[1, 2, 4, 4] = np.nan
        y = np.empty_like(dy)
        kernels.forward(g, x, weight, np.empty(0, np.float32), y, rectify=True)
        assert np.isnan(y[1, :, 3:6, 3:6]).all()
        assert np.isfinite(y[0]).all()


def test_which_convolutions_it_takes() -> None:
    def suits(window: int = 3, stride: int = 1, apart: int = 1, channels: int = 32) -> bool:
        size = (30 - apart * (window - 1) - 1) // stride + 1
        pairs = [(n, n) for n in (30, size, window, stride, 0, apart)]
        return winograd.suits(kernels.geometry(channels, 32, 1, *pairs), 2, 4)

    assert suits()
    assert suits(window=5)
    assert not suits(window=7)
    assert not suits(stride=2)
    assert not suits(apart=2)
    assert not suits(channels=16)


@pytest.mark.parametrize("size", [SIZES[0], SIZES[6]])
def test_the_gradients_take_it_too(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it suits, the other algorithms are not asked."""
    g, x, weight, dy = made(size, np.float32)
    for room, name in ((weight_gradient, "add"), (implicit_gemm, "multiply_turned")):
        monkeypatch.delattr(room, name)
    kernels.backward_weights(g, x, dy, np.zeros_like(weight))
    kernels.backward_data(g, weight, dy, np.empty_like(x))
