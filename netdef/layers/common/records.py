"""Layers that bring records, most of them in batches that a thread of their own fills ahead."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.data.batches import Batch, Reader
from netdef.data.prefetch import Prefetch
from netdef.data.source import RecordError
from netdef.errors import DataError, NetdefError
from netdef.events import DataWrapped, Warned
from netdef.layer import Arity, Layer
from netdef.layers.common.arrays import check_counts


class DataLayer(Layer):
    """A layer that brings records in an order without end, and counts them."""

    bottoms = 0
    tops: Arity = 2
    source = True

    _records = 0

    @property
    def size(self) -> int:
        """How many records make an epoch."""
        raise NotImplementedError

    @property
    def records(self) -> int:
        """How many records were delivered so far."""
        return self._records

    def seek(self, records: int) -> None:
        """Continue as if ``records`` records had been delivered."""
        self.close()
        self._records = records

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


class RecordLayer(DataLayer):
    """A layer that brings batches of labelled images, which a thread of its own fills ahead.

    A subclass gives ``open``. What a batch holds depends on the seed and on how many records came
    before, so ``seek`` continues a run exactly.
    """

    dynamic = True
    also_reads = ("transform_param",)
    #: Whether the end of the records is an event; Caffe logs it for Data alone.
    tells_ends = False

    _size: int | None = None
    _warned = False
    _reader: Reader | None = None
    _prefetch: Prefetch[Batch] | None = None
    _next: Batch | None = None

    def open(self) -> Reader:
        """What fills the batches. Raises ``RecordError``, which is then given its place."""
        raise NotImplementedError

    def doubt(self) -> str:
        """Something the user should be told at the first batch; nothing unless overridden."""
        return ""

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        check_counts(self, self._field, "batch_size")
        check_counts(self, "data_param", "prefetch")
        try:
            reader = self.open()
            try:
                self._size = reader.size
                shape = reader.shape()
            finally:
                reader.close()
        except RecordError as error:
            raise self._located(error) from None
        return self._tops((self.config.batch_size, *shape))

    @property
    def size(self) -> int:
        """How many records there are. Raises NetError where they are drawn without end."""
        if self._size is None:
            try:
                reader = self.open()
            except RecordError as error:
                raise self._located(error) from None
            self._size = reader.size
            reader.close()
        if self._size is None:
            raise self.error("draws its records without end", hint="give --iterations")
        return self._size

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
        ends, doubt = batch.ends, batch.doubt or self.doubt()
        self._next = None
        if self._prefetch is not None:
            self._prefetch.release(batch)
        self._records += len(batch.labels)
        for _ in range(ends if self.tells_ends else 0):
            self.emit(DataWrapped(self.name))
        if doubt and not self._warned:
            self._warned = True
            self.emit(Warned(f'layer "{self.name}" ({self.type}): {doubt}'))

    def close(self) -> None:
        """End the thread. The next batch asked for starts it again, where it was."""
        if self._prefetch is not None:
            self._prefetch.close()
        if self._reader is not None:
            self._reader.close()
        self._prefetch = self._reader = self._next = None

    @property
    def _field(self) -> str:
        return self.config_field or ""

    @property
    def _depth(self) -> int:
        """Batches filled ahead. In Caffe, too, data_param says so for every such layer."""
        return self.message.data_param.prefetch

    def _tops(self, data: Shape) -> list[Shape]:
        return [data, data[:1]][: max(1, len(self.message.top))]

    def _take(self) -> Batch:
        """The next batch, from the thread; which starts here."""
        try:
            if self._prefetch is None:
                self._reader = reader = self.open()
                reader.start(self.key, self._records)
                self._prefetch = Prefetch(
                    reader.make, reader.fill, self._depth, f"{self.name} ({self.type})"
                )
            return self._prefetch.take()
        except RecordError as error:
            raise self._located(error) from error
        except MemoryError as error:
            raise self.error(
                f"there is no memory for {self._depth} batches ahead: {error}",
                self._field,
                "batch_size",
                hint="lower batch_size, or prefetch in data_param",
                kind=DataError,
            ) from error

    def _located(self, error: RecordError) -> NetdefError:
        shared = error.field[:1] == ("transform_param",)
        path = error.field if shared else (self._field, *error.field)
        return self.error(error.text, *path, hint=error.hint, kind=DataError)
