"""The LevelDB reader against the LevelDB library, and against files that are damaged."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.data import leveldb, leveldb_files
from netdef.data.leveldb import LevelDB
from netdef.data.leveldb_files import CHECKSUM_TABLES, read_index
from netdef.data.source import KEY, KEY_SIZE, VALUE, VALUE_SIZE, RecordError, Records, open_source
from netdef.proto import netdef_pb2 as pb

plyvel = pytest.importorskip("plyvel", reason="LevelDBs are written by plyvel")

Entries = dict[bytes, bytes]


def write(folder: Path, *writes: Entries, **options: Any) -> Path:
    """A database, closed and opened again after each of ``writes``; a value of b"-" deletes."""
    for entries in writes:
        database = plyvel.DB(str(folder), create_if_missing=True, **options)
        for key, value in entries.items():
            if value == b"-":
                database.delete(key)
            else:
                database.put(key, value)
        database.close()
    return folder


def content(records: Records) -> list[tuple[bytes, bytes]]:
    def piece(start: int, size: int) -> bytes:
        return records.buffer[start : start + size].tobytes()

    return [
        (piece(span[KEY], span[KEY_SIZE]), piece(span[VALUE], span[VALUE_SIZE]))
        for span in records.spans
    ]


def read_all(source: LevelDB, chunk: int) -> list[tuple[bytes, bytes]]:
    found = []
    while len(found) < source.size:
        records = source.read(chunk)
        assert records.first == len(found)
        found += content(records)
    return found


def mixed(count: int, seed: int) -> Entries:
    """Values that compress, and values that do not; sizes from nothing to several blocks."""
    draw = random.Random(seed)
    sizes = [0, 1, 17, 800, 5000, 70_000]
    return {
        f"{i:08d}_{'k' * draw.randrange(60)}".encode(): (
            draw.randbytes(draw.choice(sizes)) if i % 2 else b"abcab" * draw.choice(sizes)
        )
        for i in range(count)
    }


@pytest.mark.parametrize("compression", ["snappy", None])
@pytest.mark.parametrize("count", [1, 2, 37, 600])
@pytest.mark.parametrize("chunk", [1, 13, 5000])
def test_reads_what_the_library_wrote(
    tmp_path: Path, compression: str | None, count: int, chunk: int
) -> None:
    entries = mixed(count, seed=count)
    # The second opening moves what stands in the log to a table.
    for writes in ([entries], [entries, {}]):
        folder = tmp_path / str(len(writes))
        source = LevelDB(str(write(folder, *writes, compression=compression)))
        assert source.size == count
        assert read_all(source, chunk) == sorted(entries.items())
        # And again from the start.
        assert source.read(1).first == 0


def test_many_tables_of_small_blocks(tmp_path: Path) -> None:
    entries = mixed(1500, seed=1)
    small = {"write_buffer_size": 1 << 16, "block_size": 512, "max_file_size": 1 << 20}
    folder = write(tmp_path / "db", entries, {}, **small)
    assert len(tables(folder)) > 10
    assert read_all(LevelDB(str(folder)), 64) == sorted(entries.items())


@pytest.mark.parametrize("compact", [False, True])
def test_records_written_over_and_deleted(tmp_path: Path, compact: bool) -> None:
    draw = random.Random(2)
    entries = mixed(500, seed=2)
    writes = [entries]
    for _ in range(6):
        keys = draw.sample(sorted(entries), 60)
        writes.append({k: b"-" if draw.random() < 0.5 else draw.randbytes(300) for k in keys})
    folder = write(tmp_path / "db", *writes, write_buffer_size=1 << 16)
    if compact:
        database = plyvel.DB(str(folder))
        database.compact_range()
        database.close()
    expected: Entries = {}
    for entries in writes:
        expected.update(entries)
    expected = {key: value for key, value in expected.items() if value != b"-"}
    assert read_all(LevelDB(str(folder)), 64) == sorted(expected.items())


def test_keys_in_any_order(tmp_path: Path) -> None:
    keys = [b"%08d" % i for i in range(400)]
    random.Random(3).shuffle(keys)
    writes = [{key: key * 10 for key in keys[i::4]} for i in range(4)]
    folder = write(tmp_path / "db", *writes)
    assert read_all(LevelDB(str(folder)), 7) == [(key, key * 10) for key in sorted(keys)]


def test_seek(tmp_path: Path) -> None:
    entries = mixed(300, seed=4)
    ordered = sorted(entries.items())
    source = LevelDB(str(write(tmp_path / "db", entries, {}, max_file_size=1 << 20)))
    for position in [0, 299, 1, 150, 8, 9, 10, 298]:
        source.seek(position)
        records = source.read(7)
        assert records.first == position
        assert content(records) == ordered[position : position + len(records.spans)]


def test_reads_what_caffe_wrote(shared: Path) -> None:
    source = LevelDB(str(shared / "reference" / "pipeline" / "color_leveldb"))
    records = source.read(100)
    keys = [key for key, _ in content(records)]
    lines = (shared / "reference" / "pipeline" / "list.txt").read_text().splitlines()
    assert keys == [f"{i:08d}_{line.split()[0]}".encode() for i, line in enumerate(lines)]
    datums = [pb.Datum.FromString(value) for _, value in content(records)]
    assert [str(datum.label) for datum in datums] == [line.split()[1] for line in lines]
    with np.load(shared / "reference" / "data" / "leveldb_plain.npz") as expected:
        for batch in range(2):
            for i, image in enumerate(expected[f"batch{batch}/data"]):
                values = np.frombuffer(datums[3 * batch + i].data, np.uint8)
                assert (values == image.ravel()).all()


def test_reading_writes_and_locks_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", mixed(50, seed=5), {b"more": b"value"})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    os.chmod(folder, 0o555)
    try:
        first, second = LevelDB(str(folder)), LevelDB(str(folder))
        assert read_all(first, 8) == read_all(second, 9)
    finally:
        os.chmod(folder, 0o755)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    plyvel.DB(str(folder)).close()


def test_a_database_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it changes."""
    folder = write(tmp_path / "db", mixed(50, seed=11), {})
    first = LevelDB(str(folder))
    unpacked: list[Path] = []

    def unpack(path: Path, blocks: np.ndarray) -> Any:
        unpacked.append(path)
        return leveldb_files.unpack(path, blocks)

    monkeypatch.setattr(leveldb, "unpack", unpack)
    second = LevelDB(str(folder))
    assert unpacked == []
    assert read_all(second, 9) == read_all(first, 50)
    write(folder, {b"zz": b"new"})
    assert LevelDB(str(folder)).size == 51


def test_a_database_without_records(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no records"):
        LevelDB(str(write(tmp_path / "db", {})))
    with pytest.raises(RecordError, match="holds no records"):
        LevelDB(str(write(tmp_path / "gone", {b"k": b"v"}, {b"k": b"-"})))


def checksum(data: bytes) -> int:
    """CRC-32C, byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = int(CHECKSUM_TABLES[0, (crc ^ byte) & 0xFF]) ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def test_checksums_are_those_of_crc_32c() -> None:
    """The check value of this CRC: that of the digits from 1 to 9."""
    assert checksum(b"123456789") == 0xE3069283


def tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".ldb")


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Tables, and a log of what came last."""
    return write(tmp_path / "db", mixed(60, seed=6), {b"more": bytes(100)})


def test_damage_is_located(database: Path) -> None:
    [table] = tables(database)
    [log] = database.glob("*.log")
    [manifest] = database.glob("MANIFEST-*")
    size = table.stat().st_size
    for path, at, complaint in (
        (table, 100, r"\.ldb\" is damaged: a checksum is wrong \(byte 0\)"),
        (table, size - 1, "does not end as a table"),
        (log, 30, r"\.log\" is damaged: a checksum is wrong \(byte 0\)"),
        (manifest, 20, r"MANIFEST-\d+\" is damaged"),
        (database / "CURRENT", 2, r"CURRENT\" does not name a MANIFEST"),
    ):
        whole = path.read_bytes()
        change(path, at)
        with pytest.raises(RecordError, match=complaint):
            LevelDB(str(database))
        path.write_bytes(whole)
    assert LevelDB(str(database)).size == 61


def test_files_that_are_cut_short_or_missing(database: Path, tmp_path: Path) -> None:
    for path in (*tables(database), *database.glob("*.log"), *database.glob("MANIFEST-*")):
        whole = path.read_bytes()
        for size in {0, 10, 40, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:size])
            if size == 0 and path.suffix == ".log":
                continue  # an empty log is one that nobody wrote to
            with pytest.raises(RecordError):
                LevelDB(str(database))
        path.unlink()
        if path.suffix != ".log":
            with pytest.raises(RecordError, match=path.name):
                LevelDB(str(database))
        path.write_bytes(whole)
    (database / "CURRENT").unlink()
    with pytest.raises(RecordError, match="holds parts of a LevelDB, but no file CURRENT"):
        open_source(pb.DataParameter(source=str(database)))


@pytest.mark.parametrize("name", ["MANIFEST-1/../../x\n", "MANIFEST-000002", "../x\n", ""])
def test_current_names_a_file_of_its_folder(database: Path, name: str) -> None:
    (database / "CURRENT").write_text(name)
    with pytest.raises(RecordError, match="does not name a MANIFEST"):
        LevelDB(str(database))


def test_a_table_that_goes_away_while_it_is_read(database: Path) -> None:
    source = LevelDB(str(database))
    [table] = tables(database)
    table.unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        source.read(3)


def test_no_damage_crashes_or_hangs(tmp_path: Path) -> None:
    """Whatever stands in the files, with checksums that are right: records, or an error."""
    entries = {f"{i:0100d}".encode(): b"abc" * (i % 300) for i in range(200)}
    whole = write(tmp_path / "db", entries, {b"z": bytes(50), **mixed(20, seed=7)}, block_size=512)
    draw = random.Random(8)
    refused = 0
    for turn in range(400):
        folder = tmp_path / f"turn{turn}"
        shutil.copytree(whole, folder)
        path = draw.choice([p for p in sorted(folder.iterdir()) if p.stat().st_size > 0])
        data = bytearray(path.read_bytes())
        start, end = draw.choice(sealed(path, data)) if draw.random() < 0.9 else (0, len(data))
        for _ in range(draw.choice([1, 1, 3, 20])):
            data[draw.randrange(start, end)] = draw.choice([0, 0xFF, 0x80, draw.randrange(256)])
        seal(path, data, start, end)
        path.write_bytes(data if draw.random() < 0.8 else data[: draw.randrange(len(data))])
        try:
            source = LevelDB(str(folder))
            for _ in range(source.size // 50 + 1):
                source.read(50)
        except RecordError:
            refused += 1
    assert 100 < refused < 400


def sealed(path: Path, data: bytes) -> list[tuple[int, int]]:
    """The parts of a file that have a checksum each."""
    if path.suffix == ".ldb":
        footer = read_index(path, len(data))
        return [(start, start + size) for start, size in footer.tolist()]
    if path.suffix == ".log" or path.name.startswith("MANIFEST"):
        found, at = [], 0
        while at + 7 <= len(data) and 32768 - at % 32768 >= 7:
            size = int.from_bytes(data[at + 4 : at + 6], "little")
            found.append((at + 7, at + 7 + size))
            at += 7 + size
        return found
    return [(0, len(data))]


def seal(path: Path, data: bytearray, start: int, end: int) -> None:
    """Make the checksum of a part right again."""
    if path.suffix == ".ldb":
        place, over = end + 1, data[start : end + 1]
    else:
        place, over = start - 7, data[start - 1 : end]
    if 0 <= place <= len(data) - 4 and over:
        crc = checksum(bytes(over))
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        data[place : place + 4] = masked.to_bytes(4, "little")


def config(path: Path | str, **options: Any) -> pb.DataParameter:
    return pb.DataParameter(source=str(path), **options)


def test_the_folder_says_what_it_is(database: Path) -> None:
    assert isinstance(open_source(config(database, backend=pb.DataParameter.LMDB)), LevelDB)
    assert isinstance(open_source(config(database)), LevelDB)


def test_a_folder_that_holds_both_asks_for_the_backend(database: Path, shared: Path) -> None:
    lmdb = shared / "reference" / "pipeline" / "gray_lmdb" / "data.mdb"
    shutil.copy(lmdb, database / "data.mdb")
    assert open_source(config(database, backend=pb.DataParameter.LMDB)).kind == "LMDB"
    assert open_source(config(database, backend=pb.DataParameter.LEVELDB)).kind == "LevelDB"
