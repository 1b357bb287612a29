"""Keeping the layers of a state, and splitting what several layers read, as Caffe does both."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from netdef import prototxt
from netdef.errors import NetError
from netdef.graph import keep, split, unmet_rules
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import upgrade_net


def net(text: str) -> pb.NetParameter:
    return prototxt.parse(text, pb.NetParameter).message


def state(text: str = "") -> pb.NetState:
    return prototxt.parse(text, pb.NetState).message


def names(message: pb.NetParameter) -> list[str]:
    return [layer.name for layer in message.layer]


def kept(rules: str, of: str) -> bool:
    """Whether a layer with these ``rules`` stays in a net of this state."""
    return bool(keep(net(f'layer {{ name: "x" {rules} }}'), state(of)).layer)


# --- keep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "stays_in", "goes_in"),
    [
        ("", ["phase: TRAIN", "phase: TEST"], []),
        ("include { }", ["phase: TRAIN", "phase: TEST"], []),
        ("exclude { }", [], ["phase: TRAIN", "phase: TEST"]),
        ("include { phase: TRAIN }", ["phase: TRAIN"], ["phase: TEST", ""]),
        ("include { phase: TEST }", ["phase: TEST", ""], ["phase: TRAIN"]),
        ("exclude { phase: TEST }", ["phase: TRAIN"], ["phase: TEST"]),
        # A level counts from either side, the bounds included.
        ("include { min_level: 2 }", ["level: 2", "level: 7"], ["level: 1", "", "level: -3"]),
        ("include { max_level: 2 }", ["level: 2", "", "level: -3"], ["level: 3"]),
        (
            "include { min_level: 1 max_level: 2 }",
            ["level: 1", "level: 2"],
            ["level: 0", "level: 3"],
        ),
        ("include { min_level: 0 }", ["level: 0"], ["level: -1"]),
        ("exclude { min_level: 2 }", ["level: 1"], ["level: 2"]),
        # Every stage of a rule must be there, and none of its not_stage.
        ('include { stage: "a" }', ['stage: "a"', 'stage: ["b", "a"]'], ["", 'stage: "b"']),
        ('include { stage: ["a", "b"] }', ['stage: ["b", "a"]'], ['stage: "a"', 'stage: "b"']),
        ('include { not_stage: "a" }', ["", 'stage: "b"'], ['stage: "a"', 'stage: ["b", "a"]']),
        (
            'include { not_stage: "a" not_stage: "b" }',
            ["", 'stage: "c"'],
            ['stage: "a"', 'stage: "b"'],
        ),
        (
            'include { stage: "a" not_stage: "b" }',
            ['stage: "a"'],
            ["", 'stage: "b"', 'stage: ["a", "b"]'],
        ),
        # Within a rule everything must hold.
        (
            'include { phase: TRAIN min_level: 1 stage: "a" }',
            ['phase: TRAIN level: 1 stage: "a"'],
            ['phase: TEST level: 1 stage: "a"', 'phase: TRAIN stage: "a"', "phase: TRAIN level: 1"],
        ),
        # Of several rules any one suffices.
        (
            'include { phase: TRAIN } include { stage: "a" }',
            ["phase: TRAIN", 'phase: TEST stage: "a"'],
            ["phase: TEST"],
        ),
        (
            'exclude { phase: TRAIN } exclude { stage: "a" }',
            ["phase: TEST"],
            ["phase: TRAIN", 'phase: TEST stage: "a"'],
        ),
    ],
)
def test_rules(rules: str, stays_in: list[str], goes_in: list[str]) -> None:
    for of in stays_in:
        assert kept(rules, of), of
    for of in goes_in:
        assert not kept(rules, of), of


def test_keep_leaves_order_and_the_original_alone() -> None:
    original = net(
        'name: "n" force_backward: true'
        ' layer { name: "a" } layer { name: "b" include { phase: TEST } } layer { name: "c" }'
    )
    before = original.SerializeToString()
    result = keep(original, state('phase: TRAIN level: 3 stage: "s"'))
    assert names(result) == ["a", "c"]
    assert (result.name, result.force_backward) == ("n", True)
    assert result.state == state('phase: TRAIN level: 3 stage: "s"')
    assert original.SerializeToString() == before


def test_include_and_exclude_together() -> None:
    text = 'layer {\n  name: "x"\n  include { phase: TRAIN }\n  exclude { phase: TEST }\n}\n'
    document = prototxt.parse(text, pb.NetParameter, "n.prototxt")
    with pytest.raises(NetError, match='layer "x" has both include and exclude rules') as caught:
        keep(document.message, state(), document.positions)
    (found,) = caught.value.diagnostics
    assert found.code == "E110"
    assert str(found.location) == "n.prototxt:4:3"
    assert found.hint == "give one kind or the other"


def test_what_caffe_says_of_rules_that_are_not_met() -> None:
    message = net(
        """
        layer { name: "phase" include { phase: TEST } }
        layer { name: "low" include { min_level: 2 } }
        layer { name: "high" include { max_level: 0 } }
        layer { name: "stage" include { stage: "s" } }
        layer { name: "not" include { not_stage: "t" } }
        layer { name: "stays" exclude { phase: TEST } }
        """
    )
    assert unmet_rules(message, state('phase: TRAIN level: 1 stage: "t"')) == [
        "The NetState phase (0) differed from the phase (1) specified by a rule in layer phase",
        "The NetState level (1) is above the min_level (2) specified by a rule in layer low",
        "The NetState level (1) is above the max_level (0) specified by a rule in layer high",
        "The NetState did not contain stage 's' specified by a rule in layer stage",
        "The NetState contained a not_stage 't' specified by a rule in layer not",
        "The NetState phase (0) differed from the phase (1) specified by a rule in layer stays",
    ]


def test_rules_after_the_one_that_decides_are_not_looked_at() -> None:
    rules = "{0} {{ phase: TEST }} {0} {{ phase: TRAIN }} {0} {{ phase: TEST }}"
    for kind in ("include", "exclude"):
        message = net(f'layer {{ name: "x" {rules.format(kind)} }}')
        assert len(unmet_rules(message, state("phase: TRAIN"))) == 1


# --- split ----------------------------------------------------------------------------------------

DATA = 'layer { name: "in" type: "Input" top: "data" top: "label" }'


def wiring(message: pb.NetParameter) -> list[str]:
    """Each layer as ``name: bottoms -> tops``."""
    return [
        f"{layer.name}: {' '.join(layer.bottom)} -> {' '.join(layer.top)}".replace("  ", " ")
        for layer in message.layer
    ]


def test_what_one_layer_reads_is_not_split() -> None:
    message = net(DATA + 'layer { name: "a" bottom: "data" top: "a" }')
    assert split(message) == message


def test_names_of_splits() -> None:
    message = net(
        DATA
        + """
        layer { name: "a" bottom: "data" top: "a" }
        layer { name: "b" bottom: "data" bottom: "label" top: "b" }
        layer { name: "c" bottom: "label" bottom: "data" }
        """
    )
    assert wiring(split(message)) == [
        "in: -> data label",
        "data_in_0_split: data -> data_in_0_split_0 data_in_0_split_1 data_in_0_split_2",
        "label_in_1_split: label -> label_in_1_split_0 label_in_1_split_1",
        "a: data_in_0_split_0 -> a",
        "b: data_in_0_split_1 label_in_1_split_0 -> b",
        "c: label_in_1_split_1 data_in_0_split_2 -> ",
    ]
    assert [layer.type for layer in split(message).layer][:3] == ["Input", "Split", "Split"]


def test_a_layer_that_reads_a_blob_twice() -> None:
    message = net(DATA + 'layer { name: "a" bottom: "data" bottom: "data" top: "a" }')
    assert wiring(split(message))[1:] == [
        "data_in_0_split: data -> data_in_0_split_0 data_in_0_split_1",
        "a: data_in_0_split_0 data_in_0_split_1 -> a",
    ]


def test_after_a_layer_in_place_the_split_carries_its_name() -> None:
    message = net(
        DATA
        + """
        layer { name: "ip" bottom: "data" top: "x" }
        layer { name: "relu" bottom: "x" top: "x" }
        layer { name: "a" bottom: "x" }
        layer { name: "b" bottom: "x" }
        """
    )
    assert wiring(split(message))[1:] == [
        "ip: data -> x",
        "relu: x -> x",
        "x_relu_0_split: x -> x_relu_0_split_0 x_relu_0_split_1",
        "a: x_relu_0_split_0 -> ",
        "b: x_relu_0_split_1 -> ",
    ]


def test_a_reader_before_a_layer_in_place_makes_that_one_work_on_a_split() -> None:
    message = net(
        DATA
        + """
        layer { name: "ip" bottom: "data" top: "x" }
        layer { name: "a" bottom: "x" }
        layer { name: "relu" bottom: "x" top: "x" }
        """
    )
    # As Caffe has it; the plan then refuses, because relu is no longer in place and "x" is taken.
    assert wiring(split(message))[2:] == [
        "x_ip_0_split: x -> x_ip_0_split_0 x_ip_0_split_1",
        "a: x_ip_0_split_0 -> ",
        "relu: x_ip_0_split_1 -> x",
    ]


def test_a_loss_weight_is_a_reader() -> None:
    message = net(DATA + 'layer { name: "l" bottom: "data" top: "l" loss_weight: 0.5 }')
    assert split(message) == message, "one reader, the loss itself"

    message = net(
        DATA
        + """
        layer { name: "l" bottom: "data" top: "m" top: "l" loss_weight: 2 loss_weight: 0.5 }
        layer { name: "a" bottom: "l" }
        """
    )
    result = split(message)
    assert wiring(result)[1:] == [
        "l: data -> m l",
        "l_l_1_split: l -> l_l_1_split_0 l_l_1_split_1",
        "a: l_l_1_split_1 -> ",
    ]
    assert list(result.layer[1].loss_weight) == [2, 0], "the weight has moved to the Split"
    assert list(result.layer[2].loss_weight) == [0.5, 0]


def test_a_loss_weight_of_zero_is_no_reader() -> None:
    message = net(
        DATA
        + 'layer { name: "l" bottom: "data" top: "l" loss_weight: 0 }'
        + 'layer { name: "a" bottom: "l" }'
    )
    assert split(message) == message


def test_split_layers_stand_where_their_blob_was_written() -> None:
    document = prototxt.parse(
        'layer { name: "in" top: "x" }\nlayer { name: "a" bottom: "x" bottom: "x" }',
        pb.NetParameter,
    )
    lines = []
    for layer in split(document.message).layer:
        location = document.positions.layer(layer.origin)
        assert location is not None
        lines.append((layer.name, location.line))
    assert lines == [("in", 1), ("x_in_0_split", 1), ("a", 2)]


def test_splitting_twice_changes_nothing() -> None:
    message = net(DATA + 'layer { name: "a" bottom: "data" bottom: "data" top: "a" }')
    before = message.SerializeToString()
    once = split(message)
    assert split(once) == once
    assert message.SerializeToString() == before


# --- bottoms that nobody makes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "hint"),
    [
        ('layer { name: "x" bottom: "dat" }', 'did you mean "data"?'),
        ('layer { name: "x" bottom: "qqqq" }', "blobs made so far: data, label"),
        (
            'layer { name: "x" bottom: "late" } layer { name: "y" bottom: "data" top: "late" }',
            'layer "y" makes it, but stands further down: move it up',
        ),
        (
            'layer { name: "x" bottom: "self" top: "self" }',
            "no earlier layer makes this blob, so there is nothing to work on in place",
        ),
    ],
)
def test_unknown_bottom(layers: str, hint: str) -> None:
    document = prototxt.parse(f"{DATA}\n{layers}", pb.NetParameter, "n.prototxt")
    with pytest.raises(NetError) as caught:
        split(document.message, document.positions)
    (found,) = caught.value.diagnostics
    assert found.code == "E111"
    bottom = document.message.layer[1].bottom[0]
    assert found.message == f"Unknown bottom blob '{bottom}' (layer 'x', bottom index 0)"
    assert found.hint == hint
    column = layers.index(f'"{bottom}"') + 1
    assert str(found.location) == f"n.prototxt:2:{column}"


def test_unknown_bottom_of_the_first_layer() -> None:
    with pytest.raises(NetError) as caught:
        split(net('layer { name: "x" bottom: "a" bottom: "b" }'))
    assert caught.value.diagnostics[0].hint == ""
    assert caught.value.diagnostics[0].location is None


def test_a_blob_that_was_left_out_with_its_layer() -> None:
    message = net(
        'layer { name: "a" top: "a" include { phase: TRAIN } } layer { name: "b" bottom: "a" }'
    )
    split(keep(message, state("phase: TRAIN")))
    with pytest.raises(NetError, match="Unknown bottom blob 'a'"):
        split(keep(message, state("phase: TEST")))


# --- real nets ------------------------------------------------------------------------------------


def test_layers_of_real_nets_as_caffe_has_them(shared: Path) -> None:
    """Names and types, in order, of nets that Caffe built in phase TEST."""
    with gzip.open(shared / "reference" / "shapes.json.gz") as file:
        expected = json.load(file)
    assert len(expected) == 38
    for path, of_caffe in expected.items():
        document = prototxt.read(shared / "prototxt" / path, pb.NetParameter)
        upgraded = upgrade_net(document.message, document.positions)
        result = split(keep(upgraded, state("phase: TEST")))
        assert [[layer.name, layer.type] for layer in result.layer] == of_caffe["layers"], path
