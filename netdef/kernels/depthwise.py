"""Depthwise convolution: every group has one channel, and few outputs.

There is nothing to share between outputs, so a matrix product would spend its time on gathering.
Here each line of an output is summed where it lies, one tap of the window after the other::

    y[m, line, :] += w[m, tap] x[m, source[line, place] + shift[tap] + stride o]

with neighbours of a line in the lanes of vectors. The line stays in the first-level cache
meanwhile. A weight's gradient is a sum over all lines, lane by lane, image after image.

Source: Sifre, "Rigid-motion scattering for image classification", 2014; Howard et al.,
"MobileNets", 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels import lanes
from netdef.kernels.geometry import Geometry
from netdef.kernels.lanes import LANES

#: With more outputs per channel, gathering is shared by enough of them.
MOST_OUTPUTS = 2


def suits(g: Geometry) -> bool:
    """Whether this is how a convolution is computed fastest."""
    e = g.extents
    return e.groups > 1 and e.channels == 1 and e.outputs <= MOST_OUTPUTS


def multiply(g: Geometry, x: Array, weight: Array, y: Array, epilogue: Any) -> None:
    """y = the convolution of x with weight; all arrays are flat."""
    if y.size:
        _multiply(g.extents, g.source, g.taps, x, weight, y, epilogue)


def multiply_back(g: Geometry, weight: Array, dy: Array, dx: Array) -> None:
    """dx = the data gradient, from weights and the output gradient dy; all arrays are flat."""
    if dx.size:
        _multiply_back(g.extents, g.source, g.taps, weight, dy, dx)


def add_weights(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient, from images x and the output gradient dy; all arrays are flat."""
    if dy.size:
        _add_weights(g.extents, g.source, g.taps, x, dy, dweight)


# Offsets are unsigned where vectors run along them: a signed index may count from the back.


@kernel
def _multiply(e: Any, source: Any, taps: Any, x: Any, weight: Any, y: Any, epilogue: Any) -> None:
    zero = y.dtype.type(0)
    for plane in prange(y.size // e.positions):
        m = plane % (e.groups * e.outputs)
        image = plane // e.outputs * e.plane
        offset = epilogue.bias[m] if epilogue.bias.size > 0 else zero
        factor = epilogue.scale[m] if epilogue.scale.size > 0 else y.dtype.type(1)
        for line in range(source.shape[0]):
            at = plane * e.positions + line * e.width
            for o in range(e.width):
                y[np.uint64(at + o)] = zero
            for w in range(e.window):
                outer = w // e.reach
                tap = w - outer * e.reach
                begin = source[line, outer]
                if begin < 0:
                    continue
                value = weight[m * e.window + w]
                first = image + begin + taps[0, tap]
                low, high = taps[1, tap], taps[2, tap]
                if e.stride == 1:
                    for o in range(low, high):
                        y[np.uint64(at + o)] += value * x[np.uint64(first + o)]
                else:
                    for o in range(low, high):
                        y[np.uint64(at + o)] += value * x[np.uint64(first + o * e.stride)]
            if epilogue.addend.size > 0:
                for o in range(e.width):
                    i = np.uint64(at + o)
                    y[i] = y[i] * factor + offset + epilogue.addend[i]
            else:
                for o in range(e.width):
                    i = np.uint64(at + o)
                    y[i] = y[i] * factor + offset
            if epilogue.rectify:
                for o in range(e.width):
                    i = np.uint64(at + o)
                    # A NaN stays one.
                    y[i] = zero if y[i] < zero else y[i]


@kernel
def _multiply_back(e: Any, source: Any, taps: Any, weight: Any, dy: Any, dx: Any) -> None:
    zero = dx.dtype.type(0)
    for plane in prange(dx.size // e.plane):
        for i in range(plane * e.plane, (plane + 1) * e.plane):
            dx[np.uint64(i)] = zero
        for output in range(e.outputs):
            own = plane * e.outputs + output
            m = own % (e.groups * e.outputs)
            for line in range(source.shape[0]):
                at = own * e.positions + line * e.width
                for w in range(e.window):
                    outer = w // e.reach
                    tap = w - outer * e.reach
                    begin = source[line, outer]
                    if begin < 0:
                        continue
                    value = weight[m * e.window + w]
                    first = plane * e.plane + begin + taps[0, tap]
                    low, high = taps[1, tap], taps[2, tap]
                    if e.stride == 1:
                        for o in range(low, high):
                            dx[np.uint64(first + o)] += value * dy[np.uint64(at + o)]
                    else:
                        for o in range(low, high):
                            dx[np.uint64(first + o * e.stride)] += value * dy[np.uint64(at + o)]


@kernel
def _add_weights(e: Any, source: Any, taps: Any, x: Any, dy: Any, dweight: Any) -> None:
    zero = x.dtype.type(0)
    outputs = e.groups * e.outputs
    for job in prange(dweight.size):
        m = job // e.window
        w = job - m * e.window
        outer = w // e.reach
        tap = w - outer * e.reach
        low, high = taps[1, tap], taps[2, tap]
        for n in range(dy.size // (outputs * e.positions)):
            total = lanes.fill(zero)
            own = n * outputs + m
            for line in range(source.shape[0]):
                begin = source[line, outer]
                if begin < 0:
                    continue
                at = own * e.positions + line * e.width
                first = own // e.outputs * e.plane + begin + taps[0, tap]
                for o in range(low, high, LANES):
                    slope = lanes.load_part(dy, at + o, at, at + high, zero)
                    end = first + (high - 1) * e.stride + 1
                    if e.stride == 1:
                        value = lanes.load_part(x, first + o, first, end, zero)
                    else:
                        value = lanes.load_apart(
                            x, first + o * e.stride, e.stride, first, end, zero
                        )
                    total = lanes.fma(slope, value, total)
            dweight[job] += lanes.total(total)
