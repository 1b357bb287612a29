"""The plan of a net: shapes, parameters and their sharing, gradients, as in Caffe."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from netdef import graph, prototxt
from netdef.errors import Diagnostic, NetError
from netdef.layer import layer_types
from netdef.net import Net
from netdef.plan import LayerPlan, Plan, plan, reshape
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import upgrade_net


def planned(text: str, phase: str = "TRAIN") -> Plan:
    return plan_of(prototxt.parse(text, pb.NetParameter, "n.prototxt"), phase)


def plan_of(document: prototxt.Document[pb.NetParameter], phase: str) -> Plan:
    net = upgrade_net(document.message, document.positions)
    kept = graph.keep(net, pb.NetState(phase=phase), document.positions)
    return plan(graph.split(kept, document.positions), document.positions)


def refused(text: str, phase: str = "TRAIN") -> Diagnostic:
    """The one thing that is wrong with a net."""
    with pytest.raises(NetError) as caught:
        planned(text, phase)
    (found,) = caught.value.diagnostics
    return found


def layer(of: Plan, name: str) -> LayerPlan:
    (found,) = [layer for layer in of.layers if layer.name == name]
    return found


def backward(of: Plan) -> list[str]:
    """The layers that run backward."""
    return [layer.name for layer in of.layers if layer.needs_backward]


def input_of(*tops: str, shape: str = "dim: 2 dim: 3") -> str:
    named = " ".join(f'top: "{top}"' for top in tops)
    return f'layer {{ name: "in" type: "Input" {named} input_param {{ shape {{ {shape} }} }} }}\n'


def ip(name: str, bottom: str, rest: str = "", outputs: int = 3) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {rest} '
        f"inner_product_param {{ num_output: {outputs} }} }}\n"
    )


def loss(a: str, b: str = "b", rest: str = "", name: str = "loss") -> str:
    return (
        f'layer {{ name: "{name}" type: "EuclideanLoss" bottom: "{a}" bottom: "{b}" top: "{name}" '
        f"{rest} }}\n"
    )


FIXED = "param { lr_mult: 0 } param { lr_mult: 0 }"

# --- shapes ---------------------------------------------------------------------------------------


def test_shapes_of_real_nets_as_caffe_has_them(shared: Path) -> None:
    """Blobs and parameters of nets that Caffe built in phase TEST, splits included."""
    with gzip.open(shared / "reference" / "shapes.json.gz") as file:
        expected = json.load(file)
    compared = 0
    for path, of_caffe in expected.items():
        if not {type for _, type in of_caffe["layers"]} <= set(layer_types()):
            continue
        found = plan_of(prototxt.read(shared / "prototxt" / path, pb.NetParameter), "TEST")
        blobs = {name: list(blob.shape) for name, blob in found.blobs.items()}
        assert blobs == of_caffe["blobs"], path
        assert list(blobs) == list(of_caffe["blobs"]), path
        params: dict[str, list[list[int]]] = {}
        for param in found.params:
            params.setdefault(param.layer, []).append(list(param.shape))
        assert params == of_caffe["params"], path
        compared += 1
    assert compared >= 14


def test_inputs_and_outputs() -> None:
    found = planned(input_of("x", "b", "alone") + ip("z", "x") + ip("a", "x") + loss("z"))
    assert found.inputs == ("x", "b", "alone")
    # As Caffe numbers them in its log: by name.
    assert found.outputs == ("a", "alone", "loss")


def test_a_blob_that_is_too_large() -> None:
    text = input_of("x", shape="dim: 65536 dim: 32768")
    assert refused(text).message == (
        'layer "in" (Input): top "x" would be 65536x32768: more than 2^31 - 1 values'
    )


def test_an_empty_axis_excuses_no_blob_that_is_too_large() -> None:
    text = input_of("x", shape="dim: 65536 dim: 32768 dim: 0")
    assert refused(text).message == (
        'layer "in" (Input): top "x" would be 65536x32768x0: more than 2^31 - 1 values along its '
        "other axes"
    )
    text = input_of("x", shape="dim: 0 dim: 65536 dim: 2") + ip("a", "x", outputs=20000)
    assert refused(text).message == (
        'layer "a" (InnerProduct): its weight would be 20000x131072: more than 2^31 - 1 values'
    )


def test_a_layer_that_does_not_fit_names_where_its_bottoms_come_from() -> None:
    text = (
        input_of("x", shape="dim: 2 dim: 3 dim: 4 dim: 4")
        + 'layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"\n'
        "  convolution_param { num_output: 2 kernel_size: 9 }\n}\n"
    )
    found = refused(text)
    assert '("x" is 2x3x4x4 from layer "in")' in found.message
    assert str(found.location).startswith("n.prototxt:")


# --- counts and names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        (
            'layer { name: "r" type: "ReLU" bottom: "x" bottom: "b" top: "y" }',
            'layer "r" (ReLU): takes 1 bottom blob, but 2 given',
            'bottom: "b"',
        ),
        (
            'layer { name: "r" type: "ReLU" top: "y" }',
            'layer "r" (ReLU): takes 1 bottom blob, but 0 given',
            "layer",
        ),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "y" top: "z" }',
            'layer "r" (ReLU): takes 1 top blob, but 2 given',
            'top: "z"',
        ),
        (
            'layer { name: "i" type: "Input" bottom: "x" top: "y" }',
            'layer "i" (Input): takes no bottom blobs, but 1 given',
            'bottom: "x"',
        ),
        (
            'layer { name: "s" type: "Silence" }',
            'layer "s" (Silence): takes 1 or more bottom blobs, but 0 given',
            "layer",
        ),
        (
            'layer { name: "a" type: "Accuracy" bottom: "x" bottom: "b" '
            'top: "p" top: "q" top: "r" }',
            'layer "a" (Accuracy): takes 1 to 2 top blobs, but 3 given',
            'top: "r"',
        ),
        (
            'layer { name: "c" type: "Convolution" bottom: "x" bottom: "b" top: "c" }',
            'layer "c" (Convolution): needs as many tops as bottoms, but has 1 and 2',
            "layer",
        ),
    ],
)
def test_counts(text: str, message: str, at: str) -> None:
    found = refused(input_of("x", "b") + text)
    assert found.message == message
    assert found.location is not None
    assert found.location.line == 2
    value = text.index(at) + (at.index('"') if '"' in at else 0)
    assert found.location.column == value + 1


def test_a_top_that_another_layer_makes() -> None:
    found = refused(input_of("x") + ip("a", "x") + 'layer { type: "ReLU" bottom: "x" top: "a" }')
    assert 'Top blob "a" is produced by multiple sources: layer "a" makes it too' in found.message
    assert found.hint == "give the top another name"


def test_a_top_given_twice() -> None:
    text = 'layer { name: "s" type: "Split" bottom: "x" top: "y" top: "y" }'
    found = refused(input_of("x") + text)
    assert found.message == (
        'layer "s" (Split): Top blob "y" is produced by multiple sources: twice by this layer'
    )
    assert found.hint == "give each top a name of its own"
    assert found.location is not None
    assert found.location.column == text.rindex('"y"') + 1


def test_in_place() -> None:
    found = planned(
        input_of("x") + ip("a", "x") + 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    )
    assert layer(found, "r").in_place == (True,)
    assert layer(found, "a").in_place == (False,)
    assert list(found.blobs) == ["x", "a"]


def test_in_place_needs_a_layer_that_can() -> None:
    found = refused(input_of("x") + ip("x", "x").replace('name: "x"', 'name: "a"'))
    assert found.message == 'layer "a" (InnerProduct): cannot work in place on "x"'
    assert found.hint == "give the top another name"


def test_in_place_is_by_index() -> None:
    text = 'layer { name: "c" type: "Convolution" bottom: "x" bottom: "b" top: "b" top: "c" }'
    assert (
        'Top blob "b" is produced by multiple sources' in refused(input_of("x", "b") + text).message
    )


def test_in_place_on_a_blob_that_others_read() -> None:
    text = (
        input_of("x")
        + ip("a", "x")
        + 'layer { name: "s" type: "Silence" bottom: "a" }'
        + 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    )
    assert refused(text).hint == "working in place needs a blob that no other layer reads"


# --- loss weights ---------------------------------------------------------------------------------


def test_a_loss_layer_has_weight_one_on_its_first_top() -> None:
    text = input_of("x") + input_of("y", shape="dim: 2").replace('"in"', '"in2"')
    soft = (
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "l" top: "p" %s }'
    )
    assert layer(planned(text + soft % ""), "l").loss_weights == (1, 0)
    weights = "loss_weight: 0.5 loss_weight: 2"
    assert layer(planned(text + soft % weights), "l").loss_weights == (0.5, 2)
    found = refused(text + soft % "loss_weight: 0.5")
    assert found.message == (
        'layer "l" (SoftmaxWithLoss): has 2 tops but 1 loss_weight: give one per top, or none'
    )
    assert found.location is not None
    assert found.location.line == 3


def test_a_loss_layer_may_do_without_a_top() -> None:
    """As in Caffe it gets one that is no output, and that no other layer can read."""
    loss = 'layer {{ name: "{0}" type: "EuclideanLoss" bottom: "ip" bottom: "x" {1} }}\n'
    text = input_of("x") + ip("ip", "x") + loss.format("l", "") + loss.format("m", "loss_weight: 3")
    found = planned(text)
    assert [layer(found, name).tops for name in "lm"] == [("(automatic)",), ("(automatic) 2",)]
    assert [layer(found, name).loss_weights for name in "lm"] == [(1.0,), (3.0,)]
    assert found.outputs == ()
    assert backward(found) == ["ip", "ip_ip_0_split", "l", "m"]
    assert [len(message.top) for message in found.net.layer if message.name in "lm"] == [0, 0]


def test_only_a_loss_layer_may_do_without_a_top() -> None:
    text = input_of("x") + 'layer { name: "r" type: "ReLU" bottom: "x" }'
    assert refused(text).message == 'layer "r" (ReLU): takes 1 top blob, but 0 given'


def test_any_layer_can_have_a_loss_weight() -> None:
    found = planned(input_of("x") + ip("a", "x", "loss_weight: 0.25"))
    assert layer(found, "a").loss_weights == (0.25,)
    assert backward(found) == ["a"]


# --- who runs backward ----------------------------------------------------------------------------


def test_backward_as_caffe_logs_it(shared: Path) -> None:
    """LeNet in both phases, its data replaced by inputs."""
    folder = shared / "reference" / "lenet"
    log = (folder / "caffe_200.log").read_text()
    expected = re.findall(r"\] (\S+) (needs|does not need) backward computation", log)
    document = prototxt.read(folder / "lenet_train_test.prototxt", pb.NetParameter)
    for message in document.message.layer:
        if message.type == "Data":
            message.type = "Input"
            message.input_param.shape.add().dim.extend([64, 1, 28, 28])
            message.input_param.shape.add().dim.append(64)
    found = [
        (step.name, "needs" if step.needs_backward else "does not need")
        for phase in ("TRAIN", "TEST")
        for step in reversed(plan_of(document, phase).layers)
    ]
    assert found == expected


def test_nothing_runs_backward_without_a_loss() -> None:
    found = planned(input_of("x") + ip("a", "x"))
    assert backward(found) == []
    assert not any(blob.needs_gradient for blob in found.blobs.values())


def test_gradients_stop_before_what_does_not_learn() -> None:
    found = planned(
        input_of("x", "b") + ip("fixed", "x", FIXED) + ip("a", "fixed") + ip("c", "a") + loss("c")
    )
    assert backward(found) == ["a", "c", "loss"]
    assert layer(found, "a").propagate == (False,)
    assert layer(found, "c").propagate == (True,)
    assert layer(found, "loss").propagate == (True, False)
    assert layer(found, "fixed").learn == (False, False)
    assert layer(found, "a").learn == (True, True)
    needed = {name for name, blob in found.blobs.items() if blob.needs_gradient}
    assert needed == {"a", "c", "loss"}


def test_a_fixed_layer_after_one_that_learns_passes_gradients_on() -> None:
    found = planned(input_of("x", "b") + ip("a", "x") + ip("fixed", "a", FIXED) + loss("fixed"))
    assert backward(found) == ["a", "fixed", "loss"]
    assert layer(found, "fixed").learn == (False, False)


def test_one_parameter_of_a_layer_may_be_fixed() -> None:
    found = planned(input_of("x", "b") + ip("a", "x", "param { lr_mult: 0 }") + loss("a"))
    assert layer(found, "a").learn == (False, True)
    assert backward(found) == ["a", "loss"]


def test_a_branch_beside_the_loss_is_pruned() -> None:
    found = planned(input_of("x", "b") + ip("a", "x") + ip("side", "a") + loss("a"))
    assert backward(found) == ["a", "a_a_0_split", "loss"]
    assert layer(found, "side").propagate == (False,)


def test_propagate_down_false_stops_what_stands_before() -> None:
    stop = "propagate_down: false"
    found = planned(input_of("x", "b") + ip("a", "x") + ip("c", "a", stop) + loss("c"))
    assert backward(found) == ["c", "loss"]
    assert layer(found, "c").propagate == (False,)


def test_propagate_down_false_on_one_of_two_ways() -> None:
    found = planned(
        input_of("x", "b")
        + ip("a", "x")
        + ip("c", "a", "propagate_down: false")
        + ip("d", "a")
        + loss("c")
        + loss("d", name="loss2")
    )
    assert backward(found) == ["a", "a_a_0_split", "c", "d", "loss", "loss2"]
    assert layer(found, "a_a_0_split").propagate == (True,)


def test_propagate_down_true_asks_for_the_gradient_of_an_input() -> None:
    found = planned(input_of("x", "b") + ip("a", "x", "propagate_down: true") + loss("a"))
    assert layer(found, "a").propagate == (True,)
    assert found.blobs["x"].needs_gradient


def test_propagate_down_is_given_for_all_bottoms_or_none() -> None:
    found = refused(input_of("x", "b") + ip("a", "x") + loss("a", rest="propagate_down: true"))
    assert found.message == (
        'layer "loss" (EuclideanLoss): has 2 bottoms but 1 propagate_down: '
        "give one per bottom, or none"
    )


def test_force_backward() -> None:
    text = "force_backward: true\n" + input_of("x", "b") + ip("a", "x", FIXED) + loss("a")
    found = planned(text)
    assert backward(found) == ["in", "a", "loss"]
    assert layer(found, "a").propagate == (True,)
    assert layer(found, "a").learn == (True, True), "Caffe computes them, whatever lr_mult says"
    assert layer(found, "loss").propagate == (True, True)
    assert found.blobs["x"].needs_gradient


LABELLED = input_of("x") + input_of("y", shape="dim: 2").replace('"in"', '"in2"')
SOFTMAX = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "%s" bottom: "%s" top: "l" %s }'


def test_force_backward_asks_for_no_gradient_of_labels() -> None:
    found = planned("force_backward: true\n" + LABELLED + SOFTMAX % ("x", "y", ""))
    assert layer(found, "l").propagate == (True, False)


def test_a_gradient_that_is_asked_for_where_there_is_none() -> None:
    asked = SOFTMAX % ("z", "y", "propagate_down: true propagate_down: true")
    text = LABELLED + ip("z", "x") + asked
    found = refused(text)
    assert found.message == (
        'layer "l" (SoftmaxWithLoss): has no gradient for its bottom "y", '
        "but propagate_down asks for one"
    )
    assert found.location is not None
    assert found.location.source[found.location.column - 1 :].startswith("true }")
    # A test net mostly runs forward alone.
    assert layer(planned(text, "TEST"), "l").propagate == (True, False)


def test_a_label_that_something_learns() -> None:
    labels = ip("lab", "x", outputs=1)
    found = refused(LABELLED + labels + SOFTMAX % ("x", "lab", ""))
    assert found.message == (
        'layer "l" (SoftmaxWithLoss): has no gradient for its bottom "lab", '
        "but something before it learns"
    )
    assert found.hint == "say so with  propagate_down: true  propagate_down: false"
    given = "propagate_down: true propagate_down: false"
    assert backward(planned(LABELLED + labels + SOFTMAX % ("x", "lab", given))) == ["l"]
    # Nobody runs a test net backward.
    planned(LABELLED + labels + SOFTMAX % ("x", "lab", ""), "TEST")


# --- parameters -----------------------------------------------------------------------------------


def test_rates_of_parameters() -> None:
    found = planned(
        input_of("x") + ip("a", "x", "param { lr_mult: 2 decay_mult: 0.5 }") + ip("b", "a")
    )
    assert [(p.layer, p.index, p.name, p.lr_mult, p.decay_mult) for p in found.params] == [
        ("a", 0, "0", 2, 0.5),
        ("a", 1, "1", 1, 1),
        ("b", 0, "0", 1, 1),
        ("b", 1, "1", 1, 1),
    ]
    assert [p.shape for p in found.params] == [(3, 3), (3,), (3, 3), (3,)]
    assert found.learnable == list(found.params)


def test_more_param_entries_than_parameters() -> None:
    found = refused(input_of("x") + ip("a", "x", "param { } param { } param { name: 'q' }"))
    assert found.message == 'layer "a" (InnerProduct): has 3 param entries, but only 2 parameters'
    assert found.location is not None
    assert found.location.line == 2


def shared_weights(first: str, second: str, outputs: int = 3) -> str:
    return (
        input_of("x", "b")
        + ip("a", "x", f'param {{ name: "w" {first} }}')
        + ip("c", "a", f'param {{ name: "w" {second} }}', outputs)
        + loss("c")
    )


BLOBS = "blobs { %s data: 1 data: 2 data: 3 data: 4 data: 5 data: 6 } blobs { %s data: 7 data: 8 }"
WEIGHT, BIAS = "shape { dim: 2 dim: 3 }", "shape { dim: 2 }"


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (WEIGHT, BIAS),
        ("num: 1 channels: 1 height: 2 width: 3", "num: 1 channels: 1 height: 1 width: 2"),
    ],
)
def test_parameters_start_from_values_in_the_net(weight: str, bias: str) -> None:
    """As where a .caffemodel was printed as text."""
    net = Net.from_text(input_of("x") + ip("a", "x", BLOBS % (weight, bias), outputs=2))
    assert net.params["a"][0].data.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert net.params["a"][1].data.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            "blobs { data: 1 }",
            "has 2 parameters, but values of 1 in blobs: give those of all, or none",
        ),
        (
            BLOBS % ("shape { dim: 3 dim: 2 }", BIAS),
            "its weight is 2x3, but the values in blobs are 3x2",
        ),
        (
            BLOBS % (WEIGHT, f"{BIAS} data: 9"),
            "its bias is 2, but there are 3 values in blobs",
        ),
    ],
)
def test_values_in_the_net_that_do_not_fit(rest: str, message: str) -> None:
    found = refused(input_of("x") + ip("a", "x", rest, outputs=2))
    assert found.message == f'layer "a" (InnerProduct): {message}'


def test_shared_parameters() -> None:
    found = planned(shared_weights("", ""))
    assert [(p.layer, p.index, p.owner, p.name) for p in found.params] == [
        ("a", 0, 0, "w"),
        ("a", 1, 1, "1"),
        ("c", 0, 0, "w"),
        ("c", 1, 3, "1"),
    ]
    assert [(p.layer, p.index) for p in found.learnable] == [("a", 0), ("a", 1), ("c", 1)]


def test_parameters_without_a_name_are_not_shared() -> None:
    found = planned(input_of("x") + ip("a", "x", "param { }") + ip("c", "a", "param { }"))
    assert [p.owner for p in found.params] == [0, 1, 2, 3]


def test_the_owner_learns_at_the_rate_that_any_sharer_states() -> None:
    for first, second in (
        ("lr_mult: 2 decay_mult: 3", ""),
        ("", "lr_mult: 2 decay_mult: 3"),
        ("lr_mult: 2", "decay_mult: 3"),
        ("lr_mult: 2 decay_mult: 3", "lr_mult: 2 decay_mult: 3"),
    ):
        owner = planned(shared_weights(first, second)).params[0]
        assert (owner.lr_mult, owner.decay_mult) == (2, 3), (first, second)


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_sharers_that_state_different_rates(field: str) -> None:
    # The default counts where it is written down.
    for first, second in ((2, 3), (2, 1), (1, 0)):
        found = refused(shared_weights(f"{field}: {first}", f"{field}: {second}"))
        assert found.message == (
            f'layer "c" (InnerProduct): shared parameter "w" has {field} {second} here, '
            f'but {first} before (layer "a" owns it)'
        )
        assert found.location is not None
        assert found.location.line == 3


def test_a_sharer_goes_by_its_own_rate_when_gradients_are_pruned() -> None:
    found = planned(shared_weights("lr_mult: 0", ""))
    assert layer(found, "a").learn == (False, True)
    assert layer(found, "c").learn == (True, True)


def test_shapes_of_shared_parameters() -> None:
    found = refused(shared_weights("", "", outputs=2).replace(loss("c"), ""))
    assert found.message == (
        'layer "c" (InnerProduct): cannot share parameter "w" with layer "a": '
        "its shape there is 3x3, here 2x3"
    )
    assert found.hint == "share_mode: PERMISSIVE asks only for the same count"


def test_share_mode_permissive_compares_counts() -> None:
    text = (
        input_of("x", shape="dim: 2 dim: 6")
        + ip("a", "x", 'param { name: "w" }', outputs=2)
        + ip("c", "a", 'param { name: "w" share_mode: %s }', outputs=6)
    )
    found = planned(text % "PERMISSIVE")
    assert [p.shape for p in found.params if p.owner == 0] == [(2, 6), (6, 2)]
    assert "share_mode" in refused(text % "STRICT").hint
    worse = refused((text % "PERMISSIVE").replace("num_output: 6", "num_output: 5"))
    assert "its shape there is 2x6, here 5x2" in worse.message
    assert worse.hint == ""


def test_a_loss_weight_moves_to_the_split() -> None:
    found = planned(input_of("x", "b") + ip("a", "x", "loss_weight: 0.5") + ip("c", "a"))
    assert layer(found, "a_a_0_split").loss_weights == (0.5, 0)
    assert layer(found, "a").loss_weights == (0,)


# --- reshape --------------------------------------------------------------------------------------


def test_reshape_follows_the_inputs() -> None:
    found = planned(input_of("x") + ip("a", "x", outputs=4))
    wider = reshape(found, {"x": (5, 3)})
    assert wider.blobs["a"].shape == (5, 4)
    assert layer(wider, "a").bottom_shapes == ((5, 3),)
    assert layer(wider, "a").top_shapes == ((5, 4),)
    assert found.blobs["a"].shape == (2, 4), "the old plan stays"


def test_reshape_cannot_change_a_parameter() -> None:
    found = planned(input_of("x") + ip("a", "x"))
    with pytest.raises(NetError, match="would need a weight of 3x7, but it is 3x3"):
        reshape(found, {"x": (2, 7)})
