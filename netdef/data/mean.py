"""The mean image of a database, as Caffe's compute_image_mean makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdef.data.datum import DatumImages
from netdef.data.images import Images, size_of
from netdef.data.source import RecordError, Source
from netdef.data.workers import Workers, default_threads
from netdef.data.writer import Progress, ignore
from netdef.files import atomic_write
from netdef.jit import serial
from netdef.proto import netdef_pb2 as pb

#: Records read at a time.
RUN = 64


def mean_image(
    source: Source, *, threads: int | None = None, progress: Progress = ignore
) -> NDArray[np.float32]:
    """The mean of all records, (channels, height, width).

    Sums are exact for bytes, and in float64 for floats; so up to 65 793 images the result has the
    bits of Caffe's, which sums in float32. Raises ``RecordError`` where a record is damaged or of
    another size than the first.
    """
    images = DatumImages(source, None)
    workers = Workers(threads or default_threads(), "decode")
    sums: NDArray[np.float64] | None = None
    first = ""
    done = 0
    try:
        while done < source.size:
            part = images.read(min(RUN, source.size - done))
            decoded: dict[int, NDArray[np.uint8]] = {}

            def decode_row(number: int, part: Images = part, decoded: Any = decoded) -> None:
                row = int(part.encoded[number])
                decoded[row] = part.decode(row)

            workers.run(decode_row, len(part.encoded), lambda: False)
            sizes = part.sizes.copy()
            for row, image in decoded.items():
                sizes[row] = size_of(image)
            if sums is None:
                sums = np.zeros(sizes[0], np.float64)
                first = part.name(0)
            for row in np.flatnonzero((sizes != sums.shape).any(axis=1)).tolist():
                given, begun = (" x ".join(map(str, size)) for size in (sizes[row], sums.shape))
                raise RecordError(
                    f"{part.name(row)} is {given}, but {first} is {begun}",
                    hint="only images of one size have a mean image",
                )
            for pixels in part.pixels:
                _add(pixels.values, pixels.starts, sums.reshape(-1))
            for row in sorted(decoded):
                _add_image(decoded[row].reshape(sums.shape[1], sums.shape[2], -1), sums)
            done += len(part.labels)
            progress("mean", done, source.size)
    finally:
        workers.close()
    assert sums is not None
    mean: NDArray[np.float32] = sums.astype(np.float32) / np.float32(done)
    return mean


def write_mean(mean: NDArray[np.float32], path: Path) -> None:
    """Write a mean image as a BlobProto. Raises ``OutputError``."""
    blob = pb.BlobProto(
        num=1, channels=mean.shape[0], height=mean.shape[1], width=mean.shape[2], data=mean.ravel()
    )
    with atomic_write(path) as file:
        file.write(blob.SerializeToString())


@serial
def _add(values: Any, starts: Any, sums: Any) -> None:
    for i in range(starts.size):
        for j in range(sums.size):
            sums[j] += values[starts[i] + j]


@serial
def _add_image(image: Any, sums: Any) -> None:
    channels, height, width = sums.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                sums[c, y, x] += image[y, x, c]
