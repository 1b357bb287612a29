"""Lists of images: a text file with a line "path label" for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.data.images import (
    Images,
    ImageSource,
    decode,
    image_name,
    read_image,
    resize,
)
from netdef.data.listing import Listing
from netdef.data.source import RecordError
from netdef.jit import serial
from netdef.proto import netdef_pb2 as pb


class ImageList(ImageSource):
    """The images that a list names.

    Read once, when made: the file may change later. Raises ``RecordError`` where there is none, or
    where a line of it makes no sense.
    """

    advice = "give new_height and new_width, or a crop_size"

    def __init__(self, config: pb.ImageDataParameter) -> None:
        self.path = config.source
        self._config = config
        self._listing = Listing(config.source)
        if len(self._listing.faults):
            raise RecordError(*self._listing.fault(0))
        self.size = len(self._listing)
        if not self.size:
            raise RecordError(f'the list "{self.path}" names no images')
        #: The order of this epoch, where there is another than that of the lines.
        self._order: NDArray[np.int64] | None = None
        self._key = np.uint64(0)
        self._epoch = 0
        self._position = 0

    def first(self) -> Images:
        return self._images(np.zeros(1, np.int64))

    def seek(self, records: int, key: np.uint64) -> None:
        self._key = key
        self._epoch, self._position = divmod(records, self.size)
        self._shuffle()

    def read(self, count: int) -> Images:
        if self._position == self.size:
            self._epoch += 1
            self._position = 0
            self._shuffle()
        stop = min(self._position + count, self.size)
        entries = np.arange(self._position, stop)
        self._position = stop
        return self._images(entries if self._order is None else self._order[entries])

    def _shuffle(self) -> None:
        """Draw the order of this epoch: a function of the key and of the epoch alone."""
        if self._config.shuffle:
            self._order = np.arange(self.size)
            shuffle_order(self._key, np.uint64(self._epoch), self._order)

    def _images(self, entries: NDArray[np.int64]) -> Images:
        """The images of these entries of the list, all of them to be read and decoded."""
        config, listing = self._config, self._listing

        def name(row: int) -> str:
            entry = int(entries[row])
            listed = image_name(config.root_folder, listing.path_of(entry))
            return f'{listed} (line {listing.line_of(entry)} of "{self.path}")'

        def decode_row(row: int) -> NDArray[np.uint8]:
            try:
                encoded = read_image(config.root_folder, listing.path_of(int(entries[row])))
                image = decode(encoded, config.is_color)
                if config.new_height:
                    image = resize(image, config.new_height, config.new_width)
            except RecordError as error:
                raise error.of(name(row)) from None
            return image

        rows = np.arange(len(entries))
        sizes = np.zeros((len(entries), 3), np.int64)
        return Images(listing.labels[entries], sizes, [], rows, decode_row, name)


@serial
def shuffle_order(key: Any, epoch: Any, order: Any) -> None:
    # Fisher & Yates. Block 0 of a stream belongs to the records: see ``transform``.
    for i in range(order.size - 1, 0, -1):
        j = np.int64(rng.below(key, epoch, np.uint64(i), np.uint64(i + 1)))
        held = order[i]
        order[i] = order[j]
        order[j] = held
