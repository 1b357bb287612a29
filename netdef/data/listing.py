"""Lists of images: a text with a line "path label" for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdef.data.source import printable, read_text
from netdef.jit import inline, serial

#: Columns of a list's table: first byte and length of the path, label.
START, SIZE, LABEL = range(3)
#: Columns of the table of lines that make no sense.
FAULT, FAULTY_LINE, FAULT_START, FAULT_END = range(4)
#: Values of FAULT.
NO_FAULT, NO_LABEL, NO_PATH, NO_INTEGER, TOO_LARGE = range(5)
#: What ``_parse`` reports: how many lines are good, how many are not.
GOOD, WRONG = range(2)

#: A line is shown up to this many bytes.
WIDEST_LINE = 80

_SPACE, _TAB, _NEWLINE, _RETURN = 32, 9, 10, 13
_ZERO, _NINE, _PLUS, _MINUS = 48, 57, 43, 45


class Listing:
    """What the text file at ``path`` says: entries, and lines that make no sense.

    The label follows the last space, so paths may hold some. Blank lines, blanks after the label
    and the ends of lines that Windows writes are ignored. The file is read once and may change
    later. Raises ``RecordError`` where it cannot be read.

    ``labels``  int64 (n,): those of the entries
    ``faults``  int64 (m, 4): the lines that make no sense; ``fault`` explains them
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._text = read_text(path, "list")
        report = np.zeros(2, np.int64)
        none = np.empty((0, 4), np.int64)
        # The first pass counts.
        _parse(self._text, none, none, report)
        self._table = np.empty((int(report[GOOD]), 3), np.int64)
        self.faults = np.empty((int(report[WRONG]), 4), np.int64)
        _parse(self._text, self._table, self.faults, report)
        self.labels: NDArray[np.int64] = self._table[:, LABEL]

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._table)

    def path_of(self, entry: int) -> bytes:
        """The path of an entry, as it stands in the list."""
        start, size, _ = self._table[entry].tolist()
        return self._text[start : start + size].tobytes()

    def line_of(self, entry: int) -> int:
        """The line of an entry, from 1. Lines are counted only here, for a message."""
        start = self._table[entry, START]
        return 1 + int(np.count_nonzero(self._text[:start] == _NEWLINE))

    @property
    def path_sizes(self) -> NDArray[np.int64]:
        """int64 (n,): how many bytes each path has."""
        sizes: NDArray[np.int64] = self._table[:, SIZE]
        return sizes

    def lines(self) -> NDArray[np.int64]:
        """int64 (n,): the line of each entry, from 1."""
        ends = np.flatnonzero(self._text == _NEWLINE)
        return np.searchsorted(ends, self._table[:, START]).astype(np.int64) + 1

    def text_of(self, entry: int) -> str:
        """The line of an entry, as messages show it."""
        start, size, label = self._table[entry].tolist()
        end = start + size + len(f" {label}")
        return printable(self._text[start:end].tobytes().rstrip())

    def complaint(self, fault: int) -> tuple[str, str]:
        """What is wrong with the line ``faults[fault]``, as a predicate; and a hint."""
        given = self._given(fault)
        complaint = {
            NO_LABEL: "has no label",
            NO_PATH: "has no path",
            NO_INTEGER: "does not end with an integer, its label",
            TOO_LARGE: "has a label beyond 32 bits",
        }[int(self.faults[fault, FAULT])]
        hint = "a line is a path, a space, and an integer label"
        if b"\t" in given:
            hint += "; this one has a tab"
        elif b"," in given and b" " not in given:
            hint += "; this one has a comma"
        return complaint, hint

    def fault(self, fault: int) -> tuple[str, tuple[str, ...], str]:
        """The same as what a ``RecordError`` is made of."""
        complaint, hint = self.complaint(fault)
        line = self.faults[fault, FAULTY_LINE]
        text = f'line {line} of "{self.path}" {complaint}: "{self.shown(fault)}"'
        return text, ("source",), hint

    def shown(self, fault: int) -> str:
        """The line ``faults[fault]``, as messages show it."""
        given = self._given(fault)
        return printable(given[:WIDEST_LINE]) + ("..." if len(given) > WIDEST_LINE else "")

    def _given(self, fault: int) -> bytes:
        _, _, start, end = self.faults[fault].tolist()
        return self._text[start:end].tobytes()


@inline
def _is_digit(byte: Any) -> Any:
    return _ZERO <= byte <= _NINE


@serial
def _parse(text: Any, table: Any, faults: Any, report: Any) -> None:
    """Fill the rows of both tables that there are, and count those that there should be."""
    report[:] = 0
    row = 0
    wrong = 0
    line = 0
    at = 0
    while at < text.size:
        start = at
        while at < text.size and text[at] != _NEWLINE:
            at += 1
        end = at
        at += 1
        line += 1
        while end > start and (
            text[end - 1] == _SPACE or text[end - 1] == _TAB or text[end - 1] == _RETURN
        ):
            end -= 1
        if start == end:
            continue
        space = end - 1
        while space >= start and text[space] != _SPACE:
            space -= 1
        fault = NO_FAULT
        label = np.int64(0)
        first = space + 1
        if text[first] == _PLUS or text[first] == _MINUS:
            first += 1
        if first == end:
            fault = NO_INTEGER
        for i in range(first, end):
            if not _is_digit(text[i]):
                fault = NO_INTEGER
                break
            label = label * 10 + text[i] - _ZERO
            if label > 1 << 31:
                # Counted no further: more digits would leave the integers.
                label = np.int64(1 << 31)
                fault = TOO_LARGE
        if text[space + 1] == _MINUS:
            label = -label
        if fault == NO_FAULT and label == 1 << 31:
            fault = TOO_LARGE
        if space < start:
            fault = NO_LABEL
        elif space == start:
            fault = NO_PATH
        if fault != NO_FAULT:
            if wrong < faults.shape[0]:
                faults[wrong, FAULT] = fault
                faults[wrong, FAULTY_LINE] = line
                faults[wrong, FAULT_START] = start
                faults[wrong, FAULT_END] = end
            wrong += 1
            continue
        if row < table.shape[0]:
            table[row, START] = start
            table[row, SIZE] = space - start
            table[row, LABEL] = label
        row += 1
    report[GOOD] = row
    report[WRONG] = wrong
