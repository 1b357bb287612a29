"""Record sources: databases of (key, value) records in a fixed order.

A source is one file of ``netdef/data`` with a subclass of :class:`Source`, and one line in
``open_source``. Sources hand out where records lie, not copies of them, so a batch is parsed
without Python touching a record.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef.errors import DataError, did_you_mean
from netdef.proto import netdef_pb2 as pb

#: Columns of ``Records.spans``.
VALUE, VALUE_SIZE, KEY, KEY_SIZE = range(4)

#: A key is shown up to this many bytes.
WIDEST_KEY = 60

#: What databases are made of: LevelDBs, and either kind.
_LEVELDB_FILE = re.compile(r"CURRENT|MANIFEST-\d+|\d+\.(ldb|sst|log)")
DATABASE_FILE = re.compile(rf"data\.mdb|lock\.mdb|LOCK|LOG|LOG\.old|{_LEVELDB_FILE.pattern}")

#: How a database is called until it is whole.
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.partial$")

#: So many names of a folder are looked at for one that was meant: it may hold a million images.
MOST_NAMES = 1000


class RecordError(DataError):
    """Records that are missing, damaged or do not fit.

    ``field`` is the field that brought them: a path inside the layer's own parameters, or inside
    the layer where it begins with ``transform_param``. So whoever knows the layer can say where
    that stands.
    """

    def __init__(self, text: str, field: tuple[str, ...] = ("source",), hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.text = text
        self.field = field
        self.hint = hint

    def of(self, name: str) -> RecordError:
        """The same error, its text a predicate, of the record that is called ``name``."""
        return RecordError(f"{name} {self.text}", self.field, self.hint)


class Records(NamedTuple):
    """Consecutive records of a source.

    ``buffer``  uint8, read-only: the bytes they lie in
    ``spans``   int64 (n, 4): first byte and length of each value, first byte and length of each key
    ``first``   which record of the source the first one is, counted from 0
    ``path``    the source, as the user gave it
    """

    buffer: NDArray[np.uint8]
    spans: NDArray[np.int64]
    first: int
    path: str

    def key(self, row: int) -> str:
        """The key of record ``row`` of these, as messages show it."""
        start, size = self.spans[row, KEY], self.spans[row, KEY_SIZE]
        key = self.buffer[start : start + min(size, WIDEST_KEY)].tobytes()
        try:
            text = key.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        shown = f'"{text}"' if text.isprintable() and text else f"0x{key.hex()}"
        return shown + ("..." if size > WIDEST_KEY else "")

    def name(self, row: int) -> str:
        """What to call record ``row`` of these in a message."""
        return f'record {self.first + row} (key {self.key(row)}) of "{self.path}"'

    def after(self, count: int) -> Records:
        """Those behind the first ``count``."""
        return self._replace(spans=self.spans[count:], first=self.first + count)


class Source:
    """A database of records, read in order and from the start again after the last."""

    path: str
    #: What kind of database it is, as people call it.
    kind: ClassVar[str]
    #: How many records there are; at least 1.
    size: int

    def seek(self, position: int) -> None:
        """Continue with record ``position``, in [0, size)."""
        raise NotImplementedError

    def read(self, count: int) -> Records:
        """The next records: at least one, at most ``count``; fewer where the last is reached.

        Raises ``RecordError`` where the database is damaged.
        """
        raise NotImplementedError

    def confirm(self) -> None:
        """Raise ``RecordError`` if someone may have changed the records since they were read."""

    def close(self) -> None:
        """Let go of the files. Doing so twice is fine."""


def open_source(config: pb.DataParameter) -> Source:
    """The database at ``config.source``, relative to the current folder.

    The folder says what it is, because the default of ``config.backend`` is LEVELDB and most
    databases are LMDB; only where it holds both is ``backend`` asked. Raises ``RecordError`` where
    there is none, or none that can be read.
    """
    path = config.source
    if not path:
        raise RecordError("no source is given", (), hint="source: the database folder")
    folder = Path(path)
    # os.path answers False where pathlib raises: no permission, too long a name, a NUL byte.
    if not os.path.exists(path):
        raise RecordError(f'there is no database at "{path}"', hint=_hint_for_missing(folder))
    if not os.path.isdir(path):
        inside = folder.name == "data.mdb" or _LEVELDB_FILE.fullmatch(folder.name)
        raise RecordError(
            f'"{path}" is a file, and a database is a folder',
            hint=f'did you mean "{folder.parent}"?' if inside else "",
        )
    if _UNFINISHED.search(folder.name):
        raise RecordError(
            f'"{path}" is not whole: it is what an interrupted conversion left',
            hint="remove that folder, and convert again",
        )
    is_lmdb = os.path.exists(folder / "data.mdb")
    is_leveldb = os.path.exists(folder / "CURRENT")
    if is_lmdb and not (is_leveldb and config.backend == pb.DataParameter.LEVELDB):
        from netdef.data.lmdb import LMDB

        return LMDB(path)
    if is_leveldb:
        from netdef.data.leveldb import LevelDB

        return LevelDB(path)
    if any(_LEVELDB_FILE.fullmatch(name) for name in _some_names(folder)):
        raise RecordError(
            f'the folder "{path}" holds parts of a LevelDB, but no file CURRENT',
            hint="was it copied whole?",
        )
    raise RecordError(
        f'the folder "{path}" holds no database: neither data.mdb (LMDB) nor CURRENT (LevelDB)',
        hint=_hint_for_inner(folder),
    )


def kind_of(folder: Path) -> str:
    """What kind of database was written to ``folder``: "LMDB" or "LevelDB"."""
    return "LMDB" if os.path.exists(folder / "data.mdb") else "LevelDB"


def wrong_backend(config: pb.DataParameter, source: Source) -> str:
    """What to tell the user where ``backend`` is not what the database is; else nothing.

    netdef reads it all the same, but Caffe would not.
    """
    stated = pb.DataParameter.DB.Name(config.backend)
    right = source.kind.upper()
    if stated == right:
        return ""
    said = (
        f"backend is {stated}"
        if config.HasField("backend")
        else f"backend is {stated} if not given"
    )
    return f'{said}, but "{source.path}" is of kind {source.kind}: write  backend: {right}'


def read_file(path: str, most: int | None = None) -> bytes:
    """What the file at ``path`` holds: at most ``most`` bytes, if given.

    Raises ``RecordError``, whose text is a predicate, where it cannot be read.
    """
    reason: str | None
    hint = ""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            # A pipe would be waited for, a device read without end.
            reason = "it is no regular file"
        elif most is not None and found.st_size > most:
            reason = f"it is larger than {most} bytes"
        else:
            with open(path, "rb") as file:
                return file.read()
    except FileNotFoundError as error:
        reason, hint = error.strerror, _hint_for_missing(Path(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
    except MemoryError:
        reason = "there is no memory for it"
    raise RecordError(f"cannot be read: {reason}", hint=hint)


def read_text(path: str, what: str) -> NDArray[np.uint8]:
    """The bytes of the text file at ``path``, of the kind ``what``.

    Raises ``RecordError`` where it is missing or cannot be read.
    """
    if not path:
        raise RecordError("no source is given", (), hint=f"source: the {what}, a text file")
    name = f'the {what} "{path}"'
    try:
        text = read_file(path)
    except RecordError as error:
        raise error.of(name) from None
    return np.frombuffer(without_mark(text, name), np.uint8)


def without_mark(text: bytes, name: str) -> bytes:
    """A text without the mark that some editors begin one with; raises ``RecordError`` in UTF-16.

    ``name`` is what to call it.
    """
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecordError(f"{name} is in UTF-16", hint="save it as UTF-8")
    return text.removeprefix(b"\xef\xbb\xbf")


def printable(text: bytes) -> str:
    """Bytes of a file as messages show them."""
    shown = text.decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode("ascii")


def _hint_for_missing(folder: Path) -> str:
    close = did_you_mean(folder.name, _some_names(folder.parent))
    if close or folder.is_absolute():
        return close
    return f"relative paths start from the current folder, {os.getcwd()}"


def _hint_for_inner(folder: Path) -> str:
    """Points at a database one folder further down."""
    for name in sorted(_some_names(folder)):
        if any(os.path.exists(folder / name / file) for file in ("data.mdb", "CURRENT")):
            return f'did you mean "{folder / name}"?'
    return ""


def _some_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in itertools.islice(folder.iterdir(), MOST_NAMES)]
    except (OSError, ValueError):
        return []
