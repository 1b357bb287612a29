"""``netdef show``: the net at each stage between its text and its plan."""

from __future__ import annotations

from typing import Any

import pytest

from netdef import graph, prototxt
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import upgrade_net

V1_NET = """
name: "old"
input: "x" input_dim: 2 input_dim: 3 input_dim: 1 input_dim: 1
layers { name: "relu" type: RELU bottom: "x" top: "y" }
"""

STAGED_NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }
layer { name: "a" type: "ReLU" bottom: "x" top: "a" include { stage: "deploy" } }
layer { name: "b" type: "ReLU" bottom: "x" top: "b" include { min_level: 2 } }
layer { name: "c" type: "ReLU" bottom: "x" top: "c" include { not_stage: "deploy" } }
"""


def parse(text: str) -> pb.NetParameter:
    return prototxt.parse(text, pb.NetParameter).message


def layers(text: str) -> list[str]:
    return [layer.name for layer in parse(text).layer]


@pytest.mark.parametrize(("phase", "value"), [("TRAIN", pb.TRAIN), ("TEST", pb.TEST)])
def test_each_stage_is_that_of_the_library(cli: Any, net: str, phase: str, value: int) -> None:
    def shown(stage: str) -> pb.NetParameter:
        return parse(cli.succeed("show", "net.prototxt", "--stage", stage, "--phase", phase))

    document = prototxt.parse(net, pb.NetParameter)
    state = pb.NetState(phase=pb.Phase.Name(value))
    upgraded = upgrade_net(document.message)
    kept = graph.keep(upgraded, state, document.positions)
    split = graph.split(kept, document.positions)
    for stage, expected in {
        "parsed": document.message,
        "upgraded": upgraded,
        "kept": kept,
        "split": split,
    }.items():
        assert prototxt.to_text(shown(stage)) == prototxt.to_text(expected)


def test_the_phase_says_which_layers_are_kept(cli: Any) -> None:
    train = layers(cli.succeed("show", "net.prototxt", "--stage", "kept"))
    test = layers(cli.succeed("show", "net.prototxt", "--stage", "kept", "--phase", "test"))
    assert train == ["data", "ip1", "relu1", "ip2", "loss"]
    assert test == ["data", "ip1", "relu1", "ip2", "accuracy", "loss"]


def test_level_and_stages_say_which_layers_are_kept(cli: Any) -> None:
    cli.write("staged.prototxt", STAGED_NET)
    for options, expected in {
        (): ["in", "c"],
        ("--stages", "deploy"): ["in", "a"],
        ("--stages", "x, deploy", "--level", 2): ["in", "a", "b"],
        ("-level", 3): ["in", "b", "c"],
    }.items():
        text = cli.succeed("show", "staged.prototxt", "--stage", "kept", *options)
        assert layers(text) == expected


def test_the_level_of_the_command_line_counts_more_than_that_of_the_file(cli: Any) -> None:
    cli.write("staged.prototxt", 'state { level: 1 stage: "deploy" }' + STAGED_NET)
    assert layers(cli.succeed("show", "staged.prototxt", "--stage", "kept", "--level", 2)) == [
        "in",
        "a",
        "b",
    ]


def test_old_syntax_is_upgraded(cli: Any) -> None:
    cli.write("old.prototxt", V1_NET)
    parsed = parse(cli.succeed("show", "old.prototxt", "--stage", "parsed"))
    upgraded = parse(cli.succeed("show", "old.prototxt", "--stage", "upgraded"))
    assert (len(parsed.layers), len(parsed.layer)) == (1, 0)
    assert [layer.type for layer in upgraded.layer] == ["Input", "ReLU"]


def test_the_plan_is_what_is_shown_by_default(cli: Any) -> None:
    text = cli.succeed("show", "net.prototxt")
    assert "parameters: 12730 values" in text
    assert "20x1x28x28" in text
    assert "outputs: loss" in text
    assert "outputs: accuracy, loss" in cli.succeed("show", "net.prototxt", "--phase", "TEST")


def test_a_net_that_would_never_fit_in_memory(cli: Any) -> None:
    wide = "".join(
        f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "x{i}" top: "x{i + 1}"\n'
        "  inner_product_param { num_output: 40000 bias_term: false } }\n"
        for i in range(100)
    )
    first = (
        'layer { name: "in" type: "Input" top: "x0" input_param { shape { dim: 1 dim: 40000 } } }'
    )
    cli.write("wide.prototxt", first + wide)
    assert f"parameters: {100 * 40000**2} values" in cli.succeed("show", "wide.prototxt")


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("layer {\n  naem: 'x'\n}\n", 'did you mean "name"?', "bad.prototxt:2:3"),
        ("layer {\n name: 'x'\n type: 'ReLo' }\n", 'did you mean "ReLU"?', "bad.prototxt:3:8"),
        (
            "layer {\n name: 'x' type: 'ReLU'\n bottom: 'none' top: 'y' }\n",
            "Unknown bottom blob 'none'",
            "bad.prototxt:3:10",
        ),
    ],
)
def test_what_is_wrong_with_the_net(cli: Any, text: str, message: str, place: str) -> None:
    cli.write("bad.prototxt", text)
    output = cli.mistake("show", "bad.prototxt")
    assert message in output
    assert f"--> {place}\n" in output


def test_files_that_are_no_net(cli: Any) -> None:
    assert "does not exist" in cli.mistake("show", "absent.prototxt")
    assert "solver definition, where a net" in cli.mistake("show", "solver.prototxt")
    assert "is a device or a pipe" in cli.mistake("show", "/dev/zero")


def test_usage(cli: Any) -> None:
    cli.mistake("show", status=2)
    cli.mistake("show", "net.prototxt", "--stage", "bogus", status=2)
    cli.mistake("show", "net.prototxt", "--phase", "bogus", status=2)
    # In Caffe this names stages of the net; here --stages does.
    assert "'--stage'" in cli.mistake("show", "net.prototxt", "-stage", "kept", status=2)
