"""Lists of images: a text file with a line "path label" for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.data.images import (
    Images,
    ImageSource,
    decode,
    image_name,
    read_image,
    resize,
)
from netdef.data.source import RecordError, printable, read_text
from netdef.jit import inline, serial
from netdef.proto import netdef_pb2 as pb

#: Columns of a list's table: first byte and length of the path, label.
START, SIZE, LABEL = range(3)

#: What ``_parse`` reports.
LINES, FAULT, FAULTY_LINE, FAULT_START, FAULT_END = range(5)
#: Values of FAULT.
NO_FAULT, NO_LABEL, NO_PATH, NO_INTEGER, TOO_LARGE = range(5)

#: A line is shown up to this many bytes.
WIDEST_LINE = 80

_SPACE, _TAB, _NEWLINE, _RETURN = 32, 9, 10, 13
_ZERO, _NINE, _PLUS, _MINUS = 48, 57, 43, 45


class ImageList(ImageSource):
    """The images that a list names.

    Read once, when made: the file may change later. Raises ``RecordError`` where there is none, or
    where a line of it makes no sense.
    """

    advice = "give new_height and new_width, or a crop_size"

    def __init__(self, config: pb.ImageDataParameter) -> None:
        self.path = config.source
        self._config = config
        self._text = read_text(config.source, "list")
        report = np.zeros(5, np.int64)
        # The first pass counts the lines that are not blank.
        _parse(self._text, np.empty((0, 3), np.int64), report)
        self._table = np.empty((int(report[LINES]), 3), np.int64)
        if report[FAULT]:
            raise self._fault(report)
        if not len(self._table):
            raise RecordError(f'the list "{self.path}" names no images')
        _parse(self._text, self._table, report)
        self.size = len(self._table)
        #: The order of this epoch, where there is another than that of the lines.
        self._order: NDArray[np.int64] | None = None
        self._key = np.uint64(0)
        self._epoch = 0
        self._position = 0

    def first(self) -> Images:
        return self._images(np.zeros(1, np.int64))

    def seek(self, records: int, key: np.uint64) -> None:
        self._key = key
        self._epoch, self._position = divmod(records, self.size)
        self._shuffle()

    def read(self, count: int) -> Images:
        if self._position == self.size:
            self._epoch += 1
            self._position = 0
            self._shuffle()
        stop = min(self._position + count, self.size)
        entries = np.arange(self._position, stop)
        self._position = stop
        return self._images(entries if self._order is None else self._order[entries])

    def _shuffle(self) -> None:
        """Draw the order of this epoch: a function of the key and of the epoch alone."""
        if self._config.shuffle:
            self._order = np.arange(self.size)
            _shuffle(self._key, np.uint64(self._epoch), self._order)

    def _images(self, entries: NDArray[np.int64]) -> Images:
        """The images of these entries of the list, all of them to be read and decoded."""
        config = self._config

        def listed(row: int) -> bytes:
            start, size, _ = self._table[entries[row]].tolist()
            return self._text[start : start + size].tobytes()

        def name(row: int) -> str:
            # Lines are counted only here, for a message.
            start = self._table[entries[row], START]
            line = 1 + np.count_nonzero(self._text[:start] == _NEWLINE)
            return f'{image_name(config.root_folder, listed(row))} (line {line} of "{self.path}")'

        def decode_row(row: int) -> NDArray[np.uint8]:
            try:
                encoded = read_image(config.root_folder, listed(row))
                image = decode(encoded, config.is_color)
                if config.new_height:
                    image = resize(image, config.new_height, config.new_width)
            except RecordError as error:
                raise error.of(name(row)) from None
            return image

        rows = np.arange(len(entries))
        sizes = np.zeros((len(entries), 3), np.int64)
        return Images(self._table[entries, LABEL], sizes, [], rows, decode_row, name)

    def _fault(self, report: NDArray[np.int64]) -> RecordError:
        start, end = report[FAULT_START], report[FAULT_END]
        given = self._text[start:end].tobytes()
        shown = printable(given[:WIDEST_LINE]) + ("..." if len(given) > WIDEST_LINE else "")
        complaint = {
            NO_LABEL: f'has no label: "{shown}"',
            NO_PATH: f'has no path: "{shown}"',
            NO_INTEGER: f'does not end with an integer, its label: "{shown}"',
            TOO_LARGE: f'has a label beyond 32 bits: "{shown}"',
        }[int(report[FAULT])]
        hint = "a line is a path, a space, and an integer label"
        if b"\t" in given:
            hint += "; this one has a tab"
        return RecordError(f'line {report[FAULTY_LINE]} of "{self.path}" {complaint}', hint=hint)


@inline
def _is_digit(byte: Any) -> Any:
    return _ZERO <= byte <= _NINE


@serial
def _parse(text: Any, table: Any, report: Any) -> None:
    """Fill the rows of ``table`` that there are, and count those that there should be."""
    report[:] = 0
    row = 0
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
            report[FAULT] = fault
            report[FAULTY_LINE] = line
            report[FAULT_START] = start
            report[FAULT_END] = end
            return
        if row < table.shape[0]:
            table[row, START] = start
            table[row, SIZE] = space - start
            table[row, LABEL] = label
        row += 1
    report[LINES] = row


@serial
def _shuffle(key: Any, epoch: Any, order: Any) -> None:
    # Fisher & Yates. Block 0 of a stream belongs to the records: see ``transform``.
    for i in range(order.size - 1, 0, -1):
        j = np.int64(rng.below(key, epoch, np.uint64(i), np.uint64(i + 1)))
        held = order[i]
        order[i] = order[j]
        order[j] = held
