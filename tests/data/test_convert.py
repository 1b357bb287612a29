"""From lists of images to databases: the records of Caffe's convert_imageset, and all mistakes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

from netdef.data.convert import ImageSet, Options, convert, try_out
from netdef.data.source import RecordError, open_source
from netdef.data.writer import LMDBWriter, open_writer
from netdef.errors import DataError
from netdef.proto import netdef_pb2 as pb

RNG = np.random.default_rng(0)


def records(path: Path) -> list[tuple[bytes, bytes]]:
    environment = lmdb.open(os.fspath(path), readonly=True, lock=False)
    try:
        with environment.begin() as transaction:
            return list(transaction.cursor())
    finally:
        environment.close()


def datums(path: Path) -> dict[str, pb.Datum]:
    return {key.decode(): pb.Datum.FromString(value) for key, value in records(path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of 5 x 7, in colour: 0.png to 5.png, and a list."""
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), RNG.integers(0, 256, (5, 7, 3), np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i % 3}\n" for i in range(6)))
    return tmp_path


def make(folder: Path, threads: int = 2, **options: Any) -> dict[str, pb.Datum]:
    shutil.rmtree(folder / "db", ignore_errors=True)
    images = ImageSet(f"{folder}/", str(folder / "list.txt"), Options(**options))
    convert(images, LMDBWriter(folder / "db"), threads=threads)
    return datums(folder / "db")


#: How Caffe's tool was called for each database of the reference.
REFERENCES = {
    "color": Options(resize_height=32, resize_width=40),
    "gray": Options(gray=True, resize_height=32, resize_width=40),
    "encoded_png": Options(encoded=True, encode_type="png", resize_height=30, resize_width=24),
    "encoded_jpg": Options(encoded=True, resize_height=48, resize_width=64),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("threads", [1, 3])
def test_records_are_those_of_caffe(tmp_path: Path, shared: Path, name: str, threads: int) -> None:
    reference = shared / "reference" / "pipeline"
    images = ImageSet(
        f"{shared / 'data' / 'images'}/", str(reference / "list.txt"), REFERENCES[name]
    )
    database, report = convert(images, LMDBWriter(tmp_path / "db"), threads=threads)
    assert database == (tmp_path / "db", 8)
    assert report.images == 8
    assert records(tmp_path / "db") == records(reference / f"{name}_lmdb")


def test_a_leveldb_has_the_same_records(tmp_path: Path, shared: Path) -> None:
    pytest.importorskip("plyvel")
    reference = shared / "reference" / "pipeline"
    options = Options(resize_height=20, resize_width=20)
    images = ImageSet(f"{shared / 'data' / 'images'}/", str(reference / "list.txt"), options)
    convert(images, open_writer(tmp_path / "db", "leveldb"))
    found, expected = (
        open_source(pb.DataParameter(source=str(path))).read(8)
        for path in (tmp_path / "db", reference / "color_leveldb")
    )
    for ours, theirs in zip(found.spans.tolist(), expected.spans.tolist(), strict=True):
        for part in (0, 2):
            a, b = ours[part : part + 2], theirs[part : part + 2]
            assert (
                found.buffer[a[0] : a[0] + a[1]].tobytes()
                == expected.buffer[b[0] : b[0] + b[1]].tobytes()
            )


def test_pixels_come_channel_after_channel(folder: Path) -> None:
    made = make(folder)
    assert list(made) == [f"0000000{i}_{i}.png" for i in range(6)]
    image = cv2.imread(str(folder / "4.png"))
    datum = made["00000004_4.png"]
    assert (datum.channels, datum.height, datum.width, datum.label) == (3, 5, 7, 1)
    assert datum.data == image.transpose(2, 0, 1).tobytes()
    assert not datum.encoded


def test_files_are_copied_where_nothing_changes(folder: Path) -> None:
    file = (folder / "2.png").read_bytes()
    assert make(folder, encoded=True)["00000002_2.png"].data == file
    assert make(folder, encoded=True, encode_type="png")["00000002_2.png"].data == file
    # Else they are encoded anew.
    jpg = make(folder, encoded=True, encode_type="jpg")["00000002_2.png"]
    assert jpg.data[:2] == b"\xff\xd8"
    assert jpg.encoded
    small = make(folder, encoded=True, resize_height=3, resize_width=4)["00000002_2.png"].data
    decoded = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = cv2.resize(cv2.imread(str(folder / "2.png")), (4, 3))
    np.testing.assert_array_equal(decoded, expected)


def test_copies_in_other_colours_than_asked_for_are_told(folder: Path) -> None:
    options = Options(encoded=True, gray=True)
    report = try_out(ImageSet(f"{folder}/", str(folder / "list.txt"), options))
    assert "6 image files are in colour and stay so" in report.doubts[0]
    assert "force_gray" in report.doubts[0]


def test_shuffling_keeps_labels_and_numbers_records_anew(folder: Path) -> None:
    made = make(folder, shuffle=True, seed=3)
    numbers, names = zip(*(key.split("_") for key in made), strict=True)
    assert list(numbers) == [f"{i:08d}" for i in range(6)]
    assert sorted(names) == [f"{i}.png" for i in range(6)]
    assert list(names) != sorted(names)
    assert all(
        datum.label == int(name[0]) % 3 for name, datum in zip(names, made.values(), strict=True)
    )
    assert list(make(folder, shuffle=True, seed=3)) == list(made)
    assert list(make(folder, shuffle=True, seed=4)) != list(made)


def complaints(folder: Path, content: str | bytes, **options: Any) -> DataError:
    path = folder / "bad.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        convert(ImageSet(f"{folder}/", str(path), Options(**options)), LMDBWriter(folder / "db"))
    assert not any("db" in name for name in os.listdir(folder))
    return caught.value


def test_every_bad_line_is_located(folder: Path) -> None:
    error = complaints(
        folder,
        "0.png 0\r\n1.png one\r\n\r\n2.png\r\n3.png 1.5\r\n4.png\t4\r\n5.png,5\r\n 7\r\n"
        "0.png 1e3\r\n"
        "0.png 2147483648\r\n0.png -2147483649\r\n0.png 99999999999999999999999\r\n",
    )
    found = [
        (one.location.line, one.message) for one in error.diagnostics if one.location is not None
    ]
    integer, none, large = "does not end with an integer", "has no label", "beyond 32 bits"
    expected = [
        (2, integer),
        (4, none),
        (5, integer),
        (6, none),
        (7, none),
        (8, "has no path"),
        (9, integer),
        (10, large),
        (11, large),
        (12, large),
    ]
    assert [line for line, _ in found] == [line for line, _ in expected]
    for (_, message), (_, part) in zip(found, expected, strict=True):
        assert part in message


def test_lists_as_people_have_them(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "a b  c.png")
    shutil.copy(folder / "0.png", folder / "größe.png")
    (folder / "list.txt").write_bytes(
        "\ufeff0.png 5\r\na b  c.png -1  \t\r\n\r\n\ngröße.png +7".encode()
    )
    made = make(folder)
    assert [(key, datum.label) for key, datum in made.items()] == [
        ("00000000_0.png", 5),
        ("00000001_a b  c.png", -1),
        ("00000002_größe.png", 7),
    ]


def test_a_list_of_many_bad_lines_is_abridged(folder: Path) -> None:
    error = complaints(folder, "x\n" * 1000)
    assert len(error.diagnostics) == 21
    assert "1000 lines cannot be used, 980 more than shown" in error.diagnostics[-1].message


def test_missing_and_unreadable_images_are_located(folder: Path) -> None:
    error = complaints(folder, "0.png 0\nnope.png 1\n1.png 1\ngone.png 1\n")
    assert [one.location.line for one in error.diagnostics if one.location] == [2, 4]
    assert "--skip-unreadable" in error.diagnostics[-1].message
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "folder.png").mkdir()
    error = complaints(
        folder, "0.png 0\ntext.png 1\nempty.png 1\n1.png 1\ncut.png 1\nfolder.png 1\n"
    )
    assert [one.location.line for one in error.diagnostics if one.location] == [2, 3, 5, 6]


def test_unreadable_images_may_be_left_out_as_in_caffe(folder: Path) -> None:
    """Then the numbers of the others stay what they are in the list."""
    (folder / "text.png").write_text("no image")
    (folder / "list.txt").write_text("nope.png 0\n0.png 1\ntext.png 2\n1.png 3\n")
    images = ImageSet(f"{folder}/", str(folder / "list.txt"), Options(skip_unreadable=True))
    database, report = convert(images, LMDBWriter(folder / "db"))
    assert database.records == 2
    assert list(datums(folder / "db")) == ["00000001_0.png", "00000003_1.png"]
    assert [one.location.line for one in report.skipped if one.location] == [1, 3]
    assert report.labels == {1: 1, 3: 1}
    # But not all of them.
    shutil.rmtree(folder / "db")
    complaints(folder, "text.png 1\n", skip_unreadable=True)
    complaints(folder, "nope.png 1\n", skip_unreadable=True)


def test_a_root_without_its_slash(folder: Path) -> None:
    with pytest.raises(DataError, match="none of the 6 images is there") as caught:
        ImageSet(str(folder), str(folder / "list.txt"), Options())
    assert "end it with a slash" in str(caught.value)


def test_a_root_that_is_the_beginning_of_names(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "train_0.png")
    (folder / "list.txt").write_text("0.png 1\n")
    images = ImageSet(f"{folder}/train_", str(folder / "list.txt"), Options())
    convert(images, LMDBWriter(folder / "db"))
    assert list(datums(folder / "db")) == ["00000000_0.png"]


def test_check_size_names_both(folder: Path) -> None:
    cv2.imwrite(str(folder / "big.png"), np.zeros((9, 9, 3), np.uint8))
    error = complaints(folder, "0.png 0\n1.png 0\nbig.png 1\n", check_size=True)
    assert "is 3 x 9 x 9, but that of line 1 is 3 x 5 x 7" in str(error)
    (folder / "list.txt").write_text("0.png 0\nbig.png 1\n")
    report = try_out(ImageSet(f"{folder}/", str(folder / "list.txt"), Options()))
    assert report.sizes == {(3, 5, 7): 1, (3, 9, 9): 1}
    assert "of 2 sizes" in report.doubts[0]


def test_a_path_that_is_too_long_for_a_key(folder: Path) -> None:
    deep = folder / ("d" * 200) / ("e" * 200) / ("f" * 200)
    deep.mkdir(parents=True)
    shutil.copy(folder / "0.png", deep / "0.png")
    error = complaints(folder, f"0.png 0\n{(deep / '0.png').relative_to(folder)} 1\n")
    assert error.diagnostics[0].location is not None
    assert error.diagnostics[0].location.line == 2
    assert "more than 502 bytes" in str(error)


def test_an_image_type_that_cannot_be_written(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "noending")
    error = complaints(folder, "noending 1\n", encoded=True, resize_height=3, resize_width=3)
    assert 'cannot be written as an image of type "' in str(error)


def test_doubts(folder: Path) -> None:
    (folder / "list.txt").write_text("".join(f"{i}.png {1 + i // 3}\n" for i in range(6)))
    report = try_out(ImageSet(f"{folder}/", str(folder / "list.txt"), Options()))
    assert any("labels start at 1" in doubt for doubt in report.doubts)
    assert any("sorted by label" in doubt for doubt in report.doubts)
    (folder / "list.txt").write_text("0.png -1\n1.png 0\n2.png -1\n")
    report = try_out(ImageSet(f"{folder}/", str(folder / "list.txt"), Options()))
    assert any("below 0" in doubt for doubt in report.doubts)


def test_a_jpeg_that_is_cut_short_is_told(folder: Path) -> None:
    """OpenCV may decode it, and Caffe would take it as it is."""
    whole = cv2.imencode(
        ".jpg", cv2.GaussianBlur(RNG.integers(0, 256, (64, 64, 3), np.uint8), (5, 5), 0)
    )[1]
    (folder / "cut.jpg").write_bytes(whole.tobytes()[:-2])
    (folder / "list.txt").write_text("cut.jpg 1\n0.png 0\n")
    options = Options(skip_unreadable=True)
    report = try_out(ImageSet(f"{folder}/", str(folder / "list.txt"), options))
    assert len(report.cut) + len(report.skipped) == 1


SCRIPT = """
import sys
from netdef.data.convert import ImageSet, Options, convert
from netdef.data.writer import open_writer
options = Options(resize_height=300, resize_width=300)
images = ImageSet(sys.argv[1] + "/", sys.argv[1] + "/list.txt", options)
convert(images, open_writer(sys.argv[1] + "/db", sys.argv[2]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_an_interrupted_conversion_leaves_nothing_that_looks_whole(
    folder: Path, end: int, backend: str
) -> None:
    if backend == "leveldb":
        pytest.importorskip("plyvel")
    (folder / "list.txt").write_text("".join(f"{i % 6}.png {i % 3}\n" for i in range(100_000)))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), backend], stderr=subprocess.DEVNULL
    )
    parts: list[Path] = []
    name = "data.mdb" if backend == "lmdb" else "CURRENT"
    # Until some of it is on the disk.
    while not any((part / name).exists() for part in parts):
        assert process.poll() is None
        time.sleep(0.05)
        parts = list(folder.glob("db.*.partial"))
    time.sleep(0.5)
    process.send_signal(end)
    assert process.wait(100) == -end
    assert not (folder / "db").exists()
    left = list(folder.glob("db*"))
    if end == signal.SIGINT:
        assert left == []
    for part in left:
        with pytest.raises(RecordError, match="is not whole"):
            open_source(pb.DataParameter(source=str(part)))
