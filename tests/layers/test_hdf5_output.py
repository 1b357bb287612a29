"""The HDF5Output layer: what is in its file, after one pass and after several."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netdef.errors import NetdefError, OutputError
from netdef.net import TEST, Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake, Trial

#: A folder that lasts as long as these tests: the cases write there.
_KEPT = tempfile.TemporaryDirectory()
FILE = f"{_KEPT.name}/out.h5"

TEXT = f'type: "HDF5Output" hdf5_output_param {{ file_name: "{FILE}" }}'


def nothing(*bottoms: Any) -> Any:
    return ()


CASES = [
    Case(TEXT, [(3, 2, 4, 5), (3,)], nothing),
    Case(TEXT, [(2, 3), (2, 1, 1, 1)], nothing, phase=pb.TEST),
    Case(TEXT, [(0, 3), (0,)], nothing),
    Case(TEXT, [(), ()], nothing, other=[(1,), (1,)]),
]


MISTAKES = [
    Mistake(TEXT, [(3, 2)], "takes 2 bottom blobs, but 1 given", "layer"),
    Mistake(
        TEXT,
        [(3, 2), (4,)],
        "data and label must have as many rows, but are 3x2 and 4",
        '"x1"',
    ),
    Mistake(
        TEXT,
        [(3, 1, 1, 1, 2), (3,)],
        "needs bottoms of at most 4 axes, but this is 3x1x1x1x2",
        '"x0"',
    ),
    Mistake('type: "HDF5Output"', [(3,), (3,)], "no file_name is given", "layer"),
]


def net(path: str, batch: int = 3, phase: str = "") -> Net:
    return Net.from_text(
        f"""
        layer {{
          name: "in" type: "Input" top: "x" top: "y"
          input_param {{
            shape {{ dim: {batch} dim: 2 }} shape {{ dim: {batch} }}
          }}
        }}
        layer {{
          name: "out" type: "HDF5Output" bottom: "x" bottom: "y" {phase}
          hdf5_output_param {{ file_name: "{path}" }}
        }}
        """,
        TEST,
    )


def feed(made: Net, start: int) -> None:
    count = len(made.blobs["y"].data)
    made.blobs["y"].data[...] = np.arange(start, start + count)
    made.blobs["x"].data[...] = made.blobs["y"].data[:, None] * [1, 10]
    made.forward()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_pass_writes_what_caffe_writes(case: Case, dtype: type[Any]) -> None:
    """Two datasets of four axes, of the type of the net."""
    with Trial(case, dtype) as trial:
        trial.forward()
        with h5py.File(FILE) as file:
            assert sorted(file) == ["data", "label"]
            for name, blob in zip(file, trial.bottom, strict=True):
                assert file[name].dtype == dtype
                assert file[name].shape == blob.shape + (1,) * (4 - len(blob.shape))
                np.testing.assert_array_equal(file[name][()].reshape(-1), blob.flat)


def test_each_pass_adds_its_rows() -> None:
    made = net("out.h5")
    for start in (0, 3, 6):
        feed(made, start)
        with h5py.File("out.h5") as file:
            assert file["label"].shape == (start + 3, 1, 1, 1)
            assert file["label"][:, 0, 0, 0].tolist() == list(range(start + 3))
            np.testing.assert_array_equal(file["data"][:, 1, 0, 0], 10 * np.arange(start + 3))
    made.close()
    assert os.listdir() == ["out.h5"]


def test_a_batch_of_another_size() -> None:
    made = net("out.h5")
    feed(made, 0)
    made.blobs["x"].reshape(2, 2)
    made.blobs["y"].reshape(2)
    made.reshape()
    feed(made, 3)
    with h5py.File("out.h5") as file:
        assert file["label"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_rows_of_another_shape_have_no_place() -> None:
    made = net("out.h5")
    feed(made, 0)
    made.blobs["x"].reshape(3, 4)
    with pytest.raises(OutputError, match='rows of "data" were 2x1x1, and are 4x1x1 now') as found:
        made.forward()
    assert found.value.diagnostics[0].message.startswith('layer "out" (HDF5Output): cannot add to')


def test_an_older_file_is_replaced_by_the_first_pass() -> None:
    Path("out.h5").write_text("older")
    made = net("out.h5")
    assert Path("out.h5").read_text() == "older"
    for _ in range(2):
        feed(net("out.h5"), 0)
        with h5py.File("out.h5") as file:
            assert len(file["data"]) == 3
    feed(made, 0)
    with h5py.File("out.h5") as file:
        assert len(file["data"]) == 3


def test_two_layers_cannot_write_one_file() -> None:
    one, two = net("out.h5"), net("out.h5")
    feed(one, 0)
    feed(two, 0)
    with pytest.raises(OutputError, match="someone else has written or moved it") as found:
        feed(one, 3)
    (told,) = found.value.diagnostics
    assert told.location is not None
    assert told.location.source[told.location.column - 1 :].startswith('"out.h5"')
    feed(two, 3)
    with h5py.File("out.h5") as file:
        assert len(file["data"]) == 6


def test_a_folder_that_is_missing_is_told_before_anything_runs() -> None:
    with pytest.raises(NetdefError, match="there is no folder") as found:
        net("none/out.h5")
    (told,) = found.value.diagnostics
    assert told.message.startswith('layer "out" (HDF5Output): cannot write none/out.h5')
    assert told.location is not None
    assert told.location.source[told.location.column - 1 :].startswith('"none/out.h5"')
    assert os.listdir() == []


def test_it_goes_on_where_another_stands() -> None:
    """As ``netdef test`` does with the records that do not fill a batch."""
    whole, rest = net("out.h5"), net("out.h5", batch=1)
    feed(whole, 0)
    for mine, theirs in zip(rest.layers, whole.layers, strict=True):
        mine.follow(theirs)
    feed(rest, 3)
    with h5py.File("out.h5") as file:
        assert file["label"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_hdf5_data_reads_it() -> None:
    made = net("out.h5")
    for start in (0, 3):
        feed(made, start)
    Path("list.txt").write_text("out.h5\n")
    reader = Net.from_text(
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" '
        'hdf5_data_param { source: "list.txt" batch_size: 6 } }',
        TEST,
    )
    reader.forward()
    np.testing.assert_array_equal(reader.blobs["label"].data.reshape(-1), np.arange(6))
    assert reader.blobs["data"].data.shape == (6, 2, 1, 1)
    reader.close()
