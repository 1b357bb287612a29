"""A tiny set, a tiny net, and ways to run commands on them: in this process, or in one of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from netdef_cli.main import main

from netdef.data import digits

TRAIN_RECORDS, TEST_RECORDS = 230, 70

NET = """\
name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label"
  include { phase: TRAIN } transform_param { scale: 0.00390625 }
  data_param { source: "SET/digits_train_lmdb" batch_size: 20 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label"
  include { phase: TEST } transform_param { scale: 0.00390625 }
  data_param { source: "SET/digits_test_lmdb" batch_size: 20 backend: LMDB } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
PARAMETERS = 784 * 16 + 16 + 16 * 10 + 10

SOLVER = {
    "net": '"net.prototxt"',
    "test_iter": "3",
    "test_interval": "20",
    "base_lr": "0.05",
    "momentum": "0.9",
    "weight_decay": "0.0005",
    "lr_policy": '"fixed"',
    "display": "10",
    "max_iter": "40",
    "snapshot": "20",
    "snapshot_prefix": '"snap"',
    "random_seed": "7",
}

#: No test waits longer than this for a command, however busy the machine.
PATIENCE = 120


def solver_text(**changes: object) -> str:
    """The usual solver with some fields changed, added, or, by None, left out."""
    fields = {**SOLVER, **changes}
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)


@pytest.fixture(scope="session")
def digit_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    digits.write(folder, train=TRAIN_RECORDS, test=TEST_RECORDS)
    return folder


@pytest.fixture
def net(digit_set: Path) -> str:
    """The text of the tiny net."""
    return NET.replace("SET", str(digit_set))


@pytest.fixture
def folder(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``net.prototxt`` and ``solver.prototxt``."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(net, encoding="utf-8")
    Path("solver.prototxt").write_text(solver_text(), encoding="utf-8")
    return tmp_path


def invoke(*arguments: object, log: str = "quiet", **options: Any) -> Result:
    """Run a command in this process."""
    words = [str(argument) for argument in arguments]
    if words[:1] in (["train"], ["test"]):
        words += ["--log-format", log]
    return CliRunner().invoke(main, words, **options)


def succeed(*arguments: object, log: str = "quiet") -> str:
    """Run a command that works; returns what it prints."""
    result = invoke(*arguments, log=log)
    assert result.exit_code == 0, result.output
    return result.output


def mistake(*arguments: object, status: int = 1) -> str:
    """Run a command that is told one thing wrong; returns what it says about it."""
    result = invoke(*arguments)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    if status == 1:
        assert result.output.count("error[E") == 1, result.output
    return result.output


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a command. Threads that wait give way: the machine may be busy."""
    changed = {**os.environ, "OMP_WAIT_POLICY": "passive", **changes}
    return {name: value for name, value in changed.items() if value is not None}


def command(*arguments: object) -> list[str]:
    """What runs ``netdef`` in a process of its own."""
    return [sys.executable, "-m", "netdef_cli.main", *map(str, arguments)]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    options = {"capture_output": True, "env": environment(), **options}
    done = subprocess.run(
        command(*arguments), text=True, encoding="utf-8", timeout=PATIENCE, check=False, **options
    )
    for stream in (done.stdout, done.stderr):
        assert "Traceback" not in (stream or ""), stream
    return done


class Running:
    """A command that runs in a process of its own; its log is read as it comes."""

    def __init__(self, *arguments: object, **env: str | None) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(**env),
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until so many lines hold ``pattern``."""

        def found() -> bool:
            return sum(re.search(pattern, line) is not None for line in self.lines) >= times

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), self.log

    def send(self, signal: int) -> None:
        self.process.send_signal(signal)

    def insist(self, signal: int) -> None:
        """Send ``signal`` again and again, as an impatient user does, until the process ends."""
        while self.process.poll() is None:
            self.process.send_signal(signal)
            time.sleep(0.05)

    def end(self) -> int:
        """Wait for the end; returns the status, negative where a signal was the end."""
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()
        assert "Traceback" not in self.log, self.log
        return self.process.returncode


@pytest.fixture
def running() -> Any:
    """Starts commands that are ended with the test, should it fail."""
    started: list[Running] = []

    def start(*arguments: object, **env: str | None) -> Running:
        started.append(Running(*arguments, **env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


Start = Callable[..., Running]
