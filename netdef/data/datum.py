"""Datum, Caffe's record: its wire format parsed by a kernel for many records at once.

A record is raw bytes (channel, row, column), the same as floats, or an encoded image. Unknown
fields are skipped and repeated ones resolved as protobuf does: the last value counts, repeated
``float_data`` adds up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef.data.images import NO_ROWS, Images, ImageSource, Pixels, decode
from netdef.data.source import VALUE, VALUE_SIZE, RecordError, Records, Source
from netdef.data.varint import varint
from netdef.jit import inline, serial

#: Columns of ``Datums.table``. START and SIZE are those of the field ``data``, SIZE counts floats
#: where there is no ``data``.
KIND, CHANNELS, HEIGHT, WIDTH, LABEL, START, SIZE = range(7)
#: Values of KIND; of the last one there is no more than one, behind all others.
BYTES, FLOATS, ENCODED, MALFORMED = range(4)
#: What ``_parse`` reports: how many are of each KIND before, then whether all that have values are
#: of one size.
ALIKE = MALFORMED

# Field numbers of Datum, and wire types.
_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _FLOAT_DATA, _ENCODED = range(1, 8)
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_MALFORMED_FIELD = (0, 0, 0, 0, -1)


class DatumImages(ImageSource):
    """The images of a database of Datums; ``color``: see ``images.decode``."""

    def __init__(self, source: Source, color: bool | None) -> None:
        self.size = source.size
        self._source = source
        self._color = color
        #: What is wrong with the next record, where that is known already.
        self._fault: RecordError | None = None

    def seek(self, records: int, key: np.uint64) -> None:
        self._fault = None
        self._source.seek(records % self.size)

    def first(self) -> Images:
        self.seek(0, np.uint64(0))
        return self.read(1)

    def read(self, count: int) -> Images:
        if self._fault is not None:
            raise self._fault
        datums = parse(self._source.read(count))
        self._fault = datums.fault
        buffer, table = datums.records.buffer, datums.table
        encoded = datums.rows(ENCODED)
        doubt = ""
        if self._color is not None and len(encoded) < len(table):
            doubt = "force_color and force_gray have no effect on records that are not encoded"

        def decode_row(row: int) -> NDArray[np.uint8]:
            start, size = table[row, START], table[row, SIZE]
            try:
                return decode(buffer[start : start + size], self._color)
            except RecordError as error:
                raise error.of(datums.records.name(row)) from None

        return Images(
            table[:, LABEL],
            table[:, CHANNELS : WIDTH + 1],
            pixels(datums),
            encoded,
            decode_row,
            datums.records.name,
            doubt,
            datums.alike,
        )

    def confirm(self) -> None:
        self._source.confirm()

    def close(self) -> None:
        self._source.close()


class Datums(NamedTuple):
    """Parsed records: row ``i`` of ``table`` int64 (n, 7) describes record ``i`` of ``records``.

    ``counts`` says how many are of each KIND, ``alike`` whether all that have values are of one
    size. ``fault`` is what is wrong with the record after these, where one was parsed.
    """

    records: Records
    table: NDArray[np.int64]
    counts: list[int]
    alike: bool
    fault: RecordError | None

    def rows(self, kind: int) -> NDArray[np.int64]:
        """The numbers of the records of one kind."""
        if self.counts[kind] == len(self.table):
            return np.arange(len(self.table))
        return np.flatnonzero(self.table[:, KIND] == kind) if self.counts[kind] else NO_ROWS


def parse(records: Records) -> Datums:
    """Parse records, up to the first that is no Datum or whose sizes contradict its data.

    Raises ``RecordError`` where that is the first of all.
    """
    table = np.empty((len(records.spans), 7), np.int64)
    report = np.empty(4, np.int64)
    _parse(records.buffer, records.spans, table, report)
    *counts, alike = report.tolist()
    good = sum(counts)
    if good == len(table):
        return Datums(records, table, counts, alike != 0, None)
    fault = RecordError(f"{records.name(good)} {_complaint(table[good])}")
    if not good:
        raise fault
    return Datums(records, table[:good], counts, alike != 0, fault)


def _complaint(entry: NDArray[np.int64]) -> str:
    kind, channels, height, width, _, _, size = entry.tolist()
    if kind == MALFORMED:
        return "is no Datum"
    if min(channels, height, width) < 1:
        return (
            f"is no image: its channels are {channels}, its height is {height}, its width {width}"
        )
    unit = "float_data" if kind == FLOATS else "bytes of data"
    expected = channels * height * width
    return (
        f"has {size} {unit}, but {channels} channels of {height} x {width} are {expected} of them"
    )


def pixels(datums: Datums) -> list[Pixels]:
    """The values of every record that is not encoded: bytes where they lie, floats as a copy."""
    records, table = datums.records, datums.table
    found: list[Pixels] = []
    raw = datums.rows(BYTES)
    if raw.size:
        found.append(Pixels(raw, table[raw, START], records.buffer))
    floats = datums.rows(FLOATS)
    if floats.size:
        sizes = table[floats, SIZE]
        values = np.empty(int(sizes.sum()), np.float32)
        _copy_floats(records.buffer, records.spans[floats], values.view(np.uint8))
        found.append(Pixels(floats, np.cumsum(sizes) - sizes, values))
    return found


@inline
def _field(buffer: Any, at: Any, end: Any) -> Any:
    """The field at ``at``: number, wire type, value or length, where its contents start, and end.

    That end is -1 where there is no valid field.
    """
    tag, at = varint(buffer, at, end)
    number = tag >> 3
    wire = tag & 7
    if at < 0 or number < 1 or number > 0x1FFFFFFF:
        return _MALFORMED_FIELD
    value = np.int64(0)
    start = at
    if wire == _VARINT:
        value, at = varint(buffer, at, end)
    elif wire == _FIXED64:
        at += 8
    elif wire == _FIXED32:
        at += 4
    elif wire == _LENGTH:
        value, start = varint(buffer, at, end)
        if start < 0 or value < 0 or value > end - start:
            return _MALFORMED_FIELD
        at = start + value
    else:
        return _MALFORMED_FIELD
    if at > end:
        at = np.int64(-1)
    return number, wire, value, start, at


@inline
def _int32(value: Any) -> Any:
    low = value & 0xFFFFFFFF
    return low - 0x100000000 if low >= 0x80000000 else low


@serial
def _parse(buffer: Any, spans: Any, table: Any, report: Any) -> None:
    """Fill ``table`` up to the first record that cannot be used, and ``report`` on the others."""
    report[:] = 0
    report[ALIKE] = 1
    first = np.int64(-1)
    for i in range(spans.shape[0]):
        at = spans[i, VALUE]
        end = at + spans[i, VALUE_SIZE]
        table[i, :] = 0
        floats = 0
        encoded = False
        while 0 <= at < end:
            number, wire, value, start, at = _field(buffer, at, end)
            if at < 0:
                break
            if wire == _VARINT:
                if number == _CHANNELS:
                    table[i, CHANNELS] = _int32(value)
                elif number == _HEIGHT:
                    table[i, HEIGHT] = _int32(value)
                elif number == _WIDTH:
                    table[i, WIDTH] = _int32(value)
                elif number == _LABEL:
                    table[i, LABEL] = _int32(value)
                elif number == _ENCODED:
                    encoded = value != 0
            elif number == _DATA and wire == _LENGTH:
                table[i, START] = start
                table[i, SIZE] = value
            elif number == _FLOAT_DATA and wire == _FIXED32:
                floats += 1
            elif number == _FLOAT_DATA and wire == _LENGTH:
                if value % 4 != 0:
                    at = -1
                floats += value // 4
        if encoded:
            table[i, KIND] = ENCODED
        elif table[i, SIZE] == 0 and floats > 0:
            table[i, KIND] = FLOATS
            table[i, SIZE] = floats
        else:
            table[i, KIND] = BYTES
        if at < 0:
            table[i, KIND] = MALFORMED
            return
        if not (encoded or _fits(table[i])):
            return
        report[table[i, KIND]] += 1
        if encoded:
            continue
        if first < 0:
            first = i
        for column in (CHANNELS, HEIGHT, WIDTH):
            if table[i, column] != table[first, column]:
                report[ALIKE] = 0


@inline
def _fits(entry: Any) -> Any:
    """Whether a record has as many values as its sizes say."""
    channels, height, width = entry[CHANNELS], entry[HEIGHT], entry[WIDTH]
    # In floats: the product of three sizes may be over the integers. Equality is exact where it can
    # hold.
    values = np.float64(channels) * np.float64(height) * np.float64(width)
    return min(channels, height, width) > 0 and values == np.float64(entry[SIZE])


@serial
def _copy_floats(buffer: Any, spans: Any, out: Any) -> None:
    """Gather, as bytes, the ``float_data`` of records that ``_parse`` found valid."""
    filled = 0
    for i in range(spans.shape[0]):
        at = spans[i, VALUE]
        end = at + spans[i, VALUE_SIZE]
        while at < end:
            number, wire, _length, start, at = _field(buffer, at, end)
            if number == _FLOAT_DATA and wire in (_FIXED32, _LENGTH):
                size = at - start
                out[filled : filled + size] = buffer[start : start + size]
                filled += size
