"""Writing databases that Caffe's data layers, and ours, read: whole, or not at all.

A database is built in a folder beside its final place and renamed when it is complete and on disk.
A run that is killed halfway leaves at most that folder, ``NAME.XXXXXXXX.partial``, which no one
can mistake for the database.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import lmdb
import numpy as np
from numpy.typing import NDArray

from netdef.data.source import DATABASE_FILE
from netdef.errors import OutputError
from netdef.files import check_path, output_error
from netdef.proto import netdef_pb2 as pb

__all__ = [
    "BACKENDS",
    "Database",
    "DatabaseWriter",
    "LMDBWriter",
    "LevelDBWriter",
    "Progress",
    "ignore",
    "make_folder",
    "open_writer",
    "write_images",
]

#: Called with (what is being made, how much of it is done, how much there is or 0 if unknown).
Progress: TypeAlias = Callable[[str, int, int], None]

#: Records per transaction, as Caffe's tools do it; large ones are committed sooner, so that
#: whoever makes them does not wait long.
RECORDS_PER_COMMIT = 1000
BYTES_PER_COMMIT = 16 << 20
#: The map is doubled whenever it is full. It bounds the file; it takes neither disk nor memory.
INITIAL_MAP_BYTES = 16 << 20
#: LMDB holds no longer key.
LONGEST_LMDB_KEY = 511
#: As Caffe's tools have it.
LEVELDB_BLOCK_BYTES = 64 << 10
LEVELDB_BUFFER_BYTES = 64 << 20


W = TypeVar("W", bound="DatabaseWriter")


class Database(NamedTuple):
    """A database that was written."""

    path: Path
    records: int


def ignore(what: str, done: int, total: int) -> None:
    """The :data:`Progress` that tells nobody."""


class DatabaseWriter:
    """Makes one new database; use it in a ``with`` block.

    The database appears at ``path`` when the block ends; where it ends in an exception, nothing
    does. ``force`` lets it take the place of a database that is there already. Missing parent
    folders are made. Raises ``OutputError`` where ``path`` is taken or cannot be written.
    """

    #: What may be raised where something cannot be written.
    _errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        self.path = Path(path)
        self.force = force
        check_path(path)
        # A link to a database stays a link: what it points to is replaced.
        self._target = Path(os.path.realpath(path))
        self._partial = self._sibling("partial")
        self._environment: Any = None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        try:
            self._check_target()
        except OSError as error:
            raise self._failure(error) from error

    def _open(self) -> Any:
        """A new database in the folder ``self._partial``."""
        raise NotImplementedError

    def _write(self, pending: list[tuple[bytes, bytes]]) -> None:
        """Write these records, all or none."""
        raise NotImplementedError

    def _seal(self) -> None:
        """Bring what was written to the disk, and close the database."""
        raise NotImplementedError

    def _sibling(self, role: str) -> Path:
        return self._target.with_name(f"{self._target.name}.{secrets.token_hex(4)}.{role}")

    def _check_target(self) -> None:
        if not self._target.exists():
            return
        if not self._target.is_dir():
            raise OutputError(f"cannot make the database {self.path}: a file of that name exists")
        found = set(os.listdir(self._target))
        if not found:
            return
        if not all(DATABASE_FILE.fullmatch(name) for name in found):
            raise OutputError(
                f"cannot make the database {self.path}: that folder exists and holds other files",
                hint="name a folder that does not exist yet",
            )
        if not self.force:
            raise OutputError(
                f"the database {self.path} exists already", hint="replace it with --force"
            )

    def __enter__(self: W) -> W:
        make_folder(self._target.parent)
        try:
            self._partial.mkdir()
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._environment = self._open()
        except self._errors as error:
            self._discard()
            raise self._failure(error) from error
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record. Keys must differ; readers see the records in order of their keys."""
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        if len(self._pending) >= RECORDS_PER_COMMIT or self._pending_bytes >= BYTES_PER_COMMIT:
            self._commit()

    def _commit(self) -> None:
        try:
            self._write(self._pending)
        except lmdb.BadValsizeError:
            raise  # a key that LMDB cannot hold is a mistake of the caller
        except self._errors as error:
            raise self._failure(error) from error
        self._pending.clear()
        self._pending_bytes = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        self._commit()
        try:
            self._seal()
            _sync_folder(self._partial)
            self._publish()
            _sync_folder(self._target.parent)
        except self._errors as error:
            raise self._failure(error) from error

    def _publish(self) -> None:
        self._check_target()
        if not self._target.exists():
            self._partial.rename(self._target)
            return
        # A folder with files in it cannot be renamed over: the old database steps aside first.
        aside = self._sibling("old")
        self._target.rename(aside)
        try:
            self._partial.rename(self._target)
        except OSError:
            aside.rename(self._target)
            raise
        shutil.rmtree(aside)

    def _discard(self) -> None:
        """Remove what was not published. Does nothing after a success."""
        if self._environment is not None:
            self._environment.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _failure(self, error: Exception) -> OutputError:
        if isinstance(error, OSError):
            return output_error(self.path, error)
        return OutputError(f"cannot write the database {self.path}: {error}")


class LMDBWriter(DatabaseWriter):
    """Makes a database of LMDB."""

    _errors = (OSError, lmdb.Error)
    #: Of all records that were written.
    _bytes = 0

    def _open(self) -> Any:
        return lmdb.open(
            os.fspath(self._partial),
            map_size=INITIAL_MAP_BYTES,
            mode=0o666,  # less the umask
            sync=False,  # once, at the end
            metasync=False,
        )

    def _write(self, pending: list[tuple[bytes, bytes]]) -> None:
        # Twice what records take is room enough for pages that are not full, mostly.
        self._bytes += sum(len(key) + len(value) for key, value in pending)
        while True:
            if self._environment.info()["map_size"] < INITIAL_MAP_BYTES + 2 * self._bytes:
                self._grow()
                continue
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in pending:
                        if not transaction.put(key, value, overwrite=False):
                            raise ValueError(f"two records of {self.path} have the key {key!r}")
                return
            except lmdb.MapFullError:
                self._grow()

    def _grow(self) -> None:
        self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def _seal(self) -> None:
        self._environment.sync(True)
        self._environment.close()

    def _failure(self, error: Exception) -> OutputError:
        code = getattr(error, "code", 0)
        if isinstance(error, OSError) or code <= 0:  # one of LMDB's own conditions
            return super()._failure(error)
        # LMDB reports a write that the disk took only in part as an input/output error.
        if code == errno.EIO and shutil.disk_usage(self._partial).free < self._pending_bytes:
            code = errno.ENOSPC
        return output_error(self.path, OSError(code, os.strerror(code)))


class LevelDBWriter(DatabaseWriter):
    """Makes a database of LevelDB, by plyvel; raises ``OutputError`` where that is not installed.

    Of records with the same key it keeps the last.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        try:
            import plyvel
        except ImportError:
            raise OutputError(
                f"cannot write {os.fspath(path)}: to write a LevelDB takes the package plyvel",
                hint="pip install 'netdef[leveldb]'; or write an LMDB, which every Caffe reads too",
            ) from None
        self._library = plyvel
        self._errors = (OSError, plyvel.Error)
        super().__init__(path, force=force)

    def _open(self) -> Any:
        return self._library.DB(
            os.fspath(self._partial),
            create_if_missing=True,
            block_size=LEVELDB_BLOCK_BYTES,
            write_buffer_size=LEVELDB_BUFFER_BYTES,
        )

    def _write(self, pending: list[tuple[bytes, bytes]]) -> None:
        with self._environment.write_batch(transaction=True) as batch:
            for key, value in pending:
                batch.put(key, value)

    def _seal(self) -> None:
        self._environment.close()
        # Opened once more, it puts what stands in the log into a table.
        self._open().close()
        for name in ("LOG", "LOG.old", "LOCK"):
            (self._partial / name).unlink(missing_ok=True)
        for path in self._partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())


#: What ``--backend`` takes.
BACKENDS = {"lmdb": LMDBWriter, "leveldb": LevelDBWriter}


def open_writer(
    path: str | os.PathLike[str], backend: str, *, force: bool = False
) -> DatabaseWriter:
    """A writer of the kind ``backend``, one of ``BACKENDS``."""
    return BACKENDS[backend](path, force=force)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents where they are missing. Raises ``OutputError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"cannot write in {folder}: it is a file, not a folder") from None
    except OSError as error:
        raise output_error(folder, error) from error


def _sync_folder(folder: Path) -> None:
    """Make what was created or renamed in ``folder`` survive a power cut, where it can be done."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_images(
    writer: DatabaseWriter,
    batches: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    count: int,
    progress: Progress = ignore,
) -> Database:
    """Write batches of grey images ``(n, height, width)`` and labels ``(n,)``, ``count`` in all.

    Keys are ``%08d`` from 0 and values Datums of one channel, as Caffe's MNIST tool writes them.
    """
    done = 0
    for images, labels in batches:
        _, height, width = images.shape
        for image, label in zip(images, labels.tolist(), strict=True):
            datum = pb.Datum(
                channels=1, height=height, width=width, data=image.tobytes(), label=label
            )
            writer.put(b"%08d" % done, datum.SerializeToString())
            done += 1
        progress(writer.path.name, done, count)
    return Database(writer.path, done)
