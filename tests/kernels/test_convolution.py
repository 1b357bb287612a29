"""The three products of a convolution against a loop over the taps, in any geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdef import jit
from netdef.kernels import convolution as kernels
from netdef.kernels import direct, implicit_gemm, weight_gradient
from netdef.kernels.microkernel import DEPTH, ROWS, columns_of
from netdef.testing import threads


@dataclass(frozen=True)
class Setting:
    """A convolution: extents per spatial axis, sizes per group."""

    batch: int
    groups: int
    channels: int
    outputs: int
    image: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def output(self) -> tuple[int, ...]:
        axes = zip(self.image, self.spans, self.stride, self.pad, strict=True)
        return tuple(max(0, n + 2 * p - e) // s + 1 for n, e, s, p in axes)

    @property
    def spans(self) -> tuple[int, ...]:
        """From the first tap to the last, per axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.window, self.dilation, strict=True))

    @property
    def border(self) -> list[tuple[int, int]]:
        """The zeros around an image: padding, and what too wide a window sees beyond it."""
        axes = zip(self.image, self.spans, self.pad, strict=True)
        return [(0, 0), (0, 0), *((p, max(p, e - n - p)) for n, e, p in axes)]

    def geometry(self) -> Any:
        return kernels.geometry(
            self.groups * self.channels,
            self.groups * self.outputs,
            self.groups,
            self.image,
            self.output,
            self.window,
            self.stride,
            self.pad,
            self.dilation,
        )

    def arrays(self, dtype: type[Any]) -> tuple[Any, Any, Any, Any]:
        """x, weight, bias and the gradient of y."""
        random = np.random.default_rng(1)
        shapes = (
            (self.batch, self.groups * self.channels, *self.image),
            (self.groups * self.outputs, self.channels, *self.window),
            (self.groups * self.outputs,),
            (self.batch, self.groups * self.outputs, *self.output),
        )
        x, w, b, dy = (random.standard_normal(shape).astype(dtype) for shape in shapes)
        return x, w, b, dy


def reference(s: Setting, x: Any, w: Any, b: Any, dy: Any) -> tuple[Any, Any, Any]:
    """(y, dw, dx), one tap after the other."""
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    padded = np.pad(x, s.border)
    y, dw, dpadded = np.zeros(dy.shape), np.zeros(w.shape), np.zeros(padded.shape)
    for group in range(s.groups):
        inputs = slice(group * s.channels, (group + 1) * s.channels)
        outputs = slice(group * s.outputs, (group + 1) * s.outputs)
        for tap in np.ndindex(*s.window):
            window = [
                slice(t * d, t * d + (n - 1) * step + 1, step)
                for t, d, n, step in zip(tap, s.dilation, s.output, s.stride, strict=True)
            ]
            at = (slice(None), inputs, *window)
            weight = w[(outputs, slice(None), *tap)]
            y[:, outputs] += np.einsum("nc...,mc->nm...", padded[at], weight)
            flat = padded[at].reshape(s.batch, s.channels, -1)
            slope = dy[:, outputs].reshape(s.batch, s.outputs, -1)
            dw[(outputs, slice(None), *tap)] = np.einsum("nmp,ncp->mc", slope, flat)
            dpadded[at] += np.einsum("nm...,mc->nc...", dy[:, outputs], weight)
    inside = tuple(slice(p, p + n) for p, n in zip(s.pad, s.image, strict=True))
    y += b.reshape(-1, *[1] * len(s.image))
    return y, dw, dpadded[(slice(None), slice(None), *inside)]


def guarded(shape: tuple[int, ...], dtype: type[Any]) -> tuple[Any, Any]:
    """An array of NaN and the memory it lies in, whose ends must not be written."""
    size = int(np.prod(shape))
    memory = np.full(size + 200, np.pi, dtype)
    memory[100 : 100 + size] = np.nan
    return memory[100 : 100 + size].reshape(shape), memory


def run(s: Setting, dtype: type[Any]) -> tuple[Any, Any, Any]:
    """(y, dw, dx) of the kernels; dw is added to ones."""
    x, w, b, dy = s.arrays(dtype)
    g = s.geometry()
    (y, y_memory), (dw, dw_memory), (dx, dx_memory) = (guarded(a.shape, dtype) for a in (dy, w, x))
    dw.fill(1)
    scratch = jit.workspace(1, dtype)
    scratch.fill(np.nan)
    kernels.forward(g, x, w, b, y)
    scratch.fill(np.nan)
    kernels.backward_weights(g, x, dy, dw)
    scratch.fill(np.nan)
    kernels.backward_data(g, w, dy, dx)
    for memory in (y_memory, dw_memory, dx_memory):
        assert (memory[:100] == dtype(np.pi)).all()
        assert (memory[-100:] == dtype(np.pi)).all()
    return y, dw, dx


def check(s: Setting, dtype: type[Any]) -> None:
    y, dw, dx = reference(s, *s.arrays(dtype))
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    for found, expected in zip(run(s, dtype), (y, dw + 1, dx), strict=True):
        scale = np.abs(expected).max(initial=1e-30)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@st.composite
def settings_of_any_kind(draw: st.DrawFn) -> Setting:
    axes = draw(st.integers(1, 3))
    largest = {1: 20, 2: 8, 3: 5}[axes]

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    window, stride, pad, dilation = per_axis(1, 3), per_axis(1, 3), per_axis(0, 3), per_axis(1, 2)
    # A window may be wider than the padded image by less than its stride.
    axes_of = zip(window, stride, pad, dilation, strict=True)
    least = [max(1, d * (k - 1) + 1 - 2 * p - (s - 1)) for k, s, p, d in axes_of]
    return Setting(
        batch=draw(st.integers(1, 3)),
        groups=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)),
        outputs=draw(st.integers(1, 4)),
        image=tuple(draw(st.integers(n, max(n, largest))) for n in least),
        window=window,
        stride=stride,
        pad=pad,
        dilation=dilation,
    )


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(settings_of_any_kind(), st.sampled_from([np.float32, np.float64]))
def test_any_geometry(s: Setting, dtype: type[Any]) -> None:
    check(s, dtype)


def plane(batch: int, channels: int, outputs: int, size: int, window: int, pad: int) -> Setting:
    one = (1, 1)
    return Setting(batch, 1, channels, outputs, (size, size), (window,) * 2, one, (pad,) * 2, one)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(settings_of_any_kind(), st.sampled_from([np.float32, np.float64]))
def test_im2col_and_its_transpose(s: Setting, dtype: type[Any]) -> None:
    check_columns(replace(s, groups=1), dtype)


def check_columns(s: Setting, dtype: type[Any]) -> None:
    """Columns are what the taps see; x = col2im(columns) is its transpose, on whole numbers."""
    random = np.random.default_rng(1)
    x = random.integers(-9, 10, (s.batch, s.channels, *s.image)).astype(dtype)
    shape = (s.batch, s.channels, *s.window, *s.output)
    given = random.integers(-9, 10, shape).astype(dtype)
    expected, padded = np.zeros(shape), np.pad(x, s.border)
    dpadded = np.zeros(padded.shape)
    for tap in np.ndindex(*s.window):
        window = [
            slice(t * d, t * d + (n - 1) * step + 1, step)
            for t, d, n, step in zip(tap, s.dilation, s.output, s.stride, strict=True)
        ]
        at = (slice(None), slice(None), *window)
        expected[(slice(None), slice(None), *tap)] = padded[at]
        dpadded[at] += given[(slice(None), slice(None), *tap)]
    inside = tuple(slice(p, p + n) for p, n in zip(s.pad, s.image, strict=True))
    (columns, columns_memory), (dx, dx_memory) = guarded(shape, dtype), guarded(x.shape, dtype)
    scratch = jit.workspace(1, dtype)
    scratch.fill(np.nan)
    kernels.im2col(s.geometry(), x, columns)
    scratch.fill(np.nan)
    kernels.col2im(s.geometry(), given, dx)
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(dx, dpadded[(slice(None), slice(None), *inside)])
    for memory in (columns_memory, dx_memory):
        assert (memory[:100] == dtype(np.pi)).all()
        assert (memory[-100:] == dtype(np.pi)).all()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(settings_of_any_kind(), st.integers(1, 3), st.sampled_from([np.float32, np.float64]))
def test_depthwise(s: Setting, outputs: int, dtype: type[Any]) -> None:
    """Up to one output more per channel than the kernel for it takes."""
    check(replace(s, groups=s.groups + 1, channels=1, outputs=outputs), dtype)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("groups", "channels"), [(3, 1), (2, DEPTH // 9 + 3)])
def test_what_follows_the_product(groups: int, channels: int, stride: int) -> None:
    """Of depthwise convolutions, and of others, over more than one slice of taps."""
    s = Setting(2, groups, channels, 2, (7, 6), (3, 3), (stride, stride), (1, 1), (1, 1))
    x, w, b, dy = s.arrays(np.float64)
    random = np.random.default_rng(3)
    scale, addend = random.standard_normal(len(b)), random.standard_normal(dy.shape)
    y = np.empty_like(dy)
    kernels.forward(s.geometry(), x, w, b, y, scale=scale, addend=addend, rectify=True)
    plain, _, _ = reference(s, x, w, np.zeros_like(b), dy)
    expected = plain * scale[:, None, None] + b[:, None, None] + addend
    np.testing.assert_allclose(y, np.maximum(expected, 0), atol=1e-12)


#: More than one of every tile, and sizes one beside the edges of a tile.
LARGE = [
    plane(2, DEPTH + 3, 3, 4, 1, 0),
    plane(2, 40, 2 * ROWS + 1, 7, 3, 1),
    plane(3, 1, ROWS, 18, 5, 0),
    plane(2, 3, DEPTH + 5, 5, 3, 1),
    plane(2, columns_of(4) + 1, 2, 17, 1, 0),
    plane(9, 2, 3, 6, 3, 1),
    # Rows of weights a multiple of 4096 bytes apart; few positions and many outputs and taps.
    plane(2, 1024, ROWS + 1, 9, 1, 0),
    plane(1, 3 * DEPTH + 5, 70, 4, 1, 0),
    # Images whose channels lie 4096 bytes apart, and more outputs than a job takes panels.
    plane(2, 3, 5 * columns_of(4) + 3, 32, 3, 0),
    plane(2, 6 * columns_of(4) + 3, 7 * columns_of(4) + 3, 3, 1, 0),
    Setting(2, 1, 3, 6, (8, 128), (1, 1), (1, 1), (0, 0), (1, 1)),
    # Windows so tall that their data gradient is scattered, and padding from side to side.
    Setting(2, 1, 3, 4, (12, 5), (9, 3), (1, 1), (0, 1), (1, 1)),
    Setting(2, 2, 3, 4, (12, 20), (9, 3), (1, 1), (0, 2), (1, 2)),
    # A window wider than the image, which sees zeros behind it.
    Setting(2, 2, 3, 4, (3, 4), (4, 5), (2, 3), (0, 0), (1, 1)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("s", LARGE)
def test_more_than_one_tile(s: Setting, dtype: type[Any]) -> None:
    check(s, dtype)


#: Beyond a tile and a slice of taps, and with images whose channels lie 4096 bytes apart.
IN_PLACE = [
    *LARGE,
    plane(2, 11, 70, 9, 5, 2),
    plane(2, 4, 17, 32, 5, 2),
    plane(1, 3, 33, 36, 5, 0),
    Setting(3, 2, 2, 9, (16, 64), (7, 4), (2, 3), (3, 0), (1, 2)),
]


@pytest.mark.parametrize("scratch", [1, direct.SCRATCH])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("s", IN_PLACE)
def test_images_read_in_place(
    s: Setting, dtype: type[Any], scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "SCRATCH", scratch)
    check_direct(s, dtype)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(settings_of_any_kind(), st.sampled_from([np.float32, np.float64]))
def test_images_of_any_geometry_read_in_place(s: Setting, dtype: type[Any]) -> None:
    check_direct(s, dtype)


def check_direct(s: Setting, dtype: type[Any]) -> None:
    """The bits of implicit GEMM, on any number of threads, whatever follows the product."""
    x, w, b, dy = s.arrays(dtype)
    random = np.random.default_rng(3)
    scale, addend = random.standard_normal(len(b)).astype(dtype), random.standard_normal(dy.shape)
    epilogue = implicit_gemm.Epilogue(scale, b, addend.astype(dtype).reshape(-1), True)
    expected = np.empty_like(dy)
    flat_x, flat_w = x.reshape(-1), w.reshape(-1)
    implicit_gemm.multiply(s.geometry(), flat_x, flat_w, expected.reshape(-1), epilogue)
    for count in (1, None):
        y, memory = guarded(dy.shape, dtype)
        jit.workspace(1, dtype).fill(np.nan)
        with threads(count):
            direct.multiply(s.geometry(), flat_x, flat_w, y.reshape(-1), epilogue)
        np.testing.assert_array_equal(y, expected)
        assert (memory[:100] == dtype(np.pi)).all()
        assert (memory[-100:] == dtype(np.pi)).all()


def test_the_forward_product_takes_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it suits, implicit GEMM is not asked."""
    monkeypatch.delattr(implicit_gemm, "multiply")
    s = plane(1, 3, 8, 28, 5, 0)
    x, w, b, dy = s.arrays(np.float64)
    y = np.empty_like(dy)
    kernels.forward(s.geometry(), x, w, b, y)
    np.testing.assert_allclose(y, reference(s, x, w, b, dy)[0], rtol=0, atol=1e-12)


def test_which_windows_are_read_in_place() -> None:
    assert direct.suits(plane(1, 3, 8, 28, 5, 0).geometry(), 1)
    assert not direct.suits(plane(1, 3, 8, 28, 5, 0).geometry(), 0)
    assert not direct.suits(plane(1, 3, 7, 28, 5, 0).geometry(), 1)
    assert not direct.suits(plane(1, 3, 8, 28, 4, 0).geometry(), 1)
    assert not direct.suits(plane(1, 3, 8, 26, 5, 0).geometry(), 1)


@pytest.mark.parametrize("s", [plane(7, 3, 5, 6, 3, 1), plane(7, 3, 5, 6, 3, 0)])
@pytest.mark.parametrize("jobs", [1, 1000])
def test_a_batch_in_several_chunks(s: Setting, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little scratch memory sums of images are taken in parts, down to single images."""
    monkeypatch.setattr(weight_gradient, "JOBS", jobs)
    for scratch in (1, 300, 5000):
        monkeypatch.setattr(weight_gradient, "SCRATCH", scratch)
        check(s, np.float64)


@pytest.mark.parametrize("s", LARGE)
def test_threads_change_nothing(s: Setting) -> None:
    alone = run(s, np.float32)
    with threads(None):
        for found, expected in zip(run(s, np.float32), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_without_bias() -> None:
    s = plane(2, 3, 4, 5, 3, 1)
    x, w, _, dy = s.arrays(np.float64)
    y = np.empty(dy.shape)
    kernels.forward(s.geometry(), x, w, np.empty(0), y)
    expected, _, _ = reference(s, x, w, np.zeros(4), dy)
    np.testing.assert_allclose(y, expected, atol=1e-12)
