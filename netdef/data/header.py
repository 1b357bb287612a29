"""What the first bytes of an image file say of it, without decoding it."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

#: Of a JPEG the size may come behind other things, such as a small picture of it.
LONGEST_HEADER = 1 << 20

#: Channels of PNGs by their type of colour: gray, colour, a palette of colours, and with alpha.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}


def kind_of(file: NDArray[np.uint8]) -> str:
    """The format of an image file, as people call it; "image" where that is none of the usual."""
    head = file[:12].tobytes()
    if head.startswith(PNG):
        return "PNG"
    if head.startswith(JPEG):
        return "JPEG"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"GIF8"):
        return "GIF"
    return "image"


def channels_of(file: NDArray[np.uint8]) -> int | None:
    """How many channels a PNG or JPEG has, alpha not counted; None where that is not known."""
    head = file[:26].tobytes()
    if head.startswith(PNG) and len(head) == 26:
        return _PNG_CHANNELS.get(head[25])
    if not head.startswith(JPEG):
        return None
    content = file[:LONGEST_HEADER].tobytes()
    at = 2
    # Segments: a marker of two bytes, then how long the rest is.
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        # Starts of frames; among their numbers are three that stand for something else.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[at + 9]
        (size,) = struct.unpack_from(">H", content, at + 2)
        at += 2 + size
    return None


def is_cut_short(file: NDArray[np.uint8]) -> bool:
    """Whether a PNG or JPEG lacks its end. OpenCV decodes such a JPEG, and fills the rest gray."""
    head = file[:8].tobytes()
    # Some programs put a few bytes behind the end.
    tail = file[-1024:].tobytes()
    if head.startswith(PNG):
        return b"IEND" not in tail
    if head.startswith(JPEG):
        return b"\xff\xd9" not in tail
    return False
