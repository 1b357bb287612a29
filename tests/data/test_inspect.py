"""What is said of databases, and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

from netdef.data.header import channels_of, is_cut_short, kind_of
from netdef.data.inspect import (
    GAP,
    LARGEST_SIDE,
    LINE,
    Summary,
    draw_sheet,
    gaps,
    look_through,
    pictures,
)
from netdef.data.source import Source, open_source
from netdef.proto import netdef_pb2 as pb

RNG = np.random.default_rng(2)


def database(folder: Path, values: list[pb.Datum | bytes]) -> Source:
    with lmdb.open(str(folder), map_size=1 << 26) as env, env.begin(write=True) as txn:
        for i, value in enumerate(values):
            txn.put(b"%08d" % i, value if isinstance(value, bytes) else value.SerializeToString())
    return open_source(pb.DataParameter(source=str(folder)))


def encoded(ending: str, shape: tuple[int, ...], **fields: Any) -> pb.Datum:
    image = cv2.GaussianBlur(RNG.integers(0, 256, shape, np.uint8), (5, 5), 0)
    return pb.Datum(data=cv2.imencode(ending, image)[1].tobytes(), encoded=True, **fields)


def test_everything_is_counted_and_faults_are_named(tmp_path: Path) -> None:
    values = [
        pb.Datum(channels=1, height=2, width=3, data=bytes(6), label=4),
        b"\xff\xff\xff",
        pb.Datum(channels=1, height=2, width=3, float_data=[0.5] * 6, label=4),
        encoded(".png", (4, 5, 3), label=7),
        encoded(".jpg", (16, 16), label=-1),
        pb.Datum(data=b"nonsense", encoded=True, label=9),
        pb.Datum(channels=3, height=1000, width=1000, data=b"short"),
        pb.Datum(channels=1, height=2, width=3, data=bytes(6), label=4),
    ]
    summary = look_through(database(tmp_path / "db", values), threads=2)
    assert summary.records == 8
    assert (summary.first_key, summary.last_key) == ('"00000000"', '"00000007"')
    assert summary.kinds == {"raw bytes": 2, "floats": 1, "PNG": 1, "JPEG": 1, "image": 1}
    assert summary.sizes == {(1, 2, 3): 3, (3, 4, 5): 1, (1, 16, 16): 1}
    assert summary.labels == {4: 3, 7: 1, -1: 1}
    assert [fault.text.split()[1] for fault in summary.faults] == ["1", "5", "6"]
    assert 'record 5 (key "00000005")' in summary.faults[1].text


def test_many_records(tmp_path: Path) -> None:
    values: list[pb.Datum | bytes] = [
        pb.Datum(channels=1, height=1, width=2, data=b"ab", label=i % 7) for i in range(1000)
    ]
    summary: Summary = look_through(database(tmp_path / "db", values))
    assert summary.sizes == {(1, 1, 2): 1000}
    assert sum(summary.labels.values()) == 1000


def test_gaps() -> None:
    assert gaps({0: 1, 1: 1, 4: 1, 6: 1}) == [(2, 3), (5, 5)]
    assert gaps({3: 1}) == gaps({}) == []


@pytest.mark.parametrize(
    ("ending", "shape", "channels", "kind"),
    [
        (".png", (9, 8), 1, "PNG"),
        (".png", (9, 8, 3), 3, "PNG"),
        (".png", (9, 8, 4), 3, "PNG"),
        (".jpg", (9, 8), 1, "JPEG"),
        (".jpg", (9, 8, 3), 3, "JPEG"),
        (".bmp", (9, 8, 3), None, "BMP"),
        (".tiff", (9, 8, 3), None, "TIFF"),
        (".webp", (9, 8, 3), None, "WebP"),
    ],
)
def test_headers(ending: str, shape: tuple[int, ...], channels: int | None, kind: str) -> None:
    file = np.frombuffer(encoded(ending, shape).data, np.uint8)
    assert kind_of(file) == kind
    assert channels_of(file) == channels
    assert not is_cut_short(file)
    if channels:
        assert is_cut_short(file[:-12])
    for size in range(min(len(file), 200)):
        channels_of(file[:size])
        kind_of(file[:size])


def decode(sheet: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)


def test_a_sheet_shows_each_picture_where_it_should(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (5, 3, 48, 40), np.uint8)
    values: list[pb.Datum | bytes] = [
        pb.Datum(channels=3, height=48, width=40, data=image.tobytes(), label=i)
        for i, image in enumerate(images)
    ]
    source = database(tmp_path / "db", values)
    shown = list(pictures(source, 4, first=1))
    assert [picture.caption for picture in shown] == ["1", "2", "3", "4"]
    sheet = decode(draw_sheet(shown, 3, ".png"))
    # Enlarged to twice its size; three in a row, so two rows.
    high, wide = 2 * 48, 2 * 40
    assert sheet.shape == (GAP + 2 * (high + LINE + GAP), GAP + 3 * (wide + GAP), 3)
    top, left = GAP + high + LINE + GAP, GAP
    drawn = sheet[top : top + high : 2, left : left + wide : 2]
    np.testing.assert_array_equal(drawn.transpose(2, 0, 1), images[4])
    # Something is written under it.
    assert sheet[top + high : top + high + LINE, left : left + 20].min() < 128


def test_pictures_of_one_label_of_any_kind(tmp_path: Path) -> None:
    floats = np.linspace(-1.0, 1.0, 12).astype(np.float32)
    values = [
        pb.Datum(channels=1, height=3, width=4, float_data=floats, label=1),
        pb.Datum(channels=1, height=3, width=4, data=bytes(12), label=0),
        encoded(".jpg", (700, 500, 3), label=1),
        pb.Datum(channels=2, height=3, width=4, data=bytes(24), label=1),
        pb.Datum(channels=1, height=1, width=1, float_data=[float("nan")], label=1),
    ]
    shown = list(pictures(database(tmp_path / "db", values), 100, label=1))
    assert len(shown) == 4
    assert (shown[0].image[0, 0] == 0).all()
    assert (shown[0].image[2, 3] == 255).all()
    sheet = decode(draw_sheet(shown, 2, ".jpg"))
    assert sheet.shape[0] == GAP + 2 * (LARGEST_SIDE + LINE + GAP)
