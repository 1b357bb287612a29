"""HDF5 files: what honest ones hold, what dishonest ones try, and failed writing leaves none."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netdef import hdf5
from netdef.errors import OutputError
from netdef.hdf5 import HDF5Error

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)

Make = Callable[[h5py.File], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.h5"


@pytest.fixture
def root(path: Path) -> Iterator[Callable[[Make], hdf5.Group]]:
    """``root(make)``: the root of a file that ``make`` has filled."""
    files: list[hdf5.File] = []

    def write(make: Make) -> hdf5.Group:
        with h5py.File(path, "w") as file:
            make(file)
        files.append(hdf5.open_file(path))
        return hdf5.Group(files[-1], "/")

    yield write
    for file in files:
        hdf5.close(file)


# --- honest files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i4", ">i8", "u1", "<u8", "i1"])
@pytest.mark.parametrize("options", [{}, {"chunks": (2, 2)}, {"compression": "gzip"}])
def test_numbers_of_every_type_and_layout(
    root: Any, path: Path, dtype: str, options: dict[str, Any]
) -> None:
    def make(file: h5py.File) -> None:
        file.create_dataset("x", data=VALUES.astype(dtype), **options)

    dataset = root(make).require("x")
    assert dataset.shape == (3, 4)
    for content in (None, memoryview(path.read_bytes())):
        np.testing.assert_array_equal(dataset.array(content), VALUES)
    np.testing.assert_array_equal(dataset.rows(1, 3), VALUES[1:])


def test_numbers_that_lie_in_the_file_are_seen_there(root: Any, path: Path) -> None:
    dataset = root(lambda file: file.create_dataset("x", data=VALUES)).require("x")
    content = memoryview(path.read_bytes())
    view = dataset.array(content)
    assert not view.flags.owndata
    assert not view.flags.writeable
    assert np.shares_memory(view, np.frombuffer(content, np.uint8))


def test_a_number_that_numpy_would_misread_is_converted(root: Any, path: Path) -> None:
    """31 bits in the upper end of 32: h5py calls it an int32, too."""

    def make(file: h5py.File) -> None:
        kind = h5py.h5t.STD_I32LE.copy()
        kind.set_precision(31)
        kind.set_offset(1)
        space = h5py.h5s.create_simple((3,))
        dataset = h5py.h5d.create(file.id, b"x", kind, space)
        dataset.write(space, space, np.array([1, -2, 3], "i4"))

    dataset = root(make).require("x")
    assert dataset.array(memoryview(path.read_bytes())).tolist() == [1, -2, 3]


def test_behind_a_block_of_the_users_own(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["x"] = VALUES
    content = memoryview(path.read_bytes())
    assert hdf5.is_hdf5(content)
    with hdf5.opened(path) as root:
        np.testing.assert_array_equal(root.require("x").array(content), VALUES)


def test_shapes_of_every_kind(root: Any) -> None:
    def make(file: h5py.File) -> None:
        file["scalar"] = np.float32(3)
        file["empty"] = np.empty((0, 4), np.float32)
        file["deep"] = np.zeros((1,) * 32, np.float32)
        file.create_dataset("unwritten", (5,), "f4")

    group = root(make)
    assert group.require("scalar").array() == 3
    assert group.require("empty").array().shape == (0, 4)
    assert group.require("deep").array().shape == (1,) * 32
    np.testing.assert_array_equal(group.require("unwritten").array(), 0)


def test_groups_and_names(root: Any) -> None:
    def make(file: h5py.File) -> None:
        for name in ("b", "a/c", "a/x", "naïve"):
            file[name] = 1

    group = root(make)
    assert group.names() == ["a", "b", "naïve"]
    assert group.group("a").names() == ["c", "x"]
    assert group.dataset("a/c").integer() == 1
    assert group.dataset("naïve").where == "/naïve"
    assert group.dataset("a/d") is None
    assert group.dataset("d/a") is None
    assert group.group("d") is None
    with pytest.raises(HDF5Error, match='there is no dataset "a/d"'):
        group.require("a/d")
    with pytest.raises(HDF5Error, match="/a: it is a group, not a dataset"):
        group.dataset("a")
    with pytest.raises(HDF5Error, match="/b: it is a dataset, not a group"):
        group.dataset("b/c")


@pytest.mark.parametrize("text", [b"", b"m.caffemodel.h5", b"mod\xe8le", b"x" * 4096])
def test_texts(path: Path, text: bytes) -> None:
    with hdf5.created(path) as file:
        hdf5.put_text(file, "t", text)
    with hdf5.opened(path) as root:
        assert root.require("t").text() == text


def test_texts_of_h5py(root: Any) -> None:
    def make(file: h5py.File) -> None:
        file["long"] = "m.caffemodel"
        file["short"] = np.bytes_("m.caffemodel")

    group = root(make)
    assert group.require("long").text() == group.require("short").text() == b"m.caffemodel"


# --- dishonest files ------------------------------------------------------------------------------


def test_no_link_is_followed(root: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = VALUES

    def make(file: h5py.File) -> None:
        file["soft"] = h5py.SoftLink("/x")
        file["outside"] = h5py.ExternalLink("other.h5", "/")
        file["x"] = VALUES

    group = root(make)
    for name in ("soft", "outside", "outside/x"):
        with pytest.raises(HDF5Error, match="it is a link, and links are not followed"):
            group.dataset(name)


def test_a_name_is_no_path(root: Any) -> None:
    group = root(lambda file: file.create_dataset("a/x", data=VALUES))
    for name in ("a/x", "", "."):
        with pytest.raises(HDF5Error, match="no group or dataset can have this name"):
            group.get(name)


def test_numbers_of_other_files_are_not_read(root: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = VALUES

    def make(file: h5py.File) -> None:
        outside = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("outside", (3, 4), "f4", external=outside)
        layout = h5py.VirtualLayout((3, 4), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3, 4))
        file.create_virtual_dataset("virtual", layout)

    group = root(make)
    for name in ("outside", "virtual"):
        with pytest.raises(HDF5Error, match="its numbers are in other files"):
            group.require(name)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([b"a", b"b"]), "it holds texts, not numbers"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "it holds compounds"),
        (np.zeros(2, np.complex64), "it holds compounds"),
        (np.zeros(2, bool), "it holds values of an enumeration"),
        (np.zeros(2, "V3"), "it holds values of an odd type"),
        (h5py.Empty("f4"), "it is empty"),
    ],
)
def test_what_is_no_number(root: Any, values: Any, said: str) -> None:
    group = root(lambda file: file.create_dataset("x", data=values))
    for read in (lambda d: d.array(), lambda d: d.check(), lambda d: d.integer()):
        with pytest.raises(HDF5Error, match=f"/x: {said}"):
            read(group.require("x"))


def test_one_number_is_one_integer(root: Any) -> None:
    def make(file: h5py.File) -> None:
        file["two"] = [1, 2]
        file["float"] = 1.0
        file["many"] = np.zeros(200_000, "i1")

    group = root(make)
    for name, said in [("two", "2 numbers"), ("float", "no integers"), ("many", "claims 200000")]:
        with pytest.raises(HDF5Error, match=f"/{name}: it .*{said}"):
            group.require(name).integer()
    with pytest.raises(HDF5Error, match="it holds no text"):
        group.require("two").text()


def lie_about(path: Path, honest: int, lie: int) -> None:
    """Change a 64-bit number of the file wherever it stands."""
    content = path.read_bytes()
    wanted = honest.to_bytes(8, "little")
    assert wanted in content
    path.write_bytes(content.replace(wanted, lie.to_bytes(8, "little")))


@pytest.mark.parametrize("claim", [10**9, 1 << 40, 1 << 62])
@pytest.mark.parametrize("options", [{}, {"chunks": (1234,)}])
def test_a_shape_larger_than_the_file(path: Path, claim: int, options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(54321, np.float32), **options)
    lie_about(path, 54321, claim)
    with hdf5.opened(path) as root, pytest.raises(HDF5Error) as caught:
        root.require("x").array(memoryview(path.read_bytes()))
    assert caught.value.where == "/x"


def test_packed_numbers_expand_only_so_far(root: Any) -> None:
    def make(file: h5py.File) -> None:
        zeros = np.zeros(1_000_000, np.float32)
        file.create_dataset("x", data=zeros, compression="gzip", chunks=(1_000_000,))
        file.create_dataset("bomb", (1 << 40,), "f4", chunks=(1000,))
        file.create_dataset("piece", (1,), "f4", chunks=(1 << 28,), maxshape=(None,))

    group = root(make)
    assert not group.require("x").array().any()
    for name in ("bomb", "piece"):
        with pytest.raises(HDF5Error, match="but is stored in 0"):
            group.require(name).array()


def test_a_filter_that_is_not_there(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(1000), compression="lzf")
    content = path.read_bytes()
    lzf = (32_000).to_bytes(2, "little") + b"\x08\x00"
    assert content.count(lzf) == 1
    path.write_bytes(content.replace(lzf, (32_999).to_bytes(2, "little") + b"\x08\x00"))
    with hdf5.opened(path) as root, pytest.raises(HDF5Error, match='by filter 32999 "lzf"'):
        root.require("x").array()


@pytest.mark.parametrize("name", ["adam.caffemodel.h5", "adam.solverstate.h5"])
def test_whatever_is_done_to_a_file_is_read_or_refused(golden: Path, path: Path, name: str) -> None:
    whole = (golden / "solvers" / name).read_bytes()
    random = np.random.default_rng(0)

    def walk(group: hdf5.Group, depth: int) -> None:
        for name in group.names():
            found = group.get(name)
            if isinstance(found, hdf5.Dataset):
                found.text() if name == "learned_net" else found.array(memoryview(content))
            elif found is not None and depth < 4:
                walk(found, depth + 1)

    refused = 0
    for trial in range(300):
        content = bytearray(whole[: random.integers(len(whole))] if trial % 3 == 0 else whole)
        for _ in range(trial % 5):
            position = int(random.integers(max(1, len(content))))
            content[position : position + 1] = random.bytes(1)
        path.write_bytes(content)
        try:
            with hdf5.opened(path) as root:
                walk(root, 0)
        except HDF5Error:
            refused += 1
    assert 100 < refused < 300


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no")
    for name, said in [
        ("none", "there is no such file"),
        ("pipe", "it is not a file"),
        ("", "it is not a file"),
        ("text", "it is no HDF5 file"),
        ("nul\0", "there is no such file"),
    ]:
        with pytest.raises(HDF5Error, match=said):
            hdf5.open_file(f"{tmp_path}/{name}")


def test_a_file_that_is_cut_off(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(100)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    said = f"it is cut off: it has {len(content) - 1} bytes, and should have {len(content)}"
    with pytest.raises(HDF5Error, match=said):
        hdf5.open_file(path)


# --- writing --------------------------------------------------------------------------------------


def test_the_oldest_version_of_the_format(path: Path) -> None:
    with hdf5.created(path) as file:
        hdf5.put(file.create_group("g"), "x", VALUES)
        hdf5.put_text(file, "t", b"text")
    content = path.read_bytes()
    assert content[8] == 0  # of the superblock
    assert b"TREE" in content
    assert b"SNOD" in content
    with h5py.File(path) as file:
        assert file["g/x"].chunks is None
        kind = file["t"].id.get_type()
        assert (kind.get_size(), kind.get_strpad()) == (5, h5py.h5t.STR_NULLTERM)


def test_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with hdf5.created(tmp_path / name) as file:
            for layer in range(300):
                hdf5.put(file, f"data/layer {layer}/0", VALUES + layer)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_part_of_a_file_says_when_it_was_written(path: Path) -> None:
    """Else the same run would write another file a second later."""
    with hdf5.created(path) as file:
        hdf5.put(file, "x", VALUES)
        hdf5.put_text(file, "t", b"text")
    # Of an object header: message 18, 8 bytes, no flags; version 1 of a modification time.
    message = bytes([18, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    assert message not in path.read_bytes()


def test_more_groups_than_the_library_keeps_in_mind(path: Path) -> None:
    """It then reads back what it has written."""
    count = 6000
    with hdf5.created(path) as file:
        for layer in range(count):
            hdf5.put(file, f"data/{layer}/0", VALUES)
    with hdf5.opened(path) as root:
        assert len(root.group("data").names()) == count  # type: ignore[union-attr]
        np.testing.assert_array_equal(root.require(f"data/{count // 2}/0").array(), VALUES)


def create(path: Path, count: int, then: Callable[[], Any] = lambda: None) -> None:
    with hdf5.created(path) as file:
        for i in range(count):
            hdf5.put(file, f"data/{i}/0", np.ones(1000, np.float32))
        then()


@pytest.mark.parametrize("limit", [1_000, 100_000])
def test_a_full_disk_leaves_the_file_before(path: Path, limit: int) -> None:
    path.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputError, match="larger than allowed"):
            create(path, 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "before"
    assert os.listdir(path.parent) == ["f.h5"]


def test_a_system_that_writes_in_small_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path, 3)
    whole, pwrite = path.read_bytes(), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:7], at))
    create(path, 3)
    assert path.read_bytes() == whole


def test_an_exception_leaves_no_file(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        create(path, 2, lambda: 1 / 0)
    assert os.listdir(path.parent) == []


# --- rows -----------------------------------------------------------------------------------------


def test_rows_are_added(path: Path) -> None:
    writer = hdf5.RowWriter(str(path))
    for count in (2, 0, 3):
        writer.add({"data": np.full((count, 2), count, np.float32), "label": np.arange(count)})
        with h5py.File(path) as file:
            assert len(file["data"]) == len(file["label"]) == writer.rows
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"], np.repeat([[2.0, 2], [3, 3]], [2, 3], axis=0))
        assert file["label"][()].tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("change", ["moved", "replaced", "grown", "other"])
def test_rows_are_added_only_to_ones_own_file(path: Path, change: str) -> None:
    writer, batch = hdf5.RowWriter(str(path)), {"data": np.ones((2, 3), np.float32)}
    writer.add(batch)
    if change == "moved":
        path.rename(f"{path}.old")
    elif change == "replaced":
        hdf5.RowWriter(str(path)).add(batch)
    elif change == "grown":
        with h5py.File(path, "r+") as file:
            file["data"].resize(5, axis=0)
    else:
        path.write_bytes(b"no HDF5")
    before = path.read_bytes() if path.exists() else b""
    with pytest.raises(OutputError, match="someone else has written or moved it"):
        writer.add(batch)
    assert (path.read_bytes() if path.exists() else b"") == before


def test_rows_of_another_shape_are_not_added(path: Path) -> None:
    writer = hdf5.RowWriter(str(path))
    writer.add({"data": np.ones((2, 3), np.float32)})
    with pytest.raises(OutputError, match='rows of "data" were 3, and are 4 now'):
        writer.add({"data": np.ones((2, 4), np.float32)})


def test_a_full_disk_while_rows_are_added(path: Path) -> None:
    writer = hdf5.RowWriter(str(path))
    writer.add({"data": np.ones((10, 100), np.float32)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="larger than allowed"):
            writer.add({"data": np.ones((1000, 100), np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
