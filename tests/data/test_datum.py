"""Datums: our parser against protobuf's, and records that are none."""

from __future__ import annotations

import random
import struct

import cv2
import numpy as np
import pytest
from google.protobuf.message import DecodeError

from netdef.data.datum import (
    BYTES,
    CHANNELS,
    ENCODED,
    FLOATS,
    KIND,
    LABEL,
    WIDTH,
    DatumImages,
    Datums,
    parse,
    pixels,
)
from netdef.data.images import Pixels
from netdef.data.source import RecordError, Records, Source
from netdef.proto import netdef_pb2 as pb


def records(*values: bytes) -> Records:
    """Records as a source would give them, with keys "0", "1", ..."""
    buffer, spans = b"", []
    for i, value in enumerate(values):
        key = str(i).encode()
        spans.append((len(buffer), len(value), len(buffer) + len(value), len(key)))
        buffer += value + key
    return Records(np.frombuffer(buffer, np.uint8), np.array(spans, np.int64), 0, "db")


def image(datums: Datums, found: list[Pixels], row: int) -> np.ndarray:
    """What ``pixels`` found for ``row``, as an array (channels, height, width)."""
    shape = tuple(datums.table[row, CHANNELS : WIDTH + 1])
    part = next(p for p in found if row in p.rows)
    start = part.starts[list(part.rows).index(row)]
    return part.values[start : start + int(np.prod(shape))].reshape(shape)


def read(value: bytes) -> np.ndarray:
    datums = parse(records(value))
    return image(datums, pixels(datums), 0)


class One(Source):
    """A source of one run of records."""

    def __init__(self, *values: bytes) -> None:
        self.records = records(*values)
        self.size = len(values)
        self.reads = 0

    def seek(self, position: int) -> None:
        pass

    def read(self, count: int) -> Records:
        self.reads += 1
        return self.records


def decode_first(value: bytes, color: bool | None = None) -> np.ndarray:
    """An encoded record, decoded, as an array (channels, height, width)."""
    images = DatumImages(One(value), color).first()
    assert images.encoded.tolist() == [0]
    decoded = images.decode(0)
    return decoded.reshape(*decoded.shape[:2], -1).transpose(2, 0, 1)


def test_bytes_floats_and_images_in_one_run() -> None:
    raw = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    real = np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 2, 3)
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    png = cv2.imencode(".png", picture)[1].tobytes()
    datums = parse(
        records(
            pb.Datum(
                channels=1, height=2, width=3, float_data=real.ravel(), label=-7
            ).SerializeToString(),
            pb.Datum(
                channels=2, height=3, width=4, data=raw.tobytes(), label=3
            ).SerializeToString(),
            pb.Datum(data=png, encoded=True, label=1 << 30).SerializeToString(),
            pb.Datum(channels=1, height=1, width=2, float_data=[5, 6]).SerializeToString(),
        )
    )
    assert datums.table[:, KIND].tolist() == [FLOATS, BYTES, ENCODED, FLOATS]
    assert datums.table[:, LABEL].tolist() == [-7, 3, 1 << 30, 0]
    assert datums.counts == [1, 2, 1]
    assert not datums.alike
    assert datums.rows(ENCODED).tolist() == [2]
    found = pixels(datums)
    np.testing.assert_array_equal(image(datums, found, 0), real)
    np.testing.assert_array_equal(image(datums, found, 1), raw)
    np.testing.assert_array_equal(image(datums, found, 3), [[[5, 6]]])


def test_records_of_one_size_are_known_to_be_alike() -> None:
    def of(channels: int, height: int, width: int) -> bytes:
        size = channels * height * width
        message = pb.Datum(channels=channels, height=height, width=width, data=bytes(size))
        return message.SerializeToString()

    encoded = pb.Datum(channels=9, height=9, width=9, data=b"x", encoded=True).SerializeToString()
    floats = pb.Datum(channels=1, height=2, width=3, float_data=[0] * 6).SerializeToString()
    assert parse(records(encoded, of(1, 2, 3), floats, encoded, of(1, 2, 3))).alike
    for other in (of(2, 2, 3), of(1, 3, 3), of(1, 2, 4), of(1, 3, 2)):
        assert not parse(records(of(1, 2, 3), encoded, floats, other)).alike


def test_raw_bytes_go_before_floats() -> None:
    datum = pb.Datum(channels=1, height=1, width=2, data=b"\1\2", float_data=[5, 6])
    assert read(datum.SerializeToString()).tolist() == [[[1, 2]]]


@pytest.mark.parametrize("packed", [True, False])
def test_floats_packed_and_not(packed: bool) -> None:
    numbers = [1.5, -2.0, 3.25, 1e30]
    head = pb.Datum(channels=1, height=2, width=2).SerializeToString()
    raw = struct.pack("<4f", *numbers)
    if packed:
        # In two pieces, with another field between: allowed, and added up.
        body = b"\x32\x08" + raw[:8] + b"\x28\x05" + b"\x32\x08" + raw[8:]
    else:
        body = b"".join(b"\x35" + raw[i : i + 4] for i in range(0, 16, 4))
    assert list(pb.Datum.FromString(head + body).float_data) == [np.float32(n) for n in numbers]
    np.testing.assert_array_equal(read(head + body).ravel(), np.array(numbers, np.float32))


def test_unknown_fields_are_skipped_and_the_last_value_counts() -> None:
    extra = b"\xa0\x06\x01" + b"\xa1\x06" + bytes(8) + b"\xa2\x06\x03abc" + b"\xa5\x06" + bytes(4)
    first = pb.Datum(channels=9, height=9, width=9, data=b"no", label=9).SerializeToString()
    last = pb.Datum(channels=1, height=1, width=3, data=b"yes", label=2).SerializeToString()
    datums = parse(records(extra + first + extra + last + extra))
    assert image(datums, pixels(datums), 0).tobytes() == b"yes"
    assert datums.table[0, LABEL] == 2


def test_agrees_with_protobuf_on_damaged_records() -> None:
    """Where we see a Datum, protobuf sees the same one; what protobuf refuses, we refuse."""
    draw = random.Random(0)
    whole = pb.Datum(
        channels=2, height=3, width=4, data=bytes(range(24)), label=-3, float_data=[1, 2]
    ).SerializeToString()
    read_by_both = refused_by_both = 0
    for _ in range(3000):
        value = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            value[draw.randrange(len(value))] = draw.randrange(256)
        value = value[: draw.randrange(len(value) + 1)] if draw.random() < 0.3 else value
        try:
            expected = pb.Datum.FromString(bytes(value))
        except DecodeError:
            with pytest.raises(RecordError):
                parse(records(bytes(value)))
            refused_by_both += 1
            continue
        try:
            datums = parse(records(bytes(value)))
        except RecordError:
            continue  # a valid message whose sizes contradict its data, or which has groups
        size = expected.channels * expected.height * expected.width
        table = datums.table[0]
        assert table[LABEL] == expected.label
        if table[KIND] == BYTES:
            assert image(datums, pixels(datums), 0).tobytes() == expected.data
            assert len(expected.data) == size
        read_by_both += 1
    assert read_by_both > 300
    assert refused_by_both > 300


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"\xff\xff\xff", "is no Datum"),
        (b"JPEG or so", "is no Datum"),
        (bytes(30), "is no Datum"),
        (b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "is no Datum"),
        (b"\x32\x03abc", "is no Datum"),
        (b"", "is no image: its channels are 0, its height is 0, its width 0"),
        (
            pb.Datum(channels=3, height=-2, width=2, data=bytes(12)).SerializeToString(),
            "is no image: its channels are 3, its height is -2, its width 2",
        ),
        (
            pb.Datum(channels=3, height=2, width=2, data=bytes(11)).SerializeToString(),
            "has 11 bytes of data, but 3 channels of 2 x 2 are 12 of them",
        ),
        (
            pb.Datum(channels=3, height=2, width=2, float_data=[0] * 13).SerializeToString(),
            "has 13 float_data, but 3 channels of 2 x 2 are 12 of them",
        ),
        (
            # The product is 2**64: zero, in 64 bits.
            pb.Datum(channels=1 << 22, height=1 << 21, width=1 << 21).SerializeToString(),
            "has 0 bytes of data",
        ),
    ],
)
def test_records_that_are_no_datum(value: bytes, complaint: str) -> None:
    good = pb.Datum(channels=1, height=1, width=1, data=b"x").SerializeToString()
    with pytest.raises(RecordError) as caught:
        parse(records(value, good))
    assert caught.value.text.startswith(f'record 0 (key "0") of "db" {complaint}')


def test_records_before_one_that_is_no_datum_are_given_first() -> None:
    good = pb.Datum(channels=1, height=1, width=1, data=b"x", label=5).SerializeToString()
    source = One(good, good, b"no", good, b"no")
    images = DatumImages(source, None)
    images.seek(0, np.uint64(0))
    assert images.read(5).labels.tolist() == [5, 5]
    for _ in range(2):
        with pytest.raises(RecordError, match=r'record 2 \(key "2"\) of "db" is no Datum'):
            images.read(3)
    assert source.reads == 1
    images.seek(0, np.uint64(0))
    assert images.read(5).labels.tolist() == [5, 5]


COLOR = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)
GRAY = np.random.default_rng(2).integers(0, 256, (4, 5), np.uint8)


@pytest.mark.parametrize(
    ("picture", "color", "expected"),
    [
        (COLOR, None, COLOR.transpose(2, 0, 1)),
        (COLOR, True, COLOR.transpose(2, 0, 1)),
        (COLOR, False, cv2.cvtColor(COLOR, cv2.COLOR_BGR2GRAY)[None]),
        (GRAY, None, GRAY[None]),
        (GRAY, False, GRAY[None]),
        (GRAY, True, np.stack([GRAY] * 3)),
    ],
)
def test_color_of_encoded_images(
    picture: np.ndarray, color: bool | None, expected: np.ndarray
) -> None:
    png = cv2.imencode(".png", picture)[1].tobytes()
    value = pb.Datum(data=png, encoded=True).SerializeToString()
    got = decode_first(value, color)
    assert got.shape == expected.shape
    # Grey is a weighted sum, rounded once more or less.
    assert np.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("data", [b"", b"no image", cv2.imencode(".png", COLOR)[1].tobytes()[:40]])
def test_images_that_cannot_be_decoded(data: bytes) -> None:
    with pytest.raises(RecordError, match=r'record 0 \(key "0"\) of "db" is an image that cannot'):
        decode_first(pb.Datum(data=data, encoded=True).SerializeToString())


def test_images_of_16_bits_are_refused() -> None:
    deep = cv2.imencode(".png", GRAY.astype(np.uint16) * 200)[1].tobytes()
    with pytest.raises(RecordError, match="is an image of uint16 values"):
        decode_first(pb.Datum(data=deep, encoded=True).SerializeToString())
