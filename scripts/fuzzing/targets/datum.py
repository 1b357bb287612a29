"""Records: Datum with raw bytes, floats, and encoded images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fuzzing.mutations import Random, spoil, spoil_bytes, spoil_message
from netdef.data.datum import DatumImages
from netdef.data.images import Images
from netdef.data.source import Records, Source
from netdef.proto import netdef_pb2 as pb

COUNT = 3_000


@functools.cache
def originals() -> Sequence[bytes]:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    shape: dict[str, Any] = {"channels": 3, "height": 8, "width": 6}
    datums = [
        pb.Datum(data=image.tobytes(), label=3, **shape),
        pb.Datum(float_data=image.reshape(-1).tolist(), label=-1, **shape),
        pb.Datum(data=_encoded(".jpg", image), label=7, encoded=True),
        pb.Datum(data=_encoded(".png", image), label=7, encoded=True, **shape),
        pb.Datum(data=_encoded(".png", image[:, :, 0]), encoded=True),
    ]
    return [datum.SerializeToString() for datum in datums]


def _encoded(suffix: str, image: Any) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def mutant(random: Random) -> bytes:
    content = originals()[int(random.integers(len(originals())))]
    return spoil(random, content, [spoil_message, spoil_message, spoil_bytes])


def read(content: bytes, folder: Path) -> None:
    """As a Data layer reads records, in the colours of the file, in colour, and in grey."""
    for color in (None, True, False):
        images = DatumImages(_Given(content), color)
        images.first()
        take(images, 1)


class _Given(Source):
    """One record, in memory."""

    kind = "given"
    path = "given"
    size = 1

    def __init__(self, content: bytes) -> None:
        self._records = Records(
            np.frombuffer(content or b"\0", np.uint8),
            np.array([[0, len(content), 0, 0]]),
            0,
            "given",
        )

    def seek(self, position: int) -> None:
        pass

    def read(self, count: int) -> Records:
        return self._records


def take(images: DatumImages, count: int) -> Images:
    """Records with all their values."""
    found = images.read(count)
    for row in found.encoded:
        found.decode(int(row)).sum()
    for pixels in found.pixels:
        pixels.values.sum()
    return found
