"""Arithmetic on flat arrays that several rooms share."""

from __future__ import annotations

from typing import Any

from netdef.jit import kernel, prange


@kernel
def add(x: Any, y: Any) -> None:
    """y += x"""
    for i in prange(y.size):
        y[i] += x[i]


@kernel
def scale_into(x: Any, factor: Any, y: Any) -> None:
    """y = factor * x"""
    for i in prange(y.size):
        y[i] = factor * x[i]


@kernel
def multiply(x: Any, y: Any, z: Any) -> None:
    """z = x * y"""
    for i in prange(z.size):
        z[i] = x[i] * y[i]
