"""The transforms of Winograd's filtering, in registers: see ``winograd``.

All evaluate polynomials at 0, p, -p for some points p, and infinity, or are the transpose of that.
A vector holds the same place of as many tiles or windows as it has lanes. With d the inputs that a
tile sees, g the taps of a window and y the outputs of a tile, per axis::

    B^T d   at 0         the sum of c[i] d[2i]      c: coefficients, in x^2, of the product of
            at infinity  the sum of c[i] d[2i + 1]     x^2 - q^2 over all points q
            at p, -p     e + o, e - o:  e the sum of c[i] d[2i + 2], o that of p c[i] d[2i + 1],
                                        c the same over all points q but p
    G g     g0 / product of -q^2,    (e + o) / n, (e - o) / n,    g[-1]
    A y     y0,                       e + o, e - o,               y[-1]

where e and o are the sums of what has even and odd index, each times p to its index, and n is 2 p^2
times the product of p^2 - q^2 over the other points q.

Any points will do in exact arithmetic. For windows of three taps, Lavin & Gray take 1 and 2, which
need the fewest operations; 5/8 and 3/2 need hardly more, and several times less is lost to
rounding. With the third point that windows of five taps want, 1/2, 1 and 2 are as good as any.

Source: Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016; for the choice
of points, Barabasz, Anderson, Soodhalter & Gregg, "Error analysis and improving the accuracy of
Winograd convolution for deep neural networks", 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from netdef.kernels.vectors import Vectors, own_function

#: Outputs of a tile along an axis.
TILE = 4

#: The points, by taps of a window along an axis. A tile sees TILE - 1 inputs more than these taps:
#: one for each point and its opposite, for 0, and for infinity.
POINTS = {3: (5 / 8, 3 / 2), 5: (1 / 2, 1.0, 2.0)}

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _number(n: int) -> Any:
    return ir.Constant(_I64, n)


class _Transform:
    """Emits LLVM IR for the transforms of windows of so many taps along an axis."""

    def __init__(self, builder: Any, vectors: Vectors, taps: int) -> None:
        self.builder = builder
        self.vectors = vectors
        self.taps = taps
        self.points = POINTS[taps]
        #: Inputs that a tile sees along an axis: so many places a transform has, too.
        self.seen = TILE + taps - 1

    def inputs(self, d: list[Any]) -> list[Any]:
        """B^T d, for as many vectors as a tile sees inputs."""
        every = _product(self.points)
        result = [self._sum(every, d[0::2])]
        for p in self.points:
            others = _product([q for q in self.points if q != p])
            even = self._sum(others, d[2::2])
            odd = self._sum([p * c for c in others], d[1::2])
            result += self._pair(even, odd)
        return [*result, self._sum(every, d[1::2])]

    def windows(self, g: list[Any]) -> list[Any]:
        """G g, for as many vectors as a window has taps."""
        first, factors = self._window_factors()
        return self._evaluate(g, first, factors)

    def window_sums(self, u: list[Any]) -> list[Any]:
        """G^T u: as many vectors as a window has taps."""
        first, factors = self._window_factors()
        return self._evaluate_transposed(u, self.taps, first, factors)

    def gradients(self, y: list[Any]) -> list[Any]:
        """A y, for the vectors of a tile."""
        return self._evaluate(y, 1, [1] * len(self.points))

    def sums(self, m: list[Any]) -> list[Any]:
        """A^T m: the vectors of a tile."""
        return self._evaluate_transposed(m, TILE, 1, [1] * len(self.points))

    def _window_factors(self) -> tuple[float, list[float]]:
        """What G multiplies by at 0, and at each point."""
        first = 1.0
        for q in self.points:
            first /= -(q * q)
        factors = []
        for p in self.points:
            n = 2 * p * p
            for q in self.points:
                n *= p * p - q * q if q != p else 1
            factors.append(1 / n)
        return first, factors

    def _evaluate(self, values: list[Any], first: float, factors: Sequence[float]) -> list[Any]:
        """The polynomial with these coefficients at all points, times their factors."""
        result = [self._sum([first], values)]
        for p, factor in zip(self.points, factors, strict=True):
            powers = [factor * p**i for i in range(len(values))]
            result += self._pair(
                self._sum(powers[0::2], values[0::2]), self._sum(powers[1::2], values[1::2])
            )
        return [*result, values[-1]]

    def _evaluate_transposed(
        self, values: list[Any], count: int, first: float, factors: Sequence[float]
    ) -> list[Any]:
        """``count`` vectors: what the matrix of ``_evaluate``, transposed, makes of the values."""
        pairs = [self._pair(*values[i : i + 2]) for i in range(1, len(values) - 1, 2)]
        result = []
        for i in range(count):
            terms = [pair[i % 2] for pair in pairs]
            powers = [f * p**i for p, f in zip(self.points, factors, strict=True)]
            if i == 0:
                terms, powers = [*terms, values[0]], [*powers, first]
            if i == count - 1:
                terms, powers = [*terms, values[-1]], [*powers, 1]
            result.append(self._sum(powers, terms))
        return result

    def _sum(self, factors: Sequence[float], values: Sequence[Any]) -> Any:
        """The sum of factors times vectors, the last ones first: their factors are often 1."""
        total = None
        for factor, value in reversed(list(zip(factors, values, strict=False))):
            if total is None:
                total = value if factor == 1 else self.builder.fmul(self._all(factor), value)
            elif factor == 1:
                total = self.builder.fadd(total, value)
            else:
                total = self.vectors.fma(self.builder, self._all(factor), value, total)
        return total

    def _pair(self, even: Any, odd: Any) -> list[Any]:
        """Sum and difference."""
        return [self.builder.fadd(even, odd), self.builder.fsub(even, odd)]

    def _all(self, number: float) -> Any:
        return ir.Constant(self.vectors.type, [number] * self.vectors.lanes)


def _product(points: Sequence[float]) -> list[float]:
    """The coefficients, in x^2 and ascending, of the product of x^2 - q^2 over points q."""
    coefficients = [1.0]
    for q in points:
        times = [-q * q * c for c in coefficients]
        coefficients = [a + b for a, b in zip([*times, 0.0], [0.0, *coefficients], strict=True)]
    return coefficients


def _choose(
    builder: Any,
    element: Any,
    name: str,
    taps: Any,
    narrow: Any,
    arguments: Sequence[Any],
    emit: Callable[[_Transform, Sequence[Any]], None],
) -> None:
    """Call the function of a transform for windows of ``taps``; on half vectors where ``narrow``.

    Each is a function of its own: kernels do not grow with the number of transforms.
    """
    for width in POINTS:
        for part in (1, 2):
            vectors = Vectors(element, part)
            if vectors.lanes < TILE:
                continue  # winograd asks for no such vectors
            of_these = builder.and_(
                builder.icmp_signed("==", taps, _number(width)),
                builder.icmp_signed("==", narrow, _number(part - 1)),
            )
            with builder.if_then(of_these):
                own = f"netdef.winograd.{name}.{width}.{vectors.name}"
                kinds = [argument.type for argument in arguments]
                function, fresh = own_function(builder.module, own, kinds)
                if fresh:
                    inside = ir.IRBuilder(function.append_basic_block("entry"))
                    emit(_Transform(inside, vectors, width), function.args)
                    inside.ret_void()
                builder.call(function, arguments)


@intrinsic  # type: ignore[untyped-decorator]
def transform_windows(
    typingctx: Any,
    like: Any,
    taps: Any,
    source: Any,
    source_step: Any,
    turned: Any,
    target: Any,
    target_step: Any,
    count: Any,
) -> Any:
    """U = G g G^T of ``count`` windows, or as many as a vector has lanes.

    ``source`` is the address of the first window's weights, ``source_step`` elements before the
    next one's; they are turned round where ``turned`` is not 0. The vectors of all places go to
    ``target``, ``target_step`` elements apart.
    """

    def emit(do: _Transform, args: Sequence[Any]) -> None:
        builder, vectors, taps = do.builder, do.vectors, do.taps
        source, source_step, turned, target, target_step, count = args
        origin = vectors.pointer(builder, source)
        turns = builder.icmp_signed("!=", turned, _number(0))
        at = [
            builder.select(turns, _number(taps * taps - 1 - w), _number(w))
            for w in range(taps * taps)
        ]
        windows = [ir.Constant(vectors.type, ir.Undefined) for _ in at]
        last = builder.sub(count, _number(1))
        for lane in range(vectors.lanes):
            # Lanes behind the last window see it once more.
            exists = builder.icmp_signed("<", _number(lane), last)
            window = builder.mul(builder.select(exists, _number(lane), last), source_step)
            for w, tap in enumerate(at):
                value = builder.load(builder.gep(origin, [builder.add(window, tap)]))
                windows[w] = builder.insert_element(windows[w], value, ir.Constant(_I32, lane))
        columns = [do.windows(windows[j::taps]) for j in range(taps)]
        rows = [do.windows([column[i] for column in columns]) for i in range(do.seen)]
        _store_places(do, [value for row in rows for value in row], target, target_step, count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(signature.args[0])
        _choose(builder, element, "windows", args[1], _number(0), args[2:], emit)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 7), codegen


@intrinsic  # type: ignore[untyped-decorator]
def transform_inputs(
    typingctx: Any,
    like: Any,
    taps: Any,
    narrow: Any,
    source: Any,
    source_row: Any,
    source_step: Any,
    top: Any,
    bottom: Any,
    low: Any,
    high: Any,
    target: Any,
    target_row: Any,
    target_step: Any,
    channels: Any,
    count: Any,
) -> Any:
    """V = B^T d B of ``count`` neighbouring tiles, in lanes, of one channel after the other.

    ``source`` is the address of the first input of the first tile, ``source_step`` elements before
    that of the next channel. Of its rows those from ``top`` to below ``bottom`` exist, of a row's
    elements those from ``low`` to below ``high``; others are 0. The vectors of all places go to
    ``target``, ``target_step`` elements apart, those of the next channel ``target_row`` behind.
    """

    def emit(do: _Transform, args: Sequence[Any]) -> None:
        builder, vectors = do.builder, do.vectors
        source, source_row, source_step, top, bottom, low, high = args[:7]
        target, target_row, target_step, channels, count = args[7:]
        with _each(do, channels, (source, source_step), (target, target_row)) as (first, to):
            row_bytes = builder.mul(source_row, _number(vectors.size))
            rows = []
            for i in range(do.seen):
                exists = builder.and_(
                    builder.icmp_signed(">=", _number(i), top),
                    builder.icmp_signed("<", _number(i), bottom),
                )
                end = builder.select(exists, high, low)
                line = builder.add(first, builder.mul(row_bytes, _number(i)))
                *pieces, behind = _line(do, line, low, end, TILE + 1)
                phases = _phases(do, pieces)
                # The inputs that are left are the first ones of the next tiles.
                for j in range(do.seen - TILE):
                    following = [*range(1, vectors.lanes), vectors.lanes + j]
                    phases.append(vectors.shuffle(builder, phases[j], behind, following))
                rows.append(do.inputs(phases))
            _store_places(do, _down(do, do.inputs, rows), to, target_step, count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(signature.args[0])
        _choose(builder, element, "inputs", args[1], args[2], args[3:], emit)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 14), codegen


@intrinsic  # type: ignore[untyped-decorator]
def transform_gradients(
    typingctx: Any,
    like: Any,
    taps: Any,
    narrow: Any,
    source: Any,
    source_row: Any,
    source_step: Any,
    rows: Any,
    columns: Any,
    target: Any,
    target_row: Any,
    target_step: Any,
    outputs: Any,
    count: Any,
) -> Any:
    """W = A dY A^T of ``count`` neighbouring tiles, in lanes, of one output after the other.

    ``source`` is the address of the first tile's first value, ``source_step`` elements before that
    of the next output; ``rows`` and ``columns`` exist behind it, or more. The vectors of all places
    go to ``target``, ``target_step`` elements apart, those of the next output ``target_row``
    behind.
    """

    def emit(do: _Transform, args: Sequence[Any]) -> None:
        builder, vectors = do.builder, do.vectors
        source, source_row, source_step, rows, columns = args[:5]
        target, target_row, target_step, outputs, count = args[5:]
        with _each(do, outputs, (source, source_step), (target, target_row)) as (first, to):
            row_bytes = builder.mul(source_row, _number(vectors.size))
            rows_of_tile = []
            for i in range(TILE):
                exists = builder.icmp_signed("<", _number(i), rows)
                end = builder.select(exists, columns, _number(0))
                line = builder.add(first, builder.mul(row_bytes, _number(i)))
                pieces = _line(do, line, _number(0), end, TILE)
                rows_of_tile.append(do.gradients(_phases(do, pieces)))
            _store_places(do, _down(do, do.gradients, rows_of_tile), to, target_step, count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(signature.args[0])
        _choose(builder, element, "gradients", args[1], args[2], args[3:], emit)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 12), codegen


@intrinsic  # type: ignore[untyped-decorator]
def transform_sums(
    typingctx: Any,
    like: Any,
    taps: Any,
    narrow: Any,
    source: Any,
    source_step: Any,
    target: Any,
    target_row: Any,
    rows: Any,
    columns: Any,
    scale: Any,
    bias: Any,
    floor: Any,
    addend: Any,
    adds: Any,
) -> Any:
    """y = max(A^T m A scale + bias + addend, floor) of neighbouring tiles of one output.

    ``source`` is the address of the first place's vector, ``source_step`` elements before the next
    one's; ``target`` that of the first tile's first value. ``rows`` and ``columns`` of y exist
    behind it, or more. ``addend`` is an address like ``target``, read where ``adds`` is not 0. A
    NaN stays one.
    """

    def emit(do: _Transform, args: Sequence[Any]) -> None:
        builder, vectors = do.builder, do.vectors
        source, source_step, target, target_row, rows, columns = args[:6]
        scale, bias, floor = (vectors.broadcast(builder, scalar) for scalar in args[6:9])
        addend, adds = args[9:]
        half = [do.sums(_load_places(do, source, source_step, j)) for j in range(do.seen)]
        row_bytes = builder.mul(target_row, _number(vectors.size))
        for i in range(TILE):
            exists = builder.icmp_signed("<", _number(i), rows)
            end = builder.select(exists, columns, _number(0))
            read = builder.select(builder.icmp_signed("!=", adds, _number(0)), end, _number(0))
            values = do.sums([column[i] for column in half])
            for k, value in enumerate(_interleaved(do, values)):
                behind = k * vectors.lanes
                offset = builder.mul(row_bytes, _number(i))
                offset = builder.add(offset, _number(behind * vectors.size))
                mask, also = (
                    vectors.mask(builder, _number(0), builder.sub(bound, _number(behind)))
                    for bound in (end, read)
                )
                place = vectors.pointer(builder, builder.add(addend, offset))
                result = vectors.fma(builder, value, scale, bias)
                result = builder.fadd(result, vectors.load(builder, place, also))
                low = builder.fcmp_ordered("<", result, floor)
                result = builder.select(low, floor, result)
                place = vectors.pointer(builder, builder.add(target, offset))
                vectors.store(builder, result, place, mask)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(signature.args[0])
        _choose(builder, element, "sums", args[1], args[2], args[3:], emit)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 8, *[like] * 3, *[types.int64] * 2), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_windows(
    typingctx: Any, like: Any, taps: Any, source: Any, source_step: Any, target: Any, count: Any
) -> Any:
    """Add G^T dU G to ``count`` windows, or as many as a vector has lanes.

    ``source`` is the address of the first place's vector, ``source_step`` elements before the next
    one's; the weights of each window follow one another at ``target``.
    """

    def emit(do: _Transform, args: Sequence[Any]) -> None:
        builder, vectors, taps = do.builder, do.vectors, do.taps
        source, source_step, target, count = args
        mask = vectors.mask(builder, _number(0), count)
        half = [
            do.window_sums(_load_places(do, source, source_step, j, mask)) for j in range(do.seen)
        ]
        windows = []
        for i in range(taps):
            windows += do.window_sums([column[i] for column in half])
        origin = vectors.pointer(builder, target)
        for lane in range(vectors.lanes):
            with builder.if_then(builder.icmp_signed("<", _number(lane), count)):
                for w, value in enumerate(windows):
                    place = builder.gep(origin, [_number(taps * taps * lane + w)])
                    own = builder.extract_element(value, ir.Constant(_I32, lane))
                    builder.store(builder.fadd(builder.load(place), own), place)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_value_type(signature.args[0])
        _choose(builder, element, "add_windows", args[1], _number(0), args[2:], emit)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), codegen


@contextmanager
def _each(do: _Transform, count: Any, *lines: tuple[Any, Any]) -> Iterator[list[Any]]:
    """A loop that runs ``count`` times: the addresses that began as the first of each of ``lines``,
    and move by the second, in elements."""
    builder, size = do.builder, _number(do.vectors.size)
    with cgutils.for_range(builder, count, intp=_I64) as loop:
        yield [
            builder.add(first, builder.mul(builder.mul(loop.index, step), size))
            for first, step in lines
        ]


def _down(do: _Transform, transform: Callable[[list[Any]], list[Any]], rows: Any) -> list[Any]:
    """All places, row by row, of what is transformed along its rows already."""
    columns = [transform([row[j] for row in rows]) for j in range(do.seen)]
    return [column[i] for i in range(do.seen) for column in columns]


def _store_places(do: _Transform, places: list[Any], target: Any, step: Any, count: Any) -> None:
    """Write the first ``count`` lanes of the vectors of all places, ``step`` elements apart."""
    mask = do.vectors.mask(do.builder, _number(0), count)
    origin = do.vectors.pointer(do.builder, target)
    for i, value in enumerate(places):
        place = do.builder.gep(origin, [do.builder.mul(step, _number(i))])
        do.vectors.store(do.builder, value, place, mask)


def _load_places(
    do: _Transform, source: Any, step: Any, column: int, mask: Any = None
) -> list[Any]:
    """The vectors of a column of places, all of which lie ``step`` elements apart."""
    origin = do.vectors.pointer(do.builder, source)
    values = []
    for i in range(do.seen):
        offset = do.builder.mul(step, _number(i * do.seen + column))
        values.append(do.vectors.load(do.builder, do.builder.gep(origin, [offset]), mask))
    return values


def _line(do: _Transform, at: Any, low: Any, high: Any, count: int) -> list[Any]:
    """So many vectors from an address on; of their elements exist those from low to below high."""
    builder, vectors = do.builder, do.vectors
    pieces = []
    for k in range(count):
        before = _number(k * vectors.lanes)
        mask = vectors.mask(builder, builder.sub(low, before), builder.sub(high, before))
        address = builder.add(at, builder.mul(before, _number(vectors.size)))
        pieces.append(vectors.load(builder, vectors.pointer(builder, address), mask))
    return pieces


def _phases(do: _Transform, pieces: list[Any]) -> list[Any]:
    """Of a line in TILE vectors: lane t of the j-th result is element TILE t + j."""
    count, wide = len(pieces), do.vectors.lanes
    if count == 1:
        return pieces
    even, odd = (
        _phases(
            do,
            [
                do.vectors.shuffle(
                    do.builder, pieces[k], pieces[k + 1], list(range(first, 2 * wide, 2))
                )
                for k in range(0, count, 2)
            ],
        )
        for first in (0, 1)
    )
    return [phase for pair in zip(even, odd, strict=True) for phase in pair]


def _interleaved(do: _Transform, phases: list[Any]) -> list[Any]:
    """TILE vectors as a line of as many: element TILE t + j is lane t of the j-th."""
    count, wide = len(phases), do.vectors.lanes
    if count == 1:
        return phases
    lower = [half for i in range(wide // 2) for half in (i, wide + i)]
    upper = [i + wide // 2 for i in lower]
    even, odd = (_interleaved(do, phases[first::2]) for first in (0, 1))
    return [
        do.vectors.shuffle(do.builder, a, b, order)
        for a, b in zip(even, odd, strict=True)
        for order in (lower, upper)
    ]
