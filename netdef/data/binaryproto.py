"""Arrays in .binaryproto files: one BlobProto each, as Caffe's tools write means and matrices."""

from __future__ import annotations

import math
import os
import stat
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from netdef.data.source import RecordError
from netdef.proto import netdef_pb2 as pb

#: protobuf reads no message larger than this.
LARGEST_MESSAGE = (1 << 31) - 1


def read_blob(path: str, what: str, field: tuple[str, ...]) -> NDArray[Any]:
    """The array in a .binaryproto file, float32 or float64 as it was written.

    ``what`` is what messages call it, ``field`` the one that named the file. Raises ``RecordError``
    where the file is missing, no BlobProto, or contradicts itself.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # A pipe would be waited for, a device read without end.
            raise RecordError(f'the {what} "{path}" cannot be read: it is no regular file', field)
        if os.path.getsize(path) > LARGEST_MESSAGE:
            raise RecordError(f'the {what} "{path}" is larger than 2 GiB, so no BlobProto', field)
        with open(path, "rb") as file:
            blob = pb.BlobProto.FromString(file.read())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecordError(f'the {what} "{path}" cannot be read: {reason}', field) from None
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
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        extents = ", ".join(map(str, shape))
        raise RecordError(
            f'the {what} "{path}" has the shape ({extents}), but holds {values.size} values', field
        )
    return values.reshape(shape)
