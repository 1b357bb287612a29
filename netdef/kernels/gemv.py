"""Matrix times vector: what an InnerProduct layer computes for a single image.

Every weight is used once, so the product runs as fast as weights come from memory; the micro-kernel
of matrix products would leave most of its lanes idle. Here a few rows are multiplied at once, with
neighbours of a row in the lanes of a vector::

    ROWS rows of a  [....|....|....]    one vector of each row per step
    x               [....|....|....]    times the same vector of x, added to the row's own lanes

At the end the lanes of each row are added up, halves first. So a sum has an order of its own, which
depends on nothing but its length and the width of the machine's vectors.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.vectors import Vectors

#: Rows at once: as many sums as cover the latency of an addition, and as many streams as the
#: machine prefetches.
ROWS = 8


def gemv(a: Array, x: Array, y: Array) -> None:
    """y = a x; a is [m, k], C-contiguous, x [k], y [m], all of one float type."""
    m, k = a.shape
    if x.shape != (k,) or y.shape != (m,):
        raise ValueError(f"cannot multiply {a.shape} by {x.shape} into {y.shape}")
    if k == 0:
        y.fill(0)
    elif m:
        _gemv(a.reshape(-1), x, y)


@kernel
def _gemv(a: Any, x: Any, y: Any) -> None:
    like = x.dtype.type(0)
    size = x.itemsize
    for block in prange((y.size + ROWS - 1) // ROWS):
        first = block * ROWS
        dot_rows(
            like,
            a.ctypes.data + first * x.size * size,
            x.ctypes.data,
            x.size,
            y.ctypes.data + first * size,
            y.size - first,
        )


@intrinsic  # type: ignore[untyped-decorator]
def dot_rows(typingctx: Any, like: Any, a: Any, x: Any, k: Any, y: Any, rows: Any) -> Any:
    """y[i] = the sum of a[i, j] x[j], for ROWS rows or as many as there are, at least one.

    ``a``, ``x`` and ``y`` are addresses of [rows, k], [k] and [rows], each without gaps.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        _, a, x, k, y, rows = args
        i64 = ir.IntType(64)

        def number(n: int) -> Any:
            return ir.Constant(i64, n)

        left, right, out = (vectors.pointer(builder, address) for address in (a, x, y))
        last = builder.sub(rows, number(1))
        # Where there are fewer rows, the last one is computed again, and not written again.
        lines = []
        for i in range(ROWS):
            exists = builder.icmp_signed("<", number(i), last)
            row = builder.select(exists, number(i), last)
            lines.append(builder.gep(left, [builder.mul(row, k)]))
        whole = builder.and_(k, number(-vectors.lanes))
        before = builder.block
        loop = builder.append_basic_block("row")
        done = builder.append_basic_block("row.done")
        builder.cbranch(builder.icmp_signed(">", whole, number(0)), loop, done)

        builder.position_at_end(loop)
        at = builder.phi(i64)
        at.add_incoming(number(0), before)
        sums = [builder.phi(vectors.type) for _ in range(ROWS)]
        factor = vectors.load(builder, builder.gep(right, [at]))
        new = []
        for line, total in zip(lines, sums, strict=True):
            total.add_incoming(vectors.zero, before)
            value = vectors.load(builder, builder.gep(line, [at]))
            new.append(vectors.fma(builder, value, factor, total))
            total.add_incoming(new[-1], loop)
        following = builder.add(at, number(vectors.lanes))
        at.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, whole), loop, done)

        builder.position_at_end(done)
        totals = [builder.phi(vectors.type) for _ in range(ROWS)]
        for total, value in zip(totals, new, strict=True):
            total.add_incoming(vectors.zero, before)
            total.add_incoming(value, loop)
        mask = vectors.mask(builder, number(0), builder.sub(k, whole))
        factor = vectors.load(builder, builder.gep(right, [whole]), mask)
        for i, (line, total) in enumerate(zip(lines, totals, strict=True)):
            value = vectors.load(builder, builder.gep(line, [whole]), mask)
            result = _lane_sum(builder, vectors, vectors.fma(builder, value, factor, total))
            with builder.if_then(builder.icmp_signed("<", number(i), rows)):
                builder.store(result, builder.gep(out, [number(i)]))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), codegen


def _lane_sum(builder: Any, vectors: Vectors, value: Any) -> Any:
    """The sum of all lanes: the upper half is added to the lower one until one is left."""
    count = vectors.lanes // 2
    while count:
        order = [*range(count, 2 * count), *[0] * (vectors.lanes - count)]
        value = builder.fadd(value, vectors.shuffle(builder, value, value, order))
        count //= 2
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
