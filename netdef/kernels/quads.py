"""Short runs of numbers, four at a time.

Between gathering and scattering lie runs as short as a kernel is wide: 3, 5, 8 numbers. A compiled
loop over so few spends its time on finding out how to run; these helpers copy or add four with one
instruction and the rest one by one. Nothing beyond the run is read or written.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.jit import inline

QUAD = 4


def _pointers(context: Any, builder: Any, signature: Any, args: Any) -> tuple[Any, Any, int]:
    element = context.get_value_type(signature.args[0])
    kind = ir.VectorType(element, QUAD).as_pointer()
    return (
        builder.inttoptr(args[1], kind),
        builder.inttoptr(args[2], kind),
        signature.args[0].bitwidth // 8,
    )


@intrinsic  # type: ignore[untyped-decorator]
def copy_quad(typingctx: Any, like: Any, target: Any, source: Any) -> Any:
    """Copy four numbers of the type of ``like`` from one address to another."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source, size = _pointers(context, builder, signature, args)
        value = builder.load(source)
        value.align = size
        builder.store(value, to).align = size
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_quad(typingctx: Any, like: Any, target: Any, source: Any) -> Any:
    """Add four numbers of the type of ``like`` at one address to those at another."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source, size = _pointers(context, builder, signature, args)
        value, old = builder.load(source), builder.load(to)
        value.align = old.align = size
        builder.store(builder.fadd(old, value), to).align = size
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), codegen


@inline
def add_run(source: Any, source_at: Any, target: Any, target_at: Any, count: Any) -> None:
    """target[target_at + i] += source[source_at + i] for i < ``count``"""
    like = source.dtype.type(0)
    size = source.itemsize
    a = source.ctypes.data + source_at * size
    b = target.ctypes.data + target_at * size
    whole = count - count % QUAD
    for i in range(0, whole, QUAD):
        add_quad(like, b + i * size, a + i * size)
    for i in range(whole, count):
        target[target_at + i] += source[source_at + i]
