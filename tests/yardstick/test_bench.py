"""The yardstick at work: workers that take turns, and the commands as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from yardstick import machine
from yardstick.bench import main
from yardstick.engines import Job
from yardstick.race import TICKS, _Load, _ticks, race
from yardstick.record import Record
from yardstick.workers import Worker, WorkerError, in_new_process

INFER = Job("netdef", "lenet", "infer", 2, 1)


def test_workers_take_turns() -> None:
    train = Job("netdef", "lenet", "train", 2, 1)
    raced = race([INFER, train], seconds=60, iterations=3)
    assert [result.job for result in raced.results] == [INFER, train]
    assert 0 <= raced.others <= 1
    for result in raced.results:
        assert len(result.seconds) == 3
        assert all(seconds > 0 for seconds in result.seconds)
        assert result.median == sorted(result.seconds)[1]
        assert result.memory > 0


def test_what_others_use_is_noticed() -> None:
    """A process that computes all the time takes a core; of those named, nothing is counted."""
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        foreign = _Load([os.getpid()])
        own = _Load([os.getpid(), spinning.pid])
        before = _ticks(spinning.pid)
        while _ticks(spinning.pid) < before + 0.5 * TICKS:
            time.sleep(0.01)
        assert foreign.others() > own.others()
    finally:
        spinning.kill()
        spinning.wait()


def test_a_worker_that_dies() -> None:
    with pytest.raises(WorkerError, match="netdef ended with status 1"):
        Worker(Job("netdef", "lenet", "infer", -1, 1))


def test_a_first_start_compiles_and_a_second_does_not(tmp_path: Path) -> None:
    job = Job("netdef", "lenet", "infer", 2, 1, cache=str(tmp_path))
    compiled = []
    for _ in range(2):
        with Worker(job) as worker:
            compiled.append(worker.started.compiled)
    assert compiled[0] > 0
    assert compiled[1] == 0


def test_the_peak_is_that_of_this_machine() -> None:
    peak = in_new_process(machine.fma_peak, 1, 0.05)
    # A core that multiplies neither slower than it could in 1999 nor faster than any yet.
    assert 1e8 < peak < 1e13


def test_operations_of_a_step() -> None:
    """LeNet's are counted by hand: of each image, for a forward pass, and then with gradients."""
    from yardstick.bench import flops

    conv1, conv2 = 2 * 20 * 25 * 24 * 24, 2 * 50 * 20 * 25 * 8 * 8
    ip1, ip2 = 2 * 800 * 500, 2 * 500 * 10
    assert flops(INFER) == 2 * (conv1 + conv2 + ip1 + ip2)
    # The first layer has a gradient for its weights alone.
    train = Job("netdef", "lenet", "train", 2, 1)
    assert flops(train) == 2 * (2 * conv1 + 3 * (conv2 + ip1 + ip2))


def test_a_record_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "record.json")
    options = ["--nets", "lenet", "--engines", "netdef", "--threads", "1", "--iterations", "1"]
    main([*options, "--what", "infer1", "--json", path])
    assert "Inference of one image, 1 thread." in capsys.readouterr().out
    main([*options, "--what", "infer", "--json", path])
    record = Record.read(path)
    assert [row["what"] for row in record.values["races"]] == ["infer1", "infer"]
    main(["--from", path])
    assert capsys.readouterr().out.count("LeNet") == 4  # two of the second call, two of this one

    main(["--layers", "lenet", "--threads", "1", "--iterations", "1", "--json", path])
    assert "conv2  Convolution" in capsys.readouterr().out
    (row,) = json.loads(Path(path).read_text("utf-8"))["layers"]
    assert [layer["name"] for layer in row["layers"]][2:4] == ["conv1", "pool1"]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--nets", "lenet,alexnet"])
    assert '"alexnet" is none of lenet, ' in capsys.readouterr().err
    with pytest.raises(SystemExit, match="scripts/bench: cannot read"):
        main(["--from", str(tmp_path / "none.json")])
