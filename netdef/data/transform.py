"""transform_param: crop, mirror, subtract the mean, scale; (value - mean) * scale, as in Caffe.

Crop offsets and mirroring are a function of the layer's key and of how many records came before,
and of nothing else, so they do not depend on threads and a resumed run draws what an uninterrupted
one would have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdef import rng
from netdef.data.binaryproto import read_blob
from netdef.data.source import RecordError
from netdef.jit import inline, serial, workspace
from netdef.proto import netdef_pb2 as pb

#: Columns of a placement: size of the source image, top left corner of the crop, whether it is
#: mirrored.
HEIGHT, WIDTH, TOP, LEFT, FLIP = range(5)

#: Which word of a record's random stream decides what. A fourth one is free for the layer.
_WORD_TOP, _WORD_LEFT, _WORD_FLIP = range(3)
SPARE_WORD = 3


class Transform:
    """What a layer's ``transform_param`` does to images.

    ``random_crop``: crops are drawn at random (phase TRAIN) rather than taken from the centre.
    Raises ``RecordError`` for options that exclude each other and for a mean that cannot be read.
    """

    def __init__(
        self, config: pb.TransformationParameter, random_crop: bool, dtype: type[Any] = np.float32
    ) -> None:
        self.crop_size = config.crop_size
        self.mirror = config.mirror
        self.random_crop = random_crop
        self.dtype = dtype
        self.scale = dtype(config.scale)
        self._mean_file = config.mean_file
        self._mean = np.zeros((0, 1, 1), dtype)
        self._mean_image, self._mean_values = read_means(config, dtype)
        if config.force_color and config.force_gray:
            raise RecordError(
                "both force_color and force_gray are set", ("transform_param", "force_gray")
            )
        #: How encoded images are decoded: see ``images.decode``.
        self.color = True if config.force_color else False if config.force_gray else None

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape an image of this shape gets.

        Raises ``RecordError`` where it does not fit the options. The text of that error is a
        predicate: the caller puts before it what the image is called.
        """
        crop = self.crop_size
        if crop > min(height, width):
            raise RecordError(
                f"is {channels} x {height} x {width}, smaller than crop_size {crop}",
                ("transform_param", "crop_size"),
            )
        if self._mean_image is not None and self._mean_image.shape != (channels, height, width):
            mean = " x ".join(map(str, self._mean_image.shape))
            raise RecordError(
                f'is {channels} x {height} x {width}, but the mean in "{self._mean_file}" is '
                f"{mean}",
                ("transform_param", "mean_file"),
            )
        if self._mean_values.size:
            what = f"is {channels} x {height} x {width}"
            check_mean_values(self._mean_values, channels, what)
        return (channels, crop, crop) if crop else (channels, height, width)

    def place(
        self, key: np.uint64, first: int, sizes: NDArray[np.int64], shape: tuple[int, ...]
    ) -> NDArray[np.int64]:
        """Where in each image its crop lies, and whether it is mirrored: int64 (n, 5).

        ``first`` counts the records delivered before these, ``sizes`` (n, 2) holds heights and
        widths, ``shape`` (channels, height, width) is that of the crops.
        """
        placement = np.empty((len(sizes), 5), np.int64)
        placement[:, :2] = sizes
        _place(key, np.uint64(first), shape[1], shape[2], self.random_crop, self.mirror, placement)
        return placement

    def render(
        self,
        values: NDArray[Any],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        placement: NDArray[np.int64],
        out: NDArray[Any],
    ) -> None:
        """Write transformed images into ``out`` (n, channels, height, width).

        Image ``rows[i]`` of these, flat in ``values`` (uint8 or float32) from ``starts[i]`` on,
        goes to ``out[rows[i]]``.
        """
        _render(values, starts, rows, placement, self._mean_for(out.shape[1]), self.scale, out)

    def render_image(
        self, image: NDArray[np.uint8], key: np.uint64, ordinal: int, out: NDArray[Any]
    ) -> None:
        """Write the transformed image (height, width) or (height, width, channels) into ``out``.

        ``out`` is (channels, height, width). ``ordinal`` counts the records delivered before this
        one. Several threads may do so at once.
        """
        channels, height, width = out.shape
        placement = np.array([[image.shape[0], image.shape[1], 0, 0, 0]])
        _place(key, np.uint64(ordinal), height, width, self.random_crop, self.mirror, placement)
        mean = self._mean_for(channels)
        planes = workspace(out.size, np.uint8)[: out.size].reshape(out.shape)
        _render_image(image.reshape(-1), placement[0], mean, self.scale, planes, out)

    def _mean_for(self, channels: int) -> NDArray[Any]:
        """The mean as (channels, height, width) of the image, or (channels, 1, 1)."""
        if self._mean_image is not None:
            return self._mean_image
        mean = self._mean
        if len(mean) != channels:
            mean = np.zeros((channels, 1, 1), mean.dtype)
            if self._mean_values.size:
                mean[:, 0, 0] = self._mean_values
            self._mean = mean
        return mean


def read_means(
    config: pb.TransformationParameter, dtype: type[Any]
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """The mean image, if one is named, and the mean values; raises ``RecordError`` for both."""
    if config.mean_file and config.mean_value:
        raise RecordError(
            "both mean_file and mean_value are given",
            ("transform_param", "mean_value"),
            hint="keep one of them",
        )
    # A float64 beyond the range of float32 becomes infinite, as its cast makes it in Caffe.
    with np.errstate(over="ignore"):
        image = read_mean(config.mean_file).astype(dtype) if config.mean_file else None
    return image, np.array(config.mean_value, dtype)


def check_mean_values(values: NDArray[Any], channels: int, what: str) -> None:
    """Raise ``RecordError`` unless there is no mean value, one for all, or one per channel.

    ``what`` says what has these channels.
    """
    if values.size not in (0, 1, channels):
        raise RecordError(
            f"{what}, but {values.size} mean_value are given",
            ("transform_param", "mean_value"),
            hint=f"Specify either 1 mean_value or as many as channels: {channels}",
        )


def read_mean(path: str) -> NDArray[Any]:
    """The mean image (channels, height, width) in a .binaryproto file.

    Raises ``RecordError`` where the file cannot be read or holds no image.
    """
    field = ("transform_param", "mean_file")
    mean = read_blob(path, "mean", field)
    # Of several images only one could be meant, and which is not said.
    if not 3 <= mean.ndim <= 4 or not mean.size or (mean.ndim == 4 and len(mean) != 1):
        raise RecordError(
            f'the mean "{path}" is no image: its shape is ({", ".join(map(str, mean.shape))})',
            field,
        )
    return mean.reshape(mean.shape[-3:])


@serial
def _place(
    key: Any, first: Any, height: Any, width: Any, random_crop: Any, mirror: Any, placement: Any
) -> None:
    for i in range(placement.shape[0]):
        ordinal = first + np.uint64(i)
        spare_rows = placement[i, HEIGHT] - height
        spare_columns = placement[i, WIDTH] - width
        placement[i, TOP] = spare_rows // 2
        placement[i, LEFT] = spare_columns // 2
        placement[i, FLIP] = 0
        if random_crop:
            # A 32-bit fraction of the number of choices.
            word = np.int64(rng.bits(key, ordinal, np.uint64(_WORD_TOP)))
            placement[i, TOP] = (word * (spare_rows + 1)) >> 32
            word = np.int64(rng.bits(key, ordinal, np.uint64(_WORD_LEFT)))
            placement[i, LEFT] = (word * (spare_columns + 1)) >> 32
        if mirror:
            placement[i, FLIP] = np.int64(rng.bits(key, ordinal, np.uint64(_WORD_FLIP))) >> 31


@serial
def _render(
    values: Any, starts: Any, rows: Any, placement: Any, mean: Any, scale: Any, out: Any
) -> None:
    """out[rows[i]] = the image whose values, in order (channel, row, column), start at starts[i]"""
    for i in range(rows.size):
        place = placement[rows[i]]
        start = starts[i] + place[TOP] * place[WIDTH] + place[LEFT]
        steps = place[HEIGHT] * place[WIDTH], place[WIDTH]
        _render_planes(values, start, steps, place, mean, scale, out[rows[i]])


@serial
def _render_image(values: Any, place: Any, mean: Any, scale: Any, planes: Any, out: Any) -> None:
    """out = the image whose values are in the order (row, column, channel)

    ``planes`` (channels, height, width) takes the part that is wanted in the other order first.
    """
    channels, height, width = planes.shape
    for y in range(height):
        start = ((place[TOP] + y) * place[WIDTH] + place[LEFT]) * channels
        pixels = values[start : start + width * channels]
        if channels == 3:
            # A distance that is known when this is compiled lets vectors be loaded.
            blue, green, red = planes[0, y], planes[1, y], planes[2, y]
            for x in range(width):
                blue[x] = pixels[3 * x]
                green[x] = pixels[3 * x + 1]
                red[x] = pixels[3 * x + 2]
        else:
            for c in range(channels):
                plane = planes[c, y]
                for x in range(width):
                    plane[x] = pixels[x * channels + c]
    _render_planes(planes.reshape(-1), 0, (height * width, width), place, mean, scale, out)


@inline
def _render_planes(
    values: Any, start: Any, steps: Any, place: Any, mean: Any, scale: Any, out: Any
) -> None:
    """out = (values - mean) * scale, mirrored if ``place`` says so

    ``start``: where in ``values`` the part that is wanted begins. ``steps``: how far apart channels
    and rows are. ``place`` says where in the mean it begins.
    """
    channels, height, width = out.shape
    between_channels, between_rows = steps
    top, left, flip = place[TOP], place[LEFT], place[FLIP]
    mean_per_pixel = mean.shape[1] * mean.shape[2] > 1
    for c in range(channels):
        for y in range(height):
            first = start + c * between_channels + y * between_rows
            source = values[first : first + width]
            target = out[c, y]
            if mean_per_pixel:
                mean_row = mean[c, top + y, left : left + width]
                for x in range(width):
                    target[x] = (source[x] - mean_row[x]) * scale
            else:
                mean_value = mean[c, 0, 0]
                for x in range(width):
                    target[x] = (source[x] - mean_value) * scale
            if flip != 0:
                for x in range(width // 2):
                    other = target[width - 1 - x]
                    target[width - 1 - x] = target[x]
                    target[x] = other
