"""Window files: images with boxes in them, of which batches are drawn at random, as for R-CNN.

Which window a record takes, and whether it is mirrored, is a function of the layer's key and of how
many records came before, so a resumed run draws what an uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.data.batches import ImageBatch, ImageShape, Reader
from netdef.data.images import decode, image_name, read_image, resize
from netdef.data.source import RecordError, read_text
from netdef.data.transform import check_mean_values, read_means
from netdef.data.workers import Workers, default_threads
from netdef.jit import inline, serial
from netdef.proto import netdef_pb2 as pb

#: OpenCV decodes every image to blue, green and red, whatever the file says of its channels.
CHANNELS = 3

#: Columns of a table of windows: image, class, corners (both inside the window), line of the file.
IMAGE, LABEL, X1, Y1, X2, Y2, LINE = range(7)

#: Columns of the table of images: first byte and length of the path, line of the file.
PATH, PATH_SIZE, PATH_LINE = range(3)

#: What ``_parse`` reports: how many images and windows, then what is wrong where.
IMAGES, FOREGROUND, BACKGROUND, FAULT, FAULTY_LINE, GIVEN = range(6)
#: Values of FAULT.
(
    NO_FAULT,
    NO_HASH,
    NO_INDEX,
    WRONG_INDEX,
    NO_PATH,
    NO_SIZE,
    NO_COUNT,
    FEWER_WINDOWS,
    NO_WINDOW,
    NO_CLASS,
    NO_EXTENT,
) = range(11)

_COMPLAINTS = {
    NO_HASH: "should begin an image with # and its index",
    NO_INDEX: "should hold the index of an image after its #",
    WRONG_INDEX: "says # {given}, but images are numbered from 0, each one more than the last",
    NO_PATH: "should hold the path of an image",
    NO_SIZE: "should hold the channels, height and width of an image",
    NO_COUNT: "should hold the number of windows of an image",
    FEWER_WINDOWS: "is where the file ends, but its last image has more windows",
    NO_WINDOW: "is no window: class, overlap, x1, y1, x2, y2",
    NO_CLASS: "has a window with enough overlap for the foreground, but of class {given}",
    NO_EXTENT: "has a window that ends before it begins",
}

_HINT = (
    "for each image: # index, path, channels, height, width, number of windows, each on a line; "
    "then its windows"
)

_SPACE, _TAB, _NEWLINE, _RETURN, _HASH = 32, 9, 10, 13, 35
_ZERO, _NINE, _PLUS, _MINUS, _POINT, _LARGE_E, _SMALL_E = 48, 57, 43, 45, 46, 69, 101

#: Largest integer of the file, as in Caffe.
_MOST = (1 << 31) - 1


class Windows:
    """The windows of a file, apart as ``foreground`` and ``background``: int32 (n, 7) each.

    Read once, when made. Raises ``RecordError`` where there is no such file, or where a line of it
    makes no sense.
    """

    def __init__(self, config: pb.WindowDataParameter) -> None:
        self.path = config.source
        self._root = config.root_folder
        self._keep = config.cache_images
        self._kept: dict[int, NDArray[np.uint8]] = {}
        text = read_text(config.source, "window file")
        thresholds = np.float32(config.fg_threshold), np.float32(config.bg_threshold)
        report = np.zeros(6, np.int64)
        # The first pass only counts.
        _parse(text, *thresholds, *_tables(report), report)
        if report[FAULT]:
            complaint = _COMPLAINTS[int(report[FAULT])].format(given=report[GIVEN])
            raise RecordError(
                f'line {report[FAULTY_LINE]} of "{self.path}" {complaint}', hint=_HINT
            )
        if not report[IMAGES]:
            raise RecordError(f'the window file "{self.path}" is empty')
        images, self.foreground, self.background = _tables(report)
        _parse(text, *thresholds, images, self.foreground, self.background, report)
        self._images = [
            (text[start : start + size].tobytes(), line) for start, size, line in images.tolist()
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image (height, width, 3) of this index, decoded."""
        listed, _ = self._images[index]
        try:
            encoded = self._kept.get(index)
            if encoded is None:
                encoded = read_image(self._root, listed)
                if self._keep:
                    self._kept[index] = encoded
            return decode(encoded, color=True)
        except RecordError as error:
            raise error.of(self.name(index)) from None

    def name(self, index: int) -> str:
        """What messages call the image of this index."""
        listed, line = self._images[index]
        return f'{image_name(self._root, listed)} (line {line} of "{self.path}")'


#: x1, y1, x2, y2: the corners of a window, both inside it.
Box = tuple[int, int, int, int]


class Placement(NamedTuple):
    """Which part of an image is taken, and where in the crop it goes.

    ``left``, ``top``, ``right``, ``bottom``  the part, its last column and row inside
    ``width``, ``height``                     its size in the crop
    ``x``, ``y``                              where its first column and row are in the crop
    """

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    x: int
    y: int


class Cropper:
    """What a WindowData layer does to the windows it draws.

    Raises ``RecordError`` for a mean that cannot be read or does not fit.
    """

    def __init__(
        self,
        config: pb.WindowDataParameter,
        transform: pb.TransformationParameter,
        dtype: type[Any] = np.float32,
    ) -> None:
        self.size = transform.crop_size
        self.pad = config.context_pad
        self.square = config.crop_mode == "square"
        self.dtype = dtype
        self._scale = dtype(config.scale)
        self._mean = _mean(transform, self.size, dtype)

    def place(self, box: Box, height: int, width: int, mirror: bool) -> Placement:
        """Where the window ``box`` of an image of this size goes.

        Caffe's geometry: widened so that after warping there are ``context_pad`` pixels on each
        side, clipped to the image, and what lies beyond the image left as padding in the crop.
        Raises ``RecordError``, whose text is a predicate, where nothing is left.
        """
        x1, y1, x2, y2 = box
        size = self.size
        if not (self.pad or self.square):
            if x1 < 0 or y1 < 0 or x2 >= width or y2 >= height:
                raise RecordError(f"reaches beyond its image, which is {height} x {width}")
            return Placement(x1, y1, x2, y2, size, size, 0, 0)
        real = self.dtype
        context_scale = real(size) / real(size - 2 * self.pad)
        half_height = real(y2 - y1 + 1) / real(2)
        half_width = real(x2 - x1 + 1) / real(2)
        center_x = real(x1) + half_width
        center_y = real(y1) + half_height
        if self.square:
            half_height = half_width = max(half_height, half_width)
        x1 = _round(center_x - half_width * context_scale)
        x2 = _round(center_x + half_width * context_scale)
        y1 = _round(center_y - half_height * context_scale)
        y2 = _round(center_y + half_height * context_scale)
        scale_x = real(size) / real(x2 - x1 + 1)
        scale_y = real(size) / real(y2 - y1 + 1)
        beyond_left, beyond_right = max(0, -x1), max(0, x2 - width + 1)
        beyond_top, beyond_bottom = max(0, -y1), max(0, y2 - height + 1)
        left, right = x1 + beyond_left, x2 - beyond_right
        top, bottom = y1 + beyond_top, y2 - beyond_bottom
        # If the crop is mirrored, so is its padding.
        x = _round(real(beyond_right if mirror else beyond_left) * scale_x)
        y = _round(real(beyond_top) * scale_y)
        # Rounding may make the parts larger than the whole.
        across = min(_round(real(right - left + 1) * scale_x), size - x)
        down = min(_round(real(bottom - top + 1) * scale_y), size - y)
        if across < 1 or down < 1:
            raise RecordError(f"lies outside its image, which is {height} x {width}")
        return Placement(left, top, right, bottom, across, down, x, y)

    def crop(self, image: NDArray[np.uint8], box: Box, mirror: bool, out: NDArray[Any]) -> None:
        """Write the window ``box`` of an image into ``out`` (3, crop_size, crop_size)."""
        place = self.place(box, image.shape[0], image.shape[1], mirror)
        part = image[place.top : place.bottom + 1, place.left : place.right + 1]
        warped = resize(part, place.height, place.width)
        out.fill(0)
        _write(warped, place.y, place.x, mirror, self._mean, self._scale, out)


class WindowReader(Reader):
    """Draws the windows of each batch: first those of the background, then the foreground."""

    def __init__(
        self, windows: Windows, cropper: Cropper, mirror: bool, batch_size: int, foreground: int
    ) -> None:
        self._batch_size = batch_size
        self._windows = windows
        self._cropper = cropper
        self._mirror = mirror
        self._background = batch_size - foreground
        self._workers = Workers(default_threads(), "decode")
        for kind, wanted, table in (
            ("background", self._background, windows.background),
            ("foreground", foreground, windows.foreground),
        ):
            if wanted and not len(table):
                raise RecordError(
                    f'"{windows.path}" has no {kind} windows, but each batch needs {wanted}',
                    hint="see fg_threshold, bg_threshold and fg_fraction",
                )

    def shapes(self) -> list[tuple[int, ...]]:
        return [(self._batch_size, *self._shape), (self._batch_size,)]

    def start(self, key: np.uint64, records: int) -> None:
        self._key = key
        self._records = records

    def make(self) -> ImageBatch:
        batch = ImageBatch(self._batch_size, self._cropper.dtype)
        batch.reshape(self._shape)
        return batch

    def fill(self, batch: ImageBatch, stopped: Callable[[], bool]) -> None:
        windows = self._windows
        drawn = np.empty((len(batch), 2), np.int64)
        counts = np.array([len(windows.background), len(windows.foreground)], np.uint64)
        _draw(self._key, np.uint64(self._records), self._background, counts, drawn)

        def crop_window(item: int) -> None:
            index, flip = drawn[item].tolist()
            table = windows.background if item < self._background else windows.foreground
            image, label, x1, y1, x2, y2, line = table[index].tolist()
            pixels = windows.image(image)
            mirror = self._mirror and flip == 1
            try:
                self._cropper.crop(pixels, (x1, y1, x2, y2), mirror, batch.data[item])
            except RecordError as error:
                raise error.of(f'the window on line {line} of "{windows.path}"') from None
            batch.labels[item] = label

        self._workers.run(crop_window, len(batch), stopped)
        self._records += len(batch)

    def close(self) -> None:
        self._workers.close()

    @property
    def _shape(self) -> ImageShape:
        return CHANNELS, self._cropper.size, self._cropper.size


def _tables(report: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Tables of images, of foreground and of background windows, as long as was counted."""
    images, foreground, background = report[: BACKGROUND + 1].tolist()
    return (
        np.empty((images, 3), np.int64),
        np.empty((foreground, 7), np.int32),
        np.empty((background, 7), np.int32),
    )


def _mean(transform: pb.TransformationParameter, size: int, dtype: type[Any]) -> NDArray[Any]:
    """The mean of each value of a crop; of a mean image, its middle."""
    image, values = read_means(transform, dtype)
    if image is None:
        check_mean_values(values, CHANNELS, f"windows have {CHANNELS} channels")
        mean = np.zeros((CHANNELS, size, size), dtype)
        if values.size:
            mean[:] = values[:, None, None]
        return mean
    channels, height, width = image.shape
    # As in Caffe, the width says for both axes where the middle begins.
    start = (width - size) // 2
    if channels != CHANNELS or start < 0 or start + size > height:
        raise RecordError(
            f"windows become {CHANNELS} x {size} x {size}, but the mean in "
            f'"{transform.mean_file}" is {channels} x {height} x {width}',
            ("transform_param", "mean_file"),
        )
    return np.ascontiguousarray(image[:, start : start + size, start : start + size])


def _round(value: Any) -> int:
    """The nearest integer; of two, the one farther from zero, as in C."""
    part, whole = math.modf(value)
    return int(whole) + (int(math.copysign(1, part)) if abs(part) >= 0.5 else 0)


@inline
def _is_blank(byte: Any) -> Any:
    return byte in (_SPACE, _TAB, _RETURN)


@inline
def _is_digit(byte: Any) -> Any:
    return _ZERO <= byte <= _NINE


@inline
def _skip(text: Any, at: Any) -> Any:
    """Where the blanks at ``at`` end."""
    while at < text.size and _is_blank(text[at]):
        at += 1
    return at


@inline
def _skip_lines(text: Any, at: Any, line: Any) -> Any:
    """Where the blanks and line ends at ``at`` end, and the number of the line there."""
    while at < text.size and (_is_blank(text[at]) or text[at] == _NEWLINE):
        line += text[at] == _NEWLINE
        at += 1
    return at, line


@inline
def _end(text: Any, at: Any) -> Any:
    """``at`` if a number may end there, else -1."""
    ends = at >= text.size or _is_blank(text[at]) or text[at] == _NEWLINE
    return at if ends else np.int64(-1)


@inline
def _integer(text: Any, at: Any) -> Any:
    """An integer of 32 bits after blanks, and where it ends; -1 where there is none."""
    if at < 0:
        return np.int64(0), np.int64(-1)
    at = _skip(text, at)
    negative = at < text.size and text[at] == _MINUS
    if at < text.size and (text[at] == _MINUS or text[at] == _PLUS):
        at += 1
    value = np.int64(0)
    first = at
    while at < text.size and _is_digit(text[at]):
        value = value * 10 + text[at] - _ZERO
        at += 1
        if value > _MOST:
            return value, np.int64(-1)
    if at == first:
        return value, np.int64(-1)
    return -value if negative else value, _end(text, at)


@inline
def _real(text: Any, at: Any) -> Any:
    """A number after blanks, and where it ends; -1 where there is none."""
    if at < 0:
        return 0.0, np.int64(-1)
    at = _skip(text, at)
    sign = 1.0
    if at < text.size and (text[at] == _MINUS or text[at] == _PLUS):
        sign = -1.0 if text[at] == _MINUS else 1.0
        at += 1
    value = 0.0
    digits = 0
    exponent = np.int64(0)
    while at < text.size and _is_digit(text[at]):
        value = value * 10 + (text[at] - _ZERO)
        digits += 1
        at += 1
    if at < text.size and text[at] == _POINT:
        at += 1
        while at < text.size and _is_digit(text[at]):
            value = value * 10 + (text[at] - _ZERO)
            digits += 1
            exponent -= 1
            at += 1
    if digits == 0:
        return value, np.int64(-1)
    if at < text.size and (text[at] == _SMALL_E or text[at] == _LARGE_E):
        power, at = _integer(text, at + 1)
        exponent += power
    exact = value / 10.0**-exponent if exponent < 0 else value * 10.0**exponent
    return sign * exact, at if at < 0 else _end(text, at)


@serial
def _parse(
    text: Any,
    fg_threshold: Any,
    bg_threshold: Any,
    images: Any,
    foreground: Any,
    background: Any,
    report: Any,
) -> None:
    """Fill the rows of the tables that there are, and count those that there should be."""
    report[:] = 0
    size = text.size
    fault = NO_FAULT
    given = np.int64(0)
    line = np.int64(1)
    at = np.int64(0)
    while fault == NO_FAULT:
        at, line = _skip_lines(text, at, line)
        if at == size:
            break
        if text[at] != _HASH:
            fault = NO_HASH
            break
        index, at = _integer(text, at + 1)
        if at < 0:
            fault = NO_INDEX
            break
        if index != report[IMAGES]:
            fault = WRONG_INDEX
            given = index
            break
        at, line = _skip_lines(text, at, line)
        if at == size:
            fault = NO_PATH
            break
        start = at
        while at < size and text[at] != _NEWLINE:
            at += 1
        end = at
        while _is_blank(text[end - 1]):
            end -= 1
        if index < images.shape[0]:
            images[index, PATH] = start
            images[index, PATH_SIZE] = end - start
            images[index, PATH_LINE] = line
        report[IMAGES] += 1
        windows = np.int64(0)
        for i in range(4):
            at, line = _skip_lines(text, at, line)
            windows, at = _integer(text, at)
            if at < 0 or windows < 0:
                fault = NO_COUNT if i == 3 else NO_SIZE
                break
        if fault != NO_FAULT:
            break
        for _ in range(windows):
            at, line = _skip_lines(text, at, line)
            if at == size:
                fault = FEWER_WINDOWS
                break
            label, at = _integer(text, at)
            overlap, at = _real(text, at)
            x1, at = _integer(text, at)
            y1, at = _integer(text, at)
            x2, at = _integer(text, at)
            y2, at = _integer(text, at)
            if at >= 0:
                at = _skip(text, at)
            if at < 0 or (at < size and text[at] != _NEWLINE):
                fault = NO_WINDOW
                break
            inside = np.float32(overlap) >= fg_threshold
            if not (inside or np.float32(overlap) < bg_threshold):
                continue
            if inside and label < 1:
                fault = NO_CLASS
                given = label
                break
            if x2 < x1 or y2 < y1:
                fault = NO_EXTENT
                break
            table = foreground if inside else background
            row = report[FOREGROUND if inside else BACKGROUND]
            if row < table.shape[0]:
                table[row, IMAGE] = index
                table[row, LABEL] = label if inside else 0
                table[row, X1] = x1
                table[row, Y1] = y1
                table[row, X2] = x2
                table[row, Y2] = y2
                table[row, LINE] = line
            report[FOREGROUND if inside else BACKGROUND] += 1
    report[FAULT] = fault
    report[FAULTY_LINE] = line
    report[GIVEN] = given


@serial
def _draw(key: Any, first: Any, background: Any, counts: Any, drawn: Any) -> None:
    """Which window each record of a batch takes, and whether it is mirrored."""
    for i in range(drawn.shape[0]):
        record = first + np.uint64(i)
        count = counts[0] if i < background else counts[1]
        drawn[i, 0] = rng.below(key, record, np.uint64(0), count)
        drawn[i, 1] = np.int64(rng.bits(key, record, np.uint64(2))) >> 31


@serial
def _write(image: Any, top: Any, left: Any, mirror: Any, mean: Any, scale: Any, out: Any) -> None:
    """out = (image - mean) * scale, the image (height, width, channels) at this place of it."""
    height, width, channels = image.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                source = image[y, width - 1 - x if mirror else x, c]
                row, column = top + y, left + x
                out[c, row, column] = (source - mean[c, row, column]) * scale
