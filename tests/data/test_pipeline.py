"""Batches of data layers against those of Caffe, from every kind of source."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from netdef.net import TEST, Net

CASES = (
    "encoded_png",
    "gray_onevalue",
    "imagedata_resize",
    "leveldb_plain",
    "lmdb_crop_scale_meanvalue",
    "lmdb_meanfile_crop",
    "lmdb_plain",
)


def test_no_case_is_left_out(shared: Path) -> None:
    found = {path.stem for path in (shared / "reference" / "data").glob("*.npz")}
    assert found == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_batches_are_those_of_caffe(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (shared / "reference" / "pipeline").iterdir():
        os.symlink(path, tmp_path / path.name)
    os.symlink(shared / "data" / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    with np.load(shared / "reference" / "data" / f"{name}.npz") as expected:
        net = Net.from_text(str(expected["prototxt"]), TEST)
        for batch in range(3):
            net.forward()
            data = net.blobs["data"].data
            # Libraries decode JPEGs to values that may differ by one.
            atol = 1.0 if name == "imagedata_resize" else 0.0
            np.testing.assert_allclose(data, expected[f"batch{batch}/data"], rtol=1e-6, atol=atol)
            np.testing.assert_array_equal(net.blobs["label"].data, expected[f"batch{batch}/label"])
        net.close()
