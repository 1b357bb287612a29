"""Layers that bring records, most of them in batches that a thread of their own fills ahead."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.data.batches import Batch, Reader
from netdef.data.prefetch import Prefetch
from netdef.data.source import RecordError
from netdef.errors import DataError, NetdefError
from netdef.events import DataWrapped, Warned
from netdef.jit import kernel, prange
from netdef.layer import Arity, Layer
from netdef.layers.common.arrays import check_counts

#: Waiting is added up over this many seconds, and told where it takes a larger share of them.
STRETCH_SECONDS = 10.0
MOST_WAITING = 0.05

#: From this many values on, all threads copy.
LARGE_COPY = 1 << 18


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
    """A layer that brings batches of records, which a thread of its own fills ahead.

    A subclass gives ``open``. What a batch holds depends on the seed and on how many records came
    before, so ``seek`` continues a run exactly.
    """

    dynamic = True
    also_reads: ClassVar[tuple[str, ...]] = ("transform_param",)
    #: Whether the end of the records is an event; Caffe logs it for Data alone.
    tells_ends = False

    _size: int | None = None
    _waited = 0.0
    _stretch: Stretch | None = None
    _told: tuple[str, ...] = ()
    _warned_of_waiting = False
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
                return self._tops(reader.shapes())
            finally:
                reader.close()
        except RecordError as error:
            raise self._located(error) from None

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

    @property
    def waited(self) -> float:
        """Seconds that forward passes waited for records so far."""
        return self._waited + (self._prefetch.waited if self._prefetch is not None else 0.0)

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        if self._next is None:
            self._next = self._take()
        return self._tops([array.shape for array in self._next.arrays])

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._next is None:
            self._next = self._take()
        batch = self._next
        for blob, values in zip(top, batch.arrays, strict=False):
            _copy(values, blob.data)
        # What the batch has to tell is read before the thread may fill it again.
        ends, doubts = batch.ends, (batch.doubt, self.doubt())
        self._next = None
        if self._prefetch is not None:
            self._prefetch.release(batch)
        self._records += len(batch)
        for _ in range(ends if self.tells_ends else 0):
            self.emit(DataWrapped(self.name))
        for doubt in doubts:
            if doubt and doubt not in self._told:
                self._told = (*self._told, doubt)
                self._warn(doubt)
        if not self._warned_of_waiting:
            self._warn_of_waiting()

    def close(self) -> None:
        """End the thread. The next batch asked for starts it again, where it was."""
        if self._prefetch is not None:
            self._prefetch.close()
            self._waited += self._prefetch.waited
        if self._reader is not None:
            self._reader.close()
        self._prefetch = self._reader = self._next = self._stretch = None

    @property
    def _field(self) -> str:
        return self.config_field or ""

    @property
    def _depth(self) -> int:
        """Batches filled ahead. In Caffe, too, data_param says so for every such layer."""
        return self.message.data_param.prefetch

    def _tops(self, shapes: list[Shape]) -> list[Shape]:
        """The shapes of those arrays of a batch that the net wants: labels may be left out."""
        return shapes[: max(1, len(self.message.top))]

    def _warn(self, text: str) -> None:
        self.emit(Warned(f'layer "{self.name}" ({self.type}): {text}'))

    def _warn_of_waiting(self) -> None:
        now = time.perf_counter()
        if self._stretch is None:
            # It begins behind the first batch, which nobody can have ahead.
            self._stretch = Stretch(now, self.waited)
        share = self._stretch.waiting(now, self.waited)
        if share > MOST_WAITING:
            self._warned_of_waiting = True
            self._warn(
                f"the net waited for data {share:.0%} of the last {STRETCH_SECONDS:.0f} s; "
                "smaller images, or more cores, would help"
            )

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


class Stretch:
    """A stretch of time, and how much of it went by waiting. All times are in seconds."""

    def __init__(self, now: float, waited: float) -> None:
        """``waited`` counts from any time, but always the same."""
        self._since = now
        self._waited = waited

    def waiting(self, now: float, waited: float) -> float:
        """The share that went by waiting, once the stretch is long enough; then the next begins.

        Until then, 0.
        """
        seconds = now - self._since
        if seconds < STRETCH_SECONDS:
            return 0.0
        share = (waited - self._waited) / seconds
        self._since, self._waited = now, waited
        return share


def _copy(values: Array, out: Array) -> None:
    if values.size < LARGE_COPY:
        np.copyto(out, values)
    else:
        _copy_flat(values.reshape(-1), out.reshape(-1))


@kernel
def _copy_flat(x: Any, y: Any) -> None:
    for i in prange(y.size):
        y[i] = x[i]
