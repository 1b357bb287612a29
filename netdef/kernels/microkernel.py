"""The SIMD micro-kernel: every matrix product in netdef ends here.

It computes one register tile of a product of packed panels::

                      columns(like)
                   +----------------+
             k  |  |  panel of b    |   one vector load per row and vector
                   +----------------+
        k
     +-----+       +----------------+
     | a^T | ROWS  |   tile of c    |   ROWS x VECTORS accumulators, held in registers
     +-----+       +----------------+

Each step over k loads ``VECTORS`` vectors of b, broadcasts ``ROWS`` numbers of a, and issues
``ROWS * VECTORS`` fused multiply-adds. With enough accumulators to cover the latency of an FMA, the
loop runs at the machine's peak: Goto & van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008; Van Zee & van de Geijn, "BLIS", 2015. LLVM's loop vectoriser does not find
this tile, so it is emitted as LLVM IR. Vector width and tile follow the host; the same IR is legal
anywhere.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_features = llvm.get_host_cpu_features()


def _host(feature: str) -> bool:
    return bool(_features.get(feature, False))


if _host("avx512f"):
    VECTOR_BYTES, ROWS = 64, 12  # 24 of 32 registers accumulate
elif _host("avx2") or _host("avx"):
    VECTOR_BYTES, ROWS = 32, 6  # 12 of 16
else:
    VECTOR_BYTES, ROWS = 16, 12  # NEON: 24 of 32; SSE spills a little

#: Vectors of c in a row of the tile.
VECTORS = 2

#: Depth of a packed panel: a panel of b then fits the first-level cache, one of a the second.
DEPTH = 256


def columns_of(itemsize: int) -> int:
    """Width of the tile for elements of ``itemsize`` bytes."""
    return VECTORS * VECTOR_BYTES // itemsize


def _lanes(element: Any) -> int:
    lanes: int = VECTOR_BYTES // (element.bitwidth // 8)
    return lanes


@intrinsic  # type: ignore[untyped-decorator]
def columns(typingctx: Any, like: Any) -> Any:
    """Width of the tile for elements of the type of ``like``: a constant in compiled code."""
    width = VECTORS * _lanes(like)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.IntType(64), width)

    return types.int64(like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def multiply_tile(
    typingctx: Any, like: Any, k: Any, a: Any, b: Any, c: Any, stride: Any, accumulate: Any
) -> Any:
    """c = a^T b, or c += a^T b where ``accumulate`` is not 0, for one tile.

    ``a`` is the address of a packed [k, ROWS] panel, ``b`` of a [k, columns] panel, ``c`` of the
    tile, whose rows are ``stride`` elements apart. ``like`` is any scalar of the element type. k >=
    1.
    """
    signature = types.void(like, *[types.int64] * 6)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, k, a, b, c, stride, accumulate = args
        lanes = _lanes(signature.args[0])
        element = context.get_value_type(signature.args[0])
        vector = ir.VectorType(element, lanes)
        i64, i32 = ir.IntType(64), ir.IntType(32)
        alignment = signature.args[0].bitwidth // 8
        kind = "f32" if alignment == 4 else "f64"
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}{kind}"
        )

        def number(n: int) -> Any:
            return ir.Constant(i64, n)

        def load(pointer: Any) -> Any:
            value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
            value.align = alignment
            return value

        def broadcast(scalar: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(i32, 0))
            zeros = ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)
            return builder.shuffle_vector(first, undefined, zeros)

        before = builder.block
        loop = builder.function.append_basic_block("depth")
        done = builder.function.append_basic_block("depth.done")
        a0, b0, c0 = (builder.inttoptr(p, element.as_pointer()) for p in (a, b, c))
        builder.branch(loop)

        builder.position_at_end(loop)
        zero = ir.Constant(vector, [0.0] * lanes)
        step, pa, pb = (builder.phi(t) for t in (i64, a0.type, b0.type))
        step.add_incoming(number(0), before)
        pa.add_incoming(a0, before)
        pb.add_incoming(b0, before)
        sums = [[builder.phi(vector) for _ in range(VECTORS)] for _ in range(ROWS)]
        for row in sums:
            for phi in row:
                phi.add_incoming(zero, before)
        wide = [load(builder.gep(pb, [number(j * lanes)])) for j in range(VECTORS)]
        new = []
        for i in range(ROWS):
            factor = broadcast(builder.load(builder.gep(pa, [number(i)])))
            new.append([builder.call(fma, [factor, wide[j], sums[i][j]]) for j in range(VECTORS)])
        following = builder.add(step, number(1))
        step.add_incoming(following, loop)
        pa.add_incoming(builder.gep(pa, [number(ROWS)]), loop)
        pb.add_incoming(builder.gep(pb, [number(VECTORS * lanes)]), loop)
        for i in range(ROWS):
            for j in range(VECTORS):
                sums[i][j].add_incoming(new[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", following, k), loop, done)

        builder.position_at_end(done)
        adds = builder.icmp_signed("!=", accumulate, number(0))
        with builder.if_else(adds) as (then, otherwise):
            for branch, adding in ((then, True), (otherwise, False)):
                with branch:
                    for i in range(ROWS):
                        row = builder.gep(c0, [builder.mul(stride, number(i))])
                        for j in range(VECTORS):
                            pointer = builder.gep(row, [number(j * lanes)])
                            value = new[i][j]
                            if adding:
                                value = builder.fadd(load(pointer), value)
                            stored = builder.store(
                                value, builder.bitcast(pointer, vector.as_pointer())
                            )
                            stored.align = alignment
        return context.get_dummy_value()

    return signature, codegen
