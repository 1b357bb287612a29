"""Databases are written whole or not at all."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from netdef.data.leveldb import LevelDB
from netdef.data.writer import LMDBWriter, open_writer, write_images
from netdef.errors import OutputError


def records(path: Path) -> list[tuple[bytes, bytes]]:
    """Read as Caffe does: read-only, the map size taken from the file."""
    environment = lmdb.open(os.fspath(path), readonly=True)
    try:
        with environment.begin() as transaction:
            return list(transaction.cursor())
    finally:
        environment.close()


def fill(
    path: Path,
    keys: Iterable[bytes],
    *,
    value: bytes = b"value",
    force: bool = False,
    then: Callable[[], None] = lambda: None,
) -> None:
    with LMDBWriter(path, force=force) as writer:
        for key in keys:
            writer.put(key, value)
        then()


def keys(count: int) -> Iterator[bytes]:
    return (b"%08d" % i for i in range(count))


def test_writes_every_record_in_order_of_keys(tmp_path: Path) -> None:
    written = [(b"%08d" % i, b"value %d" % i) for i in range(2500)]
    with LMDBWriter(tmp_path / "new" / "db") as writer:
        for key, value in reversed(written):
            writer.put(key, value)
    assert records(tmp_path / "new" / "db") == written
    assert set(os.listdir(tmp_path / "new" / "db")) == {"data.mdb", "lock.mdb"}
    assert os.listdir(tmp_path / "new") == ["db"]


def test_map_grows_with_the_records(tmp_path: Path) -> None:
    fill(tmp_path / "db", keys(40), value=bytes(1 << 20))
    assert [len(value) for _, value in records(tmp_path / "db")] == [1 << 20] * 40


def test_a_value_larger_than_the_map(tmp_path: Path) -> None:
    value = bytes(50 << 20)
    fill(tmp_path / "db", [b"k"], value=value)
    assert records(tmp_path / "db") == [(b"k", value)]


def test_the_same_records_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with LMDBWriter(tmp_path / name) as writer:
            for i in range(3000):
                writer.put(b"%08d" % i, bytes([i % 251]) * (i % 3000))
    assert (tmp_path / "a/data.mdb").read_bytes() == (tmp_path / "b/data.mdb").read_bytes()


def test_an_empty_database_is_a_database(tmp_path: Path) -> None:
    fill(tmp_path / "db", [])
    assert records(tmp_path / "db") == []


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    def interrupt() -> None:
        raise stop

    with pytest.raises(stop):
        fill(tmp_path / "db", keys(1500), then=interrupt)
    assert os.listdir(tmp_path) == []


def test_nothing_stands_at_the_path_before_the_end(tmp_path: Path) -> None:
    def look() -> None:
        assert not (tmp_path / "db").exists()

    fill(tmp_path / "db", keys(1500), then=look)


def test_the_same_key_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have the key b'k'"):
        fill(tmp_path / "db", [b"k", b"k"])
    assert os.listdir(tmp_path) == []


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with LMDBWriter(tmp_path / "db") as writer:
        writer.put(b"old", b"record")
    return tmp_path / "db"


def test_refuses_to_overwrite(database: Path) -> None:
    with pytest.raises(OutputError, match="exists already") as caught:
        LMDBWriter(database)
    assert "--force" in str(caught.value)
    assert records(database) == [(b"old", b"record")]


def test_force_replaces(database: Path) -> None:
    with LMDBWriter(database, force=True) as writer:
        writer.put(b"new", b"record")
        assert records(database) == [(b"old", b"record")]
    assert records(database) == [(b"new", b"record")]
    assert os.listdir(database.parent) == ["db"]


def test_a_failed_replacement_keeps_the_old_one(database: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(database, keys(1500), force=True, then=interrupt)
    assert records(database) == [(b"old", b"record")]
    assert os.listdir(database.parent) == ["db"]


def test_a_database_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with pytest.raises(OutputError, match="exists already"):
        fill(path, [b"slow"], then=lambda: fill(path, [b"fast"]))
    assert records(path) == [(b"fast", b"value")]
    assert os.listdir(tmp_path) == ["db"]


def test_force_spares_a_folder_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files"):
        LMDBWriter(tmp_path / "db", force=True)
    assert (tmp_path / "db" / "thesis.tex").exists()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with LMDBWriter(tmp_path / "db") as writer:
        writer.put(b"k", b"v")
    assert records(tmp_path / "db") == [(b"k", b"v")]


def test_a_link_is_followed(tmp_path: Path, database: Path) -> None:
    (tmp_path / "link").symlink_to(database)
    with LMDBWriter(tmp_path / "link", force=True) as writer:
        writer.put(b"new", b"record")
    assert (tmp_path / "link").is_symlink()
    assert records(database) == [(b"new", b"record")]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file of that name exists"):
        LMDBWriter(tmp_path / "file", force=True)
    with pytest.raises(OutputError, match="it is a file, not a folder"):
        fill(tmp_path / "file" / "db", [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied"):
        fill(tmp_path / "db", [])
    tmp_path.chmod(0o700)


@pytest.fixture
def _small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_small_files")
def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        fill(tmp_path / "db", keys(5000), value=bytes(1000))
    assert os.listdir(tmp_path) == []


def test_images_become_the_datums_of_caffes_mnist_tool(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.int64).astype(np.uint8).reshape(2, 28, 28)
    with LMDBWriter(tmp_path / "db") as writer:
        written = write_images(writer, [(images, np.array([0, 7], np.uint8))], 2)
    assert written == (tmp_path / "db", 2)
    # channels: 1, height: 28, width: 28, data of 784 bytes (a varint of two), label; no `encoded`
    head = bytes.fromhex("0801 101c 181c 22 9006")
    assert records(tmp_path / "db") == [
        (b"00000000", head + images[0].tobytes() + bytes.fromhex("2800")),
        (b"00000001", head + images[1].tobytes() + bytes.fromhex("2807")),
    ]


def test_a_leveldb_is_one_that_the_library_and_netdef_read(tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel")
    written = [(b"%08d" % i, bytes([i % 256]) * 9000) for i in range(2500)]
    with open_writer(tmp_path / "db", "leveldb") as writer:
        for key, value in written:
            writer.put(key, value)
        assert not (tmp_path / "db").exists()
    names = sorted(os.listdir(tmp_path / "db"))
    # What was in the log stands in a table.
    assert [(tmp_path / "db" / name).stat().st_size for name in names if name.endswith(".log")] == [
        0
    ]
    source = LevelDB(os.fspath(tmp_path / "db"))
    assert source.size == 2500
    database = plyvel.DB(os.fspath(tmp_path / "db"))
    assert list(database) == written
    database.close()
    # One kind of database takes the place of the other.
    with pytest.raises(OutputError, match="exists already"):
        open_writer(tmp_path / "db", "lmdb")
    with open_writer(tmp_path / "db", "lmdb", force=True) as writer:
        writer.put(b"k", b"v")
    assert records(tmp_path / "db") == [(b"k", b"v")]
    assert os.listdir(tmp_path) == ["db"]


def test_a_leveldb_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(OutputError, match="takes the package plyvel") as caught:
        open_writer(tmp_path / "db", "leveldb")
    assert "netdef[leveldb]" in str(caught.value)
