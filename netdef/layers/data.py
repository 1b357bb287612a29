"""Data: batches of images and labels from a record database."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.blob import Blob, Shape
from netdef.data import datum
from netdef.data.datum import CHANNELS, HEIGHT, KIND, LABEL, WIDTH
from netdef.data.prefetch import Prefetch
from netdef.data.source import RecordError, Source, open_source
from netdef.data.transform import SPARE_WORD, Transform
from netdef.errors import DataError, NetdefError
from netdef.events import DataWrapped, Warned
from netdef.layer import Layer, register
from netdef.proto import netdef_pb2 as pb

#: Records are read in runs that make about this many bytes of output: so little that the thread can
#: be stopped soon and that decoded images stay small beside the batches, so much that a run costs
#: little by itself.
RUN_BYTES = 8 << 20


@register("Data", config="data_param")
class Data(Layer):
    """Records of a database, in order and from the start again after the last.

    top  data   (batch_size, channels, height, width), or crop_size for both; as floats
    top  label  (batch_size,), if asked for

    ``backend`` is not asked: the folder says what it is. Each batch takes the shape of its first
    record, and all of its records must agree. ``rand_skip`` skips that many records at most once,
    at the start; Caffe 1.0 reads the field and ignores it. Records, crops and mirroring depend on
    the seed and on how many records came before, so ``seek`` continues a run exactly.

    Source: Jia et al., "Caffe: convolutional architecture for fast feature embedding", ACM MM,
    2014.
    """

    bottoms = 0
    tops = (1, 2)
    dynamic = True
    source = True

    _records = 0
    _size = 0
    _warned = False
    _opened: Source | None = None
    _prefetch: Prefetch[_Batch] | None = None
    _next: _Batch | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        config = self.config
        if config.batch_size < 1:
            raise self.error("batch_size must be at least 1", "data_param", "batch_size")
        if config.prefetch < 1:
            raise self.error("prefetch must be at least 1", "data_param", "prefetch")
        try:
            transform = self._transform()
            source = open_source(config)
            try:
                shape = _peek(source, transform)
            finally:
                source.close()
        except RecordError as error:
            raise self._located(error) from None
        self._size = source.size
        return self._tops((config.batch_size, *shape))

    @property
    def size(self) -> int:
        """How many records the database holds."""
        if not self._size:
            try:
                source = open_source(self.config)
            except RecordError as error:
                raise self._located(error) from None
            self._size = source.size
            source.close()
        return self._size

    @property
    def records(self) -> int:
        """How many records were delivered so far."""
        return self._records

    def seek(self, records: int) -> None:
        """Continue as if ``records`` records had been delivered."""
        self.close()
        self._records = records

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        if self._next is None:
            self._next = self._take()
        return self._tops(self._next.data.shape)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._next is None:
            self._next = self._take()
        batch = self._next
        top[0].data[...] = batch.data
        if len(top) > 1:
            top[1].data[...] = batch.labels
        # What the batch has to tell is read before the thread may fill it again.
        ends, ignored = batch.ends, batch.ignored_color
        self._next = None
        if self._prefetch is not None:
            self._prefetch.release(batch)
        self._records += len(batch.labels)
        for _ in range(ends):
            self.emit(DataWrapped(self.name))
        if ignored and not self._warned:
            self._warned = True
            text = "force_color and force_gray have no effect on records that are not encoded"
            self.emit(Warned(f'layer "{self.name}" ({self.type}): {text}'))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass

    def close(self) -> None:
        """End the thread. The next batch asked for starts it again, where it was."""
        if self._prefetch is not None:
            self._prefetch.close()
        if self._opened is not None:
            self._opened.close()
        self._prefetch = self._opened = self._next = None

    def _tops(self, data: Shape) -> list[Shape]:
        return [data, data[:1]][: max(1, len(self.message.top))]

    def _transform(self) -> Transform:
        transform = Transform(
            self.message.transform_param, random_crop=self.phase == pb.TRAIN, dtype=self.dtype
        )
        if self.config.force_encoded_color:
            if transform.color is False:
                raise RecordError(
                    "both force_encoded_color and force_gray are set",
                    ("data_param", "force_encoded_color"),
                )
            transform.color = True
        return transform

    def _take(self) -> _Batch:
        """The next batch, from the thread; which starts here."""
        try:
            if self._prefetch is None:
                transform = self._transform()
                self._opened = open_source(self.config)
                self._size = self._opened.size
                reader = _Reader(self._opened, transform, self.config, self.key, self._records)
                self._prefetch = Prefetch(
                    reader.make, reader.fill, self.config.prefetch, f"{self.name} (Data)"
                )
            return self._prefetch.take()
        except RecordError as error:
            raise self._located(error) from error
        except MemoryError as error:
            text = f"there is no memory for {self.config.prefetch} batches ahead: {error}"
            raise self.error(
                text,
                "data_param",
                "batch_size",
                hint="lower batch_size or prefetch",
                kind=DataError,
            ) from error

    def _located(self, error: RecordError) -> NetdefError:
        return self.error(error.text, *error.field, hint=error.hint, kind=DataError)


class _Batch:
    """Room for one batch: ``data`` (n, channels, height, width), ``labels`` (n,)."""

    def __init__(self, size: int, dtype: np.dtype[np.floating]) -> None:
        self.labels: NDArray[np.floating] = np.empty(size, dtype)
        self.data: NDArray[np.floating] = np.empty((size, 0, 0, 0), dtype)
        #: How many times the last record was reached.
        self.ends = 0
        #: Whether force_color or force_gray met a record that is not encoded.
        self.ignored_color = False

    def reshape(self, image: tuple[int, ...]) -> None:
        if self.data.shape[1:] != image:
            self.data = np.empty((len(self.labels), *image), self.labels.dtype)


class _Reader:
    """Fills batches from a source, in the prefetch thread; it knows nothing of the layer."""

    def __init__(
        self,
        source: Source,
        transform: Transform,
        config: pb.DataParameter,
        key: np.uint64,
        records: int,
    ) -> None:
        self._source = source
        self._transform = transform
        self._batch_size = config.batch_size
        self._key = key
        #: Records delivered before the next one.
        self._ordinal = records
        skip = 0
        if config.rand_skip:
            word = int(rng.bits(key, np.uint64(0), np.uint64(SPARE_WORD)))
            skip = word * config.rand_skip >> 32
        start = (skip + records) % source.size
        if start:
            source.seek(start)
        self._run = 1

    def make(self) -> _Batch:
        return _Batch(self._batch_size, self._transform.scale.dtype)

    def fill(self, batch: _Batch, stopped: Callable[[], bool]) -> None:
        """Fill ``batch`` with the next records."""
        batch.ends = 0
        batch.ignored_color = False
        filled = 0
        while filled < self._batch_size and not stopped():
            records = self._source.read(min(self._run, self._batch_size - filled))
            datums = datum.parse(records)
            pixels = datum.pixels(datums, self._transform.color)
            if filled == 0:
                batch.reshape(_shape(datums, 0, self._transform))
                self._run = max(1, RUN_BYTES // max(1, batch.data[0].nbytes))
            _check(datums, self._transform, batch.data.shape[1:])
            end = filled + len(records.spans)
            sizes = datums.table[:, HEIGHT : WIDTH + 1]
            placement = self._transform.place(self._key, self._ordinal, sizes, batch.data.shape[1:])
            for part in pixels:
                self._transform.render(
                    part.values, part.starts, part.rows, placement, batch.data[filled:end]
                )
            batch.labels[filled:end] = datums.table[:, LABEL]
            self._source.confirm()
            if self._transform.color is not None and not batch.ignored_color:
                batch.ignored_color = bool((datums.table[:, KIND] != datum.ENCODED).any())
            batch.ends += records.first + len(records.spans) == self._source.size
            self._ordinal += len(records.spans)
            filled = end


def _peek(source: Source, transform: Transform) -> tuple[int, int, int]:
    """The shape that the next record gets."""
    datums = datum.parse(source.read(1))
    datum.pixels(datums, transform.color)
    return _shape(datums, 0, transform)


def _shape(datums: datum.Datums, row: int, transform: Transform) -> tuple[int, int, int]:
    """The shape that record ``row`` gets. Raises ``RecordError`` where it does not fit."""
    channels, height, width = datums.table[row, CHANNELS : WIDTH + 1].tolist()
    try:
        return transform.shape(channels, height, width)
    except RecordError as error:
        text = f"{datums.records.name(row)} {error.text}"
        raise RecordError(text, error.field, error.hint) from None


def _check(datums: datum.Datums, transform: Transform, image: tuple[int, ...]) -> None:
    """Raise ``RecordError`` for the first record that does not get the shape of its batch."""
    sizes = datums.table[:, CHANNELS : WIDTH + 1]
    # One look is enough at a run of records of the same size.
    changes = np.flatnonzero((sizes[1:] != sizes[:-1]).any(axis=1)) + 1
    for row in (0, *changes.tolist()):
        shape = _shape(datums, row, transform)
        if shape != image:
            given, first = (" x ".join(map(str, s)) for s in (shape, image))
            raise RecordError(
                f"{datums.records.name(row)} becomes {given}, but its batch began with {first}",
                hint="give a crop_size, or make all records the same size",
            )
