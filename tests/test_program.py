"""A plan with arrays: memory that is shared, gradients that add up, reshape, debug_info."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import graph, prototxt
from netdef import layer as layer_module
from netdef.blob import Blob, Shape
from netdef.data.writer import LMDBWriter
from netdef.errors import NetError
from netdef.events import DebugLine, Event
from netdef.layer import Layer
from netdef.memory import arrange
from netdef.plan import plan
from netdef.program import Program
from netdef.proto import netdef_pb2 as pb


def program(text: str, phase: str = "TRAIN", keep_all: bool = False, **options: Any) -> Program:
    document = prototxt.parse(text, pb.NetParameter, "n.prototxt")
    kept = graph.keep(document.message, pb.NetState(phase=phase), document.positions)
    planned = plan(graph.split(kept, document.positions), document.positions)
    return Program(planned, arrange(planned, apart=keep_all), **{"seed": 1, **options})


def fill(made: Program, seed: int = 0) -> None:
    """Give every input its own random values."""
    random = np.random.default_rng(seed)
    for name in made.plan.inputs:
        blob = made.blobs[name]
        blob.data[...] = random.standard_normal(blob.shape)


def input_of(*tops: str, shape: str = "dim: 4 dim: 5") -> str:
    named = " ".join(f'top: "{top}"' for top in tops)
    return f'layer {{ name: "in" type: "Input" {named} input_param {{ shape {{ {shape} }} }} }}\n'


def ip(name: str, bottom: str, rest: str = "", outputs: int = 5) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {rest} '
        f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}\n'
    )


def loss(a: str, b: str = "b", rest: str = "", name: str = "loss") -> str:
    return (
        f'layer {{ name: "{name}" type: "EuclideanLoss" bottom: "{a}" bottom: "{b}" top: "{name}" '
        f"{rest} }}\n"
    )


DIAMOND = (
    input_of("x", "b")
    + ip("a", "x", "propagate_down: true")
    + ip("c", "a")
    + ip("d", "a")
    + loss("c")
    + loss("d", name="loss2")
)

#: Three ways from one blob, some through layers in place, and a Split that the net itself names.
BRANCHES = (
    input_of("x", "b")
    + ip("a", "x", "propagate_down: true")
    + 'layer { name: "ra" type: "ReLU" bottom: "a" top: "a" }\n'
    + ip("c", "a")
    + 'layer { name: "rc" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.1 } }\n'
    + ip("d", "a")
    + ip("e", "a")
    + 'layer { name: "s" type: "Split" bottom: "e" top: "e0" top: "e1" }\n'
    + loss("c", "d")
    + loss("e0", "d", name="loss2")
    + loss("e1", "c", name="loss4")
    + loss("c", "b", "loss_weight: 0.3", name="loss3")
)


# --- memory ---------------------------------------------------------------------------------------


def gradients(made: Program) -> dict[str, np.ndarray[Any, Any]]:
    fill(made)
    made.clear_param_diffs()
    made.forward()
    made.backward()
    found = {f"{n}/{i}": b.diff for n, blobs in made.params.items() for i, b in enumerate(blobs)}
    return {**found, "x": made.blobs["x"].diff, "a": made.blobs["a"].diff}


@pytest.mark.parametrize("text", [DIAMOND, BRANCHES])
def test_gradients_do_not_depend_on_shared_memory(text: str) -> None:
    shared, apart = program(text), program(text, keep_all=True)
    assert any(step.ends.free_forward and step.ends.free_backward for step in shared.steps)
    assert not any(step.ends.free_forward or step.ends.free_backward for step in apart.steps)
    # Twice: what one pass leaves in the scratch of the next must not count.
    for _ in range(2):
        mine, theirs = gradients(shared), gradients(apart)
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            assert np.abs(values).max() > 0, name
            np.testing.assert_allclose(values, theirs[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_two_ways_add_up_to_the_same_bits() -> None:
    mine, theirs = gradients(program(DIAMOND)), gradients(program(DIAMOND, keep_all=True))
    for name, values in mine.items():
        assert values.tobytes() == theirs[name].tobytes(), name


def test_gradients_through_splits_are_right() -> None:
    """Along a random direction, in float64, against the difference of two losses."""
    made = program(BRANCHES, dtype=np.float64)
    fill(made)
    made.forward()
    made.backward()
    x = made.blobs["x"]
    start = x.data.copy()
    direction = np.random.default_rng(5).standard_normal(x.shape)
    claimed = float((x.diff * direction).sum())
    values = []
    for step in (1e-6, -1e-6):
        x.data[...] = start + step * direction
        values.append(made.forward())
    assert claimed == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_a_split_is_its_bottom() -> None:
    made = program(DIAMOND)
    for name in ("a_a_0_split_0", "a_a_0_split_1"):
        assert np.shares_memory(made.blobs[name].data, made.blobs["a"].data)
        assert np.shares_memory(made.blobs[name].diff, made.blobs["a"].diff)
    apart = program(DIAMOND, keep_all=True)
    assert not np.shares_memory(apart.blobs["a_a_0_split_0"].data, apart.blobs["a"].data)


def test_what_needs_no_gradient_has_none() -> None:
    made = program(input_of("x", "b") + ip("a", "x") + loss("a"))
    steps = {step.layer.name: step for step in made.steps}
    assert steps["a"].bottom[0].diff is None
    assert [blob.diff is None for blob in steps["loss"].bottom] == [False, True]
    # A user who asks for it sees zeros.
    assert not made.blobs["x"].diff.any()


def test_shared_parameters_are_one_memory_and_one_gradient() -> None:
    share = 'param { name: "w" } param { name: "v" }'
    made = program(input_of("x", "b") + ip("a", "x", share) + ip("c", "a", share) + loss("c"))
    for k in range(2):
        assert np.shares_memory(made.params["a"][k].data, made.params["c"][k].data)
        assert np.shares_memory(made.params["a"][k].diff, made.params["c"][k].diff)
    assert [(p.layer, p.name) for p in made.learnable] == [("a", "w"), ("a", "v")]

    apart = program(input_of("x", "b") + ip("a", "x") + ip("c", "a") + loss("c"))
    for k in range(2):
        apart.params["a"][k].data[...] = made.params["a"][k].data
        apart.params["c"][k].data[...] = made.params["a"][k].data
    for each in (made, apart):
        fill(each)
        each.forward()
        each.backward()
    for k in range(2):
        summed = apart.params["a"][k].diff + apart.params["c"][k].diff
        np.testing.assert_allclose(made.params["a"][k].diff, summed, rtol=1e-5, atol=1e-6)


def test_permissive_sharing_reads_the_same_values_in_another_shape() -> None:
    made = program(
        input_of("x", shape="dim: 2 dim: 6")
        + ip("a", "x", 'param { name: "w" }', outputs=2)
        + ip("c", "a", 'param { name: "w" share_mode: PERMISSIVE }', outputs=6)
    )
    a, c = made.params["a"][0], made.params["c"][0]
    assert (a.shape, c.shape) == ((2, 6), (6, 2))
    assert np.shares_memory(a.data, c.data)
    assert np.array_equal(a.data.ravel(), c.data.ravel())


def test_a_program_that_shares_parameters_with_another() -> None:
    train = program(input_of("x") + ip("a", "x"))
    test = program(input_of("x") + ip("a", "x") + ip("new", "a"), share=train)
    assert test.params["a"][0].data is train.params["a"][0].data
    # Only values are shared: a gradient of the test net must not reach the update.
    assert test.params["a"][0].diff is not train.params["a"][0].diff
    assert not np.shares_memory(test.params["new"][0].data, train.params["a"][0].data)
    with pytest.raises(NetError, match="parameter 0 is 7x5 here, but 5x5 in the net") as caught:
        program(input_of("x") + ip("a", "x", outputs=7), share=train)
    assert caught.value.diagnostics[0].code == "E130"


def test_float64() -> None:
    made = program(BRANCHES, dtype=np.float64)
    arrays = [b.data for b in made.blobs.values()] + [p.blob.diff for p in made.learnable]
    assert {array.dtype for array in arrays} == {np.dtype(np.float64)}


# --- passes ---------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum() -> None:
    made = program(
        input_of("x", "b")
        + ip("a", "x", "loss_weight: 0.25")
        + loss("a", rest="loss_weight: 2")
        + loss("a", rest="loss_weight: 0", name="unweighted")
    )
    fill(made)
    x, b = made.blobs["x"].data.astype(np.float64), made.blobs["b"].data
    a = x @ made.params["a"][0].data.T + made.params["a"][1].data
    distance = ((a - b) ** 2).sum() / 8
    assert made.forward() == pytest.approx(0.25 * a.sum() + 2 * distance, rel=1e-5)
    assert made.blobs["unweighted"].data == pytest.approx(distance, rel=1e-5)


def test_gradients_of_weighted_losses() -> None:
    made = program(input_of("x", "b") + ip("a", "x") + loss("a", rest="loss_weight: 3"))
    fill(made)
    made.forward()
    made.backward()
    residual = made.blobs["a"].data.astype(np.float64) - made.blobs["b"].data
    expected = 3 * residual.T @ made.blobs["x"].data / 4
    np.testing.assert_allclose(made.params["a"][0].diff, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_parameters_add_up_and_those_of_blobs_do_not() -> None:
    made = program(DIAMOND)
    once = {name: values.copy() for name, values in gradients(made).items()}
    made.forward()
    made.backward()
    np.testing.assert_allclose(made.params["c"][0].diff, 2 * once["c/0"], rtol=1e-6)
    assert np.array_equal(made.blobs["x"].diff, once["x"])
    made.clear_param_diffs()
    assert not any(param.blob.diff.any() for param in made.learnable)


SHARED = (
    input_of("x", "b")
    + ip("a", "x", 'param { name: "w" }')
    + ip("c", "a", 'param { name: "w" }')
    + ip("alone", "x")
    + loss("c")
)


@pytest.mark.parametrize("text", [DIAMOND, BRANCHES, SHARED])
def test_gradients_that_begin_anew_are_those_of_cleared_ones(text: str) -> None:
    made, fresh = program(text), program(text)
    wanted = gradients(made)
    for _ in range(2):
        # Whatever the last update has left there.
        for param in fresh.learnable:
            param.blob.diff.fill(np.nan)
        fill(fresh)
        fresh.forward()
        fresh.backward(fresh=True)
        for name, blobs in fresh.params.items():
            for i, blob in enumerate(blobs):
                np.testing.assert_array_equal(blob.diff, wanted[f"{name}/{i}"], err_msg=name)
    fresh.backward()
    np.testing.assert_allclose(fresh.params["c"][0].diff, 2 * wanted["c/0"], rtol=1e-6)


def test_a_parameter_with_lr_mult_0_gets_no_gradient() -> None:
    fixed = "param { lr_mult: 0 } param { lr_mult: 1 }"
    made = program(input_of("x", "b") + ip("a", "x", fixed) + loss("a"))
    fill(made)
    made.forward()
    made.backward()
    assert not made.params["a"][0].diff.any()
    assert made.params["a"][1].diff.any()


def test_a_part_of_the_net() -> None:
    made = program(input_of("x", "b") + ip("a", "x") + ip("c", "a") + loss("c"))
    fill(made)
    whole = made.forward()
    a, c = made.blobs["a"].data.copy(), made.blobs["c"].data.copy()
    made.blobs["a"].data[...] = 0
    assert made.forward(2, 2) == 0, "the loss is that of the layers that ran"
    assert np.array_equal(made.blobs["c"].data, np.broadcast_to(made.params["c"][1].data, (4, 5)))
    made.forward(0, 1)
    assert np.array_equal(made.blobs["a"].data, a)
    assert not np.array_equal(made.blobs["c"].data, c)
    assert made.forward(2) == whole

    made.backward(3, 2)
    assert made.params["c"][0].diff.any()
    assert not made.params["a"][0].diff.any()
    made.backward(1)
    assert made.params["a"][0].diff.any()


# --- random numbers -------------------------------------------------------------------------------

DROPOUT = input_of("x") + 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" }\n'


def test_parameters_depend_on_the_seed_and_on_their_own_name_alone() -> None:
    text = input_of("x") + ip("a", "x")
    first = program(text).params["a"][0].data
    assert np.array_equal(first, program(text).params["a"][0].data)
    assert not np.array_equal(first, program(text, seed=2).params["a"][0].data)
    between = program(input_of("x") + ip("new", "x") + ip("a", "new"))
    assert np.array_equal(first, between.params["a"][0].data)
    assert not np.array_equal(first, between.params["new"][0].data)


def test_without_a_seed_one_is_drawn() -> None:
    made = program(DROPOUT, seed=None)
    assert 0 <= made.seed < 2**31
    assert made.seed != program(DROPOUT, seed=None).seed


def test_dropout_depends_on_seed_and_pass() -> None:
    def masks(made: Program, count: int = 2) -> list[bytes]:
        made.blobs["x"].data[...] = 1
        found = []
        for _ in range(count):
            made.forward()
            found.append(made.blobs["y"].data.tobytes())
        return found

    first = masks(program(DROPOUT))
    assert first[0] != first[1]
    assert first == masks(program(DROPOUT))
    assert first != masks(program(DROPOUT, seed=2))

    later = program(DROPOUT)
    later.passes = 1
    assert masks(later, 1) == first[1:], "a resumed run goes on where it was"
    later.passes = 0
    later.set_seed(2)
    assert masks(later) == masks(program(DROPOUT, seed=2))


def test_an_unknown_filler_is_found_in_the_text() -> None:
    text = input_of("x") + ip("a", "x").replace("xavier", "xaver")
    with pytest.raises(NetError) as caught:
        program(text)
    (found,) = caught.value.diagnostics
    assert found.message == 'layer "a" (InnerProduct): unknown filler type "xaver"'
    assert found.hint == 'did you mean "xavier"?'
    column = text.splitlines()[1].index('"xaver"') + 1
    assert str(found.location) == f"n.prototxt:2:{column}"


# --- reshape --------------------------------------------------------------------------------------


def test_reshape_leaves_what_keeps_its_shape() -> None:
    made = program(input_of("x", "b") + ip("a", "x") + ip("c", "b"))
    fill(made)
    made.forward()
    kept = {name: made.blobs[name].data for name in ("b", "c")}
    params = [param.blob.data for param in made.learnable]
    handle = made.blobs["a"]
    made.reshape({"x": (7, 5)})
    assert {name: made.blobs[name].data for name in kept} == kept
    assert [param.blob.data for param in made.learnable] == params
    assert made.blobs["a"] is handle, "a handle the user holds stays good"
    assert handle.shape == (7, 5)

    made.blobs["x"].data[...] = 1
    made.forward()
    expected = made.params["a"][0].data.sum(axis=1) + made.params["a"][1].data
    np.testing.assert_allclose(handle.data, np.tile(expected, (7, 1)), rtol=1e-5, atol=1e-6)


def test_gradients_after_a_reshape() -> None:
    made = program(BRANCHES)
    gradients(made)
    made.reshape({"x": (3, 5), "b": (3, 5)})
    fresh = program(BRANCHES.replace("dim: 4", "dim: 3"))
    mine, wanted = gradients(made), gradients(fresh)
    for name, values in mine.items():
        assert values.tobytes() == wanted[name].tobytes(), name


def test_a_source_whose_records_change_their_shape(tmp_path: Path) -> None:
    sizes = [(1, 2, 2), (1, 2, 2), (1, 4, 6)]
    with LMDBWriter(tmp_path / "db") as writer:
        for i, (channels, height, width) in enumerate(sizes):
            record = pb.Datum(channels=channels, height=height, width=width, label=i)
            record.data = bytes([i + 1]) * (channels * height * width)
            writer.put(f"{i:08d}".encode(), record.SerializeToString())
    made = program(
        'layer { name: "in" type: "Data" top: "data" top: "label" '
        f'data_param {{ source: "{tmp_path / "db"}" batch_size: 1 backend: LMDB }} }}\n'
        'layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" '
        "pooling_param { kernel_size: 2 stride: 2 } }\n"
    )
    try:
        first = made.blobs["data"].data
        seen = []
        for i in (0, 1, 2, 0):
            made.forward()
            if i == 1:
                assert made.blobs["data"].data is first, "nothing changed, nothing was planned"
            seen.append((made.blobs["pool"].shape, made.blobs["pool"].data.max()))
        assert seen == [((1, 1, h // 2, w // 2), i + 1) for i, (_, h, w) in enumerate(sizes)] + [
            ((1, 1, 1, 1), 1)
        ]
        assert [layer.name for layer in made.sources] == ["in"]
    finally:
        made.close()


# --- debug_info -----------------------------------------------------------------------------------


def debug_lines(text: str) -> tuple[Program, list[str]]:
    told: list[Event] = []
    made = program("debug_info: true\n" + text, keep_all=True, emit=told.append)
    fill(made)
    made.forward()
    made.backward()
    return made, [event.text for event in told if isinstance(event, DebugLine)]


def test_debug_lines_are_caffes() -> None:
    fixed = 'param { name: "w" lr_mult: 0 } param { lr_mult: 1 }'
    made, lines = debug_lines(
        input_of("x", "b") + ip("a", "x", fixed) + ip("c", "a") + loss("c", "b")
    )
    assert [re.sub(r": \S+$", "", line) for line in lines[:-1]] == [
        "    [Forward] Layer in, top blob x data",
        "    [Forward] Layer in, top blob b data",
        "    [Forward] Layer a, top blob a data",
        "    [Forward] Layer a, param blob w data",
        "    [Forward] Layer a, param blob 1 data",
        "    [Forward] Layer c, top blob c data",
        "    [Forward] Layer c, param blob 0 data",
        "    [Forward] Layer c, param blob 1 data",
        "    [Forward] Layer loss, top blob loss data",
        "    [Backward] Layer loss, bottom blob c diff",
        "    [Backward] Layer c, bottom blob a diff",
        "    [Backward] Layer c, param blob 0 diff",
        "    [Backward] Layer c, param blob 1 diff",
        "    [Backward] Layer a, param blob 1 diff",
    ]
    values = {
        line.rpartition(": ")[0].strip(): float(line.rpartition(": ")[2]) for line in lines[:-1]
    }
    for key, array in (
        ("[Forward] Layer in, top blob x data", made.blobs["x"].data),
        ("[Forward] Layer a, param blob w data", made.params["a"][0].data),
        ("[Backward] Layer c, param blob 1 diff", made.params["c"][1].diff),
    ):
        assert values[key] == pytest.approx(np.abs(array).mean(), rel=1e-5)

    norms = re.fullmatch(
        r"    \[Backward\] All net params \(data, diff\): "
        r"L1 norm = \((\S+), (\S+)\); L2 norm = \((\S+), (\S+)\)",
        lines[-1],
    )
    assert norms is not None
    data = np.concatenate([param.blob.flat for param in made.learnable])
    diff = np.concatenate([param.blob.flat_diff for param in made.learnable])
    expected = [np.abs(data).sum(), np.abs(diff).sum(), np.sqrt(data @ data), np.sqrt(diff @ diff)]
    assert [float(x) for x in norms.groups()] == pytest.approx(expected, rel=1e-5)


def test_without_debug_info_nothing_is_told() -> None:
    told: list[Event] = []
    made = program(DIAMOND, emit=told.append)
    fill(made)
    made.forward()
    made.backward()
    assert told == []


def test_a_pass_that_begins_in_the_middle_starts_from_nothing() -> None:
    """The gradient of x is written by "d" and added to by "a"; alone, "a" writes it."""
    forced = program("force_backward: true\n" + input_of("x") + ip("a", "x") + ip("d", "x"))
    fill(forced)
    forced.forward()
    forced.blobs["a"].diff.fill(1)
    names = [step.layer.name for step in forced.steps]
    seen = []
    for _ in range(3):
        forced.backward(start=names.index("a"))
        seen.append(forced.blobs["x"].diff.copy())
    expected = np.ones((4, 5), np.float32) @ forced.params["a"][0].data
    for found in seen:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_loss_of_a_net_that_diverges() -> None:
    made = program(
        input_of("x") + 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" loss_weight: 2 }'
    )
    for values, expected in ((3e38, np.inf), (np.inf, np.inf), (np.nan, np.nan)):
        made.blobs["x"].data.fill(values)
        np.testing.assert_equal(made.forward(), expected)
    made.blobs["x"].data.fill(np.inf)
    made.blobs["x"].data[0] = -np.inf
    made.steps[0].losses = [(made.blobs["x"], 1.0)]
    assert np.isnan(made.forward())
    both = [(made.blobs["r"], weight) for weight in (1.0, -1.0)]
    made.steps[0].losses, made.steps[1].losses = [], both
    made.blobs["x"].data.fill(np.inf)
    assert np.isnan(made.forward())


def test_a_net_that_diverges_can_be_debugged() -> None:
    told: list[Event] = []
    text = "debug_info: true\n" + input_of("x")
    made = program(text + 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }', emit=told.append)
    made.blobs["x"].data.fill(3e38)
    made.forward()
    assert isinstance(told[-1], DebugLine)
    assert told[-1].text.endswith("data: inf")


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        (input_of("x", shape="dim: 1048576"), "in"),
        (input_of("x") + ip("a", "x", outputs=200000), "a"),
    ],
)
def test_a_layer_that_there_is_no_memory_for(
    text: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(shape: Shape, dtype: Any) -> Any:
        if np.prod(shape) >= 2**20 - 48576:
            raise MemoryError("Unable to allocate 4.00 MiB")
        return np.empty(shape, dtype)

    monkeypatch.setattr("netdef.program.np.zeros", zeros)
    with pytest.raises(NetError) as caught:
        program(text)
    [said] = caught.value.diagnostics
    assert said.message.startswith(f'layer "{layer}" (')
    assert said.message.endswith("): not enough memory: Unable to allocate 4.00 MiB")
    assert said.location is not None


class Growing(Layer):
    """A layer whose top takes one row more in each pass, as one whose shape depends on data."""

    bottoms = 0
    dynamic = True
    rows = 2

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [(2, 3)]

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        self.rows += 1
        return [(self.rows, 3)]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        top[0].data.fill(self.rows)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layer_module._registry, "Growing", Growing)
    monkeypatch.setattr(Growing, "type", "Growing", raising=False)


@pytest.mark.usefixtures("growing")
def test_a_shape_that_changes_in_mid_pass_leaves_earlier_layers_alone() -> None:
    made = program(
        "force_backward: true\n"
        + input_of("x", shape="dim: 2 dim: 1 dim: 4 dim: 4")
        + 'layer { name: "p" type: "Pooling" bottom: "x" top: "p" '
        "pooling_param { kernel_size: 2 stride: 2 } }\n"
        'layer { name: "g" type: "Growing" top: "g" }\n'
        'layer { name: "r" type: "ReLU" bottom: "g" top: "r" }\n'
    )
    for rows in (3, 4):
        fill(made, rows)
        made.forward()
        assert made.blobs["r"].data.tolist() == [[rows] * 3] * rows
        made.blobs["p"].diff.fill(1)
        made.backward()
        windows = made.blobs["x"].data.reshape(2, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4)
        largest = windows == windows.max(axis=(3, 4), keepdims=True)
        routed = made.blobs["x"].diff.reshape(2, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4)
        np.testing.assert_array_equal(routed, largest.astype(np.float32))


#: Two layers that grow alike, and one that takes both only while they are alike.
GROWING_PAIR = (
    'layer { name: "g" type: "Growing" top: "g" }\n'
    'layer { name: "r" type: "ReLU" bottom: "g" top: "r" }\n'
    'layer { name: "h" type: "Growing" top: "h" }\n' + loss("r", "h")
)


@pytest.mark.usefixtures("growing")
def test_two_layers_whose_shapes_change_meet() -> None:
    made = program("force_backward: true\n" + GROWING_PAIR)
    for rows in (3, 4, 5):
        assert made.forward() == 0
        assert [made.blobs[name].shape for name in "grh"] == [(rows, 3)] * 3
        made.blobs["h"].data[...] -= 2
        made.forward(3)
        made.backward()
        np.testing.assert_array_equal(
            made.blobs["r"].diff, np.full((rows, 3), 2 / np.float32(rows))
        )


@pytest.mark.usefixtures("growing")
def test_shapes_that_really_disagree_are_an_error() -> None:
    made = program(GROWING_PAIR)
    made.forward()
    made.steps[0].layer.rows = 7  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(NetError, match=r'layer "loss" .* they are (\d)x3 and (?!\1)\dx3'):
            made.forward()


@pytest.mark.usefixtures("growing")
@pytest.mark.parametrize("second_grows", [True, False])
def test_what_stands_behind_the_second_follows_the_first(second_grows: bool) -> None:
    softmax = 'layer { name: "q" type: "Softmax" bottom: "r" top: "q" }\n'
    # One has tops that grow as well, the other a single value.
    readers = ip("s", "r") + loss("r", "q")
    text = GROWING_PAIR.replace(loss("r", "h"), readers)
    made = program(text.replace('layer { name: "h"', softmax + 'layer { name: "h"'))
    second: Any = next(step.layer for step in made.steps if step.layer.name == "h")
    for rows in (3, 4, 5):
        second.rows -= not second_grows
        assert made.forward() == pytest.approx(3 / 2 * (rows - 1 / 3) ** 2)
        assert made.blobs["s"].shape == (rows, 5)
        expected = rows * made.params["s"][0].data.sum(axis=1) + made.params["s"][1].data
        found = made.blobs["s"].data
        np.testing.assert_allclose(found, np.tile(expected, (rows, 1)), rtol=1e-5)


def test_a_reshape_sets_up_only_what_it_changed() -> None:
    made = program(input_of("x", "b") + ip("a", "x") + ip("c", "b"))
    seen: list[str] = []
    for step in made.steps:
        step.layer.setup = lambda *blobs, name=step.layer.name: seen.append(name)  # type: ignore
    for rows in (7, 8, 8):
        made.reshape({"x": (rows, 5)})
    # The layer that brings both inputs is told of one.
    assert seen == ["in", "a", "in", "a"]


@pytest.mark.usefixtures("growing")
def test_a_pass_that_ends_between_two_layers_whose_shapes_change() -> None:
    made = program(GROWING_PAIR.replace(loss("r", "h"), ip("s", "r")))
    made.forward()
    made.forward(0, 1)
    assert made.blobs["r"].shape == (4, 3)
    # What stands behind the second is computed without it.
    made.forward(3)
    assert made.blobs["s"].shape == (4, 5)
    assert made.blobs["h"].shape == (3, 3)
    made.forward(2)
    assert made.blobs["h"].shape == (4, 3)
