"""exp, log, tanh and their kin, written so that a loop over them compiles to vector code.

The C library's functions are called value by value, at 2 to 10 ns each. These are straight code
without calls, branches or tables: about 0.5 ns each with AVX-512.

A float32 is computed in float64, by a series whose relative error is far below the spacing of
float32, and rounded once at the end. So the result is the float32 nearest to the true value, except
where that lies so close to the middle between two of them that the error decides, a few times in a
million values: then the result is the other of the two. (``power`` says what it does.) Infinities,
NaN and subnormal numbers are those of mathematics, the sign of 0 included.

A float64 goes to the C library: it serves to check gradients, where speed is no matter.

Source: the reductions of Muller, "Elementary Functions", 3rd edition, 2016, chapter 11; the series
are those of Taylor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.jit import inline
from netdef.kernels.fma import fma

_LOG2_E = 1 / math.log(2)
_LN_2 = math.log(2)

#: Added to a float64 this leaves it rounded to an integer, whose bits are the lowest of the sum.
_ROUNDS = 1.5 * 2.0**52
_ROUNDS_BITS = np.int64(0x4338000000000000)

_MANTISSA_BITS = np.int64(52)
_ONE_BITS = np.int64(0x3FF0000000000000)
_SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_EXPONENT = np.int64(-1) << _MANTISSA_BITS

#: Further from 0, both e^x and its reciprocal are 0 or infinite in float32; float64 has room.
_FAR = 104.0


@intrinsic  # type: ignore[untyped-decorator]
def is_double(typingctx: Any, x: Any) -> Any:
    """Whether a number is a float64: a constant in compiled code."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(x.bitwidth == 64))

    return types.boolean(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _bits(typingctx: Any, x: Any) -> Any:
    """The bits of a float64, as an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _of_bits(typingctx: Any, bits: Any) -> Any:
    """The float64 that these bits stand for."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


# -- in float64, precise enough for float32 --------------------------------------------------------


@inline
def _scale_and_rest(x: Any) -> Any:
    """(2^n, e^r - 1) where x = n ln 2 + r with |r| at most ln 2 / 2; -700 < x < 700

    The series ends with r^10, so that the error is below 2.3e-13 e^r.
    """
    shifted = fma(x, _LOG2_E, _ROUNDS)
    r = fma(shifted - _ROUNDS, -_LN_2, x)
    scale = _of_bits((_bits(shifted) << _MANTISSA_BITS) + _ONE_BITS)
    q = fma(r, 1 / 3628800, 1 / 362880)
    q = fma(r, q, 1 / 40320)
    q = fma(r, q, 1 / 5040)
    q = fma(r, q, 1 / 720)
    q = fma(r, q, 1 / 120)
    q = fma(r, q, 1 / 24)
    q = fma(r, q, 1 / 6)
    q = fma(r, q, 1 / 2)
    return scale, fma(r * r, q, r)


@inline
def _bounded(x: Any) -> Any:
    # A NaN is neither below nor above: it stays.
    x = -_FAR if x < -_FAR else x
    return _FAR if x > _FAR else x


@inline
def _exp(x: Any) -> Any:
    scale, rest = _scale_and_rest(_bounded(x))
    return fma(scale, rest, scale)


@inline
def _expm1(x: Any) -> Any:
    scale, rest = _scale_and_rest(_bounded(x))
    return fma(scale, rest, scale - 1)


@inline
def _twice_atanh(s: Any) -> Any:
    """log((1 + s) / (1 - s)) for |s| up to 0.172; terms left out are below 1e-14 of it."""
    t = s * s
    q = fma(t, 2 / 17, 2 / 15)
    q = fma(t, q, 2 / 13)
    q = fma(t, q, 2 / 11)
    q = fma(t, q, 2 / 9)
    q = fma(t, q, 2 / 7)
    q = fma(t, q, 2 / 5)
    q = fma(t, q, 2 / 3)
    return fma(s * t, q, 2 * s)


@inline
def _log(x: Any) -> Any:
    """log(x) for 0 < x < inf, x not subnormal in float64"""
    bits = _bits(x)
    # x = 2^n m with m from sqrt(1/2) to sqrt(2).
    above = bits - _SQRT_HALF_BITS
    m = _of_bits(bits - (above & _EXPONENT))
    n = _of_bits((above >> _MANTISSA_BITS) + _ROUNDS_BITS) - _ROUNDS
    return fma(n, _LN_2, _twice_atanh((m - 1) / (m + 1)))


@inline
def _log1p_of_unit(e: Any) -> Any:
    """log(1 + e) for 0 <= e <= 1, precise where e is small"""
    half = e > 0.4142135623730951
    # log(1 + e) is 2 atanh(e / (2 + e)), or log 2 more than that of (1 + e) / 2.
    s = (e - 1) / (e + 3) if half else e / (e + 2)
    return _twice_atanh(s) + (_LN_2 if half else 0.0)


# -- what kernels call -----------------------------------------------------------------------------


@inline
def exp(x: Any) -> Any:
    """e^x"""
    if is_double(x):
        return np.exp(x)
    return type(x)(_exp(np.float64(x)))


@inline
def expm1(x: Any) -> Any:
    """e^x - 1, precise where that is small"""
    if is_double(x):
        return np.expm1(x)
    return type(x)(math.copysign(_expm1(np.float64(x)), np.float64(x)))


@inline
def log(x: Any) -> Any:
    """The natural logarithm: -inf of 0, NaN of what is below."""
    if is_double(x):
        return np.log(x)
    wide = np.float64(x)
    beyond = wide if wide > 0 else (-np.inf if wide == 0 else np.nan)
    return type(x)(_log(wide) if wide > 0 and wide < np.inf else beyond)


@inline
def softplus(x: Any) -> Any:
    """log(1 + e^x), which never overflows"""
    if is_double(x):
        return max(x, 0.0) + np.log1p(np.exp(-abs(x)))
    wide = np.float64(x)
    tail = _log1p_of_unit(_exp(-abs(wide)))
    return type(x)(tail + wide if wide > 0 else tail)


@inline
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)"""
    if is_double(x):
        return 1 / (1 + np.exp(-x))
    return type(x)(1 / (1 + _exp(-np.float64(x))))


@inline
def tanh(x: Any) -> Any:
    """The hyperbolic tangent"""
    if is_double(x):
        return np.tanh(x)
    wide = np.float64(x)
    # With E = e^2|x| - 1 it is E / (E + 2): nothing cancels, and nothing overflows.
    e = _expm1(2 * abs(wide))
    return type(x)(math.copysign(e / (e + 2), wide))


@inline
def power(x: Any, exponent: Any) -> Any:
    """x^exponent, which is finite, as e^(exponent log x)

    The error grows with the logarithm of the result, up to 2e-13 times 100 of it: so one result in
    some ten thousand is not the nearest float32 but its neighbour.
    """
    if is_double(x):
        return x**exponent
    base, p = np.float64(x), np.float64(exponent)
    size = abs(base)
    finite = size > 0 and size < np.inf
    # 0 and infinity to a power are one of the two again, and a NaN stays.
    grows = (size > 0) == (p > 0)
    beyond = size if size != size else (np.inf if grows else 0.0)
    value = _exp(p * _log(size if finite else 1.0)) if finite else beyond
    value = 1.0 if p == 0 else value
    whole = p == np.floor(p)
    odd = whole and p * 0.5 != np.floor(p * 0.5)
    value = math.copysign(value, base) if odd else value
    return type(x)(value if whole or not base < 0 or size == np.inf else np.nan)
