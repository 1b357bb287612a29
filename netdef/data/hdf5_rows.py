"""Rows of HDF5 files, file after file; shuffled, files and rows come in another order each epoch.

Orders are a function of the layer's key and of the epoch, so a resumed run reads what an
uninterrupted one would have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef import hdf5, rng
from netdef.blob import Shape, shape_text
from netdef.data.batches import Batch, Reader
from netdef.data.source import RecordError, printable, without_mark
from netdef.jit import serial
from netdef.proto import netdef_pb2 as pb

#: A list of files is not longer than this; what is longer is something else.
LONGEST_LIST = 16 << 20


class RowFile(NamedTuple):
    """One file: how many rows it has, and the shape of a row of each dataset."""

    path: str
    rows: int
    shapes: tuple[Shape, ...]


class RowFiles:
    """The files that a list names, as far as they have rows; ``names`` are those of the datasets.

    All are looked at when this is made. Raises ``RecordError`` where one cannot be read, or where
    they do not fit together.
    """

    def __init__(self, config: pb.HDF5DataParameter, names: Sequence[str]) -> None:
        self._names = list(names)
        files: list[RowFile] = []
        for path in _listed(config.source):
            with _explained(path), hdf5.opened(path) as root:
                files.append(self._look_into(root, path))
            for name, row, first in zip(names, files[-1].shapes, files[0].shapes, strict=True):
                if row != first:
                    raise RecordError(
                        f'a row of "{name}" is {shape_text(row)} in "{path}", '
                        f'but {shape_text(first)} in "{files[0].path}"'
                    )
        self.files = [file for file in files if file.rows]
        if not self.files:
            raise RecordError("the files have no rows")

    def __len__(self) -> int:
        """How many rows all files hold together."""
        return sum(file.rows for file in self.files)

    def open(self, index: int) -> tuple[hdf5.File, list[hdf5.Dataset]]:
        """File ``index``, to be closed, and its datasets; raises ``RecordError`` if it changed."""
        file = self.files[index]
        with _explained(file.path):
            handle = hdf5.open_file(file.path)
        try:
            root = hdf5.Group(handle, "/")
            if self._look_into(root, file.path) != file:
                raise RecordError(f'"{file.path}" has changed since the net was built')
            with _explained(file.path):
                return handle, [root.require(name) for name in self._names]
        except BaseException:
            hdf5.close(handle)
            raise

    def _look_into(self, root: hdf5.Group, path: str) -> RowFile:
        names = self._names
        with _explained(path):
            datasets = [root.require(name) for name in names]
            for dataset in datasets:
                dataset.check()
        first = datasets[0]
        for name, dataset in zip(names, datasets, strict=True):
            if not dataset.shape:
                raise RecordError(f'dataset "{name}" of "{path}" is a single number, without rows')
            if dataset.shape[0] != first.shape[0]:
                raise RecordError(
                    f'in "{path}" dataset "{name}" has {dataset.shape[0]} rows, '
                    f'but "{names[0]}" has {first.shape[0]}'
                )
        return RowFile(path, first.shape[0], tuple(dataset.shape[1:] for dataset in datasets))


class RowReader(Reader):
    """Takes rows in the order of the files, or of the draw, and converts them to ``dtype``.

    In the order of the files it reads rows as they are needed; shuffled, a file as a whole. One
    file is open, or held, at a time: where there is only one, for good.
    """

    def __init__(
        self, files: RowFiles, batch_size: int, shuffle: bool, dtype: type[Any] = np.float32
    ) -> None:
        self.size = len(files)
        self._files = files
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._dtype = dtype
        self._opened: _Opened | None = None

    def shapes(self) -> list[Shape]:
        return [(self._batch_size, *row) for row in self._files.files[0].shapes]

    def start(self, key: np.uint64, records: int) -> None:
        self._key = key
        self._records = records
        self._order_of_files: tuple[int, NDArray[np.int64]] | None = None

    def make(self) -> Batch:
        return Batch([np.empty(shape, self._dtype) for shape in self.shapes()])

    def fill(self, batch: Batch, stopped: Callable[[], bool]) -> None:
        batch.ends = 0
        filled, size = 0, len(self._files)
        while filled < len(batch) and not stopped():
            epoch, row = divmod(self._records + filled, size)
            opened, first = self._find(epoch, row)
            end = min(len(batch), filled + opened.file.rows - first)
            with _explained(opened.file.path):
                parts = opened.read(first, first + end - filled)
            for array, values in zip(batch.arrays, parts, strict=True):
                # A float64 beyond the range of float32 becomes infinite, as its cast makes it.
                with np.errstate(over="ignore"):
                    array[filled:end] = values
            batch.ends += row + end - filled == size
            filled = end
        self._records += filled

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def _find(self, epoch: int, row: int) -> tuple[_Opened, int]:
        """The file of row ``row`` of an epoch, open, and how many of its rows come before."""
        files = self._files.files
        if self._order_of_files is None or self._order_of_files[0] != epoch:
            self._order_of_files = epoch, self._order(0, epoch, len(files))
        for index in self._order_of_files[1].tolist():
            if row < files[index].rows:
                break
            row -= files[index].rows
        if self._opened is None or self._opened.index != index:
            self.close()
            self._opened = _Opened(self._files, index, self._shuffle)
        if self._shuffle and self._opened.epoch != epoch:
            self._opened.shuffle(epoch, self._order(1 + index, epoch, files[index].rows))
        return self._opened, row

    def _order(self, stream: int, epoch: int, count: int) -> NDArray[np.int64]:
        """In which order ``count`` things come in an epoch; each stream has orders of its own."""
        if not self._shuffle or count == 1:
            return np.arange(count)
        drawn = np.empty(count, np.uint32)
        _draw(self._key + np.uint64(stream), np.uint64(epoch), drawn)
        return np.argsort(drawn, kind="stable")


class _Opened:
    """One file, open. Whole, it is held in memory, and its rows come in the order last given."""

    def __init__(self, files: RowFiles, index: int, whole: bool) -> None:
        self.index = index
        self.file = files.files[index]
        self.epoch = -1
        self._handle, self._datasets = files.open(index)
        self._order: NDArray[np.int64] | None = None
        if whole:
            with _explained(self.file.path):
                self._held = [dataset.array() for dataset in self._datasets]

    def shuffle(self, epoch: int, order: NDArray[np.int64]) -> None:
        """Give the rows in this order from now on, which is that of ``epoch``."""
        self.epoch = epoch
        self._order = order

    def read(self, first: int, stop: int) -> list[NDArray[Any]]:
        if self._order is None:
            return [dataset.rows(first, stop) for dataset in self._datasets]
        return [values[self._order[first:stop]] for values in self._held]

    def close(self) -> None:
        hdf5.close(self._handle)


def _listed(source: str) -> list[str]:
    """The paths in the list ``source``."""
    if not source:
        raise RecordError("no source is given", (), hint="source: a text with a list of files")
    if not os.path.isfile(source):
        raise RecordError(f'there is no list of files at "{source}"', hint=_hint())
    try:
        with open(source, "rb") as file:
            content = file.read(LONGEST_LIST)
    except OSError as error:
        raise RecordError(f'the list "{source}" cannot be read: {error.strerror}') from error
    if hdf5.is_hdf5(content):
        raise RecordError(
            f'"{source}" is an HDF5 file, where a list of such files is expected',
            hint="write its path into a text, and give that as source",
        )
    if len(content) == LONGEST_LIST:
        raise RecordError(f'the list "{source}" has more than {LONGEST_LIST} bytes')
    paths: list[str] = []
    for line in os.fsdecode(without_mark(content, f'the list "{source}"')).splitlines():
        # Caffe takes a line with spaces for several files.
        path = line.strip()
        paths += [path] if path and os.path.exists(path) else path.split()
    if not paths:
        raise RecordError(f'the list "{source}" names no file')
    return paths


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except hdf5.HDF5Error as error:
        where = f" at {error.where}" if error.where else ""
        hint = "" if os.path.exists(path) else _hint()
        name = printable(os.fsencode(path))
        raise RecordError(f'"{name}" cannot be read{where}: {error.text}', hint=hint) from error


def _hint() -> str:
    return f"relative paths start from the current folder, {os.getcwd()}"


@serial
def _draw(key: Any, epoch: Any, drawn: Any) -> None:
    for i in range(drawn.size):
        drawn[i] = rng.bits(key, epoch, np.uint64(i))
