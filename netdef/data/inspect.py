"""What a database holds: counted, checked, or as a picture to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef.data.datum import BYTES, ENCODED, FLOATS, START, DatumImages, parse
from netdef.data.datum import SIZE as DATA_SIZE
from netdef.data.header import is_cut_short, kind_of
from netdef.data.images import decode, opencv, size_of
from netdef.data.source import VALUE_SIZE, RecordError, Records, Source
from netdef.data.workers import Workers, default_threads
from netdef.data.writer import Progress, ignore

#: Records read at a time.
RUN = 256

#: channels, height, width
Size = tuple[int, int, int]

#: Pixels between the pictures of a sheet, and the height of a line of text under each.
GAP, LINE = 6, 16
#: Small pictures are enlarged by a whole factor up to this side, large ones are shrunk to that.
SIDE, LARGEST_SIDE = 96, 256
PAPER, INK = 255, 40


@dataclass
class Summary:
    """What all records of a database are.

    ``kinds``   how many are raw, floats, JPEG, PNG...
    ``sizes``   how many have each size, (channels, height, width)
    ``labels``  how many have each label
    ``bytes``   of all values together
    ``faults``  what is wrong with those that are damaged
    ``doubts``  images that are cut short, and decode all the same
    """

    kind: str
    records: int
    first_key: str
    last_key: str
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: Counter[Size] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    faults: list[RecordError] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def look_through(
    source: Source, *, threads: int | None = None, progress: Progress = ignore
) -> Summary:
    """Read and decode every record. Raises ``RecordError`` where the database itself is damaged."""
    workers = Workers(threads or default_threads(), "decode")
    source.seek(source.size - 1)
    last_key = source.read(1).key(0)
    source.seek(0)
    first_key = source.read(1).key(0)
    source.seek(0)
    summary = Summary(source.kind, source.size, first_key, last_key)
    done = 0
    try:
        while done < source.size:
            records = source.read(min(RUN, source.size - done))
            summary.bytes += int(records.spans[:, VALUE_SIZE].sum())
            _count(records, summary, workers)
            done += len(records.spans)
            progress("looking", done, source.size)
    finally:
        workers.close()
    return summary


def _count(records: Records, summary: Summary, workers: Workers) -> None:
    while len(records.spans):
        try:
            datums = parse(records)
        except RecordError as error:
            # It is the first; the others are looked at all the same.
            summary.faults.append(error)
            records = records.after(1)
            continue
        table = datums.table
        sizes: list[Size | RecordError] = [tuple(row) for row in table[:, 1:4].tolist()]
        for kind, name in ((BYTES, "raw bytes"), (FLOATS, "floats")):
            if datums.counts[kind]:
                summary.kinds[name] += datums.counts[kind]
        encoded = datums.rows(ENCODED)

        def decode_row(number: int) -> None:
            row = int(encoded[number])  # noqa: B023
            start, size = table[row, START], table[row, DATA_SIZE]  # noqa: B023
            try:
                sizes[row] = size_of(decode(records.buffer[start : start + size], None))  # noqa: B023
            except RecordError as error:
                sizes[row] = error.of(records.name(row))  # noqa: B023

        workers.run(decode_row, len(encoded), lambda: False)
        for row in encoded.tolist():
            file = records.buffer[table[row, START] : table[row, START] + table[row, DATA_SIZE]]
            summary.kinds[kind_of(file)] += 1
            if is_cut_short(file) and not isinstance(sizes[row], RecordError):
                summary.doubts.append(f"{records.name(row)} is an image that is cut short")
        for row, size in enumerate(sizes):
            if isinstance(size, RecordError):
                summary.faults.append(size)
            else:
                summary.sizes[size] += 1
                summary.labels[int(table[row, 4])] += 1
        records = records.after(len(table))


def gaps(labels: Mapping[int, int]) -> list[tuple[int, int]]:
    """Runs of numbers between labels that are none: the first and the last of each."""
    known = sorted(labels)
    return [(a + 1, b - 1) for a, b in pairwise(known) if b - a > 1]


# Contact sheets.


class Picture(NamedTuple):
    """A record to look at: (height, width, 3) uint8, blue, green, red; and what to write below."""

    image: NDArray[np.uint8]
    caption: str


def pictures(
    source: Source, count: int, first: int = 0, label: int | None = None
) -> Iterator[Picture]:
    """At most ``count`` records, from record ``first`` on, of one ``label`` if that is given.

    Floats are stretched to the range of bytes, each record by itself. Raises ``RecordError``.
    """
    images = DatumImages(source, None)
    images.seek(first, np.uint64(0))
    position = first
    found = 0
    while position < source.size and found < count:
        part = images.read(min(RUN if label is not None else 16, source.size - position))
        position += len(part.labels)
        values = {row: pixels for pixels in part.pixels for row in pixels.rows.tolist()}
        for row, own in enumerate(part.labels.tolist()):
            if found == count or (label is not None and own != label):
                continue
            pixels = values.get(row)
            if pixels is None:
                image = _in_color(part.decode(row))
            else:
                start = int(pixels.starts[pixels.rows.tolist().index(row)])
                channels, height, width = part.sizes[row].tolist()
                size = channels * height * width
                planes = pixels.values[start : start + size].reshape(channels, height, width)
                image = _in_color(_as_bytes(planes).transpose(1, 2, 0))
            found += 1
            yield Picture(image, str(own))


def draw_sheet(shown: list[Picture], columns: int, ending: str) -> bytes:
    """An image file: pictures, ``columns`` in a row, each with its caption below.

    ``ending`` is that of its name: .png or .jpg.
    """
    cv2 = opencv()
    side = max(max(picture.image.shape[:2]) for picture in shown)
    enlarged = max(1, SIDE // side)
    small = []
    for image, _ in shown:
        scale = min(enlarged, LARGEST_SIDE / max(image.shape[:2]))
        way = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
        height, width = (max(1, round(scale * extent)) for extent in image.shape[:2])
        small.append(cv2.resize(image, (width, height), interpolation=way))
    high, wide = (max(image.shape[axis] for image in small) for axis in (0, 1))
    rows = -(-len(shown) // columns)
    paper = np.full(
        (GAP + rows * (high + LINE + GAP), GAP + columns * (wide + GAP), 3), PAPER, np.uint8
    )
    for number, image in enumerate(small):
        row, column = divmod(number, columns)
        top, left = GAP + row * (high + LINE + GAP), GAP + column * (wide + GAP)
        paper[top : top + image.shape[0], left : left + image.shape[1]] = image
        place = (left, top + high + LINE - 4)
        caption = shown[number].caption
        cv2.putText(
            paper, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (INK,) * 3, 1, cv2.LINE_AA
        )
    done, encoded = cv2.imencode(ending, paper)
    assert done
    content: bytes = encoded.tobytes()
    return content


def _as_bytes(planes: NDArray[Any]) -> NDArray[np.uint8]:
    if planes.dtype == np.uint8:
        return planes
    values = np.nan_to_num(planes.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    stretched: NDArray[np.uint8] = ((values - low) * (255.0 / ((high - low) or 1.0))).astype(
        np.uint8
    )
    return stretched


def _in_color(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width, 3), whatever the channels are: of two or many, the first is shown."""
    planes = image.reshape(*image.shape[:2], -1)
    kept = planes[:, :, :3] if planes.shape[2] in (3, 4) else np.repeat(planes[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(kept)
