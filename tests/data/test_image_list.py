"""Lists of images: every form of a line, every mistake in one, and an even shuffle."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from netdef.data.image_list import ImageList, shuffle_order
from netdef.data.source import RecordError
from netdef.proto import netdef_pb2 as pb

KEY = np.uint64(0x1234_5678_9ABC_DEF0)


def parse(path: Path, content: bytes) -> list[tuple[bytes, int]]:
    """(path, label) of each line of a list."""
    path.write_bytes(content)
    found = ImageList(pb.ImageDataParameter(source=str(path)))
    listing = found._listing
    return [(listing.path_of(i), label) for i, label in enumerate(listing.labels.tolist())]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.jpg 3\n", [(b"a.jpg", 3)]),
        (b"a.jpg 3", [(b"a.jpg", 3)]),
        (b"a.jpg 3\nb/c.jpg 0\n", [(b"a.jpg", 3), (b"b/c.jpg", 0)]),
        (b"my cat 1.jpg 2\n", [(b"my cat 1.jpg", 2)]),
        (b"a.jpg 3\r\nb.jpg 4\r\n", [(b"a.jpg", 3), (b"b.jpg", 4)]),
        (b"a.jpg 3  \nb.jpg 4 \t\r\n", [(b"a.jpg", 3), (b"b.jpg", 4)]),
        (b"\n\na.jpg 3\n\n  \t\r\nb.jpg 4\n\n", [(b"a.jpg", 3), (b"b.jpg", 4)]),
        (b"\xef\xbb\xbfa.jpg 3\n", [(b"a.jpg", 3)]),
        (b" a.jpg 3\n", [(b" a.jpg", 3)]),
        (b"a.jpg  3\n", [(b"a.jpg ", 3)]),
        ("\u732b.jpg 3\n".encode(), [("\u732b.jpg".encode(), 3)]),
        (b"\xff.jpg 3\n", [(b"\xff.jpg", 3)]),
        (b"a -1\nb +1\nc 007\n", [(b"a", -1), (b"b", 1), (b"c", 7)]),
        (b"a 2147483647\nb -2147483648\n", [(b"a", 2**31 - 1), (b"b", -(2**31))]),
    ],
)
def test_lines(tmp_path: Path, content: bytes, expected: list[tuple[bytes, int]]) -> None:
    assert parse(tmp_path / "list.txt", content) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", 'the list "list.txt" names no images'),
        (b"\n \r\n", 'the list "list.txt" names no images'),
        (b"a 1\nb.jpg\n", 'line 2 of "list.txt" has no label: "b.jpg"'),
        (b"a 1\n\nb.jpg \n", 'line 3 of "list.txt" has no label: "b.jpg"'),
        (b" 3\n", 'line 1 of "list.txt" has no path: " 3"'),
        (b"3\n", 'line 1 of "list.txt" has no label: "3"'),
        (b"a cat\n", 'line 1 of "list.txt" does not end with an integer, its label: "a cat"'),
        (b"a 3.5\n", 'does not end with an integer, its label: "a 3.5"'),
        (b"a 3x\n", 'does not end with an integer, its label: "a 3x"'),
        (b"a -\n", 'does not end with an integer, its label: "a -"'),
        (b"a b-1\n", 'does not end with an integer, its label: "a b-1"'),
        (b"a 2147483648\n", 'line 1 of "list.txt" has a label beyond 32 bits: "a 2147483648"'),
        (b"a -2147483649\n", "has a label beyond 32 bits"),
        (b"a 99999999999999999999999999\n", "has a label beyond 32 bits"),
        (b"a\t3\n", 'has no label: "a\\t3"'),
        (b"x" * 200 + b"\n", 'has no label: "' + "x" * 80 + '..."'),
        (b"\x1b[31m\n", 'has no label: "\\x1b[31m"'),
        (b"\xff\xfea\0 \x001\0", 'the list "list.txt" is in UTF-16'),
    ],
)
def test_what_is_no_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError) as caught:
        parse(Path("list.txt"), content)
    assert message in caught.value.text
    assert ("tab" in caught.value.hint) == (b"\t" in content)
    assert caught.value.field == ("source",)


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (b"gone.png", "No such file or directory"),
        (b"image.png ", "No such file or directory"),
        (b"folder", "it is no regular file"),
        (b"pipe", "it is no regular file"),
        (b"a\0b", "null byte"),
        (b"x" * 5000, "File name too long"),
        (b"image.png/x", "Not a directory"),
    ],
)
def test_images_that_cannot_be_read(tmp_path: Path, listed: bytes, reason: str) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "list.txt"
    path.write_bytes(b"image.png 1\n" + listed + b" 2\n")
    images = ImageList(pb.ImageDataParameter(source=str(path), root_folder=f"{tmp_path}/"))
    first = images.first()
    assert first.labels == [1]
    assert first.decode(0).shape == (2, 2, 3)
    images.seek(1, KEY)
    second = images.read(5)
    assert second.labels == [2]
    with pytest.raises(RecordError, match="cannot be read: ") as caught:
        second.decode(0)
    assert reason in caught.value.text
    assert f'(line 2 of "{path}")' in caught.value.text
    assert ("ends with a space" in caught.value.hint) == listed.endswith(b" ")


def test_the_root_is_not_doubted_where_there_is_something(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "image").touch()
    (tmp_path / "rootimage").mkdir()
    path = tmp_path / "list.txt"
    path.write_text("image 1\n")
    images = ImageList(pb.ImageDataParameter(source=str(path), root_folder=f"{tmp_path}/root"))
    with pytest.raises(RecordError, match="it is no regular file") as caught:
        images.first().decode(0)
    assert (caught.value.field, caught.value.hint) == (("source",), "")


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
def test_images_that_cannot_be_decoded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.png").write_bytes(content)
    path = tmp_path / "list.txt"
    path.write_text("image.png 1\n")
    images = ImageList(pb.ImageDataParameter(source=str(path), root_folder=f"{tmp_path}/"))
    with pytest.raises(RecordError, match="is an image that cannot be decoded"):
        images.first().decode(0)


def test_a_missing_list_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a 1\n")
    with pytest.raises(RecordError, match=r'the list ".*trian\.txt" cannot be read') as caught:
        ImageList(pb.ImageDataParameter(source=str(tmp_path / "trian.txt")))
    assert caught.value.hint == 'did you mean "train.txt"?'


def test_a_million_lines_are_parsed_without_objects(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    line = b"n01440764/n01440764_10026.JPEG 123\n"
    path.write_bytes(line * 1_000_000)
    images = ImageList(pb.ImageDataParameter(source=str(path)))
    assert images.size == 1_000_000
    assert images._listing._table.nbytes == 24_000_000
    assert images._listing._table[-1].tolist() == [len(line) * 999_999, len(line) - 5, 123]


def orders(key: int, epochs: int, size: int) -> np.ndarray:
    drawn = np.tile(np.arange(size), (epochs, 1))
    for epoch, order in enumerate(drawn):
        shuffle_order(np.uint64(key), np.uint64(epoch), order)
    return drawn


def test_every_order_is_as_likely_as_any_other() -> None:
    """Chi-squared over the 120 orders of five images; a correct shuffle fails 1 key in a million.

    The key is fixed, so the outcome is too.
    """
    drawn = orders(7, 60_000, 5)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(5), (60_000, 1)))
    counts = np.unique(drawn @ 5 ** np.arange(5), return_counts=True)[1]
    assert counts.size == 120
    chi2 = ((counts - 500) ** 2 / 500).sum()
    # Wilson & Hilferty's normal approximation of chi-squared; 4.753 is the 1e-6 quantile.
    z = ((chi2 / 119) ** (1 / 3) - (1 - 2 / (9 * 119))) / math.sqrt(2 / (9 * 119))
    assert z < 4.753


def test_an_order_is_that_of_its_key_and_epoch() -> None:
    np.testing.assert_array_equal(orders(1, 3, 50), orders(1, 3, 50))
    assert (orders(1, 1, 50) != orders(2, 1, 50)).any()
    assert (orders(1, 2, 50)[0] != orders(1, 2, 50)[1]).any()
