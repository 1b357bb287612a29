"""The transforms of Winograd's filtering, in registers: see ``winograd``.

All evaluate polynomials at 0, a, -a, b, -b and infinity, or the transpose of that: a vector holds
the same place of as many tiles or windows as it has lanes. With y of a tile's 2 or 4 outputs and g
of a window's 3 or 5 taps, per axis::

    B^T d   a^2 b^2 d0 - (a^2 + b^2) d2 + d4
            (d4 - b^2 d2) + a (d3 - b^2 d1),  (d4 - b^2 d2) - a (d3 - b^2 d1)
            (d4 - a^2 d2) + b (d3 - a^2 d1),  (d4 - a^2 d2) - b (d3 - a^2 d1)
            a^2 b^2 d1 - (a^2 + b^2) d3 + d5
    G g     g0 / (a^2 b^2),  (e + o) / n, (e - o) / n,  (E + O) / N, (E - O) / N,  g[-1]
    A y     y0,  e + o, e - o,  E + O, E - O,  y[-1]

where e and o are the sums of what has even and odd index, each times a to its index, E and O the
same with b; n = 2 a^2 (a^2 - b^2) and N = 2 b^2 (b^2 - a^2).

Any points will do in exact arithmetic. Lavin & Gray take a = 1 and b = 2, which need the fewest
operations; a = 5/8 and b = 3/2 need hardly more, and several times less is lost to rounding.

Source: Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016; for the choice
of points, Barabasz, Anderson, Soodhalter & Gregg, "Error analysis and improving the accuracy of
Winograd convolution for deep neural networks", 2020.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdef.kernels.vectors import Vectors

#: Inputs that a tile sees along an axis, and in the plane.
SEEN, PLACES = 6, 36

#: The points a and b. Their squares, and the product of those, are exact in binary.
_NEAR, _FAR = 5 / 8, 3 / 2

_I64 = ir.IntType(64)


def _number(n: int) -> Any:
    return ir.Constant(_I64, n)


class _Arithmetic:
    """Sums of factors times vectors."""

    def __init__(self, builder: Any, vectors: Vectors) -> None:
        self.builder = builder
        self.vectors = vectors

    def sum(self, *terms: tuple[float, Any]) -> Any:
        """The sum of factors times vectors, in order."""
        (factor, total), *rest = terms
        if factor != 1:
            total = self.builder.fmul(self._all(factor), total)
        for factor, value in rest:
            if factor == 1:
                total = self.builder.fadd(total, value)
            else:
                total = self.vectors.fma(self.builder, self._all(factor), value, total)
        return total

    def pair(self, even: Any, odd: Any) -> list[Any]:
        """Sum and difference."""
        return [self.builder.fadd(even, odd), self.builder.fsub(even, odd)]

    def _all(self, number: float) -> Any:
        return ir.Constant(self.vectors.type, [number] * self.vectors.lanes)

    def inputs(self, d: list[Any]) -> list[Any]:
        """B^T d, for six vectors."""
        a, b = _NEAR, _FAR
        product, total = (a * b) ** 2, a**2 + b**2
        return [
            self.sum((1, d[4]), (product, d[0]), (-total, d[2])),
            *self.pair(
                self.sum((1, d[4]), (-(b**2), d[2])), self.sum((a, d[3]), (-a * b**2, d[1]))
            ),
            *self.pair(
                self.sum((1, d[4]), (-(a**2), d[2])), self.sum((b, d[3]), (-b * a**2, d[1]))
            ),
            self.sum((1, d[5]), (product, d[1]), (-total, d[3])),
        ]

    def windows(self, g: list[Any]) -> list[Any]:
        """G g, for as many vectors as a window is wide."""
        first, near, far = _window_factors()
        return [
            self.sum((first, g[0])),
            *self.pair(*self._powers(_NEAR, g, near)),
            *self.pair(*self._powers(_FAR, g, far)),
            g[-1],
        ]

    def window_sums(self, u: list[Any], width: int) -> list[Any]:
        """G^T u, for six vectors: as many as a window is wide."""
        return self._weighed(u, width, *_window_factors())

    def sums(self, m: list[Any], tile: int) -> list[Any]:
        """A^T m, for six vectors: as many as a tile is wide."""
        return self._weighed(m, tile, 1, 1, 1)

    def gradients(self, y: list[Any]) -> list[Any]:
        """A y, for as many vectors as a tile is wide."""
        near, far = self._powers(_NEAR, y, 1), self._powers(_FAR, y, 1)
        return [y[0], *self.pair(*near), *self.pair(*far), y[-1]]

    def _powers(self, point: float, values: list[Any], factor: float) -> list[Any]:
        """The sums of values times ``factor`` and a point to their index: of even ones, of odd."""
        terms = [(factor * point**i, value) for i, value in enumerate(values)]
        return [self.sum(*terms[odd::2]) for odd in (0, 1)]

    def _weighed(
        self, values: list[Any], width: int, first: float, near: float, far: float
    ) -> list[Any]:
        """The transpose of the two above, for six vectors: as many as ``width``."""
        at_near, at_far = self.pair(values[1], values[2]), self.pair(values[3], values[4])
        result = []
        for i in range(width):
            terms = [(near * _NEAR**i, at_near[i % 2]), (far * _FAR**i, at_far[i % 2])]
            terms += [(first, values[0])] if i == 0 else []
            terms += [(1, values[5])] if i == width - 1 else []
            result.append(self.sum(*terms))
        return result


def _window_factors() -> tuple[float, float, float]:
    """What G divides by at 0, at the near points and at the far ones, as factors."""
    a, b = _NEAR**2, _FAR**2
    return 1 / (a * b), 1 / (2 * a * (a - b)), 1 / (2 * b * (b - a))


def _transform_windows(width: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def transform_windows(
        typingctx: Any,
        like: Any,
        source: Any,
        source_step: Any,
        turned: Any,
        target: Any,
        target_step: Any,
        count: Any,
    ) -> Any:
        """U = G g G^T of ``count`` windows, or as many as a vector has lanes.

        ``source`` is the address of the first window's weights, ``source_step`` elements before
        the next one's; they are turned round where ``turned`` is not 0. The 36 vectors go to
        ``target``, ``target_step`` elements apart.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = Vectors(context.get_value_type(signature.args[0]))
            _, source, source_step, turned, target, target_step, count = args

            origin = vectors.pointer(builder, source)
            turns = builder.icmp_signed("!=", turned, _number(0))
            taps = [
                builder.select(turns, _number(width * width - 1 - w), _number(w))
                for w in range(width * width)
            ]
            windows = [ir.Constant(vectors.type, ir.Undefined) for _ in taps]
            last = builder.sub(count, _number(1))
            for lane in range(vectors.lanes):
                # Lanes behind the last window see it once more.
                exists = builder.icmp_signed("<", _number(lane), last)
                window = builder.mul(builder.select(exists, _number(lane), last), source_step)
                for w, tap in enumerate(taps):
                    value = builder.load(builder.gep(origin, [builder.add(window, tap)]))
                    at = ir.Constant(ir.IntType(32), lane)
                    windows[w] = builder.insert_element(windows[w], value, at)
            do = _Arithmetic(builder, vectors)
            columns = [do.windows(windows[j::width]) for j in range(width)]
            mask = vectors.mask(builder, _number(0), count)
            origin = vectors.pointer(builder, target)
            for i in range(SEEN):
                for j, value in enumerate(do.windows([c[i] for c in columns])):
                    offset = builder.mul(target_step, _number(i * SEEN + j))
                    vectors.store(builder, value, builder.gep(origin, [offset]), mask)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 6), codegen

    return transform_windows


def _transform_inputs(tile: int, part: int = 1) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def transform_inputs(
        typingctx: Any,
        like: Any,
        source: Any,
        source_row: Any,
        top: Any,
        bottom: Any,
        low: Any,
        high: Any,
        target: Any,
        target_step: Any,
        count: Any,
    ) -> Any:
        """V = B^T d B of ``count`` neighbouring tiles of one channel, in lanes.

        ``source`` is the address of the first input of the first tile. Of its rows those from
        ``top`` to below ``bottom`` exist, of a row's elements those from ``low`` to below ``high``;
        others are 0. The 36 vectors go to ``target``, ``target_step`` elements apart.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = Vectors(context.get_value_type(signature.args[0]), part)
            _, source, source_row, top, bottom, low, high, target, target_step, count = args
            wide, do = vectors.lanes, _Arithmetic(builder, vectors)

            row_bytes = builder.mul(source_row, _number(vectors.size))
            rows = []
            for i in range(SEEN):
                exists = builder.and_(
                    builder.icmp_signed(">=", _number(i), top),
                    builder.icmp_signed("<", _number(i), bottom),
                )
                end = builder.select(exists, high, low)
                line = builder.add(source, builder.mul(row_bytes, _number(i)))
                pieces = _line(builder, vectors, line, low, end, tile + 1)
                phases = _phases(builder, vectors, pieces[:tile])
                # The inputs that are left are the first ones of the next tiles.
                for j in range(tile, SEEN):
                    ahead, phase = divmod(j, tile)
                    behind = [wide + phase + k * tile for k in range(ahead)]
                    following = [*range(ahead, wide), *behind]
                    shifted = vectors.shuffle(builder, phases[phase], pieces[tile], following)
                    phases.append(shifted)
                rows.append(do.inputs(phases))
            mask = vectors.mask(builder, _number(0), count)
            origin = vectors.pointer(builder, target)
            for j in range(SEEN):
                column = do.inputs([row[j] for row in rows])
                for i in range(SEEN):
                    offset = builder.mul(target_step, _number(i * SEEN + j))
                    vectors.store(builder, column[i], builder.gep(origin, [offset]), mask)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 9), codegen

    return transform_inputs


def _transform_gradients(tile: int, part: int = 1) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def transform_gradients(
        typingctx: Any,
        like: Any,
        source: Any,
        source_row: Any,
        rows: Any,
        columns: Any,
        target: Any,
        target_step: Any,
        count: Any,
    ) -> Any:
        """W = A dY A^T of ``count`` neighbouring tiles of one output, in lanes.

        ``source`` is the address of the first tile's first value; ``rows`` and ``columns`` exist
        behind it, or more. The 36 vectors go to ``target``, ``target_step`` elements apart.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = Vectors(context.get_value_type(signature.args[0]), part)
            _, source, source_row, rows, columns, target, target_step, count = args

            do = _Arithmetic(builder, vectors)
            row_bytes = builder.mul(source_row, _number(vectors.size))
            tiles = []
            for i in range(tile):
                exists = builder.icmp_signed("<", _number(i), rows)
                end = builder.select(exists, columns, _number(0))
                line = builder.add(source, builder.mul(row_bytes, _number(i)))
                pieces = _line(builder, vectors, line, _number(0), end, tile)
                tiles.append(do.gradients(_phases(builder, vectors, pieces)))
            mask = vectors.mask(builder, _number(0), count)
            origin = vectors.pointer(builder, target)
            for j in range(SEEN):
                for i, value in enumerate(do.gradients([row[j] for row in tiles])):
                    offset = builder.mul(target_step, _number(i * SEEN + j))
                    vectors.store(builder, value, builder.gep(origin, [offset]), mask)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 7), codegen

    return transform_gradients


def _transform_sums(tile: int, part: int = 1) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def transform_sums(
        typingctx: Any,
        like: Any,
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

        ``source`` is the address of the first of 36 vectors, ``source_step`` elements apart;
        ``target`` that of the first tile's first value. ``rows`` and ``columns`` of y exist behind
        it, or more. ``addend`` is an address like ``target``, read where ``adds`` is not 0. A NaN
        stays one.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = Vectors(context.get_value_type(signature.args[0]), part)
            _, source, source_step, target, target_row, rows, columns = args[:7]
            scale, bias, floor = (vectors.broadcast(builder, scalar) for scalar in args[7:10])
            addend, adds = args[10:]
            wide, do = vectors.lanes, _Arithmetic(builder, vectors)

            origin = vectors.pointer(builder, source)
            half = []
            for j in range(SEEN):
                column = []
                for i in range(SEEN):
                    offset = builder.mul(source_step, _number(i * SEEN + j))
                    column.append(vectors.load(builder, builder.gep(origin, [offset])))
                half.append(do.sums(column, tile))
            row_bytes = builder.mul(target_row, _number(vectors.size))
            for i in range(tile):
                exists = builder.icmp_signed("<", _number(i), rows)
                end = builder.select(exists, columns, _number(0))
                read = builder.select(builder.icmp_signed("!=", adds, _number(0)), end, _number(0))
                values = do.sums([half[j][i] for j in range(SEEN)], tile)
                for k, value in enumerate(_interleaved(builder, vectors, values)):
                    offset = builder.add(
                        builder.mul(row_bytes, _number(i)), _number(k * wide * vectors.size)
                    )
                    behind = _number(k * wide)
                    mask = vectors.mask(builder, _number(0), builder.sub(end, behind))
                    also = vectors.mask(builder, _number(0), builder.sub(read, behind))
                    place = vectors.pointer(builder, builder.add(addend, offset))
                    result = vectors.fma(builder, value, scale, bias)
                    result = builder.fadd(result, vectors.load(builder, place, also))
                    low = builder.fcmp_ordered("<", result, floor)
                    result = builder.select(low, floor, result)
                    place = vectors.pointer(builder, builder.add(target, offset))
                    vectors.store(builder, result, place, mask)
            return context.get_dummy_value()

        scalars = [types.int64] * 6 + [like] * 3 + [types.int64] * 2
        return types.void(like, *scalars), codegen

    return transform_sums


def _add_windows(width: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def add_windows(
        typingctx: Any, like: Any, source: Any, source_step: Any, target: Any, count: Any
    ) -> Any:
        """Add G^T dU G to ``count`` windows, or as many as a vector has lanes.

        ``source`` is the address of the first of 36 vectors, ``source_step`` elements apart; the
        weights of each window follow one another at ``target``.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = Vectors(context.get_value_type(signature.args[0]))
            _, source, source_step, target, count = args

            do = _Arithmetic(builder, vectors)
            mask = vectors.mask(builder, _number(0), count)
            origin = vectors.pointer(builder, source)
            half = []
            for j in range(SEEN):
                column = []
                for i in range(SEEN):
                    place = builder.gep(origin, [builder.mul(source_step, _number(i * SEEN + j))])
                    column.append(vectors.load(builder, place, mask))
                half.append(do.window_sums(column, width))
            windows = []
            for i in range(width):
                windows += do.window_sums([column[i] for column in half], width)
            origin = vectors.pointer(builder, target)
            for lane in range(vectors.lanes):
                with builder.if_then(builder.icmp_signed("<", _number(lane), count)):
                    for w, value in enumerate(windows):
                        place = builder.gep(origin, [_number(width * width * lane + w)])
                        own = builder.extract_element(value, ir.Constant(ir.IntType(32), lane))
                        builder.store(builder.fadd(builder.load(place), own), place)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 4), codegen

    return add_windows


def _line(builder: Any, vectors: Vectors, at: Any, low: Any, high: Any, count: int) -> list[Any]:
    """So many vectors from an address on; of their elements exist those from low to below high."""
    pieces = []
    for k in range(count):
        before = _number(k * vectors.lanes)
        mask = vectors.mask(builder, builder.sub(low, before), builder.sub(high, before))
        address = builder.add(at, builder.mul(before, _number(vectors.size)))
        pieces.append(vectors.load(builder, vectors.pointer(builder, address), mask))
    return pieces


def _phases(builder: Any, vectors: Vectors, pieces: list[Any]) -> list[Any]:
    """Of a line in two or four vectors: lane t of the j-th result is element count t + j."""
    count = len(pieces)
    if count == 1:
        return pieces
    every_second = [list(range(odd, 2 * vectors.lanes, 2)) for odd in (0, 1)]
    even, odd = (
        _phases(
            builder,
            vectors,
            [vectors.shuffle(builder, pieces[k], pieces[k + 1], order) for k in range(0, count, 2)],
        )
        for order in every_second
    )
    return [phase for pair in zip(even, odd, strict=True) for phase in pair]


def _interleaved(builder: Any, vectors: Vectors, phases: list[Any]) -> list[Any]:
    """Two or four vectors as a line of as many: element count t + j is lane t of the j-th."""
    count, wide = len(phases), vectors.lanes
    if count == 1:
        return phases
    lower = [half for i in range(wide // 2) for half in (i, wide + i)]
    upper = [i + wide // 2 for i in lower]
    even, odd = (_interleaved(builder, vectors, phases[first::2]) for first in (0, 1))
    return [
        vectors.shuffle(builder, a, b, order)
        for a, b in zip(even, odd, strict=True)
        for order in (lower, upper)
    ]


transform_windows_3, transform_windows_5 = _transform_windows(3), _transform_windows(5)
transform_inputs_4, transform_inputs_2 = _transform_inputs(4), _transform_inputs(2)
#: For lines of so few tiles that half a vector holds them.
transform_inputs_4_half, transform_inputs_2_half = _transform_inputs(4, 2), _transform_inputs(2, 2)
transform_gradients_4_half = _transform_gradients(4, 2)
transform_gradients_2_half = _transform_gradients(2, 2)
transform_sums_4_half, transform_sums_2_half = _transform_sums(4, 2), _transform_sums(2, 2)
transform_gradients_4, transform_gradients_2 = _transform_gradients(4), _transform_gradients(2)
transform_sums_4, transform_sums_2 = _transform_sums(4), _transform_sums(2)
add_windows_3, add_windows_5 = _add_windows(3), _add_windows(5)
