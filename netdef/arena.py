"""The arrays of a program: its buffers, as ``memory`` has laid them out, in real memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Shape
from netdef.memory import LINE, PAGE, Memory, Places, place, shape_of
from netdef.plan import Plan


class Arena:
    """Gives each buffer of a plan its memory, and arrays on it; nothing is copied when it moves.

    An array is the same object each time it is asked for, until its buffer moves or changes its
    size: so whoever holds it can tell by ``is``.
    """

    def __init__(self, memory: Memory, dtype: Any, lender: Arena | None = None) -> None:
        """``dtype``: of values and gradients. ``lender``: an arena of a program that never runs at
        the same time; its memory is used where it suffices."""
        self._memory = memory
        self._dtype = np.dtype(dtype)
        self._lender = lender
        self._places = Places((), (), 0)
        self._bytes = np.empty(0, np.uint8)
        self._nothing = np.empty(0, np.uint8)
        self._placeholders: dict[tuple[Shape, Any], Array] = {}
        #: Each buffer as one axis, and the arrays that were asked for by their shape.
        self._flat: list[Array | None] = [None] * len(memory.buffers)
        self._arrays: list[dict[Shape, Array]] = [{} for _ in memory.buffers]

    def follow(self, plan: Plan) -> None:
        """Take the sizes of the present shapes of the plan. Raises MemoryError."""
        places = place(plan, self._memory, self._dtype)
        room = self._room(places.arena)
        moved = room is not self._bytes
        self._bytes = room
        for number, offset in enumerate(places.offsets):
            size = places.sizes[number]
            before = self._flat[number]
            stays = before is not None and before.nbytes == size
            if offset is None:
                # Allocated when it is asked for: much that a plan provides for is never used.
                if not stays:
                    self._take(number, None)
            elif moved or not stays or self._places.offsets[number] != offset:
                _, dtype = shape_of(plan, self._memory, self._memory.buffers[number])
                part = room[offset : offset + size]
                self._take(number, part.view(dtype or self._dtype))
        self._places = places

    def array(self, plan: Plan, number: int, shape: Shape) -> Array:
        """The buffer as an array of this shape. Raises MemoryError."""
        flat = self._flat[number]
        if flat is None:
            dtype = np.dtype(
                shape_of(plan, self._memory, self._memory.buffers[number])[1] or self._dtype
            )
            flat = _zeros(self._places.sizes[number], number).view(dtype)
            self._take(number, flat)
        found = self._arrays[number].get(shape)
        if found is None:
            found = self._arrays[number][shape] = flat.reshape(shape)
        return found

    def placeholder(self, shape: Shape, dtype: Any = None) -> Array:
        """An array that nobody reads or writes: it takes no memory."""
        key = shape, np.dtype(dtype or self._dtype)
        if key not in self._placeholders:
            size = math.prod(shape) * key[1].itemsize
            if self._nothing.size < size:
                self._nothing = np.zeros(size, np.uint8)
            self._placeholders[key] = self._nothing[:size].view(key[1]).reshape(shape)
        return self._placeholders[key]

    def adopt(self, number: int, array: Array) -> None:
        """Let the buffer, which has memory of its own, be that of this array."""
        self._take(number, array.reshape(-1))
        self._arrays[number][array.shape] = array

    def is_own(self, number: int) -> bool:
        """Whether the buffer lies outside the arena."""
        return self._memory.buffers[number].own

    @property
    def largest(self) -> int:
        """The number of the largest buffer."""
        return int(np.argmax(self._places.sizes)) if self._places.sizes else 0

    def _take(self, number: int, flat: Array | None) -> None:
        self._flat[number] = flat
        self._arrays[number] = {}

    def _room(self, size: int) -> Array:
        """At least ``size`` bytes, from the start of a page on."""
        if self._bytes.size >= size:
            return self._bytes
        if self._lender is not None and self._lender._bytes.size >= size:
            return self._lender._bytes
        return _from(np.empty(size + PAGE, np.uint8), 0, size)


def _zeros(size: int, number: int) -> Array:
    """Zeros, which take no memory before they are written: ``size`` bytes.

    They begin on a line of the page that depends on ``number``, as do those in an arena.
    """
    whole = PAGE if size >= PAGE else LINE
    return _from(np.zeros(size + whole, np.uint8), number * 7 * LINE % whole, size)


def _from(raw: Array, line: int, size: int) -> Array:
    """``size`` bytes of ``raw`` from an address on that is ``line`` behind a whole line or page."""
    whole = raw.size - size
    skip = (line - raw.ctypes.data) % whole
    return raw[skip : skip + size]
