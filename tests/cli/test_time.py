"""``netdef time``: Caffe's report, and the rates beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from netdef import TRAIN, Net

NAMES = ["data", "ip1", "relu1", "ip2", "loss"]

MS = r"[\d.e-]+ ms\.\n"


def messages(log: str) -> str:
    """A log without what stands before the message of each line."""
    return re.sub(r"^[IW]\d{4} [\d:.]+ +\d+ (\S+\]) ", r"\1 ", log, flags=re.MULTILINE)


def test_the_report_is_caffes(cli: Any) -> None:
    log = messages(cli.succeed("time", "-model", "net.prototxt", "-iterations=3", log="caffe"))
    layers = "".join(
        rf"caffe.cpp:409\] {name:>10}\tforward: {MS}caffe.cpp:412\] {name:>10}\tbackward: {MS}"
        for name in NAMES
    )
    iterations = "".join(
        rf"caffe.cpp:403\] Iteration: {i} forward-backward time: {MS}" for i in (1, 2, 3)
    )
    expected = (
        r"caffe.cpp:352\] Use CPU.\n"
        r"(?s:.*)net.cpp:257\] Network initialization done.\n"
        r"(?:netdef:0\] Compiling kernels \(first run only\)\n)?"
        r"caffe.cpp:360\] Performing Forward\n"
        r"caffe.cpp:365\] Initial loss: \d\.\d+\n"
        r"caffe.cpp:366\] Performing Backward\n"
        r"caffe.cpp:374\] \*\*\* Benchmark begins \*\*\*\n"
        r"caffe.cpp:375\] Testing for 3 iterations.\n"
        rf"{iterations}"
        r"caffe.cpp:406\] Average time per layer: \n"
        rf"{layers}"
        rf"caffe.cpp:417\] Average Forward pass: {MS}"
        rf"caffe.cpp:419\] Average Backward pass: {MS}"
        rf"caffe.cpp:421\] Average Forward-Backward: {MS}"
        rf"caffe.cpp:423\] Total Time: {MS}"
        r"caffe.cpp:424\] \*\*\* Benchmark ends \*\*\*\n"
        r"(?:netdef:0\] .*\n)+"
    )
    assert re.fullmatch(expected, log), log


def test_rates_of_layers(cli: Any) -> None:
    table = cli.succeed("time", "--model", "net.prototxt", "--iterations", 2)
    heading, *rows, whole = table.splitlines()
    assert heading.split()[:2] == ["layer", "type"]
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert list(cells) == NAMES
    for name, (kind, forward, gflops, gbytes, *_) in cells.items():
        assert float(forward) >= 0
        # Only matrix products are operations.
        assert (gflops != "-") == (kind == "InnerProduct"), name
        assert gbytes != "-"
    assert "mean of 2 iterations" in whole
    assert whole.endswith(" records/s")


def test_phases_and_stages(cli: Any, net: str) -> None:
    staged = net + (
        'layer { name: "silence" type: "Silence" bottom: "ip2" include { stage: "quiet" } }\n'
    )
    cli.write("net.prototxt", staged)

    def layers(*options: str) -> set[str]:
        output = cli.succeed("time", "--model", "net.prototxt", "--iterations", 1, *options)
        return {line.split()[0] for line in output.splitlines()[1:-1] if "_split" not in line}

    assert layers("--phase", "TEST") == {*NAMES, "accuracy"}
    assert layers("-phase", "TRAIN", "-stage", "quiet,other") == {*NAMES, "silence"}
    assert layers("-phase=train", "-level=1", "-gpu=0") == set(NAMES)


def test_the_state_in_the_log_is_caffes(cli: Any) -> None:
    log = cli.succeed("time", "-model", "net.prototxt", "-iterations", "1", log="caffe")
    assert 'state {\n  phase: TRAIN\n  level: 0\n  stage: ""\n}\n' in log


def test_weights_are_loaded(cli: Any, net: str) -> None:
    Net.from_text(net, TRAIN).save("w.caffemodel")
    options = ("--model", "net.prototxt", "--weights", "w.caffemodel", "--iterations", 1)
    assert "Finetuning from w.caffemodel" in cli.succeed("time", *options, log="caffe")


def test_json(cli: Any) -> None:
    output = cli.succeed("time", "--model", "net.prototxt", "--iterations", 2, log="json")
    told = [json.loads(line) for line in output.splitlines()]
    finished = told[-1]
    assert finished["type"] == "timing_finished"
    assert [layer["name"] for layer in finished["layers"]] == NAMES
    assert finished["layers"][1]["forward"]["flops"] == 2 * 20 * 16 * 28 * 28
    assert [one["iteration"] for one in told if one["type"] == "iteration_timed"] == [0, 1]


def test_a_process_of_its_own(cli: Any) -> None:
    done = cli.run("time", "-model=net.prototxt", "-iterations=1", "-threads=1")
    assert done.returncode == 0
    assert "*** Benchmark ends ***" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--model", "missing.prototxt"), 1, "missing.prototxt"),
        (("--model", "net.prototxt", "--weights", "no.caffemodel"), 1, "no.caffemodel"),
        (("--model", "net.prototxt", "--weights", ","), 2, "names no file"),
        (("--model", "net.prototxt", "--iterations", "0"), 2, "iterations"),
        (("--model", "net.prototxt", "--phase", "VALIDATE"), 2, "phase"),
        (("--iterations", "3"), 2, "model"),
    ],
)
def test_mistakes(cli: Any, arguments: tuple[str, ...], status: int, said: str) -> None:
    assert said in cli.mistake("time", *arguments, status=status)


def test_a_mistake_in_the_net_is_pointed_at(cli: Any, net: str) -> None:
    Path("net.prototxt").write_text(net.replace("num_output: 16", "num_output: 0"), "utf-8")
    assert "net.prototxt:" in cli.mistake("time", "--model", "net.prototxt")
