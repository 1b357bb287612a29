"""Counter-based random numbers: a value is a function of (key, iteration, index) alone.

So dropout, mirroring and fillers do not depend on threads, on other layers, or on where a run was
resumed. The generator is Philox4x32-10: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC 2011. A ``key`` names a stream: it is made from the seed of the run and the
name of whoever draws.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import numpy as np

from netdef.jit import inline, kernel, prange

_MULTIPLY_0 = np.uint64(0xD2511F53)
_MULTIPLY_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_4 = np.uint64(4)
_3 = np.uint64(3)
_TO_UNIT = 1.0 / 4294967296.0  # 2 ** -32


def fresh_seed() -> int:
    """A seed drawn from the operating system, in [0, 2**31)."""
    return secrets.randbits(31)


def key(seed: int, name: str) -> Any:
    """The key of the stream called ``name`` in the run with this ``seed``."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


@inline
def philox(key: Any, iteration: Any, block: Any) -> Any:
    """Four independent 32-bit words, each held in a uint64."""
    k0 = key & _LOW
    k1 = key >> _32
    c0 = block & _LOW
    c1 = block >> _32
    c2 = iteration & _LOW
    c3 = iteration >> _32
    for _ in range(10):
        product0 = _MULTIPLY_0 * c0
        product1 = _MULTIPLY_1 * c2
        c0 = (product1 >> _32) ^ c1 ^ k0
        c1 = product1 & _LOW
        c2 = (product0 >> _32) ^ c3 ^ k1
        c3 = product0 & _LOW
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


@inline
def bits(key: Any, iteration: Any, index: Any) -> Any:
    """One 32-bit word: number ``index`` at ``iteration``. All arguments are uint64."""
    w0, w1, w2, w3 = philox(key, iteration, index // _4)
    which = index & _3
    word = w0
    if which == 1:
        word = w1
    elif which == 2:
        word = w2
    elif which == 3:
        word = w3
    return np.uint32(word)


@inline
def below(key: Any, iteration: Any, block: Any, count: Any) -> Any:
    """An integer in [0, count), count up to 2**32, from 64 of the bits that ``philox`` gives."""
    high, low, _, _ = philox(key, iteration, block)
    return (high * count + ((low * count) >> _32)) >> _32


@kernel
def uniform(key: Any, iteration: Any, out: Any) -> None:
    """Fill the flat array ``out`` with numbers in [0, 1), multiples of 2**-32 before rounding."""
    for block in prange((out.size + 3) // 4):
        w0, w1, w2, w3 = philox(key, iteration, np.uint64(block))
        first = block * 4
        out[first] = w0 * _TO_UNIT
        if first + 1 < out.size:
            out[first + 1] = w1 * _TO_UNIT
        if first + 2 < out.size:
            out[first + 2] = w2 * _TO_UNIT
        if first + 3 < out.size:
            out[first + 3] = w3 * _TO_UNIT


@kernel
def gaussian(key: Any, iteration: Any, out: Any) -> None:
    """Fill the flat array ``out`` with standard normal numbers (Box & Muller 1958)."""
    for block in prange((out.size + 3) // 4):
        w0, w1, w2, w3 = philox(key, iteration, np.uint64(block))
        first = block * 4
        # The logarithm needs (0, 1], so its argument is shifted by one step.
        radius = np.sqrt(-2.0 * np.log((w0 + 1.0) * _TO_UNIT))
        angle = 2.0 * np.pi * (w1 * _TO_UNIT)
        out[first] = radius * np.cos(angle)
        if first + 1 < out.size:
            out[first + 1] = radius * np.sin(angle)
        radius = np.sqrt(-2.0 * np.log((w2 + 1.0) * _TO_UNIT))
        angle = 2.0 * np.pi * (w3 * _TO_UNIT)
        if first + 2 < out.size:
            out[first + 2] = radius * np.cos(angle)
        if first + 3 < out.size:
            out[first + 3] = radius * np.sin(angle)


@kernel
def keep_mask(key: Any, iteration: Any, threshold: Any, scale: Any, out: Any) -> None:
    """Fill the flat array ``out`` with ``scale`` where a 32-bit word is >= ``threshold``, else 0.

    A fraction ``threshold / 2**32`` is dropped.
    """
    zero = scale - scale
    for block in prange((out.size + 3) // 4):
        w0, w1, w2, w3 = philox(key, iteration, np.uint64(block))
        first = block * 4
        out[first] = scale if w0 >= threshold else zero
        if first + 1 < out.size:
            out[first + 1] = scale if w1 >= threshold else zero
        if first + 2 < out.size:
            out[first + 2] = scale if w2 >= threshold else zero
        if first + 3 < out.size:
            out[first + 3] = scale if w3 >= threshold else zero
