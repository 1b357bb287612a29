"""A plan and its memory as tables."""

from __future__ import annotations

from netdef import graph, prototxt
from netdef.describe import describe_memory, describe_plan
from netdef.memory import arrange, place
from netdef.plan import Plan, plan
from netdef.proto import netdef_pb2 as pb

TEXT = """
layer {
  name: "in" type: "Input" top: "x" top: "b"
  input_param { shape { dim: 2 dim: 3 } }
}
layer {
  name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
  inner_product_param { num_output: 3 }
}
layer {
  name: "c" type: "InnerProduct" bottom: "a" top: "c" param { name: "w" }
  inner_product_param { num_output: 3 }
}
layer { name: "d" type: "ReLU" bottom: "a" top: "d" }
layer { name: "e" type: "ReLU" bottom: "d" top: "d" }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "b" top: "loss" }
layer { name: "loss2" type: "EuclideanLoss" bottom: "d" bottom: "b" top: "loss2" loss_weight: 2 }
"""


def planned() -> Plan:
    message = prototxt.parse(TEXT, pb.NetParameter).message
    return plan(graph.split(graph.keep(message, pb.NetState(phase=pb.TRAIN))))


def rows(text: str) -> dict[str, str]:
    """The lines of a table by their first word."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        found.setdefault((line.split() or [""])[0], " ".join(line.split()))
    return found


def test_a_plan() -> None:
    found = planned()
    text = describe_plan(found, arrange(found))
    assert text.splitlines()[0].split() == [
        "layer",
        "type",
        "bottoms",
        "tops",
        "params",
        "backward",
    ]
    lines = rows(text)
    assert lines["in"] == "in Input - x 2x3, b 2x3 - -"
    assert lines["a"] == "a InnerProduct x a 2x3 3x3, 3 params only"
    assert lines["a_a_0_split"].startswith("a_a_0_split Split (free) a ")
    assert lines["c"] == ("c InnerProduct a_a_0_split_0 c 2x3 3x3 = w, 3 into a_a_0_split_0 (adds)")
    assert lines["e"] == "e ReLU d d 2x3 (in place) - into d"
    assert "loss2 scalar loss*2" in lines["loss2"]
    assert "inputs: x, b" in text
    assert "outputs: loss, loss2" in text
    assert "parameters: 15 values, 0.00 MiB" in text


def test_a_memory() -> None:
    found = planned()
    memory = arrange(found, keep=())
    text = describe_memory(found, memory)
    lines = rows(text)
    places = place(found, memory)
    assert lines["x"] == "x 24 own in forward a backward"
    at = dict(zip((buffer.name for buffer in memory.buffers), places.offsets, strict=True))
    assert lines["a"] == f"a 24 {at['a']} a forward c backward"
    assert lines["d"].startswith(f"d 24 {at['d']} d forward ")
    assert lines["memory:"] == (
        f"memory: {places.arena / 2**20:.2f} MiB that they share, 0.00 MiB of their own"
    )
