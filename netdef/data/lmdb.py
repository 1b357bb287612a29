"""LMDB databases, read in place.

The file is mapped into memory and a kernel walks its B+ tree, checking every offset against the
file: records reach the parser without a copy, without the interpreter, and a damaged file is an
error where the LMDB library itself would abort the process. Nothing is written, not even a lock
file, so read-only folders and any number of readers are fine. A reader takes the newest committed
state; ``confirm`` says when a writer has left that behind.

The format, little-endian on 64-bit machines (LMDB 0.9, http://www.lmdb.tech/doc):

    page          u64 number, u16 unused, u16 flags, u16 lower, u16 upper, then from byte 16
    meta          pages 0 and 1, the one with the higher transaction counts: see ``_Meta``
    branch, leaf  u16 offsets of the nodes in key order, from byte 16 up to byte ``lower``
    branch node   48 bits child page, u16 key size, key
    leaf node     u32 value size, u16 flags, u16 key size, key, value
                  (where the value is too big for the page: u64 number of an overflow page)
    overflow      the value from byte 16 on, over as many pages as it needs
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from netdef.data.source import KEY, KEY_SIZE, VALUE, VALUE_SIZE, RecordError, Records, Source
from netdef.jit import inline, serial

MAGIC = 0xBEEFC0DE
FORMAT = 1
HEADER = 16  # bytes before a page's contents
NODE = 8  # bytes before a node's key
DEEPEST_TREE = 32
LARGEST_PAGE = 1 << 16

BRANCH_PAGE, LEAF_PAGE, OVERFLOW_PAGE = 1, 2, 4
FIXED_SIZE_VALUES = 0x20  # a leaf of duplicates, which no record database has
KIND_OF_PAGE = BRANCH_PAGE | LEAF_PAGE | OVERFLOW_PAGE | FIXED_SIZE_VALUES
BIG_VALUE, SUBDATABASE, DUPLICATES = 1, 2, 4

#: Columns of the stack that holds the way from the root to the current leaf.
PAGE, NEXT_NODE, NODES = range(3)
#: What ``_walk`` reports.
LEVEL, FOUND, FAULT, FAULTY_PAGE = range(4)
#: Values of LEVEL where there is no way yet, or none any more.
BEFORE_FIRST, AFTER_LAST = -2, -1
#: Values of FAULT.
NO_FAULT, OUTSIDE_FILE, DAMAGED, NO_RECORD = range(4)

#: Records read at a time when the whole tree is checked.
CHECK_CHUNK = 4096


class _Meta(NamedTuple):
    """The parts of a meta page that a reader needs."""

    magic: int
    format: int
    page_size: int
    flags: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int

    @staticmethod
    def at(file: Any, offset: int) -> _Meta:
        return _Meta(*_META.unpack_from(file, offset + HEADER))


#: magic, format, [address, map size], page size, [rest of the free list's record and 4 bytes],
#: flags, depth, [counts of branch, leaf and overflow pages], entries, root, last page, transaction
_META = struct.Struct("<II16xI44x4xHH24xqqqq")
_TRANSACTION = struct.Struct("<q")


class LMDB(Source):
    """A folder with a data.mdb. Raises ``RecordError`` where that is no LMDB or has no record."""

    kind = "LMDB"

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(Path(path) / "data.mdb", "rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise RecordError(f'"{path}/data.mdb" is empty', hint="was it copied whole?") from None
        except OSError as error:
            raise RecordError(f'"{path}/data.mdb" cannot be read: {error.strerror}') from None
        self._meta = self._newest_meta()
        self.size = self._meta.entries
        if self.size < 1:
            raise RecordError(f'"{path}" holds no records')
        # The offset, the node and a byte of its key: no tree of this file has more, unless pages
        # are in it many times, and then it may have more than anyone can walk.
        if self.size * (2 + NODE + 1) > len(self._file):
            raise RecordError(
                f'"{path}/data.mdb" is damaged: it counts {self.size} records in '
                f"{len(self._file)} bytes",
                hint="was it copied whole?",
            )
        #: Where both meta pages hold their transaction.
        last = HEADER + _META.size - _TRANSACTION.size
        self._transactions = last, self._meta.page_size + last
        self._bytes = np.frombuffer(self._file, np.uint8)
        self._stack = np.zeros((self._meta.depth, 3), np.int64)
        self._report = np.zeros(4, np.int64)
        self._rewind()
        if len(self._file) < (self._meta.last_page + 1) * self._meta.page_size:
            # Pages that are free need not be there, so only the tree can tell whether records are
            # lost.
            self._check_tree()

    def seek(self, position: int) -> None:
        self._rewind()
        self._walk(position, 0)
        self._position = position

    def read(self, count: int) -> Records:
        if self._position == self.size:
            self._rewind()
        first = self._position
        wanted = min(count, self.size - first)
        # Of a file that is mapped, what is cut off must not be touched: that would end the process.
        if self._file.size() < len(self._file):
            raise RecordError(
                f'"{self.path}/data.mdb" was cut short by another program while it was being read'
            )
        records = Records(self._bytes, self._walk(0, wanted), first, self.path)
        self._position += wanted
        return records

    def confirm(self) -> None:
        # Pages of the state being read are reused only by the second commit after it: as long as no
        # commit was made, what was read is whole.
        if max(_TRANSACTION.unpack_from(self._file, at)[0] for at in self._transactions) != (
            self._meta.transaction
        ):
            raise RecordError(
                f'"{self.path}" was written to by another program while it was being read',
                hint="let that program finish, then resume",
            )

    def _newest_meta(self) -> _Meta:
        if len(self._file) < HEADER + _META.size:
            raise self._no_lmdb()
        first = _Meta.at(self._file, 0)
        if first.magic != MAGIC:
            raise self._no_lmdb()
        if first.format != FORMAT:
            raise RecordError(
                f'"{self.path}/data.mdb" is of LMDB format {first.format}; '
                f"only format {FORMAT} can be read"
            )
        page = first.page_size
        if not 256 <= page <= LARGEST_PAGE or len(self._file) < page + HEADER + _META.size:
            raise self._no_lmdb()
        second = _Meta.at(self._file, page)
        newest = second if second.transaction > first.transaction else first
        if newest.magic != MAGIC or newest.page_size != page:
            raise self._no_lmdb()
        if newest.entries and not 1 <= newest.depth <= DEEPEST_TREE:
            raise self._no_lmdb()
        return newest

    def _no_lmdb(self) -> RecordError:
        return RecordError(f'"{self.path}/data.mdb" is no LMDB file, or a damaged one')

    def _rewind(self) -> None:
        self._position = 0
        self._report[LEVEL] = BEFORE_FIRST

    def _walk(self, skip: int, count: int) -> Any:
        """Pass over ``skip`` records, then the spans of the next ``count``."""
        spans = np.empty((count, 4), np.int64)
        meta, report = self._meta, self._report
        _walk(self._bytes, meta.page_size, meta.root, self._stack, skip, spans, report)
        level, found, fault, page = report.tolist()
        if fault == OUTSIDE_FILE:
            raise RecordError(
                f'"{self.path}/data.mdb" is cut short: a record is on page {page}, '
                f"and the file ends after page {len(self._file) // meta.page_size - 1}",
                hint="was it copied whole?",
            )
        if fault == DAMAGED:
            raise RecordError(
                f'"{self.path}/data.mdb" is damaged on page {page}', hint="was it copied whole?"
            )
        if fault == NO_RECORD:
            raise RecordError(
                f'"{self.path}" holds several databases in one; its records must be in the main one'
            )
        if found < count or level == AFTER_LAST:
            raise RecordError(
                f'"{self.path}/data.mdb" is damaged: it holds fewer than the {self.size} records '
                f"it counts"
            )
        return spans

    def _check_tree(self) -> None:
        for position in range(0, self.size, CHECK_CHUNK):
            self._walk(0, min(CHECK_CHUNK, self.size - position))
        self._rewind()


@inline
def _u16(file: Any, at: Any) -> Any:
    return np.int64(file[at]) | np.int64(file[at + 1]) << 8


@inline
def _u32(file: Any, at: Any) -> Any:
    return _u16(file, at) | _u16(file, at + 2) << 16


@inline
def _page_number(file: Any, at: Any) -> Any:
    return _u32(file, at) | _u32(file, at + 4) << 32


@inline
def _fault_of(file: Any, page_size: Any, page: Any, kind: Any) -> Any:
    """Whether ``page`` lies in the file and is what it should be."""
    if page < 2 or page >= file.size // page_size:
        return OUTSIDE_FILE
    at = page * page_size
    if _page_number(file, at) != page or _u16(file, at + 10) & KIND_OF_PAGE != kind:
        return DAMAGED
    if kind != OVERFLOW_PAGE:
        lower = _u16(file, at + 12)
        # Each page of a tree has at least one node, so a walk cannot go on without finding records.
        if lower < HEADER + 2 or lower > page_size:
            return DAMAGED
    return NO_FAULT


@serial
def _walk(
    file: Any, page_size: Any, root: Any, stack: Any, skip: Any, spans: Any, report: Any
) -> None:
    """Pass over ``skip`` records, then write where the next ``len(spans)`` lie.

    ``stack`` (depth, 3) and ``report`` (4,) keep the place in the tree from call to call.
    """
    level = report[LEVEL]
    leaf_level = stack.shape[0] - 1
    found = 0
    fault = NO_FAULT
    page = root
    descend = level == BEFORE_FIRST
    if descend:
        level = -1
    while descend or level >= 0:
        if descend:
            # Enter ``page``, one level below.
            level += 1
            kind = LEAF_PAGE if level == leaf_level else BRANCH_PAGE
            fault = _fault_of(file, page_size, page, kind)
            if fault != NO_FAULT:
                break
            stack[level, PAGE] = page
            stack[level, NEXT_NODE] = 0
            stack[level, NODES] = (_u16(file, page * page_size + 12) - HEADER) // 2
            descend = False
        if level == leaf_level and skip == 0 and found == spans.shape[0]:
            break
        page = stack[level, PAGE]
        node = stack[level, NEXT_NODE]
        nodes = stack[level, NODES]
        if node == nodes:
            level -= 1
            continue
        if level == leaf_level and skip > 0:
            step = min(skip, nodes - node)
            stack[level, NEXT_NODE] += step
            skip -= step
            continue
        stack[level, NEXT_NODE] += 1
        base = page * page_size
        offset = _u16(file, base + HEADER + 2 * node)
        if offset + NODE > page_size:
            fault = DAMAGED
            break
        at = base + offset
        if level < leaf_level:
            page = _u32(file, at) | _u16(file, at + 4) << 32
            descend = True
            continue
        size = _u32(file, at)
        flags = _u16(file, at + 4)
        key_size = _u16(file, at + 6)
        room = page_size - offset - NODE - key_size
        value = at + NODE + key_size
        if flags & (SUBDATABASE | DUPLICATES):
            fault = NO_RECORD
            break
        if flags & BIG_VALUE:
            if room < 8:
                fault = DAMAGED
                break
            page = _page_number(file, value)
            fault = _fault_of(file, page_size, page, OVERFLOW_PAGE)
            if fault != NO_FAULT:
                break
            value = page * page_size + HEADER
            if value + size > file.size:
                fault = OUTSIDE_FILE
                break
        elif room < size:
            fault = DAMAGED
            break
        spans[found, VALUE] = value
        spans[found, VALUE_SIZE] = size
        spans[found, KEY] = at + NODE
        spans[found, KEY_SIZE] = key_size
        found += 1
    report[LEVEL] = level
    report[FOUND] = found
    report[FAULT] = fault
    report[FAULTY_PAGE] = page
