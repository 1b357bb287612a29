"""CIFAR-10: the records of Caffe's convert_cifar_data, from files and from their archive."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pytest

from netdef.data import cifar10
from netdef.errors import DataError, OutputError
from netdef.proto import netdef_pb2 as pb

NAMES = [*cifar10.TRAIN_FILES, *cifar10.TEST_FILES]
RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 20 images each."""
    monkeypatch.setattr(cifar10, "IMAGES", 20)


def contents() -> dict[str, bytes]:
    files = {}
    for name in NAMES:
        records = RNG.integers(0, 256, (20, cifar10.RECORD), np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    for name, content in contents().items():
        (made / name).write_bytes(content)
    return made


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def datums(path: Path) -> dict[bytes, pb.Datum]:
    with lmdb.open(os.fspath(path), readonly=True, lock=False) as env, env.begin() as txn:
        return {key: pb.Datum.FromString(value) for key, value in txn.cursor()}


def test_records_are_those_of_caffes_tool(folder: Path, tmp_path: Path) -> None:
    train, test = cifar10.write(tmp_path / "out", source=folder)
    assert train == (tmp_path / "out" / "cifar10_train_lmdb", 100)
    assert test == (tmp_path / "out" / "cifar10_test_lmdb", 20)
    found = datums(train.path)
    assert list(found) == [b"%05d" % i for i in range(100)]
    record = (folder / "data_batch_3.bin").read_bytes()[5 * cifar10.RECORD :][: cifar10.RECORD]
    datum = found[b"00045"]
    assert (datum.channels, datum.height, datum.width) == (3, 32, 32)
    assert datum.label == record[0]
    assert datum.data == record[1:]
    assert not datum.HasField("encoded")


def test_an_archive_or_a_folder_that_holds_one(folder: Path, tmp_path: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in NAMES}
    path = archive(tmp_path / cifar10.ARCHIVE, files)
    cifar10.write(tmp_path / "a", source=folder)
    cifar10.write(tmp_path / "b", source=path)
    cifar10.write(tmp_path / "c", source=tmp_path)
    for name in ("cifar10_train_lmdb", "cifar10_test_lmdb"):
        expected = datums(tmp_path / "a" / name)
        assert datums(tmp_path / "b" / name) == datums(tmp_path / "c" / name) == expected


def test_what_is_wrong_is_named_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fails(message: str, source: Path = folder) -> None:
        with pytest.raises(DataError, match=message):
            cifar10.write(out, source=source)
        assert not out.exists()

    whole = (folder / "data_batch_2.bin").read_bytes()
    (folder / "data_batch_2.bin").write_bytes(whole[:-1])
    fails(r"data_batch_2\.bin is damaged: it should have 61460 bytes, but has 61459")
    (folder / "data_batch_2.bin").write_bytes(whole + b"x")
    fails("but has more")
    (folder / "data_batch_2.bin").write_bytes(b"\x0a" + whole[1:])
    fails(r"label 0 of .*data_batch_2\.bin is 10, not in 0\.\.9")
    (folder / "data_batch_2.bin").unlink()
    fails(r"lacks data_batch_2\.bin\n")
    fails("does not exist", tmp_path / "nowhere")
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    fails(r"x\.tar\.gz is damaged", tmp_path / "x.tar.gz")
    path = archive(tmp_path / "y.tar.gz", {"test_batch.bin": contents()["test_batch.bin"]})
    fails("lacks data_batch_1.bin, ", path)
    path.write_bytes(path.read_bytes()[:3000])
    fails("is damaged", path)


def test_a_database_in_the_way_is_found_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "cifar10_test_lmdb").write_text("")
    with pytest.raises(OutputError, match="a file of that name exists"):
        cifar10.write(tmp_path, source=tmp_path / "nowhere")


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(cifar10, "MIRRORS", ("http://127.0.0.1:1/",))
    with pytest.raises(DataError, match="cannot download cifar-10-binary") as caught:
        cifar10.write(tmp_path)
    assert "--from FOLDER" in str(caught.value)
