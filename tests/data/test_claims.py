"""Image files that claim more than they can hold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from netdef.data.claims import check, jpeg_size
from netdef.data.images import decode
from netdef.data.source import RecordError


def jpeg(image: NDArray[np.uint8], *options: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.imencode(".jpg", image, options)[1], np.uint8).reshape(-1)


def with_size(file: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The same JPEG, whose frame claims another size."""
    content = bytearray(file.tobytes())
    at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    content[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return np.frombuffer(bytes(content), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [0, 1])
def test_the_size_of_a_jpeg(channels: int, progressive: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 40, channels), np.uint8)
    file = jpeg(image, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    assert jpeg_size(file) == (channels, 24, 40)
    # Behind a comment, fill bytes, and a marker that stands alone.
    behind = np.frombuffer(b"\xff\xd8\xff\xfe\x00\x05abc\xff\xff\xff\x01", np.uint8)
    assert jpeg_size(np.concatenate([behind, file[2:]])) == (channels, 24, 40)


def test_what_has_no_size() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    png = np.asarray(cv2.imencode(".png", image)[1], np.uint8).reshape(-1)
    file = jpeg(image)
    for part in (png, file[:0], file[:2], file[:20], np.zeros(100, np.uint8)):
        assert jpeg_size(part) is None
        check(part)
    # A length of 0 would be looked at without end.
    assert jpeg_size(np.frombuffer(b"\xff\xd8\xff\xe0\x00\x00" + bytes(40), np.uint8)) is None


@pytest.mark.parametrize("color", [None, True, False])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_that_claims_too_much_is_not_decoded(color: bool | None, progressive: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    file = with_size(jpeg(image, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive), 25_000, 30_000)
    with pytest.raises(RecordError, match=r"claims 30000 x 25000 pixels, which its \d+ bytes"):
        decode(file, color)


def test_a_png_with_a_chunk_that_claims_too_much_is_not_decoded() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    file = np.asarray(cv2.imencode(".png", image)[1], np.uint8).reshape(-1)
    check(file)
    content = file.tobytes()
    lying = content[:33] + (2**31 - 1).to_bytes(4, "big") + b"tEXt" + content[33:]
    with pytest.raises(RecordError, match="a chunk that claims 2147483647 bytes, where"):
        decode(np.frombuffer(lying, np.uint8), None)
    # Behind others, too.
    whole = b"\0\0\0\1tEXta1234"
    lying = content[:33] + whole * 3 + (2**31 - 1).to_bytes(4, "big") + b"tEXt"
    with pytest.raises(RecordError, match="where 0 are left"):
        check(np.frombuffer(lying, np.uint8))


@pytest.mark.parametrize("shape", [(4000, 4000), (4000, 4000, 3), (16, 65_000, 3)])
@pytest.mark.parametrize("quality", [1, 95])
@pytest.mark.parametrize("progressive", [0, 1])
def test_the_emptiest_images_are_decoded(
    shape: tuple[int, ...], quality: int, progressive: int
) -> None:
    """One colour all over takes the fewest bits there are."""
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    file = jpeg(np.full(shape, 128, np.uint8), cv2.IMWRITE_JPEG_QUALITY, quality, *options)
    assert decode(file, None).shape == shape
