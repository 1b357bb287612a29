"""Readers: how many images are read at a time, when an epoch ends, and when to stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.data import batches
from netdef.data.batches import ImageBatch, ImageReader
from netdef.data.images import Images, ImageSource, Pixels
from netdef.data.source import RecordError
from netdef.data.transform import Transform
from netdef.proto import netdef_pb2 as pb

KEY = np.uint64(77)


class Numbers(ImageSource):
    """Image i holds its number, and is labelled with it; ``shapes`` of all, one after the other."""

    def __init__(self, *shapes: tuple[int, int, int]) -> None:
        self.size = len(shapes)
        self.shapes = shapes
        self.position = 0
        self.counts: list[int] = []
        self.confirmed = 0
        self.closed = False

    def first(self) -> Images:
        return self._images(0, 1)

    def seek(self, records: int, key: np.uint64) -> None:
        self.position = records % self.size

    def read(self, count: int) -> Images:
        start = self.position % self.size
        self.position = min(start + count, self.size)
        self.counts.append(count)
        return self._images(start, self.position - start)

    def confirm(self) -> None:
        self.confirmed += 1

    def close(self) -> None:
        self.closed = True

    def _images(self, start: int, count: int) -> Images:
        sizes = np.array(self.shapes[start : start + count])
        ends = np.cumsum(sizes.prod(axis=1))
        numbers = np.arange(start, start + count)
        values = np.repeat(numbers, sizes.prod(axis=1)).astype(np.uint8)
        values.flags.writeable = False
        pixels = Pixels(np.arange(count), ends - sizes.prod(axis=1), values)
        return Images(
            numbers,
            sizes,
            [pixels],
            np.empty(0, np.int64),
            lambda row: np.empty(0, np.uint8),
            lambda row: f"image {start + row}",
            "odd",
        )


def reader(source: Numbers, batch_size: int, **options: Any) -> ImageReader:
    skip = options.pop("rand_skip", 0)
    transform = Transform(pb.TransformationParameter(**options), random_crop=False)
    return ImageReader(source, transform, batch_size, skip)


def run(source: Numbers, batch_size: int, count: int, **options: Any) -> list[ImageBatch]:
    made = reader(source, batch_size, **options)
    made.start(KEY, 0)
    filled = [made.make() for _ in range(count)]
    for batch in filled:
        made.fill(batch, lambda: False)
    return filled


def test_batches_hold_consecutive_images_and_count_ends() -> None:
    source = Numbers(*[(1, 2, 3)] * 5)
    filled = run(source, 4, 4)
    assert [batch.labels.tolist() for batch in filled] == [
        [0, 1, 2, 3],
        [4, 0, 1, 2],
        [3, 4, 0, 1],
        [2, 3, 4, 0],
    ]
    assert [batch.ends for batch in filled] == [0, 1, 1, 1]
    assert {batch.doubt for batch in filled} == {"odd"}
    for batch in filled:
        expected = np.broadcast_to(batch.labels.reshape(4, 1, 1, 1), (4, 1, 2, 3))
        np.testing.assert_array_equal(batch.data, expected)
    assert source.confirmed == len(source.counts)
    [long] = run(source, 17, 1)
    assert long.ends == 3


def test_the_end_is_that_of_the_records_whatever_was_skipped() -> None:
    filled = run(Numbers(*[(1, 2, 3)] * 5), 1, 10, rand_skip=1000)
    assert filled[0].labels != [0]
    for batch in filled:
        assert batch.ends == (batch.labels == [4])


@pytest.mark.parametrize(("crop", "most"), [(0, 6), (2, 6)])
def test_a_run_is_bounded_by_what_it_reads_and_by_what_it_makes(
    monkeypatch: pytest.MonkeyPatch, crop: int, most: int
) -> None:
    """Of an image, 1000 bytes are read, and 4000 made, or 160 where it is cropped."""
    monkeypatch.setattr(batches, "RUN_BYTES", 24_000 if crop == 0 else 6_000)
    source = Numbers(*[(10, 10, 10)] * 20)
    run(source, 20, 2, crop_size=crop)
    assert source.counts[0] == 1
    assert max(source.counts) == most


def test_a_fill_ends_soon_after_it_is_stopped() -> None:
    source = Numbers(*[(1, 2, 3)] * 5)
    made = reader(source, 1000)
    made.start(KEY, 0)
    asked = iter([False, False, True])
    made.fill(made.make(), lambda: next(asked))
    assert len(source.counts) == 2


def test_the_first_image_that_differs_is_named_with_the_first_of_its_batch() -> None:
    source = Numbers((1, 2, 2), (1, 3, 3), (1, 3, 3), (1, 3, 4), (2, 3, 3))
    source.advice = "mend it"
    made = reader(source, 2)
    made.start(KEY, 1)
    made.fill(made.make(), lambda: False)
    with pytest.raises(RecordError) as caught:
        made.fill(made.make(), lambda: False)
    assert caught.value.text == (
        "image 4 becomes 2 x 3 x 3, but image 3, the first of its batch, becomes 1 x 3 x 4"
    )
    assert caught.value.hint == "mend it"


def test_the_shape_is_that_of_the_first_image() -> None:
    source = Numbers((1, 2, 3), (1, 4, 5))
    made = reader(source, 2)
    assert made.shapes() == [(2, 1, 2, 3), (2,)]
    assert made.size == 2
    assert reader(source, 2, crop_size=2).shapes()[0] == (2, 1, 2, 2)
    with pytest.raises(RecordError, match="image 0 is 1 x 2 x 3, smaller than crop_size 3"):
        reader(source, 2, crop_size=3).shapes()
    made.close()
    assert source.closed


def test_a_batch_of_other_images_takes_their_shape() -> None:
    source = Numbers((1, 2, 3), (3, 4, 5))
    made = reader(source, 1)
    made.start(KEY, 0)
    batch = made.make()
    for shape in ((1, 2, 3), (3, 4, 5), (1, 2, 3)):
        made.fill(batch, lambda: False)
        assert batch.data.shape == (1, *shape)


# -- images that are decoded by several threads ----------------------------------------------------


class Pictures(ImageSource):
    """Ten images of ``shapes`` (channels, height, width): random, and yet to be decoded.

    Those in ``plain`` have their values at hand, the even ones and the odd ones in one array each;
    to decode those in ``broken`` is an error.
    """

    def __init__(
        self,
        shapes: dict[int, tuple[int, int, int]] | None = None,
        plain: tuple[int, ...] = (),
        broken: tuple[int, ...] = (),
    ) -> None:
        self.size = 10
        draw = np.random.default_rng(0)
        self.images = [
            draw.integers(0, 256, (shapes or {}).get(i, (3, 9, 12)), np.uint8) for i in range(10)
        ]
        self.plain = plain
        self.broken = broken
        self.position = 0
        self.decoded: list[int] = []

    def first(self) -> Images:
        return self._images(0, 1)

    def seek(self, records: int, key: np.uint64) -> None:
        self.position = records % 10

    def read(self, count: int) -> Images:
        start = self.position % 10
        self.position = min(start + count, 10)
        return self._images(start, self.position - start)

    def _images(self, start: int, count: int) -> Images:
        encoded = [row for row in range(count) if start + row not in self.plain]
        sizes = np.array([self.images[start + row].shape for row in range(count)])
        pixels = []
        for parity in (0, 1):
            rows = [
                r for r in range(count) if start + r in self.plain and (start + r) % 2 == parity
            ]
            if rows:
                values = np.concatenate([self.images[start + row].ravel() for row in rows])
                values.flags.writeable = False
                counts = sizes[rows].prod(axis=1)
                pixels.append(Pixels(np.array(rows), np.cumsum(counts) - counts, values))

        def decode(row: int) -> np.ndarray:
            self.decoded.append(start + row)
            if start + row in self.broken:
                raise RecordError(f"image {start + row} is broken")
            return np.ascontiguousarray(self.images[start + row].transpose(1, 2, 0))

        return Images(
            np.arange(start, start + count),
            sizes,
            pixels,
            np.array(encoded, np.int64),
            decode,
            lambda row: f"image {start + row}",
        )


AUGMENTED = {"crop_size": 7, "mirror": True, "mean_value": [104], "scale": 0.3}


def fill_from(source: Pictures, batch_size: int, count: int) -> list[tuple[Any, Any]]:
    transform = Transform(pb.TransformationParameter(**AUGMENTED), random_crop=True)
    made = ImageReader(source, transform, batch_size)
    made.start(KEY, 3)
    filled = []
    for _ in range(count):
        batch = made.make()
        made.fill(batch, lambda: False)
        filled.append((batch.data.copy(), batch.labels.copy()))
    made.close()
    return filled


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("plain", [(), (0, 1, 2), (3, 4, 7), (1, 3, 5, 7, 9)])
def test_neither_threads_nor_encoding_change_a_bit(
    monkeypatch: pytest.MonkeyPatch, threads: int, plain: tuple[int, ...]
) -> None:
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    expected = fill_from(Pictures(plain=tuple(range(10))), 6, 5)
    source = Pictures(plain=plain)
    for batch, (data, labels) in zip(fill_from(source, 6, 5), expected, strict=True):
        np.testing.assert_array_equal(batch[0], data)
        np.testing.assert_array_equal(batch[1], labels)
    # Records 3 to 32 came, and each was decoded once.
    assert sorted(source.decoded) == sorted(i % 10 for i in range(3, 33) if i % 10 not in plain)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("shapes", "plain", "broken", "message"),
    [
        ({}, (), (5, 6, 9), "image 5 is broken"),
        ({}, (), (3,), "image 3 is broken"),
        ({6: (3, 5, 12)}, (), (8,), "image 6 is 3 x 5 x 12, smaller than crop_size 7"),
        ({6: (1, 9, 12)}, (6,), (8,), "image 6 becomes 1 x 7 x 7, but image 3"),
        ({6: (1, 9, 12)}, (3, 6), (5,), "image 5 is broken"),
        ({6: (1, 9, 12), 8: (2, 9, 12)}, (8,), (), "image 6 becomes 1 x 7 x 7, but image 3"),
        ({6: (1, 9, 12), 8: (2, 9, 12)}, (6, 8), (7, 9), "image 6 becomes 1 x 7 x 7"),
        ({6: (1, 9, 12), 7: (2, 9, 12)}, (6, 7), (), "image 6 becomes 1 x 7 x 7"),
        ({5: (2, 9, 12), 6: (1, 9, 12)}, (5, 6), (), "image 5 becomes 2 x 7 x 7"),
    ],
)
def test_the_first_bad_image_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    shapes: dict[int, tuple[int, int, int]],
    plain: tuple[int, ...],
    broken: tuple[int, ...],
    message: str,
) -> None:
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    with pytest.raises(RecordError) as caught:
        fill_from(Pictures(shapes, plain, broken), 7, 1)
    assert caught.value.text.startswith(message)


def test_decoding_ends_soon_after_it_is_stopped() -> None:
    source = Pictures()
    transform = Transform(pb.TransformationParameter(), random_crop=False)
    made = ImageReader(source, transform, 10)
    made.start(KEY, 0)
    made.fill(made.make(), lambda: len(source.decoded) > 3)
    assert 4 <= len(source.decoded) < 10
    made.close()
