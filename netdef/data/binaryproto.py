"""Arrays in .binaryproto files: one BlobProto each, as Caffe's tools write means and matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from netdef.data.source import RecordError, read_file
from netdef.proto import netdef_pb2 as pb

#: protobuf reads no message larger than this.
LARGEST_MESSAGE = (1 << 31) - 1

#: The most axes an array may have, as in Caffe.
MOST_AXES = 32


def read_blob(path: str, what: str, field: tuple[str, ...]) -> NDArray[Any]:
    """The array in a .binaryproto file, float32 or float64 as it was written.

    ``what`` is what messages call it, ``field`` the one that named the file. Raises ``RecordError``
    where the file is missing, no BlobProto, or contradicts itself.
    """
    try:
        content = read_file(path, LARGEST_MESSAGE)
    except RecordError as error:
        raise RecordError(f'the {what} "{path}" {error.text}', field, error.hint) from None
    try:
        blob = pb.BlobProto.FromString(content)
    except DecodeError:
        raise RecordError(
            f'the {what} "{path}" is no BlobProto',
            field,
            hint="expected is a .binaryproto file, such as compute_image_mean writes",
        ) from None
    values = np.array(blob.double_data or blob.data, np.float64 if blob.double_data else np.float32)
    shape = tuple(blob.shape.dim)
    if not blob.HasField("shape"):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    if len(shape) > MOST_AXES:
        raise RecordError(
            f'the {what} "{path}" has {len(shape)} axes, where {MOST_AXES} are the most', field
        )
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        extents = ", ".join(map(str, shape))
        raise RecordError(
            f'the {what} "{path}" has the shape ({extents}), but holds {values.size} values', field
        )
    return values.reshape(shape)
