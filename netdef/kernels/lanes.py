"""``LANES`` values computed on at once, for the loops that a compiler does not vectorise by itself.

A sum has to stay in the order it is written in, so the compiler adds one value after the other; a
row of seven pixels is too short for its vectors; and it cannot know that a window that hangs over
the edge of an image has nothing to load there. Here all three are written out::

    total = lanes.fill(0.0)
    for i in range(0, whole, LANES):
        total = total + lanes.double(lanes.load(x, i))  # lane k sums x[k], x[k + LANES], ...
    value = lanes.total(total)                          # a fixed tree over the lanes

``LANES`` is the same on every machine, and so is the order of such a sum. It makes one register of
float32 with AVX-512, two with AVX2, four with NEON: LLVM splits what does not fit.

Arrays are C-contiguous and of any number of axes; an index counts their values in memory order, and
is not checked. Arithmetic is ``+ - *`` between lanes of one type, and ``/`` of floats. Comparison,
``> <= ==``, gives lanes of truth, which ``&`` joins; a NaN compares with nothing.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):  # type: ignore[misc]
    """The type of ``LANES`` values of the type ``element``."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Lanes({element})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _vector(kind.element))


def _vector(element: Any) -> Any:
    """The type that LLVM knows such lanes by."""
    if isinstance(element, types.Boolean):
        kind = _I1
    elif isinstance(element, types.Integer):
        kind = ir.IntType(element.bitwidth)
    else:
        kind = {32: ir.FloatType(), 64: ir.DoubleType()}[element.bitwidth]
    return ir.VectorType(kind, LANES)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, _numbers([0] * LANES))


def _numbers(values: Any, kind: Any = _I32) -> Any:
    values = list(values)
    return ir.Constant(ir.VectorType(kind, len(values)), values)


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Call an intrinsic of LLVM."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _name(vector: Any) -> str:
    """A vector as LLVM writes it in the names of intrinsics."""
    names = {"float": "f32", "double": "f64"}
    return f"v{LANES}{names.get(str(vector.element), str(vector.element))}"


# -- memory ----------------------------------------------------------------------------------------


def _array(kind: Any) -> Any:
    if not isinstance(kind, types.Array) or kind.layout != "C":
        raise TypingError(f"lanes are of C-contiguous arrays, not of {kind}")
    return kind


def _pointer(context: Any, builder: Any, array: Any, value: Any, index: Any) -> Any:
    """To the lanes that begin at ``index``."""
    first = builder.gep(context.make_array(array)(context, builder, value).data, [index])
    return builder.bitcast(first, _vector(array.dtype).as_pointer())


def _bytes(array: Any) -> int:
    size: int = array.dtype.bitwidth // 8
    return size


def _within(builder: Any, index: Any, low: Any, high: Any) -> Any:
    """Which lanes have an index from ``low`` to ``high`` - 1."""
    first, end = (
        _splat(builder, builder.trunc(builder.sub(bound, index), _I32)) for bound in (low, high)
    )
    lane = _numbers(range(LANES))
    return builder.and_(builder.icmp_signed("<=", first, lane), builder.icmp_signed("<", lane, end))


@intrinsic  # type: ignore[untyped-decorator]
def load(typingctx: Any, line: Any, index: Any) -> Any:
    """line[index], line[index + 1], ..."""
    array = _array(line)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, array, *args))
        value.align = _bytes(array)
        return value

    return Lanes(array.dtype)(array, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_part(typingctx: Any, line: Any, index: Any, low: Any, high: Any, rest: Any) -> Any:
    """line[index + k] where low <= index + k < high, ``rest`` in all other lanes.

    Nothing outside the bounds is touched. They are less than 2^31 from the index.
    """
    array = _array(line)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line, index, low, high, rest = args
        pointer = _pointer(context, builder, array, line, index)
        vector = _vector(array.dtype)
        align = ir.Constant(_I32, _bytes(array))
        within = _within(builder, index, low, high)
        name = f"llvm.masked.load.{_name(vector)}.p0{_name(vector)}"
        return _call(builder, name, vector, [pointer, align, within, _splat(builder, rest)])

    wide = types.int64
    return Lanes(array.dtype)(array, wide, wide, wide, array.dtype), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_apart(
    typingctx: Any, line: Any, index: Any, stride: Any, low: Any, high: Any, rest: Any
) -> Any:
    """line[index + k stride] where low <= index + k stride < high, ``rest`` in all other lanes.

    There is at least one value within the bounds, and nothing outside is touched.
    """
    array = _array(line)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line, index, stride, low, high, rest = args
        data = context.make_array(array)(context, builder, line).data
        last = builder.sub(high, ir.Constant(_I64, 1))
        vector = _vector(array.dtype)
        value = ir.Constant(vector, ir.Undefined)
        inside = ir.Constant(ir.VectorType(_I1, LANES), ir.Undefined)
        for k in range(LANES):
            lane = ir.Constant(_I32, k)
            at = builder.add(index, builder.mul(stride, ir.Constant(_I64, k)))
            early = builder.icmp_signed("<", at, low)
            late = builder.icmp_signed(">", at, last)
            safe = builder.select(early, low, builder.select(late, last, at))
            value = builder.insert_element(value, builder.load(builder.gep(data, [safe])), lane)
            inside = builder.insert_element(inside, builder.not_(builder.or_(early, late)), lane)
        return builder.select(inside, value, _splat(builder, rest))

    wide = types.int64
    return Lanes(array.dtype)(array, wide, wide, wide, wide, array.dtype), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store(typingctx: Any, line: Any, index: Any, value: Any) -> Any:
    """line[index], line[index + 1], ... = value"""
    array = _array(line)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line, index, value = args
        stored = builder.store(value, _pointer(context, builder, array, line, index))
        stored.align = _bytes(array)
        return context.get_dummy_value()

    return types.void(array, types.int64, Lanes(array.dtype)), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_part(typingctx: Any, line: Any, index: Any, low: Any, high: Any, value: Any) -> Any:
    """line[index + k] = value where low <= index + k < high; nothing else is touched."""
    array = _array(line)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line, index, low, high, value = args
        pointer = _pointer(context, builder, array, line, index)
        align = ir.Constant(_I32, _bytes(array))
        within = _within(builder, index, low, high)
        name = f"llvm.masked.store.{_name(value.type)}.p0{_name(value.type)}"
        _call(builder, name, ir.VoidType(), [value, pointer, align, within])
        return context.get_dummy_value()

    wide = types.int64
    return types.void(array, wide, wide, wide, Lanes(array.dtype)), codegen


# -- values ----------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def fill(typingctx: Any, value: Any) -> Any:
    """The same value in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return Lanes(value)(value), codegen


@intrinsic  # type: ignore[untyped-decorator]
def count_up(typingctx: Any, first: Any, step: Any) -> Any:
    """first, first + step, first + 2 step, ..., as int32"""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, step = (_splat(builder, value) for value in args)
        return builder.add(first, builder.mul(step, _numbers(range(LANES))))

    return Lanes(types.int32)(types.int32, types.int32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def convert(typingctx: Any, value: Any, like: Any) -> Any:
    """The lanes in the type of the number ``like``: float to float, or integer to integer."""
    source, target = value.element, like

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = _vector(target)
        if source.bitwidth == target.bitwidth:
            return args[0]
        grows = source.bitwidth < target.bitwidth
        if isinstance(source, types.Float):
            cast = builder.fpext if grows else builder.fptrunc
        else:
            cast = builder.sext if grows else builder.trunc
        return cast(args[0], vector)

    return Lanes(target)(value, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def double(typingctx: Any, value: Any) -> Any:
    """The lanes in float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = value.element.bitwidth == 64
        return args[0] if wide else builder.fpext(args[0], _vector(types.float64))

    return Lanes(types.float64)(value), codegen


@intrinsic  # type: ignore[untyped-decorator]
def choose(typingctx: Any, which: Any, a: Any, b: Any) -> Any:
    """a where ``which`` is true, b elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(Lanes(types.boolean), a, a), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        return _call(builder, f"llvm.fma.{_name(vector)}", vector, list(args))

    return a(a, a, a), codegen


@intrinsic  # type: ignore[untyped-decorator]
def magnitude(typingctx: Any, value: Any) -> Any:
    """The absolute value of each lane, a float."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        return _call(builder, f"llvm.fabs.{_name(vector)}", vector, list(args))

    return value(value), codegen


# -- across lanes ----------------------------------------------------------------------------------


def _shuffle(lanes: Any) -> Any:
    """Signature and code of an intrinsic (a, b) whose lanes are these of a and b side by side."""

    def make(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.shuffle_vector(*args, _numbers(lanes))

        return a(a, a), codegen

    return make


@intrinsic  # type: ignore[untyped-decorator]
def even(typingctx: Any, a: Any, b: Any) -> Any:
    """Of a and b side by side, every second value from the first on."""
    return _shuffle(range(0, 2 * LANES, 2))(typingctx, a, b)


@intrinsic  # type: ignore[untyped-decorator]
def odd(typingctx: Any, a: Any, b: Any) -> Any:
    """Of a and b side by side, every second value from the second on."""
    return _shuffle(range(1, 2 * LANES, 2))(typingctx, a, b)


@intrinsic  # type: ignore[untyped-decorator]
def zip_first(typingctx: Any, a: Any, b: Any) -> Any:
    """a[0], b[0], a[1], b[1], ... of the first half of both."""
    return _shuffle([k // 2 + LANES * (k % 2) for k in range(LANES)])(typingctx, a, b)


@intrinsic  # type: ignore[untyped-decorator]
def zip_second(typingctx: Any, a: Any, b: Any) -> Any:
    """a[8], b[8], a[9], b[9], ... of the second half of both."""
    return _shuffle([(LANES + k) // 2 + LANES * (k % 2) for k in range(LANES)])(typingctx, a, b)


@intrinsic  # type: ignore[untyped-decorator]
def total(typingctx: Any, value: Any) -> Any:
    """The sum of all lanes, floats: a tree that adds the second half to the first."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (sums,) = args
        half = LANES // 2
        while half:
            undefined = ir.Constant(sums.type, ir.Undefined)
            first, second = (
                builder.shuffle_vector(sums, undefined, _numbers(range(start, start + half)))
                for start in (0, half)
            )
            sums = builder.fadd(first, second)
            half //= 2
        return builder.extract_element(sums, ir.Constant(_I32, 0))

    return value.element(value), codegen


# -- operators -------------------------------------------------------------------------------------


def _define(function: Any, of_floats: str, of_integers: str, compares: bool = False) -> None:
    """Let ``function`` of two lanes of one type be an instruction of LLVM on each pair."""

    @infer_global(function)
    class _Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            a, b = args
            if not isinstance(a, Lanes) or a != b:
                return None
            name = of_floats if isinstance(a.element, types.Float) else of_integers
            return signature(Lanes(types.boolean) if compares else a, a, a) if name else None

    @lower_builtin(function, Lanes, Lanes)  # type: ignore[untyped-decorator]
    def _lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real = isinstance(signature.args[0].element, types.Float)
        name = of_floats if real else of_integers
        if compares:
            return (builder.fcmp_ordered if real else builder.icmp_signed)(name, *args)
        return getattr(builder, name)(*args)


_define(operator.add, "fadd", "add")
_define(operator.sub, "fsub", "sub")
_define(operator.mul, "fmul", "mul")
_define(operator.truediv, "fdiv", "")
_define(operator.and_, "", "and_")
_define(operator.gt, ">", ">", compares=True)
_define(operator.le, "<=", "<=", compares=True)
_define(operator.eq, "==", "==", compares=True)
