"""Blobs of a net as databases: the records of Caffe's extract_features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from netdef.data.writer import LMDBWriter
from netdef.errors import DataError, NetError, WeightsError
from netdef.features import extract
from netdef.net import TEST, Net
from netdef.proto import netdef_pb2 as pb

RNG = np.random.default_rng(4)

NET = """
layer { name: "in" type: "Data" top: "data" top: "label"
  data_param { source: "SOURCE" batch_size: 4 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }
layer { name: "ip" type: "InnerProduct" bottom: "relu" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def floats(path: Path) -> list[tuple[bytes, pb.Datum]]:
    with lmdb.open(os.fspath(path), readonly=True, lock=False) as env, env.begin() as txn:
        return [(key, pb.Datum.FromString(value)) for key, value in txn.cursor()]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A net, its weights beside it, over ten records."""
    with LMDBWriter(tmp_path / "records") as writer:
        for i in range(10):
            image = RNG.integers(0, 256, 50, np.uint8).tobytes()
            datum = pb.Datum(channels=2, height=5, width=5, data=image, label=i % 3)
            writer.put(b"%08d" % i, datum.SerializeToString())
    (tmp_path / "net.prototxt").write_text(NET.replace("SOURCE", str(tmp_path / "records")))
    net = Net(tmp_path / "net.prototxt", TEST)
    net.save(tmp_path / "net.caffemodel")
    net.close()
    return tmp_path


def run(model: Path, blobs: list[str], batches: int | None = None) -> list[list[Any]]:
    writers = [LMDBWriter(model / f"{i}_lmdb") for i in range(len(blobs))]
    extract(str(model / "net.prototxt"), [str(model / "net.caffemodel")], blobs, writers, batches)
    return [floats(model / f"{i}_lmdb") for i in range(len(blobs))]


@pytest.mark.parametrize("batches", [None, 2, 3])
def test_records_are_the_rows_of_the_blobs(model: Path, batches: int | None) -> None:
    """Without a number of batches every record once; with one, the records begin again."""
    count = 10 if batches is None else 4 * batches
    net = Net(model / "net.prototxt", str(model / "net.caffemodel"), TEST)
    expected: dict[str, list[np.ndarray]] = {"conv": [], "ip": []}
    for _ in range(3):
        net.forward()
        for name, rows in expected.items():
            rows.extend(net.blobs[name].data.copy())
    net.close()
    conv, ip = run(model, ["conv", "ip"], batches)
    for found, rows, size in ((conv, expected["conv"], (2, 3, 3)), (ip, expected["ip"], (3, 1, 1))):
        assert [key for key, _ in found] == [b"%010d" % i for i in range(count)]
        for (_, datum), row in zip(found, rows, strict=False):
            assert (datum.channels, datum.height, datum.width) == size
            assert not datum.HasField("label")
            np.testing.assert_array_equal(np.array(datum.float_data, np.float32), row.ravel())


def test_features_are_records_of_a_data_layer(model: Path) -> None:
    [found] = run(model, ["conv"])
    net = Net.from_text(NET.replace("SOURCE", str(model / "0_lmdb")), TEST)
    net.forward()
    values = np.array([datum.float_data for _, datum in found[:4]], np.float32)
    np.testing.assert_array_equal(net.blobs["data"].data.reshape(4, -1), values)
    net.close()


def test_mistakes_leave_nothing(model: Path) -> None:
    with pytest.raises(NetError, match='no blob "cnov"') as caught:
        run(model, ["cnov"])
    assert 'did you mean "conv"?' in str(caught.value)
    (model / "net.caffemodel").write_bytes(b"\xff")
    with pytest.raises(WeightsError):
        run(model, ["conv"])
    (model / "net.prototxt").write_text(NET.replace("SOURCE", "nowhere"))
    with pytest.raises(DataError):
        run(model, ["conv"])
    (model / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
    )
    with pytest.raises(NetError, match="knows its number of records"):
        extract(str(model / "net.prototxt"), [], ["x"], [LMDBWriter(model / "0_lmdb")])
    assert not (model / "0_lmdb").exists()
