"""LevelDB databases, read in place: nothing is written, nothing is locked.

The library itself opens no database without writing to it: it takes a lock, so that a second net
cannot read the same records, and replaces the log and the list of files, so that a folder which is
read-only cannot be opened at all. A reader of records needs neither. This one takes the newest
state, as it was when it was opened.

A database is a list of tables, each sorted by key, and a log of what is in no table yet. The list
is the MANIFEST that the file CURRENT names. Where the tables follow each other without overlap,
which is how Caffe's tools write them, they are read one after the other; else an order is made
first, in memory.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from netdef.data.leveldb_files import (
    FOUND,
    HINT,
    KEY,
    KIND,
    PUT,
    SEQUENCE,
    VALUE,
    Entries,
    is_simple,
    read_batches,
    read_index,
    read_log,
    unpack,
)
from netdef.data.source import RecordError, Records, Source

COMPARATOR = b"leveldb.BytewiseComparator"

#: So many bytes of a table are unpacked at a time, if it has that many.
CHUNK_BYTES = 1 << 20
#: Of so many chunks the entries are kept: more than one only where tables overlap.
CHUNKS = 8

#: So many databases are known, and none with more than so many bytes in its log.
MOST_KNOWN = 4
MOST_LOGGED_BYTES = 64 << 20

# Tags of what a MANIFEST tells.
_COMPARATOR, _LOG, _NEXT_FILE, _LAST_SEQUENCE, _COMPACTED, _DELETED, _NEW = range(1, 8)
_PREVIOUS_LOG = 9


class LevelDB(Source):
    """A folder with a file CURRENT. Raises ``RecordError`` where it is damaged or has no record."""

    kind = "LevelDB"

    def __init__(self, path: str) -> None:
        self.path = path
        self._runs, self._pieces = _contents(Path(path))
        #: What was unpacked last.
        self._held: Chunks = OrderedDict()
        ends = np.cumsum(self._pieces[:, 2])
        #: Which record comes first in each piece.
        self._starts = ends - self._pieces[:, 2]
        self.size = int(ends[-1]) if len(ends) else 0
        if self.size < 1:
            raise RecordError(f'"{path}" holds no records')
        self._position = 0

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, count: int) -> Records:
        if self._position == self.size:
            self._position = 0
        first = self._position
        stop = min(first + count, self.size)
        buffers: list[NDArray[np.uint8]] = []
        spans: list[NDArray[np.int64]] = []
        size = 0
        while self._position < stop and (not buffers or size < CHUNK_BYTES):
            buffer, found = self._read_piece(stop - self._position)
            # Keys and values are counted from the start of what all of them will lie in.
            spans.append(found + np.array([size, 0, size, 0]))
            buffers.append(buffer)
            size += buffer.size
            self._position += len(found)
        buffer = buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
        return Records(buffer, np.concatenate(spans), first, self.path)

    def _read_piece(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """At least one of the next ``count`` records: the bytes they lie in, and where."""
        number = int(np.searchsorted(self._starts, self._position, "right")) - 1
        run, first, length = self._pieces[number].tolist()
        passed = self._position - int(self._starts[number])
        entries, row = self._runs[run].at(first + passed, self._held)
        rows = entries.table[row : row + min(count, length - passed)]
        low, high = int(rows[0, VALUE]), int(rows[:, :2].sum(axis=1).max())
        if high - low < entries.buffer.size // 2:
            # Less would be copied than would be kept in memory for nothing.
            return _cut(entries.buffer, rows)
        return entries.buffer, rows[:, :4]


def _cut(
    buffer: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The part of ``buffer`` with these entries' values, and behind it that with their keys."""
    parts, spans = [], rows[:, :4].copy()
    size = 0
    for column in (VALUE, KEY):
        low = int(rows[:, column].min())
        high = int(rows[:, column : column + 2].sum(axis=1).max())
        parts.append(buffer[low:high])
        spans[:, column] += size - low
        size += high - low
    return np.concatenate(parts), spans


#: Entries that are unpacked, by the table and the number of the chunk; the oldest first.
Chunks: TypeAlias = "OrderedDict[tuple[Path, int], Entries]"


class _Run:
    """Entries in ascending order of their keys, the newest of a key first."""

    #: How many there are.
    count: int
    #: Whether all are values, of different keys.
    simple: bool
    #: The least and the greatest key.
    span: tuple[bytes, bytes]

    def at(self, number: int, held: Chunks) -> tuple[Entries, int]:
        """Some of the entries, and which row of these is entry ``number``.

        They may be among those ``held``, and are so afterwards.
        """
        raise NotImplementedError


class _Log(_Run):
    """What is in no table yet, all of it in memory."""

    def __init__(self, entries: Entries) -> None:
        table = entries.table
        report = np.zeros(4, np.int64)
        is_simple(entries.buffer, table, report)
        self.simple = bool(report[FOUND])
        if not self.simple:
            keys = [entries.key(row) for row in range(len(table))]
            newness = (-table[:, SEQUENCE]).tolist()
            table = table[sorted(range(len(table)), key=lambda row: (keys[row], newness[row]))]
            is_simple(entries.buffer, table, report)
            self.simple = bool(report[FOUND])
        self._entries = Entries(entries.buffer, table)
        self.bytes = entries.buffer.size
        self.count = len(table)
        self.span = self._entries.key(0), self._entries.key(self.count - 1)

    def at(self, number: int, held: Chunks) -> tuple[Entries, int]:
        return self._entries, number


class _Table(_Run):
    """A file of blocks. All of it is read when this is made, since nothing says what it holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            size = path.stat().st_size
        except OSError as error:
            raise RecordError(f'"{path}" cannot be read: {error.strerror}', hint=HINT) from None
        self._blocks = read_index(path, size)
        self._chunks = list(_chunks(self._blocks))
        counts = []
        self.simple = True
        keys: list[bytes] = []
        report = np.zeros(4, np.int64)
        for first, last in self._chunks:
            entries = unpack(path, self._blocks[first:last])
            counts.append(len(entries.table))
            if not counts[-1]:
                continue
            is_simple(entries.buffer, entries.table, report)
            begin, end = entries.key(0), entries.key(counts[-1] - 1)
            if keys and begin < keys[-1]:
                raise RecordError(f'"{path}" is damaged: its keys are not in order', hint=HINT)
            self.simple &= bool(report[FOUND]) and not (keys and begin == keys[-1])
            keys += [begin, end]
        #: How many entries come before each chunk, and how many there are.
        self._before = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.count = int(self._before[-1])
        self.span = (keys[0], keys[-1]) if keys else (b"", b"")

    def at(self, number: int, held: Chunks) -> tuple[Entries, int]:
        chunk = int(np.searchsorted(self._before, number, "right")) - 1
        place = self._path, chunk
        entries = held.get(place)
        if entries is None:
            first, last = self._chunks[chunk]
            entries = unpack(self._path, self._blocks[first:last])
            if len(entries.table) != self._before[chunk + 1] - self._before[chunk]:
                raise RecordError(f'"{self._path}" has changed since it was opened')
            held[place] = entries
            if len(held) > CHUNKS:
                held.popitem(last=False)
        return entries, number - int(self._before[chunk])


#: What the databases that were opened last consist of, by the state of their files. A net opens
#: its databases more than once, and to look through one takes as long as reading it.
_known: OrderedDict[tuple[object, ...], tuple[list[_Run], NDArray[np.int64]]] = OrderedDict()
_lock = threading.Lock()


def _contents(folder: Path) -> tuple[list[_Run], NDArray[np.int64]]:
    """The runs of a database, and which entries of them are its records: see ``_pieces``."""
    state = _fingerprint(folder)
    with _lock:
        if state in _known:
            return _known[state]
    runs = _open_runs(folder)
    found = runs, _pieces(runs)
    with _lock:
        if all(run.bytes <= MOST_LOGGED_BYTES for run in runs if isinstance(run, _Log)):
            _known[state] = found
        if len(_known) > MOST_KNOWN:
            _known.popitem(last=False)
    return found


def _fingerprint(folder: Path) -> tuple[object, ...]:
    """Something that changes with the files in a folder."""
    files = []
    try:
        for entry in os.scandir(folder):
            found = entry.stat()
            files.append((entry.name, found.st_size, found.st_mtime_ns, found.st_ino))
    except OSError as error:
        raise RecordError(f'"{folder}" cannot be read: {error.strerror}') from None
    return (os.path.abspath(folder), *sorted(files))


def _chunks(blocks: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of blocks that have about CHUNK_BYTES together: the first, and the one behind them."""
    first, size = 0, 0
    for number, length in enumerate(blocks[:, 1].tolist()):
        size += length
        if size >= CHUNK_BYTES:
            yield first, number + 1
            first, size = number + 1, 0
    if first < len(blocks):
        yield first, len(blocks)


def _pieces(runs: list[_Run]) -> NDArray[np.int64]:
    """Which entries of the runs are the records, in order: (n, 3) run, first entry, how many."""
    order = sorted(range(len(runs)), key=lambda number: runs[number].span)
    spans = [runs[number].span for number in order]
    apart = all(before[1] < after[0] for before, after in pairwise(spans))
    if apart and all(run.simple for run in runs):
        return np.array([(number, 0, runs[number].count) for number in order]).reshape(-1, 3)
    merged = np.array(_merge(runs), np.int64).reshape(-1, 2)
    # Entries that follow each other in their run are one piece.
    follows = (merged[1:, 0] == merged[:-1, 0]) & (merged[1:, 1] == merged[:-1, 1] + 1)
    firsts = np.flatnonzero(np.concatenate([[True], ~follows])[: len(merged)])
    lengths = np.diff(np.append(firsts, len(merged)))
    return np.column_stack([merged[firsts], lengths]).astype(np.int64)


def _merge(runs: list[_Run]) -> list[tuple[int, int]]:
    """Run and number of the newest entry of each key, in the order of keys, without deletions."""
    found: list[tuple[bytes, int, int, int, int]] = []
    held: Chunks = OrderedDict()
    for number, run in enumerate(runs):
        done = 0
        while done < run.count:
            entries, first = run.at(done, held)
            for row in range(first, len(entries.table)):
                entry = entries.table[row].tolist()
                key = entries.key(row)
                found.append((key, -entry[SEQUENCE], entry[KIND], number, done))
                done += 1
    found.sort()
    merged = []
    last: bytes | None = None
    for key, _, kind, number, place in found:
        if key != last and kind == PUT:
            merged.append((number, place))
        last = key
    return merged


# The list of files.


class _State(NamedTuple):
    """What a MANIFEST says: the numbers of the tables, and from which log on logs count."""

    tables: list[int]
    log: int
    previous_log: int


def _open_runs(folder: Path) -> list[_Run]:
    state = _read_state(folder)
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise RecordError(f'"{folder}" cannot be read: {error.strerror}') from None
    runs: list[_Run] = []
    for number in state.tables:
        # Older versions of LevelDB called tables .sst.
        found = [name for name in (f"{number:06d}.ldb", f"{number:06d}.sst") if name in names]
        if not found:
            raise RecordError(f'"{folder}" lacks the table {number:06d}.ldb', hint=HINT)
        runs.append(_Table(folder / found[0]))
    logs = [int(match[1]) for match in map(re.compile(r"(\d+)\.log").fullmatch, names) if match]
    batches = [
        read_batches(folder / f"{number:06d}.log")
        for number in sorted(logs)
        if number >= state.log or number == state.previous_log
    ]
    if any(len(batch.table) for batch in batches):
        runs.append(_Log(_joined(batches)))
    return [run for run in runs if run.count]


def _joined(batches: list[Entries]) -> Entries:
    if len(batches) == 1:
        return batches[0]
    buffer = np.concatenate([batch.buffer for batch in batches])
    offset = 0
    for batch in batches:
        batch.table[:, [VALUE, KEY]] += offset
        offset += batch.buffer.size
    return Entries(buffer, np.concatenate([batch.table for batch in batches]))


def _read_state(folder: Path) -> _State:
    try:
        with open(folder / "CURRENT", "rb") as file:
            current = file.read(100)
    except OSError as error:
        raise RecordError(f'"{folder}/CURRENT" cannot be read: {error.strerror}') from None
    if not re.fullmatch(rb"MANIFEST-\d{1,20}\n", current):
        raise RecordError(f'"{folder}/CURRENT" does not name a MANIFEST', hint=HINT)
    manifest = folder / current.decode().strip()
    joined, ends = read_log(manifest)
    levels: dict[int, set[int]] = {}
    log = previous_log = 0
    start = 0
    told: set[int] = set()
    for end in ends.tolist():
        edit = _Edit(joined[start:end].tobytes(), manifest)
        start = end
        while edit.left():
            tag = edit.number()
            told.add(tag)
            if tag == _COMPARATOR:
                comparator = edit.text()
                if comparator != COMPARATOR:
                    name = comparator[:60].decode("ascii", "backslashreplace")
                    raise RecordError(f'"{folder}" has its keys in another order: "{name}"')
            elif tag == _LOG:
                log = edit.number()
            elif tag == _PREVIOUS_LOG:
                previous_log = edit.number()
            elif tag in (_NEXT_FILE, _LAST_SEQUENCE):
                edit.number()
            elif tag == _COMPACTED:
                edit.number()
                edit.text()
            elif tag == _DELETED:
                level = edit.number()
                levels.setdefault(level, set()).discard(edit.number())
            elif tag == _NEW:
                level = edit.number()
                levels.setdefault(level, set()).add(edit.number())
                edit.number()  # its size
                edit.text()  # its first key
                edit.text()  # its last key
            else:
                raise edit.damaged()
    if not told >= {_LOG, _NEXT_FILE, _LAST_SEQUENCE}:
        raise RecordError(f'"{manifest}" is cut short', hint=HINT)
    return _State(sorted(set().union(*levels.values())), log, previous_log)


class _Edit:
    """One record of a MANIFEST, read number by number. Raises ``RecordError`` where it ends."""

    def __init__(self, record: bytes, path: Path) -> None:
        self._record = record
        self._path = path
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._record)

    def number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            if not self.left():
                break
            byte = self._record[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self.damaged()

    def text(self) -> bytes:
        size = self.number()
        start, self._at = self._at, self._at + size
        if self._at > len(self._record):
            raise self.damaged()
        return self._record[start : self._at]

    def damaged(self) -> RecordError:
        return RecordError(f'"{self._path}" is damaged', hint=HINT)
