"""The progress line on a real pseudo-terminal, read back as a terminal would show it."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from netdef import events
from netdef.events import Output
from netdef.sinks import FORMATS, choose
from netdef.sinks.progress import Progress, _duration, _Line

TEST = events.TestFinished(50, 0, [Output("accuracy", [0.9271]), Output("loss", [0.5], 1.0)])


def on_terminal(act: Callable[[Any], None]) -> str:
    """Everything that reaches a terminal of 80 columns while ``act`` uses a sink on it."""
    ours, theirs = pty.openpty()
    received = bytearray()

    def receive() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                return
            if not data:
                return
            received.extend(data)

    reader = threading.Thread(target=receive)
    reader.start()
    try:
        with os.fdopen(theirs, "w") as terminal:
            sink = Progress(terminal)
            try:
                act(sink)
            finally:
                sink.close()
    finally:
        reader.join()
        os.close(ours)
    return received.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def train(sink: Any) -> None:
    sink(events.SolveStarted("LeNet", "inv", 0, 100, 64))
    for iteration in range(50):
        sink(events.IterationDone(iteration, 0.5, display=False))
    sink(events.Warned("labels start at 1"))
    sink(TEST)
    sink(events.SnapshotWriting("n_iter_50.caffemodel", "model"))
    sink(events.SnapshotWritten("n_iter_50.caffemodel", "n_iter_50.solverstate", 50))
    sink(events.SolveFinished(50, early=True))
    sink(events.OptimizationDone(early=True))


def test_lines_that_stay() -> None:
    text = plain(on_terminal(train))
    for line in (
        "training LeNet to iteration 100\n",
        "warning: labels start at 1\n",
        "iteration 50: test accuracy 0.9271, loss 0.5\n",
        "iteration 50: snapshot n_iter_50.caffemodel\n",
        "stopped after 50 iterations: loss 0.5; test accuracy 0.9271, loss 0.5 (in 0:00:",
    ):
        assert line in text


@pytest.mark.parametrize("fails", [False, True])
def test_terminal_is_left_clean(fails: bool) -> None:
    def act(sink: Any) -> None:
        sink(events.SolveStarted("LeNet", "inv", 0, 100))
        sink(events.KernelCompiled("gemm"))
        if fails:
            raise KeyboardInterrupt

    output, errors = sys.stdout, sys.stderr
    if fails:
        with pytest.raises(KeyboardInterrupt):
            on_terminal(act)
    else:
        text = on_terminal(act)
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
        # After the last erased line nothing is drawn.
        assert plain(text[text.rindex("\x1b[2K") :]).strip() == ""
    assert (sys.stdout, sys.stderr) == (output, errors)


def test_weights_are_told_once_for_all_nets() -> None:
    loaded = events.WeightsLoaded("w.caffemodel", ["conv1"], ["fc8"], ["conv9"])
    text = plain(on_terminal(lambda sink: [sink(loaded), sink(loaded)]))  # type: ignore[arg-type]
    for line in ("weights from w.caffemodel", "  copied  ", "  not in the file  "):
        assert text.count(line) == 1


def drawn(line: _Line, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(line)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [10, 20, 34, 60, 80, 120])
def test_line_fits_the_terminal(width: int) -> None:
    line = _Line()
    states: list[Callable[[], None]] = [
        lambda: None,
        lambda: setattr(line, "status", "compiling kernels (first run only): " + "x" * 200),
        lambda: line.start(events.SolveStarted("n", "fixed", 0, 10_000_000, 64)),
        lambda: line.iterated(events.IterationDone(1234567, float("nan"), False)),
        lambda: line.test(events.TestStarted(0, 0, 100)),
        lambda: line.trained(),
        lambda: line.iterated(events.IterationDone(1234569, 1e-30, False)),
        lambda: setattr(line, "score", "a_very_long_name_of_an_output 0.123456"),
    ]
    for change in states:
        change()
        text = drawn(line, width)
        assert text.count("\n") == 1
        assert len(text.rstrip("\n")) <= width


def test_line_tells_the_less_the_narrower_it_is() -> None:
    line = _Line()
    line.start(events.SolveStarted("n", "fixed", 0, 200, 64))
    line.iterated(events.IterationDone(0, 2.0, False))
    line.iterated(events.IterationDone(99, 0.25, False))
    line.score = "accuracy 0.9271"
    wide = drawn(line, 100)
    assert re.search(r"train .* 100/200  loss 0\.25  test accuracy 0\.9271  0:00:00 left", wide)
    assert "100/200  loss 0.25" in drawn(line, 40)
    assert "100/200" in drawn(line, 20)


def test_line_while_layers_are_timed() -> None:
    line = _Line()
    line.time(50)
    line.batch = 20
    text = drawn(line, 60)
    assert text.startswith("time ")
    assert "20/50 iterations" in text


def test_timing_leaves_its_table() -> None:
    layer = events.LayerTime("conv1", "Convolution", events.Pass(0.5, 10, 10), events.Pass(0.25))

    def act(sink: Any) -> None:
        sink(events.TimingStarted())
        sink(events.WarmedUp(0.5, 2))
        sink(events.IterationTimed(0, 1.0))
        sink(events.TimingFinished(2, [layer], 0.5, 0.25, 1.5))

    text = plain(on_terminal(act))
    assert re.search(r"conv1  Convolution +500.000 ", text), text
    assert "forward 500 ms, backward 250 ms, together 750 ms" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (62.9, "0:01:02"), (3600, "1:00:00"), (86399, "23:59:59"), (90000, "1d 1h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(format: str, stream: io.StringIO) -> str:
        sink = choose(format, stream)
        sink.close()
        sink.close()
        return type(sink).__name__

    assert chosen("auto", Terminal()) == "Progress"
    assert chosen("auto", io.StringIO()) == "CaffeLog"
    assert [chosen(format, Terminal()) for format in FORMATS[1:]] == [
        "CaffeLog",
        "JsonLines",
        "Quiet",
    ]
    monkeypatch.setenv("TERM", "dumb")
    assert chosen("auto", Terminal()) == "CaffeLog"
    with pytest.raises(ValueError, match="auto, caffe, json, quiet"):
        choose("xml", io.StringIO())
