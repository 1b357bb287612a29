"""The files of a LevelDB: logs, tables, and the blocks in them, checked and unpacked by kernels.

Every length is checked against what is there before anything is read or allocated by it, and every
block and log record against its checksum, so a damaged file is an error and never a wrong record.

The formats, little-endian (LevelDB's doc/log_format.md and doc/table_format.md):

    log      pieces of records: u32 checksum, u16 size, u8 kind (whole, first, middle, last), bytes;
             none crosses a multiple of 32 KiB
    table    blocks, each with a trailer: u8 compression, u32 checksum; at the end of the file a
             footer of 48 bytes: where two blocks lie, the second of which is the index, and a magic
    block    entries: varint bytes shared with the key before, varint bytes of its own, varint size
             of the value, those bytes, the value; then u32 offsets of entries, and their number
    index    a block whose values say where blocks lie: varint offset, varint size
    key      the user's, then u64: sequence number << 8, and 1 for a value or 0 for a deletion

Blocks are compressed with Snappy (google/snappy, format_description.txt), or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef.data.source import RecordError
from netdef.data.varint import varint
from netdef.jit import inline, serial

#: Columns of a table of entries; the first four are those of ``Records.spans``.
VALUE, VALUE_SIZE, KEY, KEY_SIZE, SEQUENCE, KIND = range(6)
#: Values of KIND.
DELETION, PUT = 0, 1

LOG_BLOCK = 1 << 15
LOG_HEADER = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = range(1, 5)

FOOTER = 48
TABLE_MAGIC = 0xDB4775248B80FB57
TRAILER = 5
_PLAIN, _SNAPPY = 0, 1
#: Of a key, what LevelDB adds behind the user's own.
KEY_SUFFIX = 8
#: A key of ours holds a path, and no path is longer than 4096 bytes.
LONGEST_KEY = 8192
#: Snappy cannot make 64 bytes of less than 3, nor a start of less than 1.
MOST_EXPANSION = 32

#: What kernels report: a fault, where it is, and how much was found.
FAULT, PLACE, FOUND, FOUND_BYTES = range(4)
#: Values of FAULT.
NO_FAULT, CUT_SHORT, CHECKSUM, STRUCTURE, ORDER, COMPRESSION, LONG_KEY = range(7)

_COMPLAINTS = {
    CUT_SHORT: "is cut short in the middle of a record",
    CHECKSUM: "is damaged: a checksum is wrong",
    STRUCTURE: "is damaged",
    ORDER: "is damaged: its keys are not in order",
    COMPRESSION: "has a block of a compression that is not Snappy",
    LONG_KEY: f"has a key of more than {LONGEST_KEY} bytes",
}

HINT = "was it copied whole?"


def _checksum_tables() -> NDArray[np.int64]:
    """Of CRC-32C, for eight bytes at a time."""
    tables = np.zeros((8, 256), np.int64)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = (tables[0] >> 1) ^ np.where(tables[0] & 1, 0x82F63B78, 0)
    for i in range(1, 8):
        tables[i] = tables[0][tables[i - 1] & 0xFF] ^ (tables[i - 1] >> 8)
    return tables


CHECKSUM_TABLES = _checksum_tables()


def fault(path: Path, report: NDArray[np.int64], offset: int = 0) -> RecordError:
    """What ``report`` says of the file at ``path``; ``offset``: where the bytes it is of begin."""
    complaint = _COMPLAINTS[int(report[FAULT])]
    return RecordError(f'"{path}" {complaint} (byte {offset + report[PLACE]})', hint=HINT)


class Entries(NamedTuple):
    """Keys and values, as they follow each other in a file.

    ``buffer``  uint8, the bytes they lie in
    ``table``   int64 (n, 6): see the columns above
    """

    buffer: NDArray[np.uint8]
    table: NDArray[np.int64]

    def key(self, row: int) -> bytes:
        start, size = self.table[row, KEY], self.table[row, KEY_SIZE]
        return self.buffer[start : start + size].tobytes()


# Logs.


def read_log(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The records of a log, one after the other, and where each ends. Raises ``RecordError``."""
    file = _read(path, 0, _size(path))
    report = np.zeros(4, np.int64)
    _join(file, CHECKSUM_TABLES, np.empty(0, np.uint8), np.empty(0, np.int64), report)
    if report[FAULT]:
        raise fault(path, report)
    joined = np.empty(int(report[FOUND_BYTES]), np.uint8)
    ends = np.empty(int(report[FOUND]), np.int64)
    _join(file, CHECKSUM_TABLES, joined, ends, report)
    return joined, ends


def read_batches(path: Path) -> Entries:
    """What was written, in that order, according to the log of a database."""
    joined, ends = read_log(path)
    report = np.zeros(4, np.int64)
    table = np.empty((0, 6), np.int64)
    for _ in range(2):  # once to count
        _parse_batches(joined, ends, table, report)
        if report[FAULT]:
            raise fault(path, report)
        table = np.empty((int(report[FOUND]), 6), np.int64) if not table.size else table
    return Entries(joined, table)


# Tables.


def read_index(path: Path, size: int) -> NDArray[np.int64]:
    """Where the blocks of a table lie that has ``size`` bytes: (n, 2) offsets and sizes.

    Raises ``RecordError`` where that is no table, or a damaged one.
    """
    if size < FOOTER:
        raise RecordError(f'"{path}" has {size} bytes, too few for a table', hint=HINT)
    footer = _read(path, size - FOOTER, FOOTER)
    if int(footer[-8:].view("<u8")[0]) != TABLE_MAGIC:
        raise RecordError(f'"{path}" does not end as a table of LevelDB does', hint=HINT)
    handles = np.zeros((1, 2), np.int64)
    report = np.zeros(4, np.int64)
    _parse_footer(footer, handles, report)
    _check_handles(path, handles, size, report)
    index = unpack(path, handles)
    blocks = np.empty((len(index.table), 2), np.int64)
    _parse_handles(index.buffer, index.table, blocks, report)
    _check_handles(path, blocks, size, report)
    return blocks


def unpack(path: Path, blocks: NDArray[np.int64]) -> Entries:
    """The entries of consecutive blocks of a table. Raises ``RecordError``."""
    first = int(blocks[0, 0])
    file = _read(path, first, int(blocks[-1].sum()) + TRAILER - first)
    report = np.zeros(4, np.int64)
    sizes = np.empty(len(blocks), np.int64)
    _measure(file, blocks, CHECKSUM_TABLES, sizes, report)
    if report[FAULT]:
        raise fault(path, report, first)
    contents = int(sizes.sum())
    # The keys, of which the blocks hold only what differs from the key before, come behind. Mostly
    # this is room enough for them.
    buffer = np.empty(contents + contents // 4 + 1024, np.uint8)
    _expand(file, blocks, buffer, sizes, report)
    if report[FAULT]:
        raise fault(path, report, first)
    _parse_entries(buffer, contents, sizes, np.empty((0, 6), np.int64), report)
    if report[FAULT]:
        raise fault(path, report, first)
    table = np.empty((int(report[FOUND]), 6), np.int64)
    needed = contents + int(report[FOUND_BYTES])
    if needed > buffer.size:
        buffer = np.concatenate([buffer[:contents], np.empty(needed - contents, np.uint8)])
    buffer = buffer[:needed]
    _parse_entries(buffer, contents, sizes, table, report)
    if report[FAULT]:
        raise fault(path, report, first)
    return Entries(buffer, table)


def _check_handles(
    path: Path, handles: NDArray[np.int64], size: int, report: NDArray[np.int64]
) -> None:
    starts, ends = handles[:, 0], handles.sum(axis=1) + TRAILER
    if report[FAULT] or (starts[1:] < ends[:-1]).any() or (handles < 0).any():
        raise RecordError(f'"{path}" is damaged: its index makes no sense', hint=HINT)
    if len(ends) and ends[-1] > size - FOOTER:
        raise RecordError(
            f'"{path}" is cut short: a block ends at byte {ends[-1]} of {size}', hint=HINT
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise RecordError(f'"{path}" cannot be read: {error.strerror}', hint=HINT) from None


def _read(path: Path, start: int, count: int) -> NDArray[np.uint8]:
    """``count`` bytes of a file, from byte ``start`` on: read, not mapped, so that another program
    may cut it short meanwhile."""
    try:
        found = np.fromfile(path, np.uint8, count, offset=start)
    except OSError as error:
        raise RecordError(f'"{path}" cannot be read: {error.strerror}', hint=HINT) from None
    if len(found) < count:
        raise RecordError(f'"{path}" became shorter while it was read')
    return found


@inline
def _u32(file: Any, at: Any) -> Any:
    low = np.int64(file[at]) | np.int64(file[at + 1]) << 8
    return low | np.int64(file[at + 2]) << 16 | np.int64(file[at + 3]) << 24


@inline
def _u64(file: Any, at: Any) -> Any:
    return _u32(file, at) | _u32(file, at + 4) << 32


@inline
def _is_sound(file: Any, start: Any, end: Any, stored: Any, tables: Any) -> Any:
    """Whether the masked CRC-32C of ``file[start:end]`` is ``stored``."""
    crc = np.int64(0xFFFFFFFF)
    at = start
    while at + 8 <= end:
        low = _u32(file, at) ^ crc
        high = _u32(file, at + 4)
        crc = (
            tables[7, low & 0xFF]
            ^ tables[6, (low >> 8) & 0xFF]
            ^ tables[5, (low >> 16) & 0xFF]
            ^ tables[4, low >> 24]
            ^ tables[3, high & 0xFF]
            ^ tables[2, (high >> 8) & 0xFF]
            ^ tables[1, (high >> 16) & 0xFF]
            ^ tables[0, high >> 24]
        )
        at += 8
    while at < end:
        crc = tables[0, (crc ^ file[at]) & 0xFF] ^ (crc >> 8)
        at += 1
    value = crc ^ 0xFFFFFFFF
    masked = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked == stored


@serial
def _join(file: Any, tables: Any, out: Any, ends: Any, report: Any) -> None:
    """Join the pieces of records in a log; only counts them where ``ends`` has no room."""
    report[:] = 0
    counting = ends.size == 0
    at = np.int64(0)
    filled = np.int64(0)
    records = np.int64(0)
    inside = False
    while at < file.size:
        left = LOG_BLOCK - at % LOG_BLOCK
        if left < LOG_HEADER:
            at += left
            continue
        report[PLACE] = at
        if at + LOG_HEADER > file.size:
            report[FAULT] = CUT_SHORT
            return
        size = np.int64(file[at + 4]) | np.int64(file[at + 5]) << 8
        kind = file[at + 6]
        if kind == 0 and size == 0:
            # What was set aside for later.
            at += left
            continue
        start = at + LOG_HEADER
        end = start + size
        if size > left - LOG_HEADER or kind > _LAST:
            report[FAULT] = STRUCTURE
            return
        if end > file.size:
            report[FAULT] = CUT_SHORT
            return
        if inside != (kind in (_MIDDLE, _LAST)):
            report[FAULT] = STRUCTURE
            return
        if counting:
            if not _is_sound(file, at + 6, end, _u32(file, at), tables):
                report[FAULT] = CHECKSUM
                return
        else:
            out[filled : filled + size] = file[start:end]
        filled += size
        inside = kind in (_FIRST, _MIDDLE)
        if not inside:
            if not counting:
                ends[records] = filled
            records += 1
        at = end
    if inside:
        report[FAULT] = CUT_SHORT
        return
    report[FOUND] = records
    report[FOUND_BYTES] = filled


@serial
def _parse_batches(joined: Any, ends: Any, table: Any, report: Any) -> None:
    """Fill the rows of ``table`` that there are, and count those that there should be."""
    report[:] = 0
    row = np.int64(0)
    start = np.int64(0)
    for i in range(ends.size):
        end = ends[i]
        report[PLACE] = start
        report[FAULT] = STRUCTURE
        if end - start < 12:
            return
        sequence = _u64(joined, start)
        count = _u32(joined, start + 8)
        at = start + 12
        for _ in range(count):
            if at >= end:
                return
            kind = joined[at]
            key_size, key = varint(joined, at + 1, end)
            if kind > PUT or key < 0 or key_size < 0 or key_size > end - key:
                return
            at = key + key_size
            value_size = np.int64(0)
            value = at
            if kind == PUT:
                value_size, value = varint(joined, at, end)
                if value < 0 or value_size < 0 or value_size > end - value:
                    return
                at = value + value_size
            if row < table.shape[0]:
                table[row, VALUE] = value
                table[row, VALUE_SIZE] = value_size
                table[row, KEY] = key
                table[row, KEY_SIZE] = key_size
                table[row, SEQUENCE] = sequence
                table[row, KIND] = kind
            sequence += 1
            row += 1
        if at != end:
            return
        start = end
    report[FAULT] = NO_FAULT
    report[FOUND] = row


@serial
def _parse_footer(footer: Any, handles: Any, report: Any) -> None:
    """Where the index lies: the second of the two blocks a footer names."""
    report[FAULT] = STRUCTURE
    end = np.int64(FOOTER - 8)
    at = np.int64(0)
    for i in range(4):
        value, at = varint(footer, at, end)
        if at < 0:
            return
        if i >= 2:
            handles[0, i - 2] = value
    report[FAULT] = NO_FAULT


@serial
def _parse_handles(buffer: Any, table: Any, blocks: Any, report: Any) -> None:
    """Where the blocks lie that the values of an index name."""
    report[FAULT] = STRUCTURE
    for i in range(table.shape[0]):
        at = table[i, VALUE]
        end = at + table[i, VALUE_SIZE]
        for j in range(2):
            blocks[i, j], at = varint(buffer, at, end)
            if at < 0:
                return
            # No file is that large, and the sum of two such numbers stays an integer.
            if blocks[i, j] < 0 or blocks[i, j] > 1 << 60:
                return
    report[FAULT] = NO_FAULT


@serial
def _measure(file: Any, blocks: Any, tables: Any, sizes: Any, report: Any) -> None:
    """Check the blocks against their checksums, and say what sizes they unpack to."""
    first = blocks[0, 0]
    for i in range(blocks.shape[0]):
        start = blocks[i, 0] - first
        end = start + blocks[i, 1]
        report[PLACE] = start
        if not _is_sound(file, start, end + 1, _u32(file, end + 1), tables):
            report[FAULT] = CHECKSUM
            return
        sizes[i] = blocks[i, 1]
        if file[end] == _SNAPPY:
            sizes[i], at = varint(file, start, end)
            if at < 0 or sizes[i] < 0 or sizes[i] > MOST_EXPANSION * blocks[i, 1]:
                report[FAULT] = STRUCTURE
                return
        elif file[end] != _PLAIN:
            report[FAULT] = COMPRESSION
            return


@serial
def _expand(file: Any, blocks: Any, out: Any, sizes: Any, report: Any) -> None:
    """Unpack the blocks, one behind the other."""
    first = blocks[0, 0]
    filled = np.int64(0)
    for i in range(blocks.shape[0]):
        start = blocks[i, 0] - first
        end = start + blocks[i, 1]
        limit = filled + sizes[i]
        if file[end] == _PLAIN:
            out[filled:limit] = file[start:end]
            filled = limit
            continue
        report[PLACE] = start
        report[FAULT] = STRUCTURE
        begin = filled
        _, at = varint(file, start, end)
        while at < end:
            tag = np.int64(file[at])
            at += 1
            size = (tag >> 2) + 1
            if tag & 3 == 0:
                if size > 60:
                    extra = size - 60
                    if extra > end - at:
                        return
                    size = np.int64(1)
                    for j in range(extra):
                        size += np.int64(file[at + j]) << (8 * j)
                    at += extra
                if size > end - at or size > limit - filled:
                    return
                out[filled : filled + size] = file[at : at + size]
                at += size
                filled += size
                continue
            extra = 1 if tag & 3 == 1 else 2 if tag & 3 == 2 else 4
            if extra > end - at:
                return
            back = np.int64(0)
            for j in range(extra):
                back |= np.int64(file[at + j]) << (8 * j)
            at += extra
            if extra == 1:
                size = ((tag >> 2) & 7) + 4
                back |= (tag >> 5) << 8
            if back < 1 or back > filled - begin or size > limit - filled:
                return
            # Byte by byte: what is copied may be what was just written.
            for j in range(size):
                out[filled + j] = out[filled - back + j]
            filled += size
        if filled != limit:
            return
        report[FAULT] = NO_FAULT


@serial
def _parse_entries(buffer: Any, contents: Any, sizes: Any, table: Any, report: Any) -> None:
    """Fill ``table`` with the entries of unpacked blocks, and put their keys behind ``contents``.

    Where the table has no rows, it only counts entries and the bytes of their keys.
    """
    report[:] = 0
    counting = table.shape[0] == 0
    filled = contents
    row = np.int64(0)
    start = np.int64(0)
    for i in range(sizes.size):
        end = start + sizes[i]
        report[PLACE] = start
        report[FAULT] = STRUCTURE
        if end - start < 4:
            return
        restarts = _u32(buffer, end - 4)
        last = end - 4 - 4 * restarts
        if last < start:
            return
        at = start
        before = np.int64(0)
        while at < last:
            shared, at = varint(buffer, at, last)
            if at < 0:
                return
            own, at = varint(buffer, at, last)
            if at < 0:
                return
            value_size, at = varint(buffer, at, last)
            if at < 0 or min(shared, own, value_size) < 0:
                return
            if shared > before or own > last - at or value_size > last - at - own:
                return
            key_size = shared + own
            if key_size < KEY_SUFFIX:
                return
            if key_size > LONGEST_KEY:
                report[FAULT] = LONG_KEY
                return
            if not counting:
                buffer[filled : filled + shared] = buffer[
                    filled - before : filled - before + shared
                ]
                buffer[filled + shared : filled + key_size] = buffer[at : at + own]
                suffix = _u64(buffer, filled + key_size - KEY_SUFFIX)
                table[row, VALUE] = at + own
                table[row, VALUE_SIZE] = value_size
                table[row, KEY] = filled
                table[row, KEY_SIZE] = key_size - KEY_SUFFIX
                table[row, SEQUENCE] = suffix >> 8
                table[row, KIND] = suffix & 0xFF
                if suffix & 0xFF > PUT:
                    return
                if row > 0 and _order(buffer, table, row - 1, row) > 0:
                    report[FAULT] = ORDER
                    return
            filled += key_size
            before = key_size
            row += 1
            at += own + value_size
        report[FAULT] = NO_FAULT
        start = end
    report[FOUND] = row
    report[FOUND_BYTES] = filled - contents


@inline
def _order(buffer: Any, table: Any, a: Any, b: Any) -> Any:
    """Which key comes first: negative where that of row ``a``, 0 where they are the same."""
    a_size, b_size = table[a, KEY_SIZE], table[b, KEY_SIZE]
    for i in range(min(a_size, b_size)):
        difference = np.int64(buffer[table[a, KEY] + i]) - np.int64(buffer[table[b, KEY] + i])
        if difference != 0:
            return difference
    return a_size - b_size


@serial
def is_simple(buffer: Any, table: Any, report: Any) -> None:
    """Report in ``report[FOUND]`` whether all are values, in ascending order of different keys."""
    report[FOUND] = 0
    for row in range(table.shape[0]):
        if table[row, KIND] != PUT:
            return
        if row > 0 and _order(buffer, table, row - 1, row) >= 0:
            return
    report[FOUND] = 1
