"""What an image file claims to hold, before it is believed.

A JPEG of some hundred bytes can claim 65,500 x 65,500 pixels, a PNG a part of two gigabytes.
Decoders take the memory for them and fill it, seconds or minutes long, though there is next to
nothing to decode.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdef.data.source import RecordError

#: A byte of a JPEG stands for no more bytes of an image: at least a bit for each block of 8 x 8, of
#: which three colours, two of them at half the resolution, have six for 16 x 16 pixels.
MOST_EXPANSION = 1024

#: Images that take no more bytes than this are decoded, whatever their files are like.
SMALL_BYTES = 1 << 22

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"

#: Markers that nothing follows, and those of a frame's start, which has its size.
_ALONE = {0x01, *range(0xD0, 0xD9)}
_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def check(file: NDArray[np.uint8]) -> None:
    """Raise ``RecordError``, whose text is a predicate, where a file cannot hold what it claims."""
    if file[:8].tobytes() == _PNG:
        _check_png(file)
    size = jpeg_size(file)
    if size is None:
        return
    channels, height, width = size
    claimed = channels * height * width
    if claimed > max(MOST_EXPANSION * len(file), SMALL_BYTES):
        raise RecordError(
            f"is a JPEG that claims {width} x {height} pixels, which its {len(file)} bytes cannot "
            "hold",
            hint="it may be cut short",
        )


def _check_png(file: NDArray[np.uint8]) -> None:
    at = len(_PNG)
    # Chunks: the length of what they hold, a name, that, and a checksum.
    while at + 8 <= len(file):
        length = int.from_bytes(file[at : at + 4].tobytes(), "big")
        if length > max(len(file) - at, SMALL_BYTES):
            raise RecordError(
                f"is a PNG with a chunk that claims {length} bytes, where {len(file) - at - 8} are "
                "left",
                hint="it may be cut short",
            )
        at += 12 + length


def jpeg_size(file: NDArray[np.uint8]) -> tuple[int, int, int] | None:
    """Channels, height and width as a JPEG states them; None where they are not found."""
    if file[:3].tobytes() != _JPEG:
        return None
    at = 2
    # Segments: 0xFF, a marker, the length of the rest, which counts itself.
    while at + 10 <= len(file) and file[at] == 0xFF:
        marker = int(file[at + 1])
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAME:
            height, width = (int(file[at + n]) << 8 | int(file[at + n + 1]) for n in (5, 7))
            return int(file[at + 9]), height, width
        else:
            at += 2 + (int(file[at + 2]) << 8 | int(file[at + 3]))
    return None
