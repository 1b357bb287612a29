"""Protobuf's wire format, read field by field without a schema and without trusting what is read.

The file is mapped into memory and its numbers are seen through numpy: nothing is copied, the work
in Python depends on the number of fields, not of numbers, and no file can make it allocate more
than its own size. There is no recursion: who knows a message asks for its fields.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netdef.blob import Array
from netdef.errors import WeightsError

#: The most fields looked at in one file. A thousand layers take some thirty thousand; a file made
#: to keep the reader busy is refused here, after less than a second.
MOST_FIELDS = 300_000

#: A message whose parts become objects of their own counts as so many fields more.
MESSAGE_FIELDS = 4

#: The most bytes of a name or a path; more is damage, and would fill the screen as a message.
LONGEST_NAME = 4096

#: The most keys looked at in one step, where numbers stand behind a key each.
MOST_KEYS = 1 << 18

#: The most bytes of a file that systems map at a time.
LARGEST_PAGE = 2 << 20

#: Wire types of the format.
VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)


class Field(NamedTuple):
    """One field of a message: the bytes ``start`` to ``end`` of the file, ``value`` if a varint.

    ``at`` is where its key stands. Fixed-width fields with the same key that follow each other come
    as one: ``repeats`` values, each ``stride`` bytes after the one before.
    """

    number: int
    type: int
    at: int
    start: int
    end: int
    value: int = 0
    repeats: int = 1
    stride: int = 0


@dataclass(eq=False)
class Wire:
    """A protobuf file, walked field by field.

    ``where`` names the part being read ("layer 3"), for messages.
    """

    path: str
    content: memoryview
    where: str = ""
    fields_left: int = MOST_FIELDS

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Wire:
        """Map the file at ``path``. Raises WeightsError where it cannot be read or is empty."""
        path = os.fspath(path)
        try:
            # Looked at before it is opened: opening a pipe would wait for a writer.
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise WeightsError(f"cannot read {path}: it is a folder, not a file", code="E401")
            if not stat.S_ISREG(mode):
                raise WeightsError(f"cannot read {path}: it is not a regular file", code="E401")
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise WeightsError(f"{path} is empty", code="E402")
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            reasons = {errno.ENOENT: "there is no such file", errno.EACCES: "permission denied"}
            reason = reasons.get(error.errno or 0, error.strerror or str(error))
            raise WeightsError(f"cannot read {path}: {reason}", code="E401") from error
        except ValueError as error:
            raise WeightsError(f"cannot read {path!r}: {error}", code="E401") from error
        return cls(path, memoryview(mapped))

    def error(self, code: str, reason: str, hint: str = "") -> WeightsError:
        return WeightsError(f"{self.path} {reason}", code=code, hint=hint)

    def damaged(self, at: int, reason: str, hint: str = "") -> WeightsError:
        """The error for bytes that make no sense from offset ``at`` on."""
        where = f", in {self.where}" if self.where else ""
        return self.error("E403", f"is damaged at byte {at}{where}: {reason}", hint)

    def fields(self, start: int = 0, end: int | None = None) -> Iterator[Field]:
        """The fields of the message that lies between two offsets, in their order."""
        at = start
        end = len(self.content) if end is None else end
        while at < end:
            self._spend(at, 1)
            key, begin = self.varint(at, end)
            number, type = key >> 3, key & 7
            if number == 0 or number >= 1 << 29:
                raise self.damaged(at, f"{number} is not a field number")
            if type == VARINT:
                value, stop = self.varint(begin, end)
                yield Field(number, type, at, begin, stop, value)
            elif type == LENGTH:
                length, begin = self.varint(begin, end)
                stop = begin + length
                if stop > end:
                    raise self.damaged(
                        at,
                        f"field {number} claims {length} bytes where {end - begin} are left",
                        "the file may be cut short; compare its size with the original",
                    )
                yield Field(number, type, at, begin, stop)
            elif type in (FIXED32, FIXED64):
                width = 4 if type == FIXED32 else 8
                if begin + width > end:
                    raise self.damaged(at, f"field {number} is cut short")
                stride = begin - at + width
                count = self._run(at, end, begin - at, stride)
                stop = at + count * stride
                yield Field(number, type, at, begin, stop, 0, count, stride)
            else:
                raise self.damaged(at, f"field {number} has wire type {type}, unknown to Caffe")
            at = stop

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The unsigned varint at an offset, and the offset after it."""
        if at < end and self.content[at] < 128:
            return self.content[at], at + 1  # most of them take one byte
        value = shift = 0
        for position in range(at, min(end, at + 10)):
            byte = self.content[position]
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (1 << 64) - 1, position + 1
            shift += 7
        raise self.damaged(at, "a number is cut short" if end < at + 10 else "a number has no end")

    def _run(self, at: int, end: int, key: int, stride: int) -> int:
        """How many fields of ``stride`` bytes follow each other with the same key."""
        most = (end - at) // stride
        count, block = 1, 16
        # The blocks grow, so a run costs its length and not that of the message; up to a limit, so
        # that it costs no memory.
        while count < most and key == 1 and self.content[at + count * stride] == self.content[at]:
            block = min(2 * block, MOST_KEYS, most - count)
            start = at + count * stride
            keys = np.ndarray((block,), np.uint8, self.content, start, (stride,))
            others = keys != self.content[at]
            first = int(others.argmax())
            if others[first]:
                return count + first
            count += block
            give_back(keys)
        return count

    def message(self, field: Field) -> Iterator[Field]:
        """The fields of the message that ``field`` holds."""
        self.expect(field, LENGTH)
        return self.fields(field.start, field.end)

    def costly(self, field: Field) -> None:
        """Count the message that ``field`` holds for more than one field."""
        self._spend(field.at, MESSAGE_FIELDS)

    def _spend(self, at: int, count: int) -> None:
        self.fields_left -= count
        if self.fields_left < 0:
            raise self.damaged(at, f"it has more than {MOST_FIELDS} fields")

    def text(self, field: Field) -> str:
        # Names are UTF-8 in all but damaged files; the others must still fit into a message.
        return self.short_bytes(field).decode("utf-8", "backslashreplace")

    def short_bytes(self, field: Field) -> bytes:
        """A copy of the bytes of a name or a path."""
        self.expect(field, LENGTH)
        if field.end - field.start > LONGEST_NAME:
            raise self.damaged(field.at, f"a name has {field.end - field.start} bytes")
        return bytes(self.content[field.start : field.end])

    def integer(self, field: Field) -> int:
        """A signed integer of 64 bits."""
        self.expect(field, VARINT)
        return signed(field.value)

    def numbers(self, field: Field, dtype: str) -> Array:
        """The values of a packed or unpacked field of floats, as a view into the file."""
        width = np.dtype(dtype).itemsize
        if field.type == LENGTH:
            size = field.end - field.start
            if size % width:
                raise self.damaged(field.at, f"{size} bytes are not a whole number of floats")
            count, stride = size // width, width
        else:
            self.expect(field, FIXED32 if width == 4 else FIXED64)
            count, stride = field.repeats, field.stride
        view: Array = np.ndarray((count,), dtype, self.content, field.start, (stride,))
        return view

    def expect(self, field: Field, type: int) -> None:
        if field.type != type:
            raise self.damaged(
                field.at, f"field {field.number} has wire type {field.type} instead of {type}"
            )


def signed(value: int) -> int:
    """The integer of 64 bits that an unsigned varint stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def cut_short(view: Array) -> bool:
    """Whether the mapped file that ``view`` shows has lost bytes since: to touch them is the end.

    It says False, too, of a view of something else.
    """
    mapped = _mapped(view)
    return mapped is not None and mapped.size() < len(mapped)


def _mapped(view: Array) -> mmap.mmap | None:
    found: object = view
    while isinstance(found, np.ndarray):
        found = found.base
    return found if isinstance(found, mmap.mmap) else None


def give_back(view: Array) -> None:
    """Tell the system that the part of a mapped file which ``view`` shows is done with.

    Its pages then count no longer as memory of this process; whoever looks again finds the same
    bytes. Does nothing where ``view`` shows something else, or the system takes no such advice.
    """
    mapped = _mapped(view)
    if mapped is None or not hasattr(mmap, "MADV_DONTNEED") or not view.size:
        return
    file = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    start = view.__array_interface__["data"][0] - file
    end = start + (view.size - 1) * abs(view.strides[0]) + view.itemsize
    # What lies before came back with it, where the system maps many pages at a time.
    start = max(0, start - LARGEST_PAGE) // mmap.PAGESIZE * mmap.PAGESIZE
    # The page it ends in is still needed, if it goes on there.
    end = end // mmap.PAGESIZE * mmap.PAGESIZE
    if start < end:
        mapped.madvise(mmap.MADV_DONTNEED, start, end - start)
