"""Varints, the integers of protobuf and of LevelDB: seven bits a byte, the lowest first."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import inline


@inline
def varint(buffer: Any, at: Any, end: Any) -> Any:
    """A value and where the next byte is; -1 where the bytes end first or it is too long."""
    value = np.int64(0)
    for i in range(10):
        if at >= end:
            return value, np.int64(-1)
        byte = np.int64(buffer[at])
        at += 1
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at
    return value, np.int64(-1)
