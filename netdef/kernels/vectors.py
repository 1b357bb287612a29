"""Vectors of numbers: what the machine's registers hold, for kernels that say it themselves.

Where a loop over arrays compiles to vector code, nothing here is needed. It does not where a run is
as short as an image is wide, where only some lanes exist, or where a block is to be transposed in
registers; the helpers below do these with a few instructions. Masked lanes are neither read nor
written, so nothing beyond an array is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_features = llvm.get_host_cpu_features()

#: Bytes of a vector register: AVX-512, AVX, or 16 of NEON and SSE.
VECTOR_BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx") else 16

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


def lanes_of(itemsize: int) -> int:
    """Elements of ``itemsize`` bytes in a vector."""
    return VECTOR_BYTES // itemsize


class Vectors:
    """Emits LLVM IR on vectors of one element type, ``lanes`` elements each.

    ``part`` of them is as many as the machine's registers hold, divided by that.
    """

    def __init__(self, element: Any, part: int = 1) -> None:
        self.element = element
        #: Bytes of an element.
        self.size = 8 if isinstance(element, ir.DoubleType) else 4
        self.lanes = lanes_of(self.size) // part
        self.type = ir.VectorType(element, self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        #: As LLVM calls the type.
        self.name = f"v{self.lanes}f{8 * self.size}"
        self._mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        self._pointer_type = self.type.as_pointer()
        self._alignment = ir.Constant(_I32, self.size)

    def pointer(self, builder: Any, address: Any) -> Any:
        """An address as a pointer to an element."""
        return builder.inttoptr(address, self.element.as_pointer())

    def load(self, builder: Any, pointer: Any, mask: Any = None) -> Any:
        """The vector that begins at an element; lanes without ``mask`` are 0 and not read."""
        place = builder.bitcast(pointer, self._pointer_type)
        if mask is None:
            value = builder.load(place)
            value.align = self.size
            return value
        kind = [self._pointer_type, _I32, self._mask_type, self.type]
        read = self._function(builder, self.type, kind, f"masked.load.{self.name}.p0{self.name}")
        return builder.call(read, [place, self._alignment, mask, self.zero])

    def store(self, builder: Any, value: Any, pointer: Any, mask: Any = None) -> None:
        """Write a vector that begins at an element; lanes without ``mask`` are left alone."""
        place = builder.bitcast(pointer, self._pointer_type)
        if mask is None:
            builder.store(value, place).align = self.size
            return
        kind = [self.type, self._pointer_type, _I32, self._mask_type]
        name = f"masked.store.{self.name}.p0{self.name}"
        write = self._function(builder, ir.VoidType(), kind, name)
        builder.call(write, [value, place, self._alignment, mask])

    def prefetch(self, builder: Any, pointer: Any) -> None:
        """Ask for the cache line of an address; where there is no memory, nothing happens."""
        place = builder.bitcast(pointer, _BYTES)
        fetch = self._function(builder, ir.VoidType(), [_BYTES, _I32, _I32, _I32], "prefetch.p0i8")
        # To read, into the second-level cache, data.
        hints = [ir.Constant(_I32, value) for value in (0, 2, 1)]
        builder.call(fetch, [place, *hints])

    def mask(self, builder: Any, low: Any, high: Any) -> Any:
        """The lanes from ``low`` to below ``high``, which may lie outside of the vector."""
        numbers = ir.VectorType(_I32, self.lanes)
        lanes = ir.Constant(numbers, list(range(self.lanes)))
        bounds = []
        for bound in (low, high):
            narrow = builder.trunc(bound, _I32)
            bounds.append(self._splat(builder, narrow, numbers))
        return builder.and_(
            builder.icmp_signed(">=", lanes, bounds[0]), builder.icmp_signed("<", lanes, bounds[1])
        )

    def broadcast(self, builder: Any, scalar: Any) -> Any:
        """A vector with a scalar in every lane."""
        return self._splat(builder, scalar, self.type)

    def fma(self, builder: Any, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        return builder.call(
            self._function(builder, self.type, [self.type] * 3, f"fma.{self.name}"), [a, b, c]
        )

    def shuffle(self, builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
        """A vector of the numbered lanes of a and, counted on, b."""
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))

    def _splat(self, builder: Any, scalar: Any, kind: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(first, undefined, zeros)

    def _function(self, builder: Any, result: Any, arguments: list[Any], name: str) -> Any:
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}")


def own_function(module: Any, name: str, arguments: list[Any]) -> tuple[Any, bool]:
    """A function of a module that returns nothing, and whether its body has yet to be written.

    Not inlined: its registers are allotted once and well, and whatever calls it from several places
    compiles it once.
    """
    if name in module.globals:
        return module.globals[name], False
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, True


@intrinsic  # type: ignore[untyped-decorator]
def lanes(typingctx: Any, like: Any) -> Any:
    """Elements of the type of ``like`` in a vector: a constant in compiled code."""
    count = lanes_of(like.bitwidth // 8)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_I64, count)

    return types.int64(like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def size_of(typingctx: Any, like: Any) -> Any:
    """Bytes of an element of the type of ``like``: a constant in compiled code."""
    size = like.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_I64, size)

    return types.int64(like), codegen


def _copy(stride: int) -> Any:
    """The intrinsic that copies one vector whose elements lie ``stride`` apart."""

    @intrinsic  # type: ignore[untyped-decorator]
    def copy(
        typingctx: Any, like: Any, target: Any, source: Any, low: Any, high: Any, count: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = Vectors(context.get_value_type(signature.args[0]))
            _, target, source, low, high, count = args
            value = _strided(builder, vectors, source, low, high, stride)
            mask = vectors.mask(builder, ir.Constant(_I64, 0), count)
            vectors.store(builder, value, vectors.pointer(builder, target), mask)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 5), codegen

    return copy


def _strided(builder: Any, vectors: Vectors, source: Any, low: Any, high: Any, stride: int) -> Any:
    """Lane i holds element ``stride * i``, or 0 unless ``low`` <= i < ``high``."""
    wide, by = vectors.lanes, ir.Constant(_I64, stride)
    # From the first to the last that are wanted; those between them exist as well.
    first = builder.mul(low, by)
    last = builder.sub(builder.mul(high, by), ir.Constant(_I64, stride - 1))
    pieces = []
    for i in range(stride):
        offset = ir.Constant(_I64, i * wide)
        mask = vectors.mask(builder, builder.sub(first, offset), builder.sub(last, offset))
        address = builder.add(source, ir.Constant(_I64, i * wide * vectors.size))
        pieces.append(vectors.load(builder, vectors.pointer(builder, address), mask))
    # Every second lane of two neighbours, until one vector is left: stride is a power of two.
    while len(pieces) > 1:
        every_second = list(range(0, 2 * wide, 2))
        pieces = [
            vectors.shuffle(builder, pieces[i], pieces[i + 1], every_second)
            for i in range(0, len(pieces), 2)
        ]
    return pieces[0]


#: copy(like, target, source, low, high, count): write ``count`` elements, at most a vector, to
#: the address ``target``: element i is that at ``source + stride * i``, or 0 where i is not in
#: [low, high). What is outside of that range is not read.
copy_lanes = _copy(1)
copy_every_second = _copy(2)
copy_every_fourth = _copy(4)


@intrinsic  # type: ignore[untyped-decorator]
def transpose_block(
    typingctx: Any,
    like: Any,
    target: Any,
    target_row: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    columns: Any,
) -> Any:
    """target[j, i] = source[i, j] for a block that is at most one vector high and wide.

    ``target`` and ``source`` are addresses, ``target_row`` and ``source_row`` the distances in
    elements between their rows. ``rows`` and ``columns`` are those of the source; of what exceeds a
    vector nothing is read or written, so they may count to the end of a larger matrix.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = Vectors(context.get_value_type(signature.args[0]))
        builder.call(_transpose_function(builder.module, vectors), args[1:])
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6), codegen


def _transpose_function(module: Any, vectors: Vectors) -> Any:
    """The function (target, target_row, source, source_row, rows, columns)."""
    name = f"netdef.transpose_block.{vectors.name}"
    function, fresh = own_function(module, name, [_I64] * 6)
    if not fresh:
        return function
    target, target_row, source, source_row, rows, columns = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    zero, wide = ir.Constant(_I64, 0), ir.Constant(_I64, vectors.lanes)

    def block(mask: Callable[[int, Any, Any], Any]) -> None:
        origin = vectors.pointer(builder, source)
        values = []
        for i in range(vectors.lanes):
            place = builder.gep(origin, [builder.mul(source_row, ir.Constant(_I64, i))])
            values.append(vectors.load(builder, place, mask(i, rows, columns)))
        origin = vectors.pointer(builder, target)
        for j, value in enumerate(_transposed(builder, vectors, values)):
            place = builder.gep(origin, [builder.mul(target_row, ir.Constant(_I64, j))])
            vectors.store(builder, value, place, mask(j, columns, rows))

    def part(row: int, among: Any, across: Any) -> Any:
        exists = builder.icmp_signed("<", ir.Constant(_I64, row), among)
        return vectors.mask(builder, zero, builder.select(exists, across, zero))

    whole = builder.and_(
        builder.icmp_signed(">=", rows, wide), builder.icmp_signed(">=", columns, wide)
    )
    with builder.if_else(whole, likely=True) as (then, otherwise):
        with then:
            block(lambda *_: None)
        with otherwise:
            block(part)
    builder.ret_void()
    return function


def _transposed(builder: Any, vectors: Vectors, block: list[Any]) -> list[Any]:
    """A square block of vectors, transposed: quarters change places, then quarters of those ..."""
    wide = vectors.lanes
    distance = wide // 2
    while distance:
        upper = [i if not i & distance else wide + i - distance for i in range(wide)]
        lower = [i + distance if not i & distance else wide + i for i in range(wide)]
        for i in range(wide):
            if not i & distance:
                a, b = block[i], block[i + distance]
                block[i] = vectors.shuffle(builder, a, b, upper)
                block[i + distance] = vectors.shuffle(builder, a, b, lower)
        distance //= 2
    return block
