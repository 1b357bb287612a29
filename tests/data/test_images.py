"""Images: decoded as OpenCV does it, resized, put in Caffe's order; what cannot be is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from netdef.data.images import MOST_PIXELS, decode, image_name, resize, size_of
from netdef.data.source import RecordError

RNG = np.random.default_rng(0)


def encoded(image: np.ndarray) -> np.ndarray:
    return np.frombuffer(cv2.imencode(".png", image)[1].tobytes(), np.uint8)


@pytest.mark.parametrize(
    ("channels", "color", "expected"),
    [(3, True, 3), (3, None, 3), (1, True, 3), (1, None, 0), (1, False, 0), (4, None, 4)],
)
def test_decode(channels: int, color: bool | None, expected: int) -> None:
    image = RNG.integers(0, 256, (5, 7, channels), np.uint8)
    decoded = decode(encoded(image), color)
    assert decoded.shape == ((5, 7, expected) if expected else (5, 7))
    np.testing.assert_array_equal(
        decoded.reshape(5, 7, -1), np.broadcast_to(image, (5, 7, max(channels, expected)))
    )


def test_sixteen_bits_become_eight_where_colours_are_given() -> None:
    image = np.full((2, 3, 3), 0x1234, np.uint16)
    assert (decode(encoded(image), True) == 0x12).all()
    with pytest.raises(RecordError, match="is an image of uint16 values"):
        decode(encoded(image), None)


def test_the_size_of_an_image() -> None:
    assert size_of(np.zeros((5, 7, 3), np.uint8)) == (3, 5, 7)
    assert size_of(np.zeros((5, 7), np.uint8)) == (1, 5, 7)


def test_resize_repeats_the_edge_and_keeps_the_middle() -> None:
    image = np.array([[0, 100]], np.uint8)
    np.testing.assert_array_equal(resize(image, 2, 4), [[0, 25, 75, 100]] * 2)


def test_a_size_beyond_memory_is_refused() -> None:
    side = 1 << 26
    assert side * side > MOST_PIXELS
    with pytest.raises(RecordError, match=f"cannot be resized to {side} x {side}"):
        resize(np.zeros((2, 2, 3), np.uint8), side, side)


def test_names_are_printable() -> None:
    assert image_name("a/", "\u732b.jpg".encode()) == '"a/\u732b.jpg"'
    assert image_name("", b"\xff.jpg") == '"\\xff.jpg"'
    assert image_name("", b"a\rb") == '"a\\rb"'
