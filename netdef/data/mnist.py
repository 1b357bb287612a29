"""MNIST: from its four idx files, found in a folder or downloaded, to two LMDB databases.

The files are known by the SHA-256 of what they hold, so any gzip wrapper, or none, will do.
Source: LeCun, Cortes & Burges, The MNIST database of handwritten digits, 1998.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias

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
    write_images,
)
from netdef.errors import DataError

__all__ = [
    "FILES",
    "MIRRORS",
    "IdxFile",
    "Split",
    "download",
    "read",
    "read_idx",
    "write",
    "write_pair",
]

Bytes: TypeAlias = NDArray[np.uint8]

#: Folders on the web that hold the four files; the first that answers is used.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
#: Where downloaded files are kept, inside the folder of the databases.
DOWNLOADS = "mnist_idx"
CLASSES = 10

#: No file in MNIST's format is near this; a header that promises more is damaged.
MOST_BYTES = 1 << 30
#: The largest of the four is 10 MB.
MOST_DOWNLOAD_BYTES = 64 << 20


@dataclass(frozen=True)
class IdxFile:
    """One of the four files: ``sha256`` is that of its contents, not compressed."""

    stem: str
    dimensions: int
    sha256: str

    @property
    def name(self) -> str:
        """Its usual name, as mirrors have it."""
        return f"{self.stem}-idx{self.dimensions}-ubyte.gz"

    def find(self, folder: Path) -> Path | None:
        """The file in ``folder`` under any of the names it goes by."""
        for separator in "-.":
            plain = f"{self.stem}{separator}idx{self.dimensions}-ubyte"
            # Some archives unpack each file into a folder of its own name.
            for name in (f"{plain}.gz", plain, f"{plain}/{plain}"):
                if (folder / name).is_file():
                    return folder / name
        return None


FILES = (
    IdxFile("train-images", 3, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    IdxFile("train-labels", 1, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    IdxFile("t10k-images", 3, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    IdxFile("t10k-labels", 1, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)


@dataclass(frozen=True)
class Split:
    """``images (n, rows, columns)`` and ``labels (n,)``, uint8."""

    images: Bytes
    labels: Bytes


def write(
    folder: Path,
    *,
    source: Path | None = None,
    mirrors: Sequence[str] = MIRRORS,
    verify: bool = True,
    backend: str = "lmdb",
    force: bool = False,
    progress: Progress = ignore,
) -> tuple[Database, Database]:
    """Write ``mnist_train_lmdb`` and ``mnist_test_lmdb`` in ``folder``, or ``_leveldb``.

    The four files are read from ``source``; without one they are downloaded to ``mnist_idx`` in
    ``folder``. Raises ``DataError`` where they are missing, damaged or, unless ``verify`` is false,
    not the known ones, and ``OutputError`` where the databases cannot be written or, without
    ``force``, exist already.
    """
    # Both are made now so that a database in the way is found before anything is downloaded.
    train_writer = open_writer(folder / f"mnist_train_{backend}", backend, force=force)
    test_writer = open_writer(folder / f"mnist_test_{backend}", backend, force=force)
    if source is None:
        source = folder / DOWNLOADS
        download(source, mirrors, progress)
    train, test = read(source, verify=verify)
    with train_writer, test_writer:
        return (
            write_images(train_writer, _batches(train), len(train.labels), progress),
            write_images(test_writer, _batches(test), len(test.labels), progress),
        )


def write_pair(
    images: Path, labels: Path, writer: DatabaseWriter, progress: Progress = ignore
) -> Database:
    """Write one database of two idx files, whatever set they are of.

    Raises ``DataError`` where they are damaged or do not pair.
    """
    split = _pair(read_idx(images, 3), read_idx(labels, 1), images, labels, classes=256)
    with writer:
        return write_images(writer, _batches(split), len(split.labels), progress)


def _batches(split: Split, size: int = 1000) -> Iterator[tuple[Bytes, Bytes]]:
    for first in range(0, len(split.labels), size):
        yield split.images[first : first + size], split.labels[first : first + size]


# Reading.


def read(folder: Path, *, verify: bool = True) -> tuple[Split, Split]:
    """The training and the test set from the four files in ``folder``.

    Raises ``DataError`` where a file is missing or damaged, where images and labels do not pair,
    and, with ``verify``, where a file is not the one MNIST is known by.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the folder {folder} {what}", code="E360")
    paths = [file.find(folder) for file in FILES]
    missing = [file.name for file, path in zip(FILES, paths, strict=True) if path is None]
    if missing:
        raise DataError(
            f"the folder {folder} lacks {series(missing)}",
            code="E360",
            hint="with or without .gz; train-images.idx3-ubyte and the like are found too",
        )
    found = [path for path in paths if path is not None]
    train_images, train_labels, test_images, test_labels = (
        read_idx(path, file.dimensions, file.sha256 if verify else None)
        for file, path in zip(FILES, found, strict=True)
    )
    return (
        _pair(train_images, train_labels, found[0], found[1]),
        _pair(test_images, test_labels, found[2], found[3]),
    )


def read_idx(path: Path, dimensions: int, sha256: str | None = None) -> Bytes:
    """The unsigned bytes of an idx file of 3 (images) or 1 (labels) dimensions, gzipped or not.

    Raises ``DataError`` where it is no such file or its contents do not have the digest ``sha256``.
    """
    try:
        with _open(path) as stream:
            head = _read(stream, 4 + 4 * dimensions)
            shape = _shape(path, head, dimensions)
            size = int(np.prod(shape, dtype=object))
            if size > MOST_BYTES:
                raise _damaged(path, f"its header promises {size} bytes of data")
            body = _read(stream, size + 1)
    except EOFError:
        raise _damaged(path, "its compressed data ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"it does not decompress ({error})") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", code="E360") from error
    if len(body) != size:
        kind = "more" if len(body) > size else f"{len(body)}"
        raise _damaged(path, f"its header promises {size} bytes of data, it has {kind}")
    digest = hashlib.sha256(head)
    digest.update(body)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DataError(
            f"{path} is not the file MNIST is known by: its contents have the SHA-256 "
            f"{digest.hexdigest()}, not {sha256}",
            code="E362",
            hint="other sets in this format (Fashion-MNIST, KMNIST) are taken with --no-verify",
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    # Browsers unpack a download and leave its name: the first bytes say what it is.
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _read(stream: gzip.GzipFile | BufferedReader, size: int) -> bytearray:
    """Up to ``size`` bytes; memory grows with what is there, not with what was promised."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def _shape(path: Path, head: bytearray, dimensions: int) -> tuple[int, ...]:
    """The dimensions in a header: two zeros, element type, their number, then each, big-endian."""
    wanted = 0x0800 + dimensions
    magic = int.from_bytes(head[:4], "big")
    if len(head) < 4 or magic != wanted:
        other = {2051: "images", 2049: "labels"}
        given = f"{head[:4].hex() or 'nothing'}"
        if magic in other:
            given += f", those of {other[magic]}"
        raise DataError(
            f"{path} does not begin with the bytes {wanted:08x} of an idx file of "
            f"{other[wanted]} but with {given}",
            code="E361",
        )
    if len(head) < 4 + 4 * dimensions:
        raise _damaged(path, "its header ends too early")
    return tuple(np.frombuffer(head, ">u4")[1:].tolist())


def _pair(
    images: Bytes, labels: Bytes, image_path: Path, label_path: Path, classes: int = CLASSES
) -> Split:
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} holds {len(images)} images, but {label_path} holds {len(labels)} labels",
            code="E361",
        )
    if images.size == 0:
        raise DataError(f"{image_path} holds no images", code="E361")
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(
            f"label {wrong[0]} of {label_path} is {labels[wrong[0]]}, not in 0..{classes - 1}",
            code="E361",
        )
    return Split(images, labels)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}", code="E361", hint="fetch it again")


# Downloading.


def download(folder: Path, mirrors: Sequence[str] = MIRRORS, progress: Progress = ignore) -> None:
    """Make sure that ``folder`` holds the four files, whole and verified.

    Fetches what is missing, goes on with a ``.part`` file left by an earlier try, and turns to the
    next of ``mirrors`` (http or https addresses of folders) where one fails or has other files.
    Raises ``DataError`` where none delivers, ``OutputError`` where ``folder`` cannot be written.
    """
    check_mirrors(mirrors)
    make_folder(folder)
    order = list(mirrors)
    for file in FILES:
        path = file.find(folder)
        if path is None or not _whole(path, file):
            delivered = fetch(
                file.name,
                folder,
                order,
                lambda part, file=file: _whole(part, file),  # type: ignore[misc]
                most_bytes=MOST_DOWNLOAD_BYTES,
                what="MNIST",
                advice=f"fetch {series([each.name for each in FILES])} from {MIRRORS[0]}, on "
                "another computer if need be, put them in one folder, and run netdef data mnist "
                "DIR --from FOLDER; netdef data digits DIR makes a set of digits without a network",
                progress=progress,
            )
            # The mirror that works is asked first from now on.
            order.sort(key=lambda mirror: mirror != delivered)


def _whole(path: Path, file: IdxFile) -> bool:
    try:
        read_idx(path, file.dimensions, file.sha256)
    except DataError:
        return False
    return True
