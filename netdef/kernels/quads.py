"""Short runs of numbers, eight or four at a time.

Between gathering and scattering lie runs as short as a kernel is wide: 3, 5, 8 numbers. A compiled
loop over so few spends its time on finding out how to run; these helpers copy or add eight or four
with one instruction and the rest one by one. Nothing beyond the run is read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.jit import inline

OCTET = 8
QUAD = 4


def _copy(builder: Any, like: Any, element: Any, lanes: int, target: Any, source: Any) -> None:
    kind = ir.VectorType(element, lanes).as_pointer()
    value = builder.load(builder.inttoptr(source, kind))
    value.align = like.bitwidth // 8
    builder.store(value, builder.inttoptr(target, kind)).align = like.bitwidth // 8


def _add(builder: Any, like: Any, element: Any, lanes: int, target: Any, source: Any) -> None:
    kind = ir.VectorType(element, lanes).as_pointer()
    to = builder.inttoptr(target, kind)
    value, old = builder.load(builder.inttoptr(source, kind)), builder.load(to)
    value.align = old.align = like.bitwidth // 8
    builder.store(builder.fadd(old, value), to).align = like.bitwidth // 8


def _operation(like: Any, emit: Callable[..., None], lanes: int) -> Any:
    """Signature and code of an intrinsic (like, target address, source address)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit(builder, like, context.get_value_type(like), lanes, args[1], args[2])
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def copy_octet(typingctx: Any, like: Any, target: Any, source: Any) -> Any:
    """Copy eight numbers of the type of ``like`` from one address to another."""
    return _operation(like, _copy, OCTET)


@intrinsic  # type: ignore[untyped-decorator]
def copy_quad(typingctx: Any, like: Any, target: Any, source: Any) -> Any:
    """Copy four numbers of the type of ``like`` from one address to another."""
    return _operation(like, _copy, QUAD)


@intrinsic  # type: ignore[untyped-decorator]
def add_octet(typingctx: Any, like: Any, target: Any, source: Any) -> Any:
    """Add eight numbers of the type of ``like`` at one address to those at another."""
    return _operation(like, _add, OCTET)


@intrinsic  # type: ignore[untyped-decorator]
def add_quad(typingctx: Any, like: Any, target: Any, source: Any) -> Any:
    """Add four numbers of the type of ``like`` at one address to those at another."""
    return _operation(like, _add, QUAD)


@inline
def add_run(source: Any, source_at: Any, target: Any, target_at: Any, count: Any) -> None:
    """target[target_at + i] += source[source_at + i] for i < ``count``"""
    like = source.dtype.type(0)
    size = source.itemsize
    a = source.ctypes.data + source_at * size
    b = target.ctypes.data + target_at * size
    i = 0
    while i + OCTET <= count:
        add_octet(like, b + i * size, a + i * size)
        i += OCTET
    if i + QUAD <= count:
        add_quad(like, b + i * size, a + i * size)
        i += QUAD
    while i < count:
        target[target_at + i] += source[source_at + i]
        i += 1
