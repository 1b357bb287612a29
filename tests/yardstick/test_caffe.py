"""Reading the report of ``caffe time``: a text in its form, and a program that prints it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from yardstick.caffe import CaffeError, averages, caffe_seconds
from yardstick.engines import Job

LOG = """\
I0102 03:04:05.000001   7 caffe.cpp:403] Iteration: 1 forward-backward time: 21 ms.
I0102 03:04:05.000002   7 caffe.cpp:406] Average time per layer:
I0102 03:04:05.000003   7 caffe.cpp:409]      conv1\tforward: 1.5 ms.
I0102 03:04:05.000004   7 caffe.cpp:412]      conv1\tbackward: 2.5 ms.
I0102 03:04:05.000005   7 caffe.cpp:417] Average Forward pass: 7.25 ms.
I0102 03:04:05.000006   7 caffe.cpp:419] Average Backward pass: 12.5 ms.
I0102 03:04:05.000007   7 caffe.cpp:421] Average Forward-Backward: 20.5 ms.
I0102 03:04:05.000008   7 caffe.cpp:423] Total Time: 41 ms.
I0102 03:04:05.000009   7 caffe.cpp:424] *** Benchmark ends ***
"""

TRAIN = Job("netdef", "lenet", "train", 64, 3)
INFER = Job("netdef", "lenet", "infer", 64, 3)


def program(folder: Path, script: str) -> str:
    path = folder / "caffe"
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_averages() -> None:
    assert averages(LOG) == pytest.approx({"Forward": 0.00725, "Forward-Backward": 0.0205})


def test_large_and_small_numbers() -> None:
    assert averages("x] Average Forward pass: 1.5e+06 ms.\n") == {"Forward": 1500.0}
    assert averages("x] Average Forward pass: 5e-05 ms.\n") == pytest.approx({"Forward": 5e-8})


def test_a_run(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG, "utf-8")
    caffe = program(
        tmp_path,
        f'echo "$@" $OMP_NUM_THREADS > {tmp_path}/given\n'
        f"cp $(echo $2 | cut -d= -f2) {tmp_path}/net\n"
        f"cat {tmp_path}/log >&2",
    )
    assert caffe_seconds(caffe, TRAIN, 4) == pytest.approx(0.0205)
    command, model, *options, threads = (tmp_path / "given").read_text("utf-8").split()
    assert command == "time"
    assert model.startswith("-model=")
    assert options == ["-iterations=4", "-phase=TRAIN", "-logtostderr"]
    assert threads == "3"
    assert (tmp_path / "net").read_text("utf-8") == TRAIN.text

    assert caffe_seconds(caffe, INFER, 4) == pytest.approx(0.00725)
    assert "-phase=TEST" in (tmp_path / "given").read_text("utf-8")
    assert (tmp_path / "net").read_text("utf-8") == INFER.text


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="No such file"):
        caffe_seconds(str(tmp_path / "caffe"), TRAIN, 1)


def test_a_program_that_fails(tmp_path: Path) -> None:
    caffe = program(tmp_path, 'echo "F0102 unknown layer" >&2; exit 134')
    with pytest.raises(CaffeError, match="status 134: F0102 unknown layer"):
        caffe_seconds(caffe, TRAIN, 1)


def test_a_program_that_says_something_else(tmp_path: Path) -> None:
    caffe = program(tmp_path, 'echo "] Average Forward pass: 1 ms." >&2')
    with pytest.raises(CaffeError, match="Average Forward-Backward"):
        caffe_seconds(caffe, TRAIN, 1)
