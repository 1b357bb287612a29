"""A tiny net on a tiny set, and ways to run commands on them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from netdef.data import digits
from netdef_cli.main import main

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

Env: TypeAlias = Mapping[str, str | None]
Done: TypeAlias = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def digit_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of digits_train_lmdb (230 records) and digits_test_lmdb (70)."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write(folder, train=230, test=70)
    return folder


@pytest.fixture
def net(digit_set: Path) -> str:
    """The text of the tiny net, which has 12,730 parameters."""
    return NET.replace("SET", str(digit_set))


@pytest.fixture
def cli(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Commands, run in a folder of their own with ``net.prototxt`` and ``solver.prototxt``."""
    monkeypatch.chdir(tmp_path)
    cli = Cli()
    cli.write("net.prototxt", net)
    cli.solver()
    yield cli
    cli.close()


class Cli:
    """Runs commands: in this process, or in one of their own."""

    def __init__(self) -> None:
        self._started: list[Running] = []

    def write(self, path: str, text: str) -> str:
        Path(path).write_text(text, encoding="utf-8")
        return path

    def solver(self, path: str = "solver.prototxt", **changes: object) -> str:
        """Write the usual solver with some fields changed, added or, by None, left out."""
        fields = {**SOLVER, **changes}
        lines = (f"{name}: {value}\n" for name, value in fields.items() if value is not None)
        return self.write(path, "".join(lines))

    def invoke(self, *arguments: object, log: str = "quiet", **options: Any) -> Result:
        """Run a command in this process."""
        words = [str(argument) for argument in arguments]
        if words[:1] in (["train"], ["test"], ["time"]):
            words += ["--log-format", log]
        return CliRunner().invoke(main, words, **options)

    def succeed(self, *arguments: object, **options: Any) -> str:
        """Run a command that works; returns what it prints."""
        result = self.invoke(*arguments, **options)
        assert result.exit_code == 0, result.output
        return result.output

    def mistake(self, *arguments: object, status: int = 1, errors: int = 1) -> str:
        """Run a command that is told something wrong; returns what it says about it."""
        result = self.invoke(*arguments)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == status, result.output
        if status == 1:
            assert result.output.count("error[E") == errors, result.output
        return result.output

    def run(self, *arguments: object, env: Env | None = None, **options: Any) -> Done:
        """Run a command in a process of its own."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        done: Done = subprocess.run(
            self.words(*arguments),
            text=True,
            encoding="utf-8",
            env=environment(env),
            timeout=PATIENCE,
            check=False,
            **options,
        )
        for stream in (done.stdout, done.stderr):
            assert "Traceback" not in (stream or ""), stream
        return done

    def start(self, *arguments: object, env: Env | None = None) -> Running:
        """Start a command in a process of its own."""
        self._started.append(Running(self.words(*arguments), environment(env)))
        return self._started[-1]

    def words(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "netdef_cli.main", *map(str, arguments)]

    def close(self) -> None:
        for running in self._started:
            running.process.kill()
            running.end()


def environment(changes: Env | None) -> dict[str, str]:
    # Threads that wait give way: the machine may be busy.
    changed = {**os.environ, "OMP_WAIT_POLICY": "passive", **(changes or {})}
    return {name: value for name, value in changed.items() if value is not None}


class Running:
    """A command that runs in a process of its own; its log is read as it comes."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=env,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify()
        self.process.stderr.close()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until so many lines hold ``pattern``."""

        def found() -> bool:
            return sum(re.search(pattern, line) is not None for line in self._lines) >= times

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), self.log

    def send(self, signal: int) -> None:
        self.process.send_signal(signal)

    def insist(self, signal: int) -> None:
        """Send ``signal`` again and again, as an impatient user does, until the process ends."""
        while self.process.poll() is None:
            self.process.send_signal(signal)
            time.sleep(0.005)

    def end(self) -> int:
        """Wait for the end; returns the status, negative where a signal was the end."""
        status = self.process.wait(PATIENCE)
        self._reader.join()
        assert "Traceback" not in self.log, self.log
        return status
