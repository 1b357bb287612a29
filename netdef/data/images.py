"""Labelled images as their sources give them: of any size, not transformed, many still encoded."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef.data import claims
from netdef.data.source import RecordError, printable, read_file

#: OpenCV decodes no image of more pixels.
MOST_PIXELS = 1 << 30


NO_ROWS: NDArray[np.int64] = np.empty(0, np.int64)


class Pixels(NamedTuple):
    """Values of some images, each in the order (channel, row, column).

    Those of image ``rows[i]`` start at ``values[starts[i]]``.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    values: NDArray[np.uint8] | NDArray[np.float32]


class Images(NamedTuple):
    """Consecutive images of a source. Some have their values here, the others are yet to decode.

    ``labels``   int64 (n,)
    ``sizes``    int64 (n, 3): channels, height and width of those that have values
    ``pixels``   their values
    ``encoded``  int64: the numbers of the others, ascending
    ``decode``   makes image ``i`` of these, (height, width) or (height, width, channels), on any
                 thread; raises ``RecordError`` where that cannot be
    ``name``     what to call image ``i`` in a message
    ``doubt``    something the user should be told once, or nothing
    ``alike``    whether all that have values are known to be of one size
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    pixels: list[Pixels]
    encoded: NDArray[np.int64]
    decode: Callable[[int], NDArray[np.uint8]]
    name: Callable[[int], str]
    doubt: str = ""
    alike: bool = False


class ImageSource:
    """Labelled images in an order without end: after the last comes the first again."""

    #: How many images there are; at least 1.
    size: int
    #: What to do where images of several sizes cannot be one batch.
    advice = "give a crop_size, or make all records the same size"

    def first(self) -> Images:
        """The first image, whatever was read before."""
        raise NotImplementedError

    def seek(self, records: int, key: np.uint64) -> None:
        """Continue as if ``records`` images had been read; a random order depends on ``key``."""
        raise NotImplementedError

    def read(self, count: int) -> Images:
        """The next images: at least one, at most ``count``, none beyond the last one.

        Raises ``RecordError`` where the first of them is missing or damaged; where a later one is,
        those before it are given first.
        """
        raise NotImplementedError

    def confirm(self) -> None:
        """Raise ``RecordError`` if someone may have changed the images since they were read."""

    def close(self) -> None:
        """Let go of the files. Doing so twice is fine."""


def image_name(root: str, listed: bytes) -> str:
    """What messages call the image file ``listed`` in the folder ``root``."""
    return f'"{printable(os.fsencode(root) + listed)}"'


def read_image(root: str, listed: bytes) -> NDArray[np.uint8]:
    """The bytes of the image file ``listed``; ``root`` is put before it as it is.

    Raises ``RecordError``, whose text is a predicate, where it cannot be read.
    """
    name = os.fsdecode(listed)
    path = root + name
    try:
        return np.frombuffer(read_file(path), np.uint8)
    except RecordError as error:
        if os.path.exists(path):
            raise
        apart = os.path.join(root, name)
        if os.path.exists(apart):
            advice = (
                "give no root_folder" if os.path.isabs(name) else "end root_folder with a slash"
            )
            hint = f'"{apart}" does exist: {advice}'
            raise RecordError(error.text, ("root_folder",), hint) from None
        if name.endswith(" "):
            raise RecordError(error.text, hint="this path ends with a space") from None
        raise


def decode(encoded: NDArray[np.uint8], color: bool | None) -> NDArray[np.uint8]:
    """The image (height, width) or (height, width, channels) in the bytes of an image file.

    ``color`` True: BGR; False: grey; None: as it is, with any alpha. Raises ``RecordError``, whose
    text is a predicate, where it cannot be decoded.
    """
    claims.check(encoded)
    cv2 = opencv()
    flag = {True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE, None: cv2.IMREAD_UNCHANGED}[color]
    try:
        image: Any = cv2.imdecode(encoded, flag)
    except cv2.error:
        image = None
    if image is None:
        raise RecordError("is an image that cannot be decoded")
    if image.dtype != np.uint8:
        raise RecordError(
            f"is an image of {image.dtype} values",
            hint="only 8-bit images can be used; convert them first",
        )
    decoded: NDArray[np.uint8] = image
    return decoded


def size_of(image: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Channels, height and width of a decoded image."""
    height, width = image.shape[:2]
    return image.shape[2] if image.ndim == 3 else 1, height, width


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The image in another size, bilinear, as in Caffe.

    Raises ``RecordError``, whose text is a predicate, where there is no memory for that.
    """
    cv2 = opencv()
    try:
        resized: NDArray[np.uint8] = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_LINEAR
        )
    except cv2.error as error:
        raise RecordError(f"cannot be resized to {height} x {width}: {error.err}") from None
    return resized


@cache
def opencv() -> Any:
    """OpenCV, on one thread: images are shared out among threads as wholes, not in parts."""
    import cv2

    cv2.setNumThreads(1)
    return cv2
