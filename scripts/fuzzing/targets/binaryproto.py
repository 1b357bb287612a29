"""Mean images and matrices: .binaryproto."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fuzzing.mutations import Random, spoil, spoil_bytes, spoil_message
from netdef.data.binaryproto import read_blob
from netdef.proto import netdef_pb2 as pb

COUNT = 2_000


@functools.cache
def originals() -> Sequence[bytes]:
    values = np.arange(12, dtype=np.float32)
    old = pb.BlobProto(num=1, channels=3, height=2, width=2, data=values)
    new = pb.BlobProto(shape=pb.BlobShape(dim=[3, 2, 2]), double_data=values)
    return [old.SerializeToString(), new.SerializeToString()]


def mutant(random: Random) -> bytes:
    content = originals()[int(random.integers(len(originals())))]
    return spoil(random, content, [spoil_message, spoil_bytes])


def read(content: bytes, folder: Path) -> None:
    path = folder / "mean.binaryproto"
    path.write_bytes(content)
    read_blob(str(path), "mean file", ("transform_param", "mean_file"))
