"""Batches, and the readers that fill them in a prefetch thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.data.images import Images, ImageSource, size_of
from netdef.data.source import RecordError
from netdef.data.transform import SPARE_WORD, Transform
from netdef.data.workers import Workers, default_threads

#: Records that have their values at hand are read in runs that make about this many bytes: so
#: little that the thread can be stopped soon, so much that a run costs little by itself. Between
#: images that are yet to decode it can be stopped anyway.
RUN_BYTES = 8 << 20

#: Channels, height, width.
ImageShape = tuple[int, int, int]


class Batch:
    """Room for one batch: an array for each top, all of the same length."""

    def __init__(self, arrays: list[NDArray[Any]]) -> None:
        self.arrays = arrays
        #: How many times the last record was reached.
        self.ends = 0
        #: Something the user should be told once.
        self.doubt = ""

    def __len__(self) -> int:
        return len(self.arrays[0])


class ImageBatch(Batch):
    """Labelled images: ``data`` (n, channels, height, width), ``labels`` (n,)."""

    def __init__(self, size: int, dtype: type[Any]) -> None:
        super().__init__([np.empty((size, 0, 0, 0), dtype), np.empty(size, dtype)])

    @property
    def data(self) -> NDArray[Any]:
        return self.arrays[0]

    @property
    def labels(self) -> NDArray[Any]:
        return self.arrays[1]

    def reshape(self, image: ImageShape) -> None:
        """Take images of this shape; what they held before is lost where it is another one."""
        if self.data.shape[1:] != image:
            self.arrays[0] = np.empty((len(self), *image), self.data.dtype)


class Reader:
    """Fills batches, in the prefetch thread; it knows nothing of the layer.

    What a batch holds depends on the key of the layer and on how many records came before; never on
    how many threads there are.
    """

    #: How many records make an epoch; None where they are drawn without end.
    size: int | None = None

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the first batch; asked before ``start``, if at all."""
        raise NotImplementedError

    def start(self, key: np.uint64, records: int) -> None:
        """Make ready for the batch that follows ``records`` records."""
        raise NotImplementedError

    def make(self) -> Batch:
        """An empty batch."""
        raise NotImplementedError

    def fill(self, batch: Any, stopped: Callable[[], bool]) -> None:
        """Fill ``batch``, one of those made, with the next records; or return once ``stopped()``.

        Raises ``RecordError`` where they are missing, damaged, or do not fit: for the first such
        record.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of threads and files. Doing so twice is fine."""


class ImageReader(Reader):
    """Takes images in the order of their source and puts them through ``transform``.

    A batch takes the shape of its first image. ``rand_skip``: the first image is one of so many at
    the beginning.
    """

    def __init__(
        self, source: ImageSource, transform: Transform, batch_size: int, rand_skip: int = 0
    ) -> None:
        self.size = source.size
        self._batch_size = batch_size
        self._source = source
        self._transform = transform
        self._rand_skip = rand_skip
        self._run = 1
        self._workers = Workers(default_threads(), "decode")

    def shapes(self) -> list[tuple[int, ...]]:
        first = self._first(self._source.first())
        return [(self._batch_size, *first.shape), (self._batch_size,)]

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

    def make(self) -> ImageBatch:
        return ImageBatch(self._batch_size, self._transform.dtype)

    def fill(self, batch: ImageBatch, stopped: Callable[[], bool]) -> None:
        batch.ends = 0
        batch.doubt = ""
        filled = 0
        while filled < len(batch) and not stopped():
            images = self._source.read(min(self._run, len(batch) - filled))
            if not filled:
                first = self._first(images)
                batch.reshape(first.shape)
                self._run = self._length_of_run(first, batch)
            count = len(images.labels)
            part = slice(filled, filled + count)
            self._render(images, first, batch.data[part], stopped)
            batch.labels[part] = images.labels
            self._source.confirm()
            batch.doubt = batch.doubt or images.doubt
            self._records += count
            batch.ends += (self._skip + self._records) % self._source.size == 0
            filled += count
            if first.image is not None:
                first = first._replace(image=None)

    def close(self) -> None:
        self._workers.close()
        self._source.close()

    def _length_of_run(self, first: _First, batch: ImageBatch) -> int:
        if first.image is not None:
            return len(batch)
        made = batch.data.itemsize * math.prod(first.shape)
        return max(1, RUN_BYTES // max(made, math.prod(first.size)))

    def _first(self, images: Images) -> _First:
        is_encoded = images.encoded.size > 0 and images.encoded[0] == 0
        image = images.decode(0) if is_encoded else None
        size = images.sizes[0].tolist() if image is None else size_of(image)
        return _First(size, self._shape(images, 0, size), image, images.name)

    def _shape(self, images: Images, row: int, size: Sequence[int]) -> ImageShape:
        """The shape that image ``row`` gets. Raises ``RecordError`` where it does not fit."""
        try:
            return self._transform.shape(*size)
        except RecordError as error:
            raise error.of(images.name(row)) from None

    def _check(self, images: Images, row: int, size: Sequence[int], first: _First) -> None:
        """Raise ``RecordError`` for an image whose shape is not that of the first of its batch."""
        shape = self._shape(images, row, size)
        if shape != first.shape:
            given, begun = (" x ".join(map(str, s)) for s in (shape, first.shape))
            raise RecordError(
                f"{images.name(row)} becomes {given}, but {first.name(0)}, the first of its batch, "
                f"becomes {begun}",
                hint=self._source.advice,
            )

    def _render(
        self, images: Images, first: _First, out: NDArray[Any], stopped: Callable[[], bool]
    ) -> None:
        """Write what becomes of ``images`` into ``out``, (n, channels, height, width)."""
        fault, limit = self._misfit(images, first)
        if images.pixels and fault is None:
            sizes = images.sizes[:, 1:]
            placement = self._transform.place(self._key, self._records, sizes, first.shape)
            for pixels in images.pixels:
                self._transform.render(pixels.values, pixels.starts, pixels.rows, placement, out)
        if images.encoded.size:
            encoded = images.encoded[images.encoded < limit]

            def render_row(number: int) -> None:
                row = int(encoded[number])
                image = first.image if row == 0 and first.image is not None else images.decode(row)
                self._check(images, row, size_of(image), first)
                self._transform.render_image(image, self._key, self._records + row, out[row])

            self._workers.run(render_row, len(encoded), stopped)
        if fault is not None:
            raise fault

    def _misfit(self, images: Images, first: _First) -> tuple[RecordError | None, int]:
        """What is wrong with the first that does not fit of those that have values, and its number.

        Where all fit, the number is that of images.
        """
        fault, limit = None, len(images.labels)
        for pixels in images.pixels:
            # One look is enough at images of the same size.
            rows = pixels.rows[:1]
            if not images.alike:
                sizes = images.sizes[pixels.rows]
                changes = (sizes[1:] != sizes[:-1]).any(axis=1)
                rows = np.append(rows, pixels.rows[1:][changes])
            for row in rows.tolist():
                try:
                    self._check(images, row, images.sizes[row].tolist(), first)
                except RecordError as error:
                    if row < limit:
                        fault, limit = error, row
                    break
        return fault, limit


class _First(NamedTuple):
    """The first image of a batch, which is called ``name(0)``: its size, and the one that it gets.

    ``image`` holds it, where it was encoded.
    """

    size: Sequence[int]
    shape: ImageShape
    image: NDArray[np.uint8] | None
    name: Callable[[int], str]
