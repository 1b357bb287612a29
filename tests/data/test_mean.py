"""Mean images: those of Caffe, and of numpy."""

from __future__ import annotations

from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from netdef.data.mean import mean_image, write_mean
from netdef.data.source import RecordError, open_source
from netdef.errors import OutputError
from netdef.proto import netdef_pb2 as pb

RNG = np.random.default_rng(1)


def database(folder: Path, values: list[pb.Datum]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 26) as env, env.begin(write=True) as txn:
        for i, value in enumerate(values):
            txn.put(b"%08d" % i, value.SerializeToString())
    return folder


def mean_of(folder: Path, threads: int = 2) -> np.ndarray:
    return mean_image(open_source(pb.DataParameter(source=str(folder))), threads=threads)


def test_the_mean_is_that_of_caffe_to_the_byte(tmp_path: Path, golden: Path) -> None:
    mean = mean_of(golden / "data" / "color_lmdb")
    write_mean(mean, tmp_path / "mean.binaryproto")
    expected = (golden / "data" / "mean.binaryproto").read_bytes()
    assert (tmp_path / "mean.binaryproto").read_bytes() == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_bytes_floats_and_encoded_images(tmp_path: Path, threads: int) -> None:
    images = RNG.integers(0, 256, (200, 3, 4, 5), np.uint8)
    values = []
    for i, image in enumerate(images):
        datum = pb.Datum(channels=3, height=4, width=5)
        if i % 3 == 0:
            datum.data = image.tobytes()
        elif i % 3 == 1:
            datum.float_data.extend(image.ravel().tolist())
        else:
            picture = np.ascontiguousarray(image.transpose(1, 2, 0))
            datum = pb.Datum(data=cv2.imencode(".png", picture)[1].tobytes(), encoded=True)
        values.append(datum)
    mean = mean_of(database(tmp_path / "db", values), threads)
    expected = images.astype(np.float64).sum(axis=0).astype(np.float32) / np.float32(200)
    np.testing.assert_array_equal(mean, expected)


def test_images_of_two_sizes_have_no_mean(tmp_path: Path) -> None:
    values = [pb.Datum(channels=1, height=h, width=2, data=bytes(2 * h)) for h in (3, 3, 4)]
    with pytest.raises(
        RecordError, match=r"record 2 .* is 1 x 4 x 2, but record 0 .* is 1 x 3 x 2"
    ):
        mean_of(database(tmp_path / "db", values))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    good = pb.Datum(channels=1, height=1, width=2, data=b"ab")
    bad = pb.Datum(data=b"no image", encoded=True)
    with pytest.raises(RecordError, match=r'record 1 \(key "00000001"\) .* cannot be decoded'):
        mean_of(database(tmp_path / "db", [good, bad]))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        write_mean(np.zeros((1, 2, 2), np.float32), tmp_path)
