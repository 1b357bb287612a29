"""The SIMD micro-kernel: every matrix product in netdef ends here.

It computes one register tile of a product::

                      columns(like)
                   +----------------+
             k  |  |       b        |   one vector load per row and vector
                   +----------------+
        k
     +-----+       +----------------+
     |  a  | ROWS  |   tile of c    |   ROWS x VECTORS accumulators, held in registers
     +-----+       +----------------+

Each step over k loads ``VECTORS`` vectors of b, broadcasts ``ROWS`` numbers of a, and issues
``ROWS * VECTORS`` fused multiply-adds. With enough accumulators to cover the latency of an FMA, the
loop runs at the machine's peak: Goto & van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008; Van Zee & van de Geijn, "BLIS", 2015. LLVM's loop vectoriser does not find
this tile, so it is emitted as LLVM IR. Vector width and tile follow the host; the same IR is legal
anywhere.

BLIS packs both factors. Here only b has to stand in vectors: numbers of a are broadcast, which
costs the same from any address, so a is read where it is, through the distances between its rows
and between its columns, or through tables of these. Weights are therefore never copied, and images
need not be unrolled where their columns are the left factor.

Fewer rows or columns take smaller tiles, and masks where those do not end with c, so nothing beyond
the edges of c is read or written.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.kernels.vectors import VECTOR_BYTES, Vectors, own_function

_features = llvm.get_host_cpu_features()

#: Rows of the whole tile. 12 x 2 accumulators leave 8 of 32 registers to the factors; where there
#: are 16 registers (AVX2), 6 x 2 leave 4.
ROWS = 12 if _features.get("avx512f") or not _features.get("avx") else 6

#: Vectors of c in a row of the tile.
VECTORS = 2

#: Steps over k that one tile takes: so many rows of b fit the first-level cache, a group of such
#: panels the second. Sums over more are taken slice by slice, in order.
DEPTH = 256

#: Bytes after which addresses fall on the same few lines of the first-level cache: what is read
#: side by side and would lie a multiple of WAY apart is put APART elements further on.
WAY, APART = 4096, 16


def columns_of(itemsize: int) -> int:
    """Width of the tile for elements of ``itemsize`` bytes."""
    return VECTORS * VECTOR_BYTES // itemsize


@intrinsic  # type: ignore[untyped-decorator]
def columns(typingctx: Any, like: Any) -> Any:
    """Width of the tile for elements of the type of ``like``: a constant in compiled code."""
    width = columns_of(like.bitwidth // 8)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.IntType(64), width)

    return types.int64(like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def multiply_tile(
    typingctx: Any,
    like: Any,
    k: Any,
    a: Any,
    a_row: Any,
    a_column: Any,
    b: Any,
    b_row: Any,
    c: Any,
    c_row: Any,
    rows: Any,
    lanes: Any,
    accumulate: Any,
) -> Any:
    """c = a b, or c += a b where ``accumulate`` is not 0, for one tile of c.

    ``a``, ``b`` and ``c`` are the addresses of [rows, k], [k, columns(like)] and [rows, lanes];
    ``a_row`` and ``a_column`` are the distances, in elements, between the rows and between the
    columns of a, ``b_row`` and ``c_row`` those between the rows of b and c, whose columns are
    neighbours. All ``columns(like)`` of b are read, whatever ``lanes``. ``like`` is any scalar of
    the element type. k >= 1, 1 <= rows <= ROWS, 1 <= lanes <= columns(like).
    """
    return _intrinsic(like, 11, "")


@intrinsic  # type: ignore[untyped-decorator]
def multiply_tile_apart(
    typingctx: Any,
    like: Any,
    k: Any,
    a: Any,
    a_rows: Any,
    a_columns: Any,
    b: Any,
    b_row: Any,
    c: Any,
    c_row: Any,
    rows: Any,
    lanes: Any,
    accumulate: Any,
) -> Any:
    """``multiply_tile`` for a left factor whose rows and columns lie anywhere.

    ``a_rows`` and ``a_columns`` are the addresses of two tables, int64 [rows] and [k]: row i of
    column j is the element behind ``a`` by the sum of their entries.
    """
    return _intrinsic(like, 11, _APART)


@intrinsic  # type: ignore[untyped-decorator]
def multiply_tile_ahead(
    typingctx: Any,
    like: Any,
    k: Any,
    a: Any,
    a_row: Any,
    a_column: Any,
    b: Any,
    b_row: Any,
    c: Any,
    c_row: Any,
    rows: Any,
    lanes: Any,
    accumulate: Any,
    ahead: Any,
    ahead_row: Any,
) -> Any:
    """``multiply_tile``, which meanwhile brings what is wanted next into the cache.

    Each step of a whole tile over k asks for the cache line of one address, the first ``ahead``,
    each following one ``ahead_row`` elements on. Where there is no memory, nothing happens.
    """
    return _intrinsic(like, 13, _AHEAD)


_I64 = ir.IntType(64)
_TABLE = _I64.as_pointer()

#: Kinds of tile: the left factor in tables; and one that asks for what is wanted next.
_APART, _AHEAD = ".apart", ".ahead"


def _number(n: int) -> Any:
    return ir.Constant(_I64, n)


def _intrinsic(like: Any, arguments: int, kind: str) -> Any:
    """Signature and code of an intrinsic (like, so many integers) that calls the whole tile."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        builder.call(_whole(builder.module, vectors, kind), args[1:])
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * arguments), codegen


def _whole(module: Any, vectors: Vectors, kind: str) -> Any:
    """The function (k, a, a_row, a_column, b, b_row, c, c_row, rows, lanes, accumulate); where it
    is ``_APART`` a_row and a_column are tables, where ``_AHEAD`` (ahead, ahead_row) follow.
    """
    name = f"netdef.multiply_tile{kind}.{vectors.name}"
    function, fresh = own_function(module, name, [_I64] * (13 if kind == _AHEAD else 11))
    if not fresh:
        return function
    k, a, a_row, a_column, b, b_row, c, c_row, rows, lanes, accumulate, *ahead = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def part(count: int, across: int, done: Any) -> None:
        """Call for the tile of ``count`` rows and ``across`` vectors behind ``done`` rows."""
        skipped = builder.mul(done, _number(vectors.size))
        first_a, first_row = a, a_row
        if kind == _APART:
            first_row = builder.add(a_row, builder.mul(done, _number(8)))
        else:
            first_a = builder.add(a, builder.mul(skipped, a_row))
        first_c = builder.add(c, builder.mul(skipped, c_row))
        given = [k, first_a, first_row, a_column, b, b_row, first_c, c_row, lanes, accumulate]
        # At the edges of c it is not worth to look ahead.
        whole = (count, across) == (ROWS, VECTORS)
        if kind == _AHEAD and not whole:
            builder.call(_tile(module, vectors, count, across, ""), given)
        else:
            builder.call(_tile(module, vectors, count, across, kind), [*given, *ahead])

    narrow = builder.icmp_signed("<=", lanes, _number(vectors.lanes))
    with builder.if_else(narrow) as branches:
        for branch, across in zip(branches, (1, VECTORS), strict=True):
            with branch:
                with builder.if_then(builder.icmp_signed("==", rows, _number(ROWS)), likely=True):
                    part(ROWS, across, _number(0))
                    builder.ret_void()
                # What remains is the sum of some of 8, 4, 2 and 1, the larger ones first.
                for count in (8, 4, 2, 1):
                    if count < ROWS:
                        bit = builder.and_(rows, _number(count))
                        with builder.if_then(builder.icmp_signed("!=", bit, _number(0))):
                            part(count, across, builder.and_(rows, _number(-2 * count)))
    builder.ret_void()
    return function


def _as_it_is(module: Any) -> Any:
    """What keeps a loop from being unrolled: two steps with tables want more registers than are."""
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([disable])
    loop.operands = (loop, disable)  # a loop is known by a node that begins with itself
    return loop


def _tile(module: Any, vectors: Vectors, rows: int, across: int, kind: str) -> Any:
    """The function of one size: its arguments are those of the whole, without ``rows``."""
    name = f"netdef.multiply_tile{kind}.{vectors.name}.{rows}x{across}"
    function, fresh = own_function(module, name, [_I64] * (12 if kind == _AHEAD else 10))
    if not fresh:
        return function
    k, a, a_row, a_column, b, b_row, c, c_row, lanes, accumulate, *ahead = function.args
    entry = function.append_basic_block("entry")
    loop = function.append_basic_block("depth")
    done = function.append_basic_block("done")
    builder = ir.IRBuilder(entry)
    a0, b0, c0 = (vectors.pointer(builder, address) for address in (a, b, c))
    if kind == _APART:
        table = builder.inttoptr(a_row, _TABLE)
        places = [builder.load(builder.gep(table, [_number(i)])) for i in range(rows)]
        table = builder.inttoptr(a_column, _TABLE)
        first = builder.gep(a0, [builder.load(table)])
    else:
        first = a0
        places = [builder.mul(a_row, _number(i)) for i in range(rows)]
    builder.branch(loop)

    builder.position_at_end(loop)
    step, pa, pb = (builder.phi(t) for t in (_I64, a0.type, b0.type))
    step.add_incoming(_number(0), entry)
    pa.add_incoming(first, entry)
    pb.add_incoming(b0, entry)
    sums = [[builder.phi(vectors.type) for _ in range(across)] for _ in range(rows)]
    for row in sums:
        for phi in row:
            phi.add_incoming(vectors.zero, entry)
    if kind == _AHEAD:
        begin, row = ahead
        place = builder.gep(vectors.pointer(builder, begin), [builder.mul(step, row)])
        vectors.prefetch(builder, place)
    wide = [
        vectors.load(builder, builder.gep(pb, [_number(j * vectors.lanes)])) for j in range(across)
    ]
    new = []
    for i in range(rows):
        factor = vectors.broadcast(builder, builder.load(builder.gep(pa, [places[i]])))
        new.append([vectors.fma(builder, factor, wide[j], sums[i][j]) for j in range(across)])
    following = builder.add(step, _number(1))
    step.add_incoming(following, loop)
    if kind == _APART:
        last = builder.sub(k, _number(1))
        more = builder.icmp_signed("<", following, last)
        at = builder.load(builder.gep(table, [builder.select(more, following, last)]))
        pa.add_incoming(builder.gep(a0, [at]), loop)
    else:
        pa.add_incoming(builder.gep(pa, [a_column]), loop)
    pb.add_incoming(builder.gep(pb, [b_row]), loop)
    for i in range(rows):
        for j in range(across):
            sums[i][j].add_incoming(new[i][j], loop)
    again = builder.cbranch(builder.icmp_signed("<", following, k), loop, done)
    if kind == _APART:
        again.set_metadata("llvm.loop", _as_it_is(module))

    builder.position_at_end(done)
    masks = [
        vectors.mask(builder, _number(0), builder.sub(lanes, _number(j * vectors.lanes)))
        for j in range(across)
    ]
    adds = builder.icmp_signed("!=", accumulate, _number(0))
    with builder.if_else(adds) as (then, otherwise):
        for branch, adding in ((then, True), (otherwise, False)):
            with branch:
                for i in range(rows):
                    row = builder.gep(c0, [builder.mul(c_row, _number(i))])
                    for j in range(across):
                        place = builder.gep(row, [_number(j * vectors.lanes)])
                        value = new[i][j]
                        if adding:
                            held = vectors.load(builder, place, masks[j])
                            value = builder.fadd(held, value)
                        vectors.store(builder, value, place, masks[j])
    builder.ret_void()
    return function
