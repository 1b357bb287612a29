"""A run must survive the terminal, the pipe or the disk its log goes to."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from netdef.sinks.stream import Stream

TALKATIVE = """
import sys
from netdef import events
from netdef.sinks import choose
sink = choose({format!r}, sys.{stream})
for i in range(20000):
    sink(events.Warned("w" * 100))
sink(events.OptimizationDone())
sink.close()
open({proof!r}, "w").close()
"""


def test_passes_text_on() -> None:
    below = io.StringIO()
    stream = Stream(below)
    assert stream.write("a\n") == 2
    stream.flush()
    assert below.getvalue() == "a\n"
    assert not stream.isatty()


def test_characters_the_stream_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("naïve ✓\n")
    stream.flush()
    assert raw.getvalue() == b"na\\xefve \\u2713\n"


def test_closed_stream_is_silent() -> None:
    below = io.StringIO()
    stream = Stream(below)
    below.close()
    stream.write("x")
    stream.flush()
    assert not stream.isatty()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk_is_silent() -> None:
    # Unbuffered below: nothing may be left that fails when the file is closed.
    with open("/dev/full", "wb", buffering=0) as raw:
        stream = Stream(io.TextIOWrapper(raw, write_through=True))  # type: ignore[type-var]
        stream.write("x" * 100_000)
        stream.flush()


@pytest.mark.parametrize("format", ["caffe", "json", "quiet", "auto"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_run_survives_a_reader_that_goes_away(tmp_path, format: str, stream: str) -> None:  # type: ignore[no-untyped-def]
    proof = tmp_path / "reached the end"
    script = TALKATIVE.format(format=format, stream=stream, proof=str(proof))
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    pipes[stream] = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as run:  # type: ignore[call-overload]
        pipe = getattr(run, stream)
        pipe.read(10)
        pipe.close()
        assert run.wait() == 0
    assert proof.exists()
