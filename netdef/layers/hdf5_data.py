"""HDF5Data: batches of rows from HDF5 files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from netdef import hdf5, rng
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.data.source import RecordError, printable, without_mark
from netdef.errors import DataError, NetdefError
from netdef.events import DataWrapped
from netdef.layer import register
from netdef.layers.common.arrays import check_counts
from netdef.layers.common.records import DataLayer

#: A list of files is not longer than this; what is longer is something else.
LONGEST_LIST = 16 << 20


class _File(NamedTuple):
    """One file: how many rows it has, and the shape of a row of each top."""

    path: str
    rows: int
    shapes: tuple[Shape, ...]


@register("HDF5Data", config="hdf5_data_param")
class HDF5Data(DataLayer):
    """Rows of HDF5 files, file after file, and from the start again after the last.

        bottom  none
        top     x0, x1, ...  [batch_size, ...], each from the dataset of its own name

    The first axis of a dataset counts its rows; all datasets of a file must have as many, and those
    of one name the same further axes in all files. Integers and floats of any size are read, as
    floats. ``source`` is a text that names the files, one in each line, relative to the current
    folder; a batch may end one file and begin the next. A path may hold spaces, where Caffe would
    take it for two.

    With ``shuffle`` both files and the rows within each come in another order in every epoch, drawn
    from the seed; then a file is held in memory as a whole, else one batch. All files are looked at
    when the net is built.

    Example::

        layer {
          name: "data"
          type: "HDF5Data"
          top: "data"
          top: "label"
          hdf5_data_param {
            source: "train_h5_list.txt"
            batch_size: 64
            shuffle: true
          }
        }

    Source: Caffe 1.0.
    """

    tops = (1, None)

    _files: tuple[_File, ...] = ()
    _opened: _Visit | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        if self.message.HasField("transform_param"):
            raise self.error("HDF5Data does not transform data", "transform_param")
        check_counts(self, "hdf5_data_param", "batch_size")
        self._files = self._look()
        return [(self.config.batch_size, *row) for row in self._files[0].shapes]

    @property
    def size(self) -> int:
        """How many rows all files hold together."""
        self._files = self._files or self._look()
        return sum(file.rows for file in self._files)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        filled, wanted, size = 0, self.config.batch_size, self.size
        while filled < wanted:
            epoch, row = divmod(self._records + filled, size)
            visit, first = self._visit(epoch, row)
            end = min(wanted, filled + visit.file.rows - first)
            with self._explained(visit.file.path):
                parts = visit.read(first, first + end - filled)
            for blob, values in zip(top, parts, strict=True):
                # A float64 beyond the range of float32 becomes infinite, as its cast makes it.
                with np.errstate(over="ignore"):
                    blob.data[filled:end] = values
            if row + end - filled == size:
                self.emit(DataWrapped(self.name))
            filled = end
        self._records += wanted

    def close(self) -> None:
        """Let go of the file. The next batch opens it again."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    # -- rows -----------------------------------------------------------------------------------

    def _visit(self, epoch: int, row: int) -> tuple[_Visit, int]:
        """The file of row ``row`` of an epoch, open, and how many of its rows come before."""
        for index in self._order(0, epoch, len(self._files)):
            if row < self._files[index].rows:
                break
            row -= self._files[index].rows
        number = (epoch, int(index))
        if self._opened is None or self._opened.number != number:
            self.close()
            self._opened = self._open(number)
        return self._opened, row

    def _open(self, number: tuple[int, int]) -> _Visit:
        epoch, index = number
        file = self._files[index]
        order = self._order(1 + index, epoch, file.rows) if self.config.shuffle else None
        with self._explained(file.path):
            handle = hdf5.open_file(file.path)
        try:
            root = hdf5.Group(handle, "/")
            if self._look_into(root, file.path) != file:
                raise self._error(f'"{file.path}" has changed since the net was built')
            with self._explained(file.path):
                datasets = [root.require(name) for name in self.message.top]
                return _Visit(number, file, handle, datasets, order)
        except BaseException:
            hdf5.close(handle)
            raise

    def _order(self, stream: int, epoch: int, count: int) -> Array:
        """In which order ``count`` things come in an epoch; each stream has orders of its own."""
        if not self.config.shuffle or count == 1:
            return np.arange(count)
        drawn = np.empty(count)
        rng.uniform(self.key + type(self.key)(stream), np.uint64(epoch), drawn)
        order: Array = np.argsort(drawn, kind="stable")
        return order

    # -- files ----------------------------------------------------------------------------------

    def _look(self) -> tuple[_File, ...]:
        """All files that have rows. Raises where they do not fit together."""
        files = []
        for path in self._paths():
            with self._explained(path), hdf5.opened(path) as root:
                files.append(self._look_into(root, path))
            for name, row, first in zip(
                self.message.top, files[-1].shapes, files[0].shapes, strict=True
            ):
                if row != first:
                    raise self._error(
                        f'a row of "{name}" is {shape_text(row)} in "{path}", '
                        f'but {shape_text(first)} in "{files[0].path}"'
                    )
        kept = tuple(file for file in files if file.rows)
        if not kept:
            raise self._error("the files have no rows")
        return kept

    def _look_into(self, root: hdf5.Group, path: str) -> _File:
        with self._explained(path):
            datasets = [root.require(name) for name in self.message.top]
            for dataset in datasets:
                dataset.check()
        names, first = self.message.top, datasets[0]
        for name, dataset in zip(names, datasets, strict=True):
            if not dataset.shape:
                raise self._error(f'dataset "{name}" of "{path}" is a single number, without rows')
            if dataset.shape[0] != first.shape[0]:
                raise self._error(
                    f'in "{path}" dataset "{name}" has {dataset.shape[0]} rows, '
                    f'but "{names[0]}" has {first.shape[0]}'
                )
        return _File(path, first.shape[0], tuple(dataset.shape[1:] for dataset in datasets))

    def _paths(self) -> list[str]:
        """The files that ``source`` names."""
        source = self.config.source
        if not source:
            raise self.error(
                "no source is given", "hdf5_data_param", hint="source: a text with a list of files"
            )
        if not os.path.isfile(source):
            raise self._error(f'there is no list of files at "{source}"', hint=self._hint)
        try:
            with open(source, "rb") as file:
                content = file.read(LONGEST_LIST)
        except OSError as error:
            raise self._error(f'the list "{source}" cannot be read: {error.strerror}') from error
        if hdf5.is_hdf5(content):
            raise self._error(
                f'"{source}" is an HDF5 file, where a list of such files is expected',
                hint="write its path into a text, and give that as source",
            )
        if len(content) == LONGEST_LIST:
            raise self._error(f'the list "{source}" has more than {LONGEST_LIST} bytes')
        try:
            lines = os.fsdecode(without_mark(content, f'the list "{source}"')).splitlines()
        except RecordError as error:
            raise self._error(error.text, error.hint) from None
        paths: list[str] = []
        for line in map(str.strip, lines):
            # Caffe takes a line with spaces for several files.
            paths += [line] if line and os.path.exists(line) else line.split()
        if not paths:
            raise self._error(f'the list "{source}" names no file')
        return paths

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """Says which file it is that cannot be read."""
        try:
            yield
        except hdf5.HDF5Error as error:
            where = f" at {error.where}" if error.where else ""
            hint = "" if os.path.exists(path) else self._hint
            name = printable(os.fsencode(path))
            raise self._error(f'"{name}" cannot be read{where}: {error.text}', hint) from error

    @property
    def _hint(self) -> str:
        return f"relative paths start from the current folder, {os.getcwd()}"

    def _error(self, text: str, hint: str = "") -> NetdefError:
        return self.error(text, "hdf5_data_param", "source", hint=hint, kind=DataError)


class _Visit:
    """One file, open, in one epoch: ``number`` is the epoch and the file's own.

    In the order of the file rows are read as they are needed; in another, all at once.
    """

    def __init__(
        self,
        number: tuple[int, int],
        file: _File,
        handle: hdf5.File,
        datasets: list[hdf5.Dataset],
        order: Array | None,
    ) -> None:
        self.number = number
        self.file = file
        self._handle = handle
        self._datasets = datasets
        self._order = order
        self._held = [] if order is None else [dataset.array() for dataset in datasets]

    def read(self, first: int, stop: int) -> list[Array]:
        if self._order is None:
            return [dataset.rows(first, stop) for dataset in self._datasets]
        return [values[self._order[first:stop]] for values in self._held]

    def close(self) -> None:
        hdf5.close(self._handle)
