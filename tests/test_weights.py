"""Reading .caffemodel files: of Caffe, of its forks, old, damaged, and of other programs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netdef import weights
from netdef.blob import Array
from netdef.errors import Location, WeightsError
from netdef.proto import netdef_pb2 as pb
from netdef.weights import (
    LayerWeights,
    Weight,
    copy_weights,
    match_weights,
    read_weights,
    statistics,
)
from netdef.wire import Wire, give_back

VALUES = np.array([1.5, -2, 3e-8, 4, 5, 6], np.float32)

# --- the wire format, written by hand -------------------------------------------------------------


def varint(value: int) -> bytes:
    """A varint; a negative number takes ten bytes, as protobuf writes it."""
    value %= 1 << 64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def record(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def dims(*shape: int) -> bytes:
    return record(7, record(1, *map(varint, shape)))


def unpacked(field: int, values: Array) -> bytes:
    key = varint(field << 3 | (1 if values.itemsize == 8 else 5))
    return b"".join(key + value.tobytes() for value in values)


DATA = record(5, VALUES.tobytes())


def model(*blob: bytes) -> bytes:
    """A .caffemodel with a layer "fc" that has one blob."""
    return record(1, b"net") + record(
        100, record(1, b"fc"), record(2, b"InnerProduct"), record(7, *blob)
    )


def read(tmp_path: Path, content: bytes) -> list[LayerWeights]:
    path = tmp_path / "m.caffemodel"
    path.write_bytes(content)
    return read_weights(path)


def read_blob(tmp_path: Path, *blob: bytes) -> Weight:
    (layer,) = read(tmp_path, model(*blob))
    (weight,) = layer.blobs
    return weight


# --- files of Caffe and of its forks --------------------------------------------------------------


def assert_same_as_protobuf(path: Path) -> None:
    """The reader finds what protobuf finds with the schema of Caffe."""
    net = pb.NetParameter.FromString(path.read_bytes())
    v2 = len(net.layer) > 0
    expected = list(net.layer) if v2 else list(net.layers)
    layers = read_weights(path)
    assert [layer.name for layer in layers] == [layer.name for layer in expected]
    for layer, other in zip(layers, expected, strict=True):
        number = pb.V1LayerParameter.LayerType
        assert layer.type == (other.type if v2 else number.Name(other.type))
        for weight, blob in zip(layer.blobs, other.blobs, strict=True):
            shape = blob.shape.dim
            if weight.legacy:
                shape = [blob.num, blob.channels, blob.height, blob.width]
            assert list(weight.shape) == list(shape)
            np.testing.assert_array_equal(weight.data, np.array(blob.data, np.float32))
            assert not weight.data.flags.writeable


@pytest.mark.parametrize("name", ["sgd_fixed", "adadelta"])
def test_models_of_caffe(golden: Path, name: str) -> None:
    assert_same_as_protobuf(golden / "solvers" / f"{name}.caffemodel")


def test_models_of_caffe_and_of_forks_in_the_wild(shared: Path) -> None:
    reference = shared / "reference"
    paths = [*reference.glob("lenet/*.caffemodel"), *reference.glob("solvers/*.caffemodel")]
    paths += reference.glob("models/*/weights.caffemodel")
    assert len(paths) > 20
    for path in paths:
        if "hyperlpr_finemapping_v2" not in str(path):
            assert_same_as_protobuf(path)


def test_the_half_floats_of_nvidia(shared: Path) -> None:
    """The same net was published in both precisions."""
    models = shared / "reference" / "models"
    single = read_weights(models / "hyperlpr_finemapping" / "weights.caffemodel")
    half = read_weights(models / "hyperlpr_finemapping_v2" / "weights.caffemodel")
    assert [layer.name for layer in half] == [layer.name for layer in single]
    assert sum(len(layer.blobs) for layer in half) == 8
    for of_half, of_single in zip(half, single, strict=True):
        for a, b in zip(of_half.blobs, of_single.blobs, strict=True):
            assert a.shape == b.shape
            assert a.data.dtype == np.float16
            np.testing.assert_allclose(a.data, b.data, rtol=2**-11, atol=2**-25)


# --- three generations of layers ------------------------------------------------------------------


def test_v1_layers(tmp_path: Path) -> None:
    net = pb.NetParameter(name="old")
    layer = net.layers.add(name="fc", type=pb.V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=VALUES)
    (found,) = read(tmp_path, net.SerializeToString())
    assert (found.name, found.type) == ("fc", "INNER_PRODUCT")
    assert found.blobs[0].legacy
    assert found.blobs[0].shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(found.blobs[0].data, VALUES)


def test_v0_layers(tmp_path: Path) -> None:
    net = pb.NetParameter(name="older")
    layer = net.layers.add(bottom=["data"]).layer
    layer.name, layer.type = "fc", "innerproduct"
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=VALUES)
    (found,) = read(tmp_path, net.SerializeToString())
    assert (found.name, found.type) == ("fc", "innerproduct")
    np.testing.assert_array_equal(found.blobs[0].data, VALUES)


def test_a_v1_type_of_a_fork(tmp_path: Path) -> None:
    (found,) = read(tmp_path, record(2, record(4, b"x"), number(5, 250)))
    assert found.type == "V1 type 250"


# --- forms of blobs -------------------------------------------------------------------------------


def test_data_are_views_of_the_file(tmp_path: Path) -> None:
    weight = read_blob(tmp_path, dims(2, 3), DATA)
    assert not weight.data.flags.owndata
    assert not weight.data.flags.writeable
    assert weight.data.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 48, 49, 1000])
def test_unpacked_numbers(tmp_path: Path, dtype: type, count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(dtype)
    field = 5 if dtype is np.float32 else 8
    content = model(unpacked(field, values), dims(count), unpacked(field + 1, values))
    (layer,) = read(tmp_path, content)
    np.testing.assert_array_equal(layer.blobs[0].data, values)
    np.testing.assert_array_equal(layer.blobs[0].diff, values)
    assert layer.blobs[0].data.dtype == dtype


def test_numbers_in_chunks_packed_and_not(tmp_path: Path) -> None:
    weight = read_blob(
        tmp_path,
        record(5, VALUES[:2].tobytes()),
        dims(6),
        unpacked(5, VALUES[2:4]),
        record(5),
        record(5, VALUES[4:].tobytes()),
    )
    np.testing.assert_array_equal(weight.data, VALUES)


def test_doubles_go_before_floats(tmp_path: Path) -> None:
    doubles = VALUES.astype(np.float64) + 1e-12
    content = [dims(6), DATA, record(8, doubles.tobytes()), record(9, doubles.tobytes())]
    weight = read_blob(tmp_path, *content)
    np.testing.assert_array_equal(weight.data, doubles)
    np.testing.assert_array_equal(weight.diff, doubles)


@pytest.mark.parametrize(
    ("number_of_type", "dtype"), [(0, "<f8"), (1, "<f4"), (2, "<f2"), (3, "<i4"), (4, "<u4")]
)
def test_raw_data_of_nvidia(tmp_path: Path, number_of_type: int, dtype: str) -> None:
    values = np.abs(VALUES) if dtype == "<u4" else VALUES
    raw = values.astype(dtype).tobytes()
    kinds = [number(10, number_of_type), number(11, number_of_type)]
    weight = read_blob(tmp_path, dims(6), *kinds, record(12, raw), record(13, raw))
    np.testing.assert_array_equal(weight.data, values.astype(dtype))
    np.testing.assert_array_equal(weight.diff, values.astype(dtype))


def test_another_fork_may_use_the_numbers_of_nvidia(tmp_path: Path) -> None:
    weight = read_blob(tmp_path, dims(6), DATA, record(10, b"mask"), number(12, 1))
    np.testing.assert_array_equal(weight.data, VALUES)
    # A format, of a blob without numbers.
    assert read_blob(tmp_path, dims(0), number(12, 1)).shape == (0,)


def test_fields_of_forks_are_stepped_over(tmp_path: Path) -> None:
    """A field that is clip_param in Caffe, whose fields are required, and a number in a fork."""
    content = record(
        100,
        record(1, b"fc"),
        record(148, varint(3 << 3 | 5) + struct.pack("<f", 1)),
        number(150, 7),
        record(7, dims(6), DATA),
    )
    (layer,) = read(tmp_path, content)
    np.testing.assert_array_equal(layer.blobs[0].data, VALUES)


def test_dims_packed_or_not(tmp_path: Path) -> None:
    shape = record(7, number(1, 2), number(1, 3))
    assert read_blob(tmp_path, shape, DATA).shape == (2, 3)


def test_a_scalar_and_a_blob_that_was_never_shaped(tmp_path: Path) -> None:
    assert read_blob(tmp_path, record(7), record(5, bytes(4))).shape == ()
    assert read_blob(tmp_path).shape == (0,)


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        ([dims(2, 4), DATA], "2x4, which takes 8 numbers, but it has 6"),
        ([dims(6)], "takes 6 numbers, but it has 0"),
        ([dims(-2, -3), DATA], r"shape \[-2, -3\]"),
        ([dims(1 << 62, 1 << 62, 4), DATA], "takes more numbers than any file holds, but it has 6"),
        ([dims(*[1] * 33), DATA], "more than 32 axes"),
        ([dims(*[1] * 20), dims(*[1] * 20), DATA], "more than 32 axes"),
        ([number(1, -1), number(2, -6), DATA], r"shape \[-1, -6, 0, 0\]"),
        ([dims(6), record(5, bytes(23))], "23 bytes are not a whole number"),
        ([dims(6), DATA, record(6, bytes(8))], "6 numbers but 2 gradients"),
        ([dims(6), number(5, 1)], "field 5 has wire type 0"),
        ([dims(6), unpacked(5, np.zeros(6))], "field 5 has wire type 1 instead of 5"),
        ([dims(6), record(12, bytes(12)), number(10, 5)], "numbers of type 5"),
        ([dims(6), record(12, bytes(12)), number(10, 3)], "takes 6 numbers, but it has 3"),
        ([dims(6), varint(5 << 3 | 2), varint(2**31 - 1)], "claims 2147483647 bytes where 0"),
        ([dims(6), varint(5 << 3 | 2), varint(2**63)], "claims 9223372036854775808 bytes"),
        ([varint(5 << 3 | 3), DATA, varint(5 << 3 | 4)], "wire type 3, unknown to Caffe"),
        ([b"\x00\x00"], "0 is not a field number"),
        ([b"\xff" * 12], "a number has no end"),
        ([b"\x2d\x00"], "field 5 is cut short"),
        ([record(7, record(1, b"\x80"))], "a number is cut short"),
    ],
)
def test_a_damaged_blob_is_located(tmp_path: Path, blob: list[bytes], said: str) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        read_blob(tmp_path, *blob)
    message = caught.value.diagnostics[0].message
    assert caught.value.diagnostics[0].code == "E403"
    assert message.startswith(f"{tmp_path}/m.caffemodel is damaged at byte ")
    assert 'in layer "fc"' in message


def test_a_name_without_end_is_damage(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="a name has 1000000 bytes"):
        read(tmp_path, record(100, record(1, b"n" * 1_000_000)))


def test_a_file_that_keeps_the_reader_busy_is_refused(tmp_path: Path) -> None:
    for content in (
        model() + number(9, 1) * 300_001,
        record(100) * 60_001,
        record(2) * 60_001,
        record(100, record(7) * 60_001),
        record(100, record(7, record(7, number(9, 1) * 300_001))),
        record(100, record(7, (unpacked(5, VALUES[:1]) + unpacked(6, VALUES[:1])) * 150_001)),
    ):
        with pytest.raises(WeightsError, match="more than 300000 fields"):
            read(tmp_path, content)


def test_a_deep_net_is_not_too_much(tmp_path: Path) -> None:
    """A residual net of 1001 layers, its Splits and all."""
    net = pb.NetParameter(name="deep")
    for index in range(5000):
        layer = net.layer.add(
            name=f"l{index}", type="Scale", bottom=["a"], top=["b"], phase=pb.TEST
        )
        layer.param.add(lr_mult=1)
        layer.include.add(phase=pb.TEST)
        if index % 2:
            layer.blobs.add(shape=pb.BlobShape(dim=[1]), data=[1])
            layer.blobs.add(shape=pb.BlobShape(dim=[1]), data=[1])
    assert len(read(tmp_path, net.SerializeToString())) == 5000


def test_a_file_that_another_program_cuts_short(tmp_path: Path) -> None:
    """To touch what is gone would end the process."""
    values = np.ones(1 << 16, np.float32)
    layers = read(tmp_path, model(dims(values.size), record(5, values.tobytes())))
    os.truncate(tmp_path / "m.caffemodel", 100)
    target = np.zeros(values.size, np.float32)
    with pytest.raises(WeightsError, match="m was cut short by another program"):
        copy_weights(layers, {"fc": [target]}, path="m")
    assert not target.any()


def test_whatever_is_done_to_a_file_is_read_or_refused(golden: Path, tmp_path: Path) -> None:
    whole = (golden / "solvers" / "sgd_fixed.caffemodel").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        content = bytearray(whole[: random.integers(len(whole))] if trial % 3 == 0 else whole)
        for _ in range(trial % 4):
            position = int(random.integers(max(1, len(content))))
            content[position : position + 1] = random.bytes(1)
        try:
            for layer in read(tmp_path, bytes(content)):
                for weight in layer.blobs:
                    assert weight.data.size == np.prod(weight.shape, dtype=object)
        except WeightsError:
            refused += 1
    assert 100 < refused < 300


# --- the HDF5 form --------------------------------------------------------------------------------


def hdf5_model(path: Path, **datasets: Any) -> Path:
    """A file with a dataset for each path, whose slashes are written as two underscores."""
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            place = name.replace("__", "/")
            if values is None:
                file.require_group(place)
            else:
                file[place] = values
    return path


def test_an_hdf5_model_of_caffe(golden: Path) -> None:
    layers = read_weights(golden / "solvers" / "adam.caffemodel.h5")
    assert [layer.name for layer in layers] == ["cv", "ip", "lab", "loss", "rl", "x"]
    assert [len(layer.blobs) for layer in layers] == [2, 2, 0, 0, 0, 0]
    assert {layer.type for layer in layers} == {""}
    with np.load(golden / "solvers" / "adam.npz") as reference:
        step = int(reference["snapshot_iter"])
        for found in layers:
            for index, blob in enumerate(found.blobs):
                wanted = reference[f"iter{step}/{found.name}/{index}"]
                assert blob.shape == wanted.shape
                np.testing.assert_array_equal(blob.data.reshape(blob.shape), wanted)
                assert not blob.data.flags.owndata


def test_an_hdf5_model_in_the_wild(shared: Path) -> None:
    folder = shared / "reference" / "models" / "cifar10_quick_h5"
    found = {layer.name: layer for layer in read_weights(folder / "weights.caffemodel.h5")}
    assert [blob.shape for blob in found["conv2"].blobs] == [(32, 32, 5, 5), (32,)]
    assert len(found) == 13


def test_an_hdf5_model_is_known_by_how_it_begins(golden: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.caffemodel"
    copy.write_bytes((golden / "solvers" / "adam.caffemodel.h5").read_bytes())
    assert len(read_weights(copy)) == 6
    renamed = tmp_path / "m.h5"
    renamed.write_bytes((golden / "solvers" / "adagrad.caffemodel").read_bytes())
    assert len(read_weights(renamed)) == 6


def test_names_with_slashes_are_groups_in_groups(tmp_path: Path) -> None:
    path = hdf5_model(
        tmp_path / "m.h5",
        data__a__0=VALUES,
        data__a__b__0=VALUES[:2],
        data__a__b__1=VALUES[:1],
        data__c__d=None,
        diff__a__b__0=VALUES[4:],
    )
    a, ab, cd = read_weights(path)
    assert [layer.name for layer in (a, ab, cd)] == ["a", "a/b", "c/d"]
    assert [weight.shape for weight in ab.blobs] == [(2,), (1,)]
    np.testing.assert_array_equal(ab.blobs[0].diff, VALUES[4:])
    assert ab.blobs[1].diff is None
    assert a.blobs[0].diff is None
    assert cd.blobs == []


def test_blobs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = hdf5_model(tmp_path / "m.h5", **{f"data__x__{i}": VALUES[:1] + i for i in range(12)})
    (layer,) = read_weights(path)
    assert [float(blob.data[0]) for blob in layer.blobs] == [1.5 + i for i in range(12)]


def test_what_a_shared_parameter_leaves_out(tmp_path: Path) -> None:
    """Caffe writes it with the first of its layers only."""
    path = hdf5_model(
        tmp_path / "m.h5", data__a__0=VALUES, data__a__1=VALUES[:2], data__b__1=VALUES[2:4]
    )
    layers = read_weights(path)
    assert [layer.indices for layer in layers] == [[0, 1], [1]]
    weight, one, two = np.zeros((2, 3)), np.zeros(2), np.zeros(2)
    report = copy_weights(
        layers, {"a": [weight.reshape(6), one], "b": [weight.reshape(6), two]}, path="m"
    )
    assert report.copied == ("a", "b")
    np.testing.assert_array_equal(weight.reshape(6), VALUES)
    assert (one.tolist(), two.tolist()) == (VALUES[:2].tolist(), VALUES[2:4].tolist())
    message = [LayerWeights("b", "", [Weight((2,), VALUES[:2])])]
    with pytest.raises(WeightsError, match="has 2 blobs in the net but 1 in"):
        copy_weights(message, {"a": [one, weight], "b": [two, weight.reshape(6)]}, path="m")
    for targets in (
        {"a": [np.zeros(6), one], "b": [np.zeros(6), two]},  # not shared
        {"a": [weight.reshape(6), one], "b": [weight.reshape(6)]},  # has no blob 1
    ):
        with pytest.raises(WeightsError, match=r'layer "b" has \d blobs in the net but 1 in'):
            copy_weights(layers, targets, path="m")


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"data__fc__weight": VALUES}, "at /data/fc/weight: the blobs of a layer are called 0, 1"),
        ({"data__fc__01": VALUES}, "at /data/fc/01: the blobs of a layer are called 0, 1"),
        ({"data__fc__9999999": VALUES}, "the blobs of a layer are called 0, 1"),
        ({"data__fc__0": b"text"}, "at /data/fc/0: it holds texts, not numbers"),
        ({"data__fc__0": h5py.SoftLink("/x")}, "at /data/fc/0: it is a link"),
        ({"data__fc": h5py.ExternalLink("/etc/passwd", "/")}, "at /data/fc: it is a link"),
        ({"data": VALUES}, "at /data: it is a dataset, not a group"),
        ({"data__fc__0": VALUES, "diff__fc__0": VALUES[:2]}, "2 gradients for 6 numbers"),
        ({"data__fc__0": VALUES, "diff__fc__0__x": None}, "at /diff/fc/0: it is a group"),
    ],
)
def test_an_hdf5_model_that_is_wrong(tmp_path: Path, datasets: Any, said: str) -> None:
    path = hdf5_model(tmp_path / "m.h5", **datasets)
    with pytest.raises(WeightsError, match=said) as caught:
        read_weights(path)
    (found,) = caught.value.diagnostics
    assert found.code == "E403"
    assert found.message.startswith(f"{path} cannot be read at /")


def test_groups_that_run_in_a_circle(tmp_path: Path) -> None:
    path = hdf5_model(tmp_path / "m.h5", data__a__0=VALUES)
    with h5py.File(path, "r+") as file:
        file["data/a/again"] = file["data"]
    with pytest.raises(WeightsError, match="at /data/a/again: it is the group of another layer"):
        read_weights(path)


def test_groups_nested_without_end(tmp_path: Path) -> None:
    path = hdf5_model(tmp_path / "m.h5", **{"data" + "__g" * 1500: None})
    (layer,) = read_weights(path)
    assert layer.name == "/".join("g" * 1500)


@pytest.mark.parametrize(
    ("datasets", "said", "hint"),
    [
        ({"data": None}, "holds no layers", ""),
        ({"model_weights": None}, 'is an HDF5 file without a group "data"', ""),
        ({"iter": [5], "history": None}, "is a .solverstate, not a .caffemodel", "--snapshot"),
    ],
)
def test_an_hdf5_file_of_another_kind(tmp_path: Path, datasets: Any, said: str, hint: str) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        read_weights(hdf5_model(tmp_path / "m.h5", **datasets))
    assert caught.value.diagnostics[0].code == "E402"
    assert hint in caught.value.diagnostics[0].hint


def test_an_hdf5_model_whose_names_are_out_of_order(tmp_path: Path) -> None:
    """HDF5 then lists a layer that it does not find; without it the net would keep its own."""
    path = tmp_path / "m.caffemodel.h5"
    with h5py.File(path, "w") as file:
        for name in ("b", "cccccccc", "ip"):
            file[f"data/{name}/0"] = np.zeros(3, np.float32)
    path.write_bytes(path.read_bytes().replace(b"cccccccc", b"xxxxxxxx"))
    with pytest.raises(WeightsError, match="at /data: its index is damaged"):
        read_weights(path)


def test_an_hdf5_model_that_is_cut_short(golden: Path, tmp_path: Path) -> None:
    whole = (golden / "solvers" / "adam.caffemodel.h5").read_bytes()
    for size in (8, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(WeightsError, match=r"m\.caffemodel cannot be read: "):
            read(tmp_path, whole[:size])
    with pytest.raises(WeightsError) as caught:
        read(tmp_path, whole[:-1])
    assert "cut short" in caught.value.diagnostics[0].hint


# --- files that are something else ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (b"", "is empty", ""),
        (b'name: "LeNet"\nlayer { name: "x" }\n', "is text", "prototxt"),
        (b"<!DOCTYPE html>\n<html><head>", "is a web page", "download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha", "Git LFS pointer", "git lfs pull"),
        (b"PK\x03\x04" + bytes(50), "is a zip archive", "unpack"),
        (b"\x1f\x8b\x08" + bytes(50), "is compressed with gzip", "unpack"),
        (record(1, b"net"), "holds no layers", ""),
        (number(1, 1) + number(2, 3) + record(5, bytes(12)), "is a single blob", ""),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, content: bytes, said: str, hint: str
) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        read(tmp_path, content)
    assert caught.value.diagnostics[0].code == "E402"
    assert hint in caught.value.diagnostics[0].hint


def test_a_solverstate_is_recognised(golden: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a \.solverstate, not a \.caffemodel") as caught:
        read_weights(golden / "solvers" / "sgd_fixed.solverstate")
    assert "--snapshot" in caught.value.diagnostics[0].hint


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such file"):
        read_weights(tmp_path / "missing.caffemodel")
    with pytest.raises(WeightsError, match="it is a folder"):
        read_weights(tmp_path)
    with pytest.raises(WeightsError, match="null"):
        read_weights("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_weights(tmp_path / "pipe")


def test_the_wire_reads_the_largest_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(number(1, -1) + number(2, 2**63 - 1) + number((1 << 29) - 1, 0))
    wire = Wire.open(path)
    assert [wire.integer(field) for field in wire.fields()] == [-1, 2**63 - 1, 0]


# --- copying --------------------------------------------------------------------------------------


def layer(name: str, *blobs: Weight) -> LayerWeights:
    return LayerWeights(name, "InnerProduct", blobs)


def weight(*shape: int, legacy: bool = False) -> Weight:
    size = int(np.prod(shape))
    return Weight(shape, np.arange(1, size + 1, dtype=np.float32), legacy=legacy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_are_matched_by_name(dtype: type) -> None:
    targets = {"new": [np.zeros(3, dtype)], "relu": [], "fc": [np.zeros((2, 3), dtype)]}
    report = copy_weights(
        [layer("data"), layer("relu"), layer("fc", weight(2, 3)), layer("fc8", weight(4))],
        targets,
        path="m.caffemodel",
    )
    assert report.copied == ("fc",)
    assert report.ignored == ("data", "fc8")
    assert report.unused == ("fc8",)
    assert report.missing == ("new",)
    assert report.mismatched == ()
    np.testing.assert_array_equal(targets["fc"][0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(targets["new"][0], 0)


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        ((1, 1, 2, 3), (2, 3), True),
        ((1, 1, 1, 6), (6,), True),
        ((1, 1, 1, 1), (), True),
        ((2, 3, 1, 1), (2, 3, 1, 1), True),
        ((2, 3, 1, 1), (2, 3), False),
        ((1, 2, 1, 3), (2, 3), False),
        ((1, 1, 2, 3), (3, 2), False),
        ((1, 1, 2, 3), (1, 1, 1, 2, 3), False),
    ],
)
def test_a_legacy_shape_counts_from_its_end(
    source: tuple[int, ...], target: tuple[int, ...], fits: bool
) -> None:
    assert weight(*source, legacy=True).fits(target) == fits
    assert weight(*source).fits(target) == (source == target)


def test_nothing_is_copied_where_something_does_not_fit() -> None:
    targets = {
        "fc7": [np.zeros((2, 3))],
        "fc8": [np.zeros((2, 3)), np.zeros(5)],
        "fc9": [np.zeros((2, 3)), np.zeros(2)],
    }
    layers = [
        layer("fc7", weight(2, 3)),
        layer("fc8", weight(2, 3), weight(4)),
        layer("fc9", weight(2, 3)),
    ]
    places = {"fc8": Location("net.prototxt", 12, 1)}
    with pytest.raises(WeightsError) as caught:
        copy_weights(layers, targets, path="m.caffemodel", locate=places.get)
    first, second = caught.value.diagnostics
    assert (first.code, second.code) == ("E404", "E405")
    assert first.message == 'm.caffemodel: blob 1 of layer "fc8" is 5 in the net but 4 in the file'
    assert second.message == 'm.caffemodel: layer "fc9" has 2 blobs in the net but 1 in the file'
    assert first.location == places["fc8"]
    assert "rename the layer" in first.hint
    assert "--skip-mismatch" in first.hint
    assert not any(target.any() for target in targets["fc7"] + targets["fc8"])

    report = match_weights(layers, targets)
    assert report.copied == ("fc7",)
    assert not any(target.any() for target in targets["fc7"])
    assert copy_weights(layers, targets, path="m.caffemodel", skip_mismatch=True) == report
    assert targets["fc7"][0].all()
    assert [str(mismatch.layer) for mismatch in report.mismatched] == ["fc8", "fc9"]
    assert report.missing == ()
    assert not any(target.any() for target in targets["fc8"] + targets["fc9"])


def test_why_nothing_was_copied() -> None:
    targets = {"ip": [np.zeros(2)], "relu": []}
    for layers, why in [
        (
            [layer("relu"), layer("fc", weight(2)), layer("fc8", weight(2))],
            "weights of fc, fc8; the",
        ),
        ([layer("relu")], "no layer of the file has weights"),
        ([layer("ip", weight(3))], "no layer fits"),
    ]:
        report = match_weights(layers, targets)
        assert not report.copied
        assert why in report.why_nothing(["ip"])


def test_the_last_of_two_layers_with_one_name_stays() -> None:
    target = np.zeros(2)
    second = Weight((2,), np.array([8.0, 9.0]))
    report = copy_weights([layer("x", weight(2)), layer("x", second)], {"x": [target]}, path="m")
    assert report.copied == ("x",)
    np.testing.assert_array_equal(target, [8, 9])


def test_every_form_of_numbers_can_be_copied(tmp_path: Path) -> None:
    doubles = np.array([1.5, -2, 1e300, 4, 5, 6])
    for blob, expected in [
        (unpacked(5, VALUES), VALUES),
        (record(8, doubles.tobytes()), [1.5, -2, np.inf, 4, 5, 6]),
        (number(10, 2) + record(12, VALUES.astype("<f2").tobytes()), VALUES.astype("<f2")),
    ]:
        target = np.zeros((2, 3), np.float32)
        copy_weights(read(tmp_path, model(dims(2, 3), blob)), {"fc": [target]}, path="m")
        np.testing.assert_array_equal(target.reshape(-1), np.float32(expected))


def test_the_model_of_caffe_holds_what_caffe_computed(golden: Path) -> None:
    """The parameters after the iteration of the snapshot, saved by Caffe in another way."""
    numbers = golden / "solvers" / "sgd_fixed.npz"
    if not numbers.exists():
        pytest.skip("needs the reference numbers of the solvers")
    with np.load(numbers) as reference:
        step = int(reference["snapshot_iter"])
        for found in read_weights(golden / "solvers" / "sgd_fixed.caffemodel"):
            for index, blob in enumerate(found.blobs):
                expected = reference[f"iter{step}/{found.name}/{index}"]
                np.testing.assert_array_equal(blob.data.reshape(blob.shape), expected)


# --- what numbers are like ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_statistics(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces as in one."""
    values = np.random.default_rng(0).normal(5, 2, 1000).astype(dtype)
    values[[3, 500, 999]] = 0
    exact = values.astype(np.float64)
    for piece in (1, 7, 1000):
        monkeypatch.setattr(weights, "PIECE", piece)
        found = statistics(values)
        assert (found.minimum, found.maximum) == (exact.min(), exact.max())
        assert found.mean == pytest.approx(exact.mean())
        assert found.std == pytest.approx(exact.std())
        assert (found.zeros, found.nans, found.infinities) == (3, 0, 0)


def test_statistics_of_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    found = statistics(np.array([np.nan, 1, -np.inf, 3, np.inf], np.float32))
    assert (found.minimum, found.maximum, found.mean, found.std) == (1, 3, 2, 1)
    assert (found.zeros, found.nans, found.infinities) == (0, 1, 2)
    for values in (np.empty(0, np.float32), np.array([np.nan])):
        found = statistics(values)
        assert np.isnan([found.minimum, found.maximum, found.mean, found.std]).all()
    # No warning, which would be an error here.
    for values in ([-1e300, 1e300], [1e300, 1e300 * 2], [1e308] * 9):
        for piece in (1, 7):
            monkeypatch.setattr(weights, "PIECE", piece)
            assert statistics(np.array(values)).maximum == values[-1]


# --- memory ---------------------------------------------------------------------------------------

#: Prints how much the peak of memory rises, in bytes, while a file is read into arrays that have
#: their memory already.
RISE = """
import sys
import numpy as np
from netdef.weights import copy_weights, read_weights

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

path, size = sys.argv[1], int(sys.argv[2])
target = np.ones(size, np.float32)
copy_weights([], {"fc": [target]}, path=path)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
report = copy_weights(read_weights(path), {"fc": [target]}, path=path)
assert report.copied == ("fc",) and target[-1] == 7
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("form", ["packed", "unpacked", "double", "hdf5"])
def test_loading_takes_no_memory_beside_the_parameters(tmp_path: Path, form: str) -> None:
    values = np.zeros(1 << 24, np.float32)
    values[-1] = 7
    path = tmp_path / "m.caffemodel"
    if form == "hdf5":
        hdf5_model(path, data__fc__0=values)
    elif form == "unpacked":
        rows = np.full((values.size, 5), 5 << 3 | 5, np.uint8)
        rows[:, 1:] = values.reshape(-1, 1).view(np.uint8)
        path.write_bytes(model(dims(values.size), rows.tobytes()))
    else:
        field, numbers = (5, values) if form == "packed" else (8, values.astype(np.float64))
        path.write_bytes(model(dims(values.size), record(field, numbers.tobytes())))
    words = [sys.executable, "-c", RISE, str(path), str(values.size)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    # The part of the file that is being copied is in memory, and the large pages around it.
    assert int(done.stdout) < values.nbytes / 10 + (8 << 20)


def test_what_is_given_back_can_be_seen_again(tmp_path: Path) -> None:
    values = np.arange(1 << 16, dtype=np.float32)
    (found,) = read(tmp_path, model(dims(values.size), record(5, values.tobytes())))
    view = found.blobs[0].data
    for part in (view, view[5:9], view[::3], view.reshape(2, -1)[1], view[:0], values):
        give_back(part)
        np.testing.assert_array_equal(view, values)
