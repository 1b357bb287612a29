"""transform_param against numpy, the evenness of its draws, and options that do not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.data.source import RecordError
from netdef.data.transform import FLIP, LEFT, TOP, Transform, read_mean, read_means
from netdef.proto import netdef_pb2 as pb

KEY = np.uint64(0x1234_5678_9ABC_DEF0)
RNG = np.random.default_rng(0)


def apply(
    transform: Transform, images: np.ndarray, dtype: type[Any] = np.float32, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Transformed images and their placement."""
    n, channels, height, width = images.shape
    shape = transform.shape(channels, height, width)
    placement = transform.place(KEY, first, np.full((n, 2), (height, width)), shape)
    out = np.full((n, *shape), np.nan, dtype)
    values = np.frombuffer(images.tobytes(), images.dtype)
    starts = np.arange(n) * images[0].size
    # Every second image first: rows may come in any order.
    for rows in (np.arange(0, n, 2), np.arange(1, n, 2)):
        transform.render(values, starts[rows], rows, placement, out)
    return out, placement


def reference(
    images: np.ndarray, placement: np.ndarray, size: int, mean: np.ndarray, scale: float
) -> np.ndarray:
    """(x - mean) * scale, cropped, mirrored; in double precision."""
    whole = (images.astype(np.float64) - mean) * scale
    out = []
    for image, place in zip(whole, placement, strict=True):
        top, left = place[TOP], place[LEFT]
        crop = image[:, top : top + size, left : left + size] if size else image
        out.append(crop[:, :, ::-1] if place[FLIP] else crop)
    return np.array(out)


MEAN = RNG.uniform(90, 130, (3, 11, 14)).astype(np.float32)


@pytest.mark.parametrize("pixel", [np.uint8, np.float32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("random_crop", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 8, 11])
@pytest.mark.parametrize("mean", ["none", "one", "three", "file"])
def test_against_numpy(
    tmp_path: Path,
    pixel: type[Any],
    dtype: type[Any],
    random_crop: bool,
    crop: int,
    mean: str,
) -> None:
    config = pb.TransformationParameter(scale=0.0078125, mirror=True, crop_size=crop)
    expected_mean = np.zeros((1, 1, 1))
    if mean == "one":
        config.mean_value.append(127.5)
        expected_mean[:] = 127.5
    elif mean == "three":
        config.mean_value.extend([104, 117, 123])
        expected_mean = np.array([104, 117, 123.0]).reshape(3, 1, 1)
    elif mean == "file":
        config.mean_file = str(write_mean(tmp_path / "mean.binaryproto", MEAN))
        expected_mean = MEAN.astype(np.float64)
    images = RNG.integers(0, 256, (6, 3, 11, 14)).astype(pixel)
    got, placement = apply(Transform(config, random_crop, dtype), images, dtype)
    expected = reference(images, placement, crop, expected_mean, 0.0078125)
    # Scale is a power of two, so only the subtraction rounds.
    np.testing.assert_allclose(got, expected, rtol=np.finfo(dtype).eps, atol=1e-6)
    assert placement[:, FLIP].min() == 0
    if not random_crop:
        assert (placement[:, TOP] == ((11 - crop) // 2 if crop else 0)).all()
        assert (placement[:, LEFT] == ((14 - crop) // 2 if crop else 0)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("crop", [0, 1, 8])
@pytest.mark.parametrize("mean", ["one", "file"])
def test_an_image_becomes_what_its_planes_become(
    tmp_path: Path, dtype: type[Any], channels: int, crop: int, mean: str
) -> None:
    """Decoded images have their channels innermost; one of 0 channels has no axis for them."""
    planes = max(1, channels)
    config = pb.TransformationParameter(scale=0.3, mirror=True, crop_size=crop)
    if mean == "one":
        config.mean_value.append(127.5)
    else:
        means = RNG.uniform(90, 130, (planes, 11, 14)).astype(np.float32)
        config.mean_file = str(write_mean(tmp_path / "mean.binaryproto", means))
    transform = Transform(config, True, dtype)
    images = RNG.integers(0, 256, (8, planes, 11, 14), np.uint8)
    expected, placement = apply(transform, images, dtype, first=5)
    assert 0 < placement[:, FLIP].sum() < 8
    for i, image in enumerate(images):
        decoded = np.ascontiguousarray(image.transpose(1, 2, 0) if channels else image[0])
        out = np.full(expected.shape[1:], np.nan, dtype)
        transform.render_image(decoded, KEY, 5 + i, out)
        np.testing.assert_array_equal(out, expected[i])


def test_mirror_is_drawn_in_both_phases_and_only_if_asked_for() -> None:
    images = np.zeros((200, 1, 2, 2), np.uint8)
    for random_crop in (False, True):
        config = pb.TransformationParameter(mirror=True)
        _, placement = apply(Transform(config, random_crop), images)
        assert 0 < placement[:, FLIP].sum() < 200
        _, placement = apply(Transform(pb.TransformationParameter(), random_crop), images)
        assert not placement[:, FLIP].any()


def test_draws_depend_on_the_record_alone() -> None:
    transform = Transform(pb.TransformationParameter(crop_size=5, mirror=True), random_crop=True)
    sizes = np.full((100, 2), (20, 30))
    whole = transform.place(KEY, 0, sizes, (1, 5, 5))
    parts = [transform.place(KEY, i, sizes[:1], (1, 5, 5)) for i in range(100)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    other = transform.place(KEY + np.uint64(1), 0, sizes, (1, 5, 5))
    assert (other != whole).any()


def test_crops_and_mirrors_are_even() -> None:
    """Chi-squared over all (top, left, mirror); a correct generator fails 1 key in a million.

    The key is fixed, so the outcome is too.
    """
    transform = Transform(pb.TransformationParameter(crop_size=8, mirror=True), random_crop=True)
    n, rows, columns = 60_000, 4, 5
    sizes = np.full((n, 2), (8 + rows - 1, 8 + columns - 1))
    placement = transform.place(KEY, 0, sizes, (1, 8, 8))
    cell = (placement[:, TOP] * columns + placement[:, LEFT]) * 2 + placement[:, FLIP]
    counts = np.bincount(cell, minlength=rows * columns * 2)
    assert counts.size == rows * columns * 2
    freedom = counts.size - 1
    expected = n / counts.size
    chi2 = ((counts - expected) ** 2 / expected).sum()
    # Wilson & Hilferty's normal approximation of chi-squared; 4.753 is the 1e-6 quantile.
    z = ((chi2 / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert z < 4.753


def test_an_image_smaller_than_the_crop() -> None:
    transform = Transform(pb.TransformationParameter(crop_size=9), random_crop=False)
    with pytest.raises(RecordError) as caught:
        transform.shape(3, 20, 8)
    assert caught.value.text == "is 3 x 20 x 8, smaller than crop_size 9"
    assert caught.value.field == ("transform_param", "crop_size")


def test_a_mean_of_another_shape(tmp_path: Path) -> None:
    path = write_mean(tmp_path / "mean.binaryproto", MEAN)
    transform = Transform(pb.TransformationParameter(mean_file=str(path)), random_crop=False)
    with pytest.raises(RecordError, match=r'is 3 x 11 x 13, but the mean in ".*" is 3 x 11 x 14'):
        transform.shape(3, 11, 13)


def test_a_mean_beyond_float32_is_infinite(tmp_path: Path) -> None:
    blob = pb.BlobProto(double_data=[1e300, 1])
    blob.shape.dim[:] = [1, 1, 2]
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(blob.SerializeToString())
    image, _ = read_means(pb.TransformationParameter(mean_file=str(path)), np.float32)
    assert image is not None
    assert image.tolist() == [[[np.inf, 1]]]


def test_the_number_of_mean_values() -> None:
    transform = Transform(pb.TransformationParameter(mean_value=[1, 2]), random_crop=False)
    assert transform.shape(2, 1, 1) == (2, 1, 1)
    with pytest.raises(RecordError) as caught:
        transform.shape(3, 1, 1)
    assert caught.value.hint == "Specify either 1 mean_value or as many as channels: 3"


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"mean_file": "m", "mean_value": [1]}, "both mean_file and mean_value"),
        ({"force_color": True, "force_gray": True}, "both force_color and force_gray"),
        ({"mean_file": "gone"}, 'the mean "gone" cannot be read: No such'),
        ({"mean_file": "/"}, 'the mean "/" cannot be read: it is no regular file'),
    ],
)
def test_options_that_cannot_be(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecordError, match=complaint):
        Transform(pb.TransformationParameter(**config), random_crop=False)


def write_mean(path: Path, mean: np.ndarray, legacy: bool = True) -> Path:
    blob = pb.BlobProto(data=mean.ravel())
    if legacy:
        blob.num = 1
        blob.channels, blob.height, blob.width = mean.shape
    else:
        blob.shape.dim.extend(mean.shape)
    path.write_bytes(blob.SerializeToString())
    return path


@pytest.mark.parametrize("legacy", [True, False])
def test_means_are_read(tmp_path: Path, legacy: bool) -> None:
    path = write_mean(tmp_path / "mean.binaryproto", MEAN, legacy)
    np.testing.assert_array_equal(read_mean(str(path)), MEAN)


def test_a_mean_in_double_precision(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    blob = pb.BlobProto(double_data=[0.1, 0.2], num=1, channels=1, height=1, width=2)
    path.write_bytes(blob.SerializeToString())
    assert read_mean(str(path)).tolist() == [[[0.1, 0.2]]]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xff",
        b"",
        pb.BlobProto(num=1, channels=3, height=2, width=2, data=[0] * 11).SerializeToString(),
        pb.BlobProto(num=2, channels=1, height=1, width=1, data=[0] * 2).SerializeToString(),
        pb.BlobProto(shape=pb.BlobShape(dim=[2, 2]), data=[0] * 4).SerializeToString(),
        pb.BlobProto(shape=pb.BlobShape(dim=[3, -1, -4]), data=[0] * 12).SerializeToString(),
        pb.BlobProto(shape=pb.BlobShape(dim=[1 << 40] * 3), data=[0]).SerializeToString(),
    ],
)
def test_files_that_are_no_mean(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"is no BlobProto|is no image|but holds 1[12]? values"):
        read_mean(str(path))
