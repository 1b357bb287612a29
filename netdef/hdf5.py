"""HDF5 files: read without trusting them, written whole or not at all.

A file is looked at part by part, and each part is checked before it is used: only groups and
datasets that stand in the file itself, never links that lead elsewhere; only plain numbers and
short texts; never more memory than the bytes in the file account for. h5py, and the C library below
it, decode; what they say of a damaged file becomes :class:`HDF5Error`.

Files are written in the oldest version of the format that holds them, which Caffe's HDF5 reads.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import h5py
import numpy as np

from netdef.blob import Array, Shape, shape_text
from netdef.errors import OutputError
from netdef.files import atomic_write, output_error

#: An open file, to be given to ``close``.
File: TypeAlias = h5py.File

SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: The most axes a dataset may have: of HDF5, and of Caffe.
MOST_AXES = 32

#: The most names looked at in one group.
MOST_NAMES = 100_000

#: The most bytes of a name or a text.
LONGEST_TEXT = 4096

#: Packed numbers take at most so many times the bytes they are stored in: what deflate can reach.
MOST_EXPANSION = 1032

#: Packed numbers that take no more than this are not asked how they are stored.
SMALL_BYTES = 1 << 20

#: The versions of the format that are written: read by HDF5 1.8, which Caffe is built with.
VERSIONS = ("earliest", "v108")


#: How the C library says that a file is shorter than it claims to be.
_CUT_OFF = re.compile(r"truncated file: eof = (\d+),.* stored_eof = (\d+)")


class HDF5Error(Exception):
    """What is wrong with a file, without its path; ``where`` is the part that is wrong, if any."""

    def __init__(self, text: str, where: str = "") -> None:
        self.text = text
        self.where = where
        super().__init__(f"{where}: {text}" if where else text)


def is_hdf5(content: Any) -> bool:
    """Whether bytes begin as an HDF5 file does, perhaps behind a block of the user's own."""
    return any(content[at : at + 8] == SIGNATURE for at in (0, 512, 1024, 2048))


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turns what h5py raises on a damaged file into ``HDF5Error``."""
    try:
        yield
    except MemoryError as error:
        raise HDF5Error("there is no memory for it", where) from error
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        said = str(error.args[-1] if error.args else error).strip()
        raise HDF5Error(said, where) from error


# --- reading --------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Group]:
    """The root of the file at ``path``, open as long as the block lasts.

    Raises ``HDF5Error``; so does everything that is done with the group.
    """
    file = open_file(path)
    try:
        yield Group(file, "/")
    finally:
        close(file)


def open_file(path: str | os.PathLike[str]) -> h5py.File:
    """The file at ``path``, to be given to ``close``. Raises ``HDF5Error``."""
    if not os.path.exists(path):
        raise HDF5Error("there is no such file")
    # Looked at before it is opened: opening a pipe would wait for a writer.
    if not os.path.isfile(path):
        raise HDF5Error("it is not a file")
    try:
        with _explained(""):
            # Not every file system can lock, and nothing here needs it.
            return h5py.File(path, "r", locking=False)
    except HDF5Error as error:
        raise HDF5Error(_in_words(error.text)) from error


def _in_words(said: str) -> str:
    """What the C library says of a file that it cannot open, in our words where they are known."""
    if "file signature not found" in said:
        return "it is no HDF5 file"
    if cut := _CUT_OFF.search(said):
        return f"it is cut off: it has {cut[1]} bytes, and should have {cut[2]}"
    return said


def close(file: h5py.File) -> None:
    """Close a file, its groups and datasets."""
    with _explained(""):
        file.close()


class Group:
    """A group of a file: names, and the groups and datasets they stand for."""

    def __init__(self, handle: h5py.Group, where: str) -> None:
        self._handle = handle
        self.where = where

    @property
    def address(self) -> int:
        """Where in the file it stands: two groups with one address are one group."""
        with _explained(self.where):
            return int(h5py.h5o.get_info(self._handle.id).addr)

    def names(self) -> list[str]:
        """The names in this group, in the order of the file's index: alphabetical."""
        found: list[bytes] = []

        def note(name: bytes) -> bool | None:
            found.append(name)
            return len(found) > MOST_NAMES or None

        with _explained(self.where):
            self._handle.id.links.iterate(note)
        if len(found) > MOST_NAMES:
            raise HDF5Error(f"it has more than {MOST_NAMES} names", self.where)
        if any(len(name) > LONGEST_TEXT for name in found):
            raise HDF5Error(f"a name has more than {LONGEST_TEXT} bytes", self.where)
        with _explained(self.where):
            # What is no path must be there; an index out of order hides it.
            lost = any(
                b"/" not in name and name.strip(b".") and not self._handle.id.links.exists(name)
                for name in found
            )
        if lost:
            raise HDF5Error(
                "its index is damaged: it lists a name that it does not find", self.where
            )
        return [name.decode("utf-8", "surrogateescape") for name in found]

    def children(self) -> Iterator[tuple[str, Group | Dataset]]:
        """All that stands in this group, by name."""
        for name in self.names():
            child = self.get(name)
            if child is None:
                where = f"{self.where.rstrip('/')}/{name}"
                raise HDF5Error("it is listed, but not found", where)
            yield name, child

    def get(self, name: str) -> Group | Dataset | None:
        """What stands under one name; None where there is nothing."""
        where = f"{self.where.rstrip('/')}/{name}"
        if "/" in name or name in ("", "."):
            # HDF5 would take it for a path, and a path can lead through links.
            raise HDF5Error("no group or dataset can have this name", where)
        key = name.encode("utf-8", "surrogateescape")
        with _explained(where):
            links = self._handle.id.links
            if not links.exists(key):
                return None
            if links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise HDF5Error("it is a link, and links are not followed", where)
            found = self._handle[key]
        if isinstance(found, h5py.Group):
            return Group(found, where)
        if isinstance(found, h5py.Dataset):
            return Dataset(found, where)
        raise HDF5Error("it is neither a group nor a dataset", where)

    def group(self, name: str) -> Group | None:
        """The group under a name, if there is one."""
        found = self.get(name)
        if isinstance(found, Dataset):
            raise HDF5Error("it is a dataset, not a group", found.where)
        return found

    def dataset(self, path: str) -> Dataset | None:
        """The dataset under a name, or under names separated by slashes, if there is one."""
        folder, _, name = path.rpartition("/")
        group: Group | None = self
        for part in filter(None, folder.split("/")):
            group = group.group(part) if group is not None else None
        found = group.get(name) if group is not None else None
        if isinstance(found, Group):
            raise HDF5Error("it is a group, not a dataset", found.where)
        return found

    def require(self, path: str) -> Dataset:
        """The dataset under a path. Raises where there is none."""
        found = self.dataset(path)
        if found is None:
            raise HDF5Error(f'there is no dataset "{path}"', self.where)
        return found


class Dataset:
    """An array of numbers, or a text. Its shape is a claim until its numbers have been read."""

    def __init__(self, handle: h5py.Dataset, where: str) -> None:
        self._handle = handle
        self.where = where
        with _explained(where):
            space = handle.id.get_space()
            if space.get_simple_extent_type() == h5py.h5s.NULL:
                raise HDF5Error("it is empty: it has not even a shape", where)
            self.shape: Shape = tuple(space.get_simple_extent_dims())
            self._kind = handle.id.get_type()
            self._plan = handle.id.get_create_plist()
            outside = self._plan.get_external_count() > 0
            if outside or self._plan.get_layout() == h5py.h5d.VIRTUAL:
                raise HDF5Error("its numbers are in other files, which are not opened", where)
        if len(self.shape) > MOST_AXES:
            raise HDF5Error(f"it has more than {MOST_AXES} axes", where)

    @property
    def dtype(self) -> Any:
        """The type of its numbers as numpy knows it. Raises where they are no plain numbers."""
        names = {
            h5py.h5t.STRING: "texts",
            h5py.h5t.COMPOUND: "compounds (or complex numbers)",
            h5py.h5t.ENUM: "values of an enumeration (or truth values)",
            h5py.h5t.REFERENCE: "references",
            h5py.h5t.VLEN: "lists",
            h5py.h5t.ARRAY: "arrays",
        }
        with _explained(self.where):
            kind = self._kind.get_class()
            if kind not in (h5py.h5t.FLOAT, h5py.h5t.INTEGER):
                raise HDF5Error(
                    f"it holds {names.get(kind, 'values of an odd type')}, not numbers", self.where
                )
            return self._kind.dtype

    def array(self, content: memoryview | None = None) -> Array:
        """All of its numbers.

        ``content`` is the whole file: numbers that lie in it as they are become a read-only view of
        it, perhaps an unaligned one.
        """
        lies_at = self.check()
        with _explained(self.where):
            if lies_at is not None and content is not None and self._is_plain():
                view: Array = np.ndarray(self.shape, self.dtype, content, lies_at)
                return view
            read: Array = self._handle[...]
            return read

    def rows(self, first: int, stop: int) -> Array:
        """Its numbers from ``first`` to ``stop`` along the first axis; ``check`` comes first."""
        with _explained(self.where):
            read: Array = self._handle[first:stop]
            return read

    def integers(self) -> list[int]:
        """Its numbers as integers, where there are few of them."""
        if not np.issubdtype(self.dtype, np.integer):
            raise HDF5Error("it holds no integers", self.where)
        if math.prod(self.shape) > MOST_NAMES:
            raise HDF5Error(f"it claims {math.prod(self.shape)} numbers", self.where)
        return [int(value) for value in self.array().reshape(-1)]

    def integer(self) -> int:
        """Its only number."""
        found = self.integers()
        if len(found) != 1:
            raise HDF5Error(f"it holds {len(found)} numbers instead of one", self.where)
        return found[0]

    def texts(self) -> list[bytes]:
        """Its texts, where they are short and few."""
        with _explained(self.where):
            if self._kind.get_class() != h5py.h5t.STRING:
                raise HDF5Error("it holds no text", self.where)
            size = self._kind.get_size()
            if size * math.prod(self.shape) > SMALL_BYTES:
                raise HDF5Error(f"its text claims {size} bytes", self.where)
            self._check_size(size)
            read = np.asarray(self._handle[()]).reshape(-1).tolist()
        if any(len(text) > LONGEST_TEXT for text in read):
            raise HDF5Error(f"a text has more than {LONGEST_TEXT} bytes", self.where)
        return [bytes(text) for text in read]

    def text(self) -> bytes:
        """Its only text."""
        found = self.texts()
        if len(found) != 1:
            raise HDF5Error(f"it holds {len(found)} texts instead of one", self.where)
        return found[0]

    def check(self) -> int | None:
        """Raise unless it holds numbers, as many as it claims, that can be unpacked.

        Returns where in the file they lie, if they lie there as they are.
        """
        with _explained(self.where):
            for index in range(self._plan.get_nfilters()):
                number, _, _, name = self._plan.get_filter(index)
                if not h5py.h5z.filter_avail(number):
                    called = name.decode("ascii", "replace")
                    raise HDF5Error(
                        f'it is packed by filter {number} "{called}", unknown here', self.where
                    )
        return self._check_size(int(self.dtype.itemsize))

    def _is_plain(self) -> bool:
        """Whether numpy reads the bytes of the file as HDF5 would."""
        return bool(h5py.h5t.py_create(self.dtype).equal(self._kind))

    def _check_size(self, itemsize: int) -> int | None:
        size = math.prod(self.shape) * itemsize
        with _explained(self.where):
            stored = self._handle.id.get_storage_size()
            start: int | None = self._handle.id.get_offset()
            length = self._handle.file.id.get_filesize()
            chunk = self._handle.chunks
        if start is not None and size > length - start:
            raise HDF5Error(
                f"it is {shape_text(self.shape)}, which takes {size} bytes, "
                f"but {max(0, length - start)} are left in the file",
                self.where,
            )
        # A piece of a packed dataset is unpacked as a whole, however little of it is asked for.
        piece = math.prod(chunk) * itemsize if chunk else 0
        if start is None and max(size, piece) > max(MOST_EXPANSION * stored, SMALL_BYTES):
            raise HDF5Error(
                f"it is {shape_text(self.shape)} and claims {max(size, piece)} bytes, "
                f"but is stored in {stored}",
                self.where,
            )
        return start


# --- writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def created(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A new file that appears under ``path``, whole, when the block ends without an exception.

    Raises:
        OutputError: the file cannot be written; nothing is left behind.
    """
    with atomic_write(path) as file, _written(file.fileno(), "w") as root:
        yield root


@contextlib.contextmanager
def _written(descriptor: int, mode: str) -> Iterator[h5py.File]:
    """The file behind a descriptor, open for writing. Raises what writing raises, at its end."""
    sink = _Sink(descriptor)
    with h5py.File(sink, mode, libver=VERSIONS) as file:
        yield file
    if sink.failure is not None:
        raise sink.failure


class _Sink:
    """Takes what HDF5 writes to a file, and keeps the first failure for later.

    HDF5 that learns of a failure is left with objects it can neither write nor let go of.
    """

    def __init__(self, descriptor: int) -> None:
        self.failure: BaseException | None = None
        self._descriptor = descriptor
        self._at = 0
        self._size = os.fstat(descriptor).st_size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        try:
            while left and self.failure is None:
                count = os.pwrite(self._descriptor, left, self._at)
                self._at += count
                left = left[count:]
        except BaseException as failure:
            self.failure = failure
        self._at += len(left)
        self._size = max(self._size, self._at)
        return len(data)

    def readinto(self, buffer: Any) -> int:
        return os.preadv(self._descriptor, [buffer], self._at)

    def read(self, size: int) -> bytes:
        return os.pread(self._descriptor, size, self._at)

    def truncate(self, size: int) -> int:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as failure:
            self.failure = self.failure or failure
        self._size = size
        return size

    def flush(self) -> None:
        pass


def put(group: h5py.Group, name: str, values: Array) -> None:
    """Add a dataset of numbers, laid out as Caffe's are."""
    group.create_dataset(name, data=values, track_times=False)


def put_text(group: h5py.Group, name: str, text: bytes) -> None:
    """Add a text, stored as C has it."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(text) + 1)
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # The same content makes the same file, whenever it is written.
    plan.set_obj_track_times(False)
    dataset = h5py.h5d.create(group.id, name.encode(), kind, space, plan)
    dataset.write(space, space, np.array(text, f"S{len(text) + 1}"), kind)


class RowWriter:
    """Datasets of one file that grow row by row; between two calls of ``add`` the file is whole.

    The first call makes the file, in place of an older one; later ones add to it, as long as nobody
    else has written it in between.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        #: Rows written so far.
        self.rows = 0
        self._made: tuple[int, int] | None = None

    def add(self, batch: Mapping[str, Array]) -> None:
        """Append arrays, all of the same number of rows, to the datasets of their names.

        Raises:
            OutputError: the file cannot be written, or is not as the last call left it.
        """
        if self._made is None:
            with created(self.path) as root:
                for name, values in batch.items():
                    limits = (None, *values.shape[1:])
                    root.create_dataset(name, data=values, maxshape=limits, chunks=True)
            found = os.stat(self.path)
            self._made = found.st_dev, found.st_ino
        else:
            self._append(batch)
        self.rows += len(next(iter(batch.values())))

    def _append(self, batch: Mapping[str, Array]) -> None:
        changed = OutputError(
            f"cannot add to {self.path}: someone else has written or moved it",
            hint="do two layers, or two runs, write the same file?",
        )
        try:
            with open(self.path, "r+b") as file:
                found = os.fstat(file.fileno())
                known = (found.st_dev, found.st_ino) == self._made and is_hdf5(file.read(8))
                if not known:
                    raise changed
                with _written(file.fileno(), "r+") as root, _explained(""):
                    for name, values in batch.items():
                        dataset = root[name]
                        if len(dataset) != self.rows:
                            raise changed
                        if dataset.shape[1:] != values.shape[1:]:
                            raise OutputError(
                                f'cannot add to {self.path}: rows of "{name}" were '
                                f"{shape_text(dataset.shape[1:])}, and are "
                                f"{shape_text(values.shape[1:])} now"
                            )
                        dataset.resize(self.rows + len(values), axis=0)
                        dataset[self.rows :] = values
        except FileNotFoundError:
            raise changed from None
        except HDF5Error as error:
            raise changed from error
        except OSError as error:
            raise output_error(self.path, error) from error
