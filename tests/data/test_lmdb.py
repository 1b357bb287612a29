"""The LMDB reader against the LMDB library, and against files that are not what they should be."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from netdef.data.lmdb import LMDB
from netdef.data.source import KEY, KEY_SIZE, VALUE, VALUE_SIZE, RecordError, Records, open_source
from netdef.proto import netdef_pb2 as pb

Entries = dict[bytes, bytes]
MAP_SIZE = 1 << 28


def write(folder: Path, entries: Entries) -> Path:
    with lmdb.open(str(folder), map_size=MAP_SIZE) as env, env.begin(write=True) as txn:
        for key, value in entries.items():
            assert txn.put(key, value)
    return folder


def content(records: Records) -> list[tuple[bytes, bytes]]:
    def piece(start: int, size: int) -> bytes:
        return records.buffer[start : start + size].tobytes()

    return [
        (piece(span[KEY], span[KEY_SIZE]), piece(span[VALUE], span[VALUE_SIZE]))
        for span in records.spans
    ]


def read_all(source: LMDB, chunk: int) -> list[tuple[bytes, bytes]]:
    found = []
    while len(found) < source.size:
        records = source.read(chunk)
        assert records.first == len(found)
        found += content(records)
    return found


def page_size(folder: Path) -> int:
    with lmdb.open(str(folder), readonly=True, lock=False) as env:
        return int(env.stat()["psize"])


# Values of every kind: empty, inside the page, on overflow pages (those over half a page).
def mixed(count: int, seed: int) -> Entries:
    draw = random.Random(seed)
    sizes = [0, 1, 17, 800, 2000, 2040, 5000, 70_000]
    return {
        f"{i:08d}_{'k' * draw.randrange(60)}".encode(): draw.randbytes(draw.choice(sizes))
        for i in range(count)
    }


@pytest.mark.parametrize("count", [1, 2, 37, 1500])
@pytest.mark.parametrize("chunk", [1, 13, 5000])
def test_reads_what_the_library_wrote(tmp_path: Path, count: int, chunk: int) -> None:
    entries = mixed(count, seed=count)
    source = LMDB(str(write(tmp_path / "db", entries)))
    assert source.size == count
    assert read_all(source, chunk) == sorted(entries.items())
    # And again from the start.
    assert source.read(1).first == 0


def test_reads_a_file_with_deleted_and_replaced_records(tmp_path: Path) -> None:
    entries = mixed(1000, seed=1)
    folder = write(tmp_path / "db", entries)
    draw = random.Random(2)
    with lmdb.open(str(folder), map_size=MAP_SIZE) as env:
        for _ in range(20):
            with env.begin(write=True) as txn:
                for key in draw.sample(sorted(entries), 20):
                    if draw.random() < 0.5:
                        entries[key] = draw.randbytes(draw.randrange(9000))
                        txn.put(key, entries[key])
                    else:
                        del entries[key]
                        txn.delete(key)
    assert read_all(LMDB(str(folder)), 64) == sorted(entries.items())


def test_seek(tmp_path: Path) -> None:
    # Long keys make a deep tree, so seeking crosses branch pages.
    entries = {f"{i:0400d}".encode(): bytes([i % 256]) * 300 for i in range(3000)}
    ordered = sorted(entries.items())
    source = LMDB(str(write(tmp_path / "db", entries)))
    for position in [0, 2999, 1, 1500, 8, 9, 10, 2998]:
        source.seek(position)
        records = source.read(7)
        assert records.first == position
        assert content(records) == ordered[position : position + 7]


def test_a_read_stops_at_the_last_record(tmp_path: Path) -> None:
    source = LMDB(str(write(tmp_path / "db", mixed(10, seed=0))))
    assert [len(source.read(4).spans) for _ in range(4)] == [4, 4, 2, 4]


def test_records_are_named_by_position_and_key(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", {b"00000007_cat.jpg": b"", b"\xff\x00": b"", b"z" * 100: b""})
    records = LMDB(str(folder)).read(3)
    assert records.name(0) == f'record 0 (key "00000007_cat.jpg") of "{folder}"'
    assert records.name(1) == f'record 1 (key "{"z" * 60}"...) of "{folder}"'
    assert records.name(2) == f'record 2 (key 0xff00) of "{folder}"'


def test_several_readers_of_one_file(tmp_path: Path) -> None:
    entries = mixed(50, seed=3)
    folder = write(tmp_path / "db", entries)
    first, second = LMDB(str(folder)), LMDB(str(folder))
    first.read(20)
    assert read_all(second, 7) == sorted(entries.items())
    assert first.read(1).first == 20


def test_reading_writes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", mixed(5, seed=4))
    os.remove(folder / "lock.mdb")
    os.chmod(folder / "data.mdb", 0o444)
    os.chmod(folder, 0o555)
    try:
        assert len(LMDB(str(folder)).read(5).spans) == 5
        assert os.listdir(folder) == ["data.mdb"]
    finally:
        os.chmod(folder, 0o755)


def test_a_writer_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", mixed(5, seed=5))
    source = LMDB(str(folder))
    source.read(2)
    source.confirm()
    write(folder, {b"more": b""})
    with pytest.raises(RecordError, match="was written to by another program"):
        source.confirm()


def test_a_database_without_records(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no records"):
        LMDB(str(write(tmp_path / "db", {})))


def test_named_databases_hold_no_records(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "db"), max_dbs=2) as env:
        inner = env.open_db(b"inner")
        with env.begin(write=True) as txn:
            txn.put(b"key", b"value", db=inner)
    with pytest.raises(RecordError, match="holds several databases"):
        LMDB(str(tmp_path / "db")).read(1)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: b"", r"data\.mdb\" is empty"),
        (lambda data: data[:100], "is no LMDB file"),
        (lambda data: bytes(len(data)), "is no LMDB file"),
        (lambda data: b"x" * len(data), "is no LMDB file"),
        (lambda data: data[:20] + struct.pack("<I", 999) + data[24:], "is of LMDB format 999"),
        (lambda data: data[: len(data) // 2], "is cut short"),
    ],
)
def test_files_that_are_no_database(
    tmp_path: Path, damage: Callable[[bytes], bytes], complaint: str
) -> None:
    folder = write(tmp_path / "db", mixed(100, seed=6))
    (folder / "data.mdb").write_bytes(damage((folder / "data.mdb").read_bytes()))
    with pytest.raises(RecordError, match=complaint):
        LMDB(str(folder))


def test_a_file_that_misses_only_free_pages_is_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", mixed(100, seed=7))
    with lmdb.open(str(folder), map_size=MAP_SIZE) as env:
        with env.begin(write=True) as txn:
            txn.put(b"zzz", bytes(500_000))
        for _ in range(2):  # the second commit makes the big value's pages free for good
            with env.begin(write=True) as txn:
                txn.delete(b"zzz")
                txn.put(b"yyy", b"")
        last = env.info()["last_pgno"]
    data = (folder / "data.mdb").read_bytes()
    size = page_size(folder)
    used = last
    # Cut page by page: the reader must refuse exactly when a page of the tree is gone.
    while used > last - 200:
        (folder / "data.mdb").write_bytes(data[: used * size])
        try:
            source = LMDB(str(folder))
        except RecordError:
            break
        assert len(read_all(source, 1000)) == 101
        used -= 1
    with pytest.raises(RecordError, match="is cut short"):
        LMDB(str(folder))
    # The free pages at the end could be cut.
    assert used < last - 100


def test_a_tree_that_has_its_pages_many_times(tmp_path: Path) -> None:
    """Twenty levels of a hundred ways to the same page: 10^40 records, in 22 pages."""
    size = page_size(write(tmp_path, {b"k": b"v"}))
    file = tmp_path / "data.mdb"
    old = file.read_bytes()
    leaf = next(
        page
        for page in range(2, len(old) // size)
        if struct.unpack_from("<H", old, page * size + 10)[0] == 2
    )
    depth, ways = 20, 100
    pages = []
    for number in range(2, 2 + depth):
        head = struct.pack("<QHHHH", number, 0, 1, 16 + 2 * ways, size - 8)
        offsets = struct.pack("<H", size - 8) * ways
        # Its node: the page behind it.
        node = struct.pack("<IHH", number + 1, 0, 0)
        pages.append((head + offsets).ljust(size - 8, b"\0") + node)
    pages.append(struct.pack("<Q", 2 + depth) + old[leaf * size + 8 : (leaf + 1) * size])
    whole = bytearray(old[: 2 * size] + b"".join(pages))
    for meta in (0, size):
        # Depth, entries, root, and a last page that is not there, so that the tree is looked at.
        struct.pack_into("<H", whole, meta + 16 + 78, depth + 1)
        struct.pack_into("<qqq", whole, meta + 16 + 104, 10**15, 2, 100)
    file.write_bytes(whole)
    with pytest.raises(RecordError, match="is damaged: it counts 1000000000000000 records"):
        LMDB(str(tmp_path))


def test_no_damage_crashes_or_hangs(tmp_path: Path) -> None:
    """Whatever bytes stand in the file: every record, or an error."""
    entries = {f"{i:0100d}".encode(): bytes(i % 3000) for i in range(200)}
    folder = write(tmp_path / "db", entries)
    size = page_size(folder)
    whole = (folder / "data.mdb").read_bytes()
    draw = random.Random(8)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        page = draw.randrange(len(data) // size) * size
        kind = draw.randrange(4)
        if kind == 0:
            data[page : page + size] = bytes(size)
        elif kind == 1:
            data[page : page + size] = draw.randbytes(size)
        elif kind == 2:
            data[page : page + 160] = draw.randbytes(160)
        else:
            # Single bytes of headers and nodes, where the offsets are.
            for _ in range(4):
                data[page + draw.randrange(200)] = draw.randrange(256)
        (folder / "data.mdb").write_bytes(data)
        try:
            source = LMDB(str(folder))
            for _ in range(min(source.size, 500) // 50 + 1):
                for _, value in content(source.read(50)):
                    assert len(value) <= len(data)
        except RecordError:
            refused += 1
    assert refused > 100


def config(path: Path | str) -> pb.DataParameter:
    return pb.DataParameter(source=str(path))


def test_the_folder_says_what_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", {b"k": b"v"})
    parameter = config(folder)
    assert parameter.backend == pb.DataParameter.LEVELDB
    assert isinstance(open_source(parameter), LMDB)


def test_a_file_that_is_cut_short_while_it_is_read(tmp_path: Path) -> None:
    """What is mapped and no longer there must not be touched: the system would end the process."""
    folder = write(tmp_path / "db", mixed(500, seed=9))
    source = LMDB(str(folder))
    source.read(1)
    os.truncate(folder / "data.mdb", 2 * page_size(folder))
    with pytest.raises(RecordError, match="was cut short by another program"):
        source.read(400)


def test_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist_train_lmdb").mkdir()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match="no source is given"):
        open_source(pb.DataParameter())
    with pytest.raises(RecordError, match=r'no database at "gone"') as missing:
        open_source(config("gone"))
    assert str(tmp_path) in missing.value.hint
    with pytest.raises(RecordError) as misspelt:
        open_source(config("mnist_trian_lmdb"))
    assert misspelt.value.hint == 'did you mean "mnist_train_lmdb"?'
    with pytest.raises(RecordError, match="is a file"):
        open_source(config("file"))
    with pytest.raises(RecordError, match="holds no database"):
        open_source(config("mnist_train_lmdb"))
    with pytest.raises(RecordError, match="no database at"):
        open_source(config("a\0b"))
    with pytest.raises(RecordError, match="no database at"):
        open_source(config("x" * 5000))


def test_the_file_inside_is_pointed_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", {b"k": b"v"})
    with pytest.raises(RecordError) as given:
        open_source(config(folder / "data.mdb"))
    assert given.value.hint == f'did you mean "{folder}"?'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", {b"k": b"v"})
    os.chmod(folder / "data.mdb", 0)
    with pytest.raises(RecordError, match="cannot be read: Permission denied"):
        open_source(config(folder))
