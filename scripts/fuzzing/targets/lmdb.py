"""Databases of LMDB: pages that lie, files cut short, and the records in them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fuzzing.mutations import Places, Random, spoil, spoil_bytes
from fuzzing.targets import datum
from netdef.data.datum import DatumImages
from netdef.data.lmdb import LMDB
from netdef.data.writer import LMDBWriter

COUNT = 2_000

PAGE = 4096

#: Records are read so many at a time, and no further than this.
BATCH, MOST_RECORDS = 16, 1000


@functools.cache
def originals() -> Sequence[bytes]:
    """A tree of one page, and one of two levels with values on pages of their own."""
    records = list(datum.originals())
    return [_database(records), _database(records * 100)]


def _database(records: Sequence[bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with LMDBWriter(Path(folder) / "db") as writer:
            for index, record in enumerate(records):
                writer.put(f"{index:08}".encode(), record)
        return (Path(folder) / "db" / "data.mdb").read_bytes()


@functools.cache
def _places(content: bytes) -> Places:
    """The numbers of meta pages, the heads of all others, and the nodes of some."""
    numbers = [
        (page + at, width)
        for page in (0, PAGE)
        for at, width in [(16, 4), (20, 4), (24, 8), (32, 8), (40, 4), (44, 2), (46, 2)]
        + [(at, 8) for at in range(48, 152, 8)]
        + [(at, 2) for at in range(88, 96, 2)]
    ]
    for page in range(0, len(content), PAGE):
        numbers += [(page, 8), (page + 10, 2), (page + 12, 2), (page + 14, 2)]
        if page >= 2 * PAGE:
            lower = int.from_bytes(content[page + 12 : page + 14], "little")
            for slot in range(page + 16, min(page + lower, page + PAGE), 2):
                numbers.append((slot, 2))
                node = page + int.from_bytes(content[slot : slot + 2], "little")
                numbers += [(node, 4), (node + 4, 2), (node + 6, 2)]
    return Places(numbers)


def mutant(random: Random) -> bytes:
    content = originals()[int(random.integers(len(originals())))]
    return spoil(
        random,
        content,
        [
            _places(content).spoil,
            _places(content).spoil,
            _places(content).spoil,
            _pages,
            spoil_bytes,
        ],
    )


def _pages(random: Random, content: bytes) -> bytes:
    """A page in the place of another, or the end of the file lost."""
    pages = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
    if len(pages) < 2:
        return spoil_bytes(random, content)
    here, there = (int(n) for n in random.integers(len(pages), size=2))
    if random.random() < 0.3:
        return b"".join(pages[:here])
    pages[here] = pages[there]
    return b"".join(pages)


def read(content: bytes, folder: Path) -> None:
    """As a Data layer reads a database, once from the start, and again from the middle."""
    (folder / "data.mdb").write_bytes(content)
    source = LMDB(str(folder))
    images = DatumImages(source, None)
    images.first()
    for start in (0, source.size // 2):
        source.seek(start)
        left = min(MOST_RECORDS, source.size - start)
        while left > 0:
            left -= len(datum.take(images, min(BATCH, left)).labels)
    source.confirm()
    source.close()
