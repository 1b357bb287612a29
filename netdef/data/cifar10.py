"""CIFAR-10: from its six binary files, found in a folder or downloaded, to two databases.

Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from netdef.data.download import CHUNK, check_mirrors, fetch, series
from netdef.data.writer import (
    Database,
    DatabaseWriter,
    Progress,
    ignore,
    make_folder,
    open_writer,
)
from netdef.errors import DataError
from netdef.proto import netdef_pb2 as pb

__all__ = ["ARCHIVE", "MD5", "MIRRORS", "TEST_FILES", "TRAIN_FILES", "write"]

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
ARCHIVE = "cifar-10-binary.tar.gz"
#: As the page of the set gives it.
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
MOST_DOWNLOAD_BYTES = 1 << 28
#: Where the archive is kept, inside the folder of the databases; and the folder inside it.
DOWNLOADS = "cifar10_binary"
INSIDE = "cifar-10-batches-bin"

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)
CLASSES = 10
SIDE = 32
#: A label, then a red, a green and a blue plane.
RECORD = 1 + 3 * SIDE * SIDE
#: Images in each file.
IMAGES = 10_000


def write(
    folder: Path,
    *,
    source: Path | None = None,
    backend: str = "lmdb",
    force: bool = False,
    progress: Progress = ignore,
) -> tuple[Database, Database]:
    """Write ``cifar10_train_lmdb`` and ``cifar10_test_lmdb`` in ``folder``; or ``_leveldb``.

    ``source`` is a folder with the six files, or with the archive they come in, or that archive;
    without one it is downloaded to ``cifar10_binary`` in ``folder``. Raises ``DataError`` where
    files are missing or damaged, ``OutputError`` where the databases cannot be written or, without
    ``force``, exist already.
    """
    # Both are made now so that a database in the way is found before anything is downloaded.
    train = open_writer(folder / f"cifar10_train_{backend}", backend, force=force)
    test = open_writer(folder / f"cifar10_test_{backend}", backend, force=force)
    if source is None:
        source = folder / DOWNLOADS
        download(source, MIRRORS, progress)
    files = _read(source, progress)
    with train, test:
        return (
            _write(train, [files[name] for name in TRAIN_FILES], progress),
            _write(test, [files[name] for name in TEST_FILES], progress),
        )


def download(folder: Path, mirrors: Sequence[str], progress: Progress = ignore) -> None:
    """Make sure that ``folder`` holds the archive, whole and verified."""
    check_mirrors(mirrors)
    make_folder(folder)
    if not _is_archive(folder / ARCHIVE):
        fetch(
            ARCHIVE,
            folder,
            mirrors,
            _is_archive,
            most_bytes=MOST_DOWNLOAD_BYTES,
            what="CIFAR-10",
            advice=f"fetch it from {MIRRORS[0]}, on another computer if need be, and run "
            "netdef data cifar10 DIR --from FOLDER",
            progress=progress,
        )


def _is_archive(path: Path) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == MD5


def _read(source: Path, progress: Progress) -> dict[str, NDArray[np.uint8]]:
    """The records of each of the six files: (IMAGES, RECORD)."""
    names = [*TRAIN_FILES, *TEST_FILES]
    if source.is_file():
        return _from_archive(source, progress)
    if not source.is_dir():
        raise DataError(f"the folder {source} does not exist", code="E360")
    for folder in (source, source / INSIDE):
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return {name: _records(folder / name, _content(folder / name)) for name in names}
    if (source / ARCHIVE).is_file():
        return _from_archive(source / ARCHIVE, progress)
    missing = [name for name in names if not (source / name).is_file()]
    raise DataError(
        f"the folder {source} lacks {series(missing)}",
        code="E360",
        hint=f"or {ARCHIVE}, which they come in: the binary version of CIFAR-10, not the one for "
        "Python",
    )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(IMAGES * RECORD + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", code="E360") from error


def _from_archive(path: Path, progress: Progress) -> dict[str, NDArray[np.uint8]]:
    """The same from the archive, of which nothing is unpacked to the disk."""
    names = [*TRAIN_FILES, *TEST_FILES]
    found = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in names or not member.isfile():
                    continue
                file: IO[bytes] | None = archive.extractfile(member)
                content = file.read(IMAGES * RECORD + 1) if file is not None else b""
                found[name] = _records(Path(f"{path}/{name}"), content)
                progress(path.name, len(found), len(names))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot read {path}: {reason}", code="E361") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged ({error})", code="E361", hint="fetch it again"
        ) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path} lacks {series(missing)}", code="E361", hint="fetch it again")
    return found


def _records(path: Path, content: bytes) -> NDArray[np.uint8]:
    if len(content) != IMAGES * RECORD:
        given = "more" if len(content) > IMAGES * RECORD else f"{len(content)}"
        raise DataError(
            f"{path} is damaged: it should have {IMAGES * RECORD} bytes, but has {given}",
            code="E361",
            hint="fetch it again",
        )
    records = np.frombuffer(content, np.uint8).reshape(IMAGES, RECORD)
    wrong = np.flatnonzero(records[:, 0] >= CLASSES)
    if len(wrong):
        raise DataError(
            f"label {wrong[0]} of {path} is {records[wrong[0], 0]}, not in 0..{CLASSES - 1}",
            code="E361",
        )
    return records


def _write(writer: DatabaseWriter, files: list[NDArray[np.uint8]], progress: Progress) -> Database:
    count = IMAGES * len(files)
    for done, record in enumerate(_rows(files)):
        datum = pb.Datum(
            channels=3, height=SIDE, width=SIDE, label=int(record[0]), data=record[1:].tobytes()
        )
        writer.put(b"%05d" % done, datum.SerializeToString())
        if (done + 1) % 1000 == 0:
            progress(writer.path.name, done + 1, count)
    return Database(writer.path, count)


def _rows(files: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    for file in files:
        yield from file
