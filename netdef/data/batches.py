"""Batches, and the readers that fill them in a prefetch thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.data.images import Images, ImageSource
from netdef.data.source import RecordError
from netdef.data.transform import SPARE_WORD, Transform

#: Records are read in runs that make about this many bytes: so little that the thread can be
#: stopped soon and that decoded images stay small beside the batches, so much that a run costs
#: little by itself.
RUN_BYTES = 8 << 20

#: Channels, height, width.
ImageShape = tuple[int, int, int]


class Batch:
    """Room for one batch: ``data`` (n, channels, height, width), ``labels`` (n,)."""

    def __init__(self, size: int, dtype: type[Any]) -> None:
        self.labels: NDArray[Any] = np.empty(size, dtype)
        self.data: NDArray[Any] = np.empty((size, 0, 0, 0), dtype)
        #: How many times the last record was reached.
        self.ends = 0
        #: Something the user should be told once.
        self.doubt = ""

    def reshape(self, image: ImageShape) -> None:
        """Take images of this shape; what they held before is lost where it is another one."""
        if self.data.shape[1:] != image:
            self.data = np.empty((len(self.labels), *image), self.labels.dtype)


class Reader:
    """Fills batches, in the prefetch thread; it knows nothing of the layer.

    What a batch holds depends on the key of the layer and on how many records came before.
    """

    #: How many records make an epoch; None where they are drawn without end.
    size: int | None = None

    def __init__(self, batch_size: int, dtype: type[Any]) -> None:
        self.batch_size = batch_size
        self.dtype = dtype

    def shape(self) -> ImageShape:
        """The shape of the first image; asked before ``start``, if at all."""
        raise NotImplementedError

    def start(self, key: np.uint64, records: int) -> None:
        """Make ready for the batch that follows ``records`` records."""
        raise NotImplementedError

    def make(self) -> Batch:
        """An empty batch."""
        return Batch(self.batch_size, self.dtype)

    def fill(self, batch: Batch, stopped: Callable[[], bool]) -> None:
        """Fill ``batch`` with the next records; return early once ``stopped()``.

        Raises ``RecordError`` where they are missing, damaged, or do not fit.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the files. Doing so twice is fine."""


class ImageReader(Reader):
    """Takes images in the order of their source and puts them through ``transform``.

    A batch takes the shape of its first image. ``rand_skip``: the first image is one of so many at
    the beginning.
    """

    def __init__(
        self, source: ImageSource, transform: Transform, batch_size: int, rand_skip: int = 0
    ) -> None:
        super().__init__(batch_size, transform.dtype)
        self.size = source.size
        self._source = source
        self._transform = transform
        self._rand_skip = rand_skip
        self._run = 1

    def shape(self) -> ImageShape:
        return self._shape(self._source.first(), 0)

    def start(self, key: np.uint64, records: int) -> None:
        skip = 0
        if self._rand_skip:
            word = int(rng.bits(key, np.uint64(0), np.uint64(SPARE_WORD)))
            skip = word * self._rand_skip >> 32
        self._key = key
        #: Records delivered before the next one, and how many more of the source were passed over.
        self._records = records
        self._skip = skip
        self._source.seek(skip + records, key)

    def fill(self, batch: Batch, stopped: Callable[[], bool]) -> None:
        batch.ends = 0
        batch.doubt = ""
        first: Images | None = None
        filled = 0
        while filled < self.batch_size and not stopped():
            images = self._source.read(min(self._run, self.batch_size - filled))
            if first is None:
                first = images
                batch.reshape(self._shape(images, 0))
                most = max(batch.data[0].nbytes, int(images.sizes[0].prod()))
                self._run = max(1, RUN_BYTES // max(1, most))
            self._check(images, batch, first)
            count = len(images.labels)
            part = slice(filled, filled + count)
            placement = self._transform.place(
                self._key, self._records, images.sizes[:, 1:], batch.data.shape[1:]
            )
            for pixels in images.pixels:
                self._transform.render(
                    pixels.values, pixels.starts, pixels.rows, placement, batch.data[part]
                )
            batch.labels[part] = images.labels
            self._source.confirm()
            batch.doubt = batch.doubt or images.doubt
            self._records += count
            batch.ends += (self._skip + self._records) % self._source.size == 0
            filled += count

    def close(self) -> None:
        self._source.close()

    def _shape(self, images: Images, row: int) -> ImageShape:
        """The shape that image ``row`` gets. Raises ``RecordError`` where it does not fit."""
        channels, height, width = images.sizes[row].tolist()
        try:
            return self._transform.shape(channels, height, width)
        except RecordError as error:
            raise error.of(images.name(row)) from None

    def _check(self, images: Images, batch: Batch, first: Images) -> None:
        """Raise ``RecordError`` for an image whose shape is not that of the first of its batch."""
        wanted = batch.data.shape[1:]
        # One look is enough at a run of images of the same size.
        changes = np.flatnonzero((images.sizes[1:] != images.sizes[:-1]).any(axis=1)) + 1
        for row in (0, *changes.tolist()):
            shape = self._shape(images, row)
            if shape != wanted:
                given, begun = (" x ".join(map(str, s)) for s in (shape, wanted))
                raise RecordError(
                    f"{images.name(row)} becomes {given}, but {first.name(0)}, the first of its "
                    f"batch, becomes {begun}",
                    hint=self._source.advice,
                )
