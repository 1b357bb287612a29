from __future__ import annotations

import io
import json
import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from netdef import events
from netdef.proto import netdef_pb2 as pb
from netdef.sinks.json_lines import JsonLines


def objects(*happened: events.Event) -> list[dict[str, Any]]:
    stream = io.StringIO()
    sink = JsonLines(stream)
    for event in happened:
        sink(event)
    sink.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(happened)
    return [json.loads(line, parse_constant=lambda name: 1 / 0) for line in lines]


def test_fields_and_type() -> None:
    before = time.time()
    (shown,) = objects(events.SnapshotWritten("a.caffemodel", "a.solverstate", 10))
    assert before <= shown.pop("time") <= time.time()
    assert shown == {
        "type": "snapshot_written",
        "model": "a.caffemodel",
        "state": "a.solverstate",
        "iteration": 10,
    }


def test_numbers_have_full_precision() -> None:
    value = np.float32(0.1)
    outputs = [events.Output("loss", np.array([value]), 1.0)]
    (shown,) = objects(events.IterationDone(np.int64(3), 1 / 3, True, outputs=outputs))  # type: ignore[arg-type]
    assert shown["iteration"] == 3
    assert shown["loss"] == 1 / 3
    assert shown["display"] is True
    assert shown["outputs"] == [{"name": "loss", "values": [float(value)], "loss_weight": 1.0}]


def test_what_is_not_finite_is_null() -> None:
    values = np.array([np.nan, np.inf, 1], np.float32)
    shown, rate = objects(
        events.TestFinished(0, 0, [events.Output("x", values)], loss=math.nan),
        events.RateSet(0, -math.inf),
    )
    assert shown["loss"] is None
    assert shown["outputs"][0]["values"] == [None, None, 1.0]
    assert rate["rate"] is None


def test_definitions_are_prototxt_and_plans_are_objects() -> None:
    layer = SimpleNamespace(
        name="x", type="Input", bottoms=(), tops=("data",), top_shapes=((1, 3),), extra=object()
    )
    state = pb.NetState(phase=pb.TEST)
    plan = SimpleNamespace(name="n", state=state, layers=(layer,), outputs=("data",))
    (shown,) = objects(events.NetBuilt(plan, pb.NetParameter(name="n"), ["rule"]))  # type: ignore[arg-type]
    assert shown["parameters"] == 'name: "n"\n'
    assert shown["dropped"] == ["rule"]
    assert shown["plan"] == {
        "name": "n",
        "phase": "TEST",
        "layers": [
            {"name": "x", "type": "Input", "bottoms": [], "tops": ["data"], "top_shapes": [[1, 3]]}
        ],
        "outputs": ["data"],
    }


def test_text_of_any_script_stays_on_one_line() -> None:
    note, line = objects(events.Note("训练\nдальше"), events.KernelCompiled("gemm"))
    assert note["text"] == "训练\nдальше"
    assert line["type"] == "kernel_compiled"


def test_what_has_fields_is_an_object() -> None:
    layer = events.LayerTime("ip", "InnerProduct", events.Pass(0.5, 10, 20), events.Pass(math.inf))
    (shown,) = objects(events.TimingFinished(1, [layer], 0.5, 0.0, 0.5))
    assert shown["layers"] == [
        {
            "name": "ip",
            "type": "InnerProduct",
            "forward": {"seconds": 0.5, "flops": 10, "bytes": 20},
            "backward": {"seconds": None, "flops": 0, "bytes": 0},
        }
    ]
