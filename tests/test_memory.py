"""How the memory of a plan is arranged: who shares a buffer, when it is in use, where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from netdef import graph, prototxt
from netdef.fusion import groups
from netdef.memory import Buffer, Memory, arrange, place
from netdef.plan import Plan, plan
from netdef.program import Program
from netdef.proto import netdef_pb2 as pb


def planned(text: str, phase: str = "TRAIN") -> Plan:
    document = prototxt.parse(text, pb.NetParameter, "n.prototxt")
    kept = graph.keep(document.message, pb.NetState(phase=phase), document.positions)
    return plan(graph.split(kept, document.positions), document.positions)


def layer(type: str, bottoms: str, tops: str, rest: str = "", name: str = "") -> str:
    name = name or (tops.split() or [type])[0]
    words = [f'name: "{name}" type: "{type}"']
    words += [f'bottom: "{bottom}"' for bottom in bottoms.split()]
    words += [f'top: "{top}"' for top in tops.split()]
    return f"layer {{ {' '.join(words)} {rest} }}\n"


def input_of(tops: str, *shape: int) -> str:
    dims = " ".join(f"dim: {n}" for n in shape)
    return layer("Input", "", tops, f"input_param {{ shape {{ {dims} }} }}", "in")


def ip(name: str, bottom: str, rest: str = "", outputs: int = 3) -> str:
    filler = 'weight_filler { type: "xavier" }'
    settings = f"inner_product_param {{ num_output: {outputs} {filler} }} {rest}"
    return layer("InnerProduct", bottom, name, settings)


def conv(name: str, bottom: str, outputs: int = 4) -> str:
    settings = f"num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: 'xavier' }}"
    return layer("Convolution", bottom, name, f"convolution_param {{ {settings} }}")


def relu(bottom: str, top: str = "", rest: str = "") -> str:
    return layer("ReLU", bottom, top or bottom, rest, f"relu of {bottom}")


def loss(a: str, b: str = "b", name: str = "loss") -> str:
    return layer("EuclideanLoss", f"{a} {b}", name)


def number(of: Plan, name: str) -> int:
    """Which layer has this name."""
    return next(i for i, layer in enumerate(of.layers) if layer.name == name)


def data_of(memory: Memory, *names: str) -> set[int | None]:
    """The buffers that hold these blobs."""
    return {memory.blobs[name][0] for name in names}


def diff_of(memory: Memory, *names: str) -> set[int | None]:
    return {memory.blobs[name][1] for name in names}


# --- views and sums -------------------------------------------------------------------------------

DIAMOND = input_of("x b", 2, 3) + ip("a", "x") + ip("c", "a") + ip("d", "a")
DIAMOND += loss("c") + loss("d", name="loss2")
SPLITS = ["a_a_0_split_0", "a_a_0_split_1"]


def adds(of: Plan, memory: Memory, name: str) -> list[bool]:
    """Of which bottoms a layer adds the gradient to what others have written."""
    return [addend is not None for addend in memory.layers[number(of, name)].addend]


def test_a_split_costs_nothing() -> None:
    found = planned(DIAMOND)
    memory = arrange(found)
    ends = memory.layers[number(found, "a_a_0_split")]
    assert ends.free_forward
    assert ends.free_backward
    assert len(data_of(memory, "a", *SPLITS)) == 1
    assert len(diff_of(memory, "a", *SPLITS)) == 1
    # Backward reaches d first: it writes the gradient that c adds to.
    assert adds(found, memory, "d") == [False]
    assert adds(found, memory, "c") == [True]
    assert not any(any(adds(found, memory, name)) for name in ("a", "loss", "loss2"))


def test_apart_every_blob_has_memory_of_its_own() -> None:
    found = planned(DIAMOND)
    memory = arrange(found, apart=True)
    assert len(data_of(memory, *found.blobs) | diff_of(memory, *found.blobs)) == 2 * len(
        found.blobs
    )
    assert not any(ends.free_forward or any(ends.addend) for ends in memory.layers)


def test_the_gradient_of_a_reader_that_gives_none_is_not_waited_for() -> None:
    found = planned(DIAMOND.replace('top: "d" ', 'top: "d" propagate_down: false '))
    assert adds(found, arrange(found), "c") == [False]


def test_splits_of_splits_share_one_memory() -> None:
    text = input_of("x b", 2, 3) + ip("a", "x") + layer("Split", "a", "s0 s1")
    text += ip("c", "s0") + ip("d", "s0") + ip("e", "s1")
    text += loss("c") + loss("d", name="loss2") + loss("e", name="loss3")
    found = planned(text)
    memory = arrange(found)
    splits = [name for name in found.blobs if name.startswith("s")]
    assert len(splits) == 4
    assert data_of(memory, *splits) == data_of(memory, "a")
    assert [adds(found, memory, name) for name in "edc"] == [[False], [True], [True]]


def test_an_output_behind_a_split_has_memory_of_its_own() -> None:
    text = input_of("x b", 2, 3) + ip("a", "x") + layer("Split", "a", "s0 s1")
    found = planned(text + ip("c", "s0") + loss("c"))
    memory = arrange(found)
    ends = memory.layers[number(found, "s0")]
    assert (ends.free_forward, ends.free_backward) == (False, False)
    assert len(data_of(memory, "a", "s0", "s1") | diff_of(memory, "a", "s0", "s1")) == 6


def test_a_split_that_carries_a_loss_weight_copies() -> None:
    found = planned(input_of("x b", 2, 3) + ip("a", "x", "loss_weight: 0.5") + ip("c", "a"))
    memory = arrange(found)
    assert not memory.layers[number(found, "a_a_0_split")].free_forward
    assert len(data_of(memory, "a", *SPLITS)) == 3


def test_a_layer_that_reads_a_blob_twice() -> None:
    found = planned(input_of("x", 2, 3) + ip("a", "x") + loss("a", "a"))
    assert sorted(adds(found, arrange(found), "loss")) == [False, True]


@pytest.mark.parametrize(
    "view",
    [
        layer("Flatten", "a", "v"),
        layer("Reshape", "a", "v", "reshape_param { shape { dim: 3 dim: -1 } }"),
        layer("Concat", "a", "v"),
        layer("Slice", "a", "v"),
    ],
)
def test_a_view_costs_nothing(view: str) -> None:
    text = input_of("x", 2, 3) + ip("a", "x", outputs=6) + view + layer("Silence", "v", "")
    found = planned("force_backward: true\n" + text)
    memory = arrange(found)
    assert memory.layers[2].free_forward
    assert memory.layers[2].free_backward
    assert memory.blobs["a"] == memory.blobs["v"]


def test_dropout_that_drops_nothing_is_a_view() -> None:
    text = input_of("x", 2, 3) + layer("Dropout", "x", "y") + ip("a", "y")
    assert arrange(planned(text, "TEST")).layers[1].free_forward
    assert not arrange(planned(text)).layers[1].free_forward


# --- in place -------------------------------------------------------------------------------------


def test_in_place_stays_in_place() -> None:
    memory = arrange(planned(input_of("x b", 2, 3) + ip("a", "x") + relu("a") + loss("a")))
    below, above = memory.layers[1], memory.layers[2]
    assert below.top_data == above.top_data
    assert below.top_diff == above.top_diff
    assert memory.superseded == ()


CHAIN = input_of("x b", 2, 3) + ip("a", "x") + layer("BatchNorm", "a", "a", name="norm")
CHAIN += layer("Scale", "a", "a", name="scale") + relu("a") + loss("a")


def test_what_backward_needs_is_not_overwritten() -> None:
    """BatchNorm and Scale need their bottoms, ReLU its top: nobody keeps a copy."""
    memory = arrange(planned(CHAIN))
    ip, norm, scale, relu = (memory.layers[i].top_data[0] for i in range(1, 5))
    assert len({ip, norm, scale}) == 3
    assert relu == scale
    assert memory.blobs["a"][0] == relu
    assert memory.superseded == ((1, 0, 2), (2, 0, 3))
    assert len({memory.layers[i].top_diff for i in range(1, 5)}) == 1


def test_where_nothing_runs_backward_all_is_in_place() -> None:
    for memory in (
        arrange(planned(CHAIN.replace(loss("a"), ""), "TEST")),
        arrange(planned(CHAIN), keep=(), backward=False),
    ):
        assert len({memory.layers[i].top_data for i in range(1, 5)}) == 1


def test_what_a_layer_reads_of_its_own_top_is_what_others_made_of_it() -> None:
    """As in Caffe, where there is one array: the gradient of this net is wrong there, too."""
    text = input_of("x b", 2, 3) + ip("a", "x") + layer("Sigmoid", "a", "a", name="s")
    found = planned(text + layer("Scale", "a", "a", name="scale") + loss("a"))
    memory = arrange(found)
    assert memory.layers[1].top_data == memory.layers[2].top_data != memory.layers[3].top_data
    made = Program(found, memory, seed=1)
    made.params["scale"][0].data.fill(0.5)
    run(made, 1)
    a, b = made.blobs["a"].data, made.blobs["b"].data
    dy = 0.5 * (a - b) / len(a)
    expected = (dy * a * (1 - a)).sum(axis=0)
    np.testing.assert_allclose(made.params["a"][1].diff, expected, rtol=1e-5)


def test_in_place_behind_a_split_leaves_other_readers_what_they_read() -> None:
    text = input_of("x b", 2, 3) + ip("a", "x") + layer("Split", "a", "s0 s1")
    found = planned(text + relu("s0") + ip("c", "s1") + loss("c", "s0"))
    memory = arrange(found)
    assert memory.layers[2].free_forward
    assert data_of(memory, "s0") != data_of(memory, "s1") == data_of(memory, "a")
    # Two write the gradient of a: it cannot be that of relu's top, too.
    assert memory.layers[3].top_diff[0] != memory.layers[3].bottom_diff[0]


def test_inputs_are_worked_on_where_users_write_them() -> None:
    text = "force_backward: true\n" + input_of("x b", 2, 3)
    text += layer("Scale", "x", "x", name="scale") + loss("x")
    memory = arrange(planned(text))
    assert memory.layers[0].top_data[0] == memory.layers[1].top_data[0] == memory.blobs["x"][0]


# --- what is kept ---------------------------------------------------------------------------------

STRAIGHT = input_of("x b", 2, 3) + ip("a", "x") + ip("c", "a") + ip("d", "c") + loss("d")


def own(memory: Memory) -> set[str]:
    return {buffer.name for buffer in memory.buffers if buffer.own}


def test_by_default_all_blobs_are_kept() -> None:
    found = planned(STRAIGHT)
    memory = arrange(found)
    assert memory.kept == set(found.blobs)
    assert not memory.reused
    assert own(memory) >= {name + what for name in found.blobs for what in ("", " diff")}


def test_inputs_outputs_and_losses_are_kept_in_any_case() -> None:
    found = planned(STRAIGHT + ip("scores", "x") + ip("weighted", "x", "loss_weight: 2"))
    memory = arrange(found, keep=())
    assert memory.kept == {"x", "b", "loss", "scores", "weighted"}
    assert memory.reused
    assert own(memory) >= memory.kept
    assert not own(memory) & {"a", "a diff", "c", "c diff"}


def test_a_blob_that_is_asked_for_is_kept() -> None:
    memory = arrange(planned(STRAIGHT), keep=["c"])
    assert memory.kept == {"x", "b", "loss", "c"}
    assert {"c", "c diff"} <= own(memory)
    assert "a" not in own(memory)


def test_forward_alone_has_no_gradients() -> None:
    memory = arrange(planned(STRAIGHT), keep=(), backward=False)
    assert {buffer.kind for buffer in memory.buffers} == {"data"}
    assert all(diff is None for _, diff in memory.blobs.values())


def test_behind_a_layer_whose_shapes_depend_on_data_nothing_is_shared() -> None:
    text = (
        input_of("x b", 2, 3)
        + ip("a", "x")
        + ip("c", "a")
        + input_of("choose", 2).replace('"in"', '"chooses"')
    )
    text += layer("Filter", "c choose", "f") + ip("d", "f") + ip("e", "d")
    found = planned("force_backward: true\n" + text)
    late = number(found, "f")
    for buffer in arrange(found, keep=()).buffers:
        if buffer.layer >= late:
            assert buffer.own, buffer
    assert "a" not in own(arrange(found, keep=()))


# --- moments and places ---------------------------------------------------------------------------


def named(memory: Memory, name: str) -> Buffer:
    (found,) = [buffer for buffer in memory.buffers if buffer.name == name]
    return found


def test_a_value_is_in_use_from_its_layer_to_its_last_reader() -> None:
    found = planned(STRAIGHT)
    memory = arrange(found, keep=())
    end = 2 * len(found.layers)
    back = {layer.name: end - 1 - i for i, layer in enumerate(found.layers)}
    # c needs the values of a for the gradient of its weights.
    assert (named(memory, "a").first, named(memory, "a").last) == (1, back["c"])
    # The loss keeps the difference itself.
    assert (named(memory, "d").first, named(memory, "d").last) == (3, 4)
    assert (named(memory, "a diff").first, named(memory, "a diff").last) == (back["c"], back["a"])
    forward = arrange(found, keep=(), backward=False)
    assert (named(forward, "a").first, named(forward, "a").last) == (1, 2)


def test_what_a_layer_keeps_for_backward_is_in_use_until_then() -> None:
    text = input_of("x b", 1, 1, 4, 4) + conv("a", "x", 1)
    text += layer("Pooling", "a", "p", "pooling_param { kernel_size: 1 }") + loss("p")
    memory = arrange(planned(text), keep=())
    assert (named(memory, "p work 0").first, named(memory, "p work 0").last) == (2, 5)
    # The gradient goes where the mask says: nobody reads the values again.
    assert named(memory, "a").last == 2


#: Nets in which values, gradients and works of all kinds meet, on images.
IMAGES = input_of("x b", 2, 4, 6, 6)
NETS = {
    "in place": IMAGES
    + conv("a", "x")
    + layer("BatchNorm", "a", "a", name="norm")
    + layer("Scale", "a", "a", "scale_param { bias_term: true }", "scale")
    + relu("a")
    + conv("c", "a")
    + layer("Sigmoid", "c", "c", name="sigmoid")
    + layer("PReLU", "c", "c", name="prelu")
    + layer("Dropout", "c", "c", name="drop")
    + loss("c"),
    "residual": IMAGES
    + conv("a", "x")
    + conv("c", "a")
    + relu("c")
    + conv("d", "c")
    + layer("BatchNorm", "d", "d", name="norm")
    + layer("Eltwise", "a d", "e")
    + relu("e")
    + conv("f", "e")
    + layer("Eltwise", "e f", "g", "eltwise_param { coeff: 1 coeff: -0.5 }")
    + relu("g")
    + layer("Eltwise", "g a", "h", "eltwise_param { operation: PROD }")
    + layer("Eltwise", "h e", "i", "eltwise_param { operation: MAX }")
    + loss("i"),
    "inception": IMAGES
    + conv("a", "x")
    + layer("LRN", "a", "n", "lrn_param { local_size: 3 }")
    + conv("c", "n", 2)
    + relu("c")
    + conv("d", "n", 3)
    + layer("TanH", "d", "t")
    + layer("Pooling", "n", "p", "pooling_param { kernel_size: 3 stride: 1 pad: 1 }")
    + layer("Concat", "c t p", "all")
    + layer("Pooling", "all", "q", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }")
    + layer("Flatten", "q", "flat")
    + layer("Dropout", "flat", "flat", name="drop")
    + ip("s", "flat", outputs=4)
    + layer("Slice", "s", "s0 s1")
    + ip("u", "s0", "loss_weight: 0.3", outputs=1)
    + layer("Reshape", "s1", "r", "reshape_param { shape { dim: -1 } }")
    + layer("Power", "r", "r", "power_param { power: 2 }", "power")
    + layer("Reduction", "r", "total", "reduction_param { operation: SUMSQ } loss_weight: 0.1")
    + layer("ELU", "s0", "v")
    + layer("Softmax", "v", "prob"),
    "splits": IMAGES
    + conv("a", "x")
    + layer("Split", "a", "s0 s1 s2")
    + relu("s0")
    + layer("AbsVal", "s1", "s1", name="abs")
    + layer("Flatten", "s2", "f2")
    + layer("Flatten", "s0", "f0")
    + relu("f0", "", "relu_param { negative_slope: 0.1 }")
    + layer("Bias", "s1", "s1", "bias_param { filler { value: 1 } }", "bias")
    + layer("Flatten", "s1", "f1")
    + layer("Eltwise", "f0 f1 f2", "e")
    + ip("c", "e")
    + layer("Reduction", "c", "total", "reduction_param { operation: SUMSQ } loss_weight: 1"),
}


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("name", NETS)
def test_buffers_in_use_at_one_moment_lie_apart(name: str, phase: str) -> None:
    found = planned(NETS[name], phase)
    memory = arrange(found, keep=(), backward=phase == "TRAIN")
    places = place(found, memory)
    shared = [n for n, offset in enumerate(places.offsets) if offset is not None]
    assert shared
    pieces = {}
    for n in shared:
        offset = places.offsets[n]
        assert offset is not None
        assert offset % 64 == 0
        pieces[n] = (offset, offset + places.sizes[n])
        assert pieces[n][1] <= places.arena
    for a, b in combinations(shared, 2):
        one, other = memory.buffers[a], memory.buffers[b]
        if one.first <= other.last and other.first <= one.last:
            assert pieces[a][1] <= pieces[b][0] or pieces[b][1] <= pieces[a][0], (one, other)


def test_equal_layers_need_two_buffers_and_what_is_kept() -> None:
    """Each in use with the next alone, forward values take turns in two places."""
    text = input_of("x0", 100, 1000) + "".join(
        ip(f"x{i + 1}", f"x{i}", outputs=1000) for i in range(6)
    )
    found = planned(text, "TEST")
    places = place(found, arrange(found, keep=(), backward=False))
    size = 100 * 1000 * 4
    assert 2 * size <= places.arena < 2.1 * size


def test_no_two_neighbours_begin_at_the_same_place_in_their_pages() -> None:
    found = planned(NETS["residual"])
    memory = arrange(found, keep=())
    places = place(found, memory)
    lines = [offset % 4096 for offset in places.offsets if offset is not None]
    assert all(a != b for a, b in pairwise(lines))


def test_places_follow_the_type_of_the_net() -> None:
    found = planned(STRAIGHT)
    memory = arrange(found)
    single, double = place(found, memory), place(found, memory, np.float64)
    assert [2 * size for size in single.sizes] == list(double.sizes)


# --- results --------------------------------------------------------------------------------------


def run(made: Program, passes: int = 3, backward: bool = True) -> list[bytes]:
    """Loss, outputs and gradients of parameters of some passes."""
    found = []
    for number in range(passes):
        random = np.random.default_rng(number)
        for name in made.plan.inputs:
            blob = made.blobs[name]
            blob.data[...] = random.standard_normal(blob.shape)
        found.append(repr(made.forward()).encode())
        found += [made.blobs[name].data.tobytes() for name in made.plan.outputs]
        if backward:
            made.backward()
            found += [param.blob.diff.tobytes() for param in made.learnable]
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("name", NETS)
def test_reused_memory_changes_no_bit(name: str, phase: str, dtype: Any) -> None:
    backward = phase == "TRAIN"
    kept, reused = (
        Program(found, arrange(found, keep=keep, backward=backward), dtype, seed=1)
        for found, keep in ((planned(NETS[name], phase), None), (planned(NETS[name], phase), ()))
    )
    expected = run(kept, backward=backward)
    assert run(reused, backward=backward) == expected
    assert not backward or any(np.frombuffer(part, np.uint8).any() for part in expected[-2:])


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_nothing_is_read_that_is_not_in_use(name: str, fuses: bool) -> None:
    """Between two steps, all that nobody is said to need is overwritten."""
    made, spoiled = (net_that_trains(NETS[name], fuses) for _ in range(2))
    memory = spoiled.memory
    expected = run(made, 1)
    random = np.random.default_rng(0)
    for input in spoiled.plan.inputs:
        blob = spoiled.blobs[input]
        blob.data[...] = random.standard_normal(blob.shape)
    count = len(spoiled.runs)
    for moment in range(2 * count):
        for n, buffer in enumerate(memory.buffers):
            if not buffer.own and not buffer.first <= moment - 1 < moment <= buffer.last:
                flat = spoiled._arena._flat[n]
                assert flat is not None
                others = [
                    spoiled._arena._flat[k]
                    for k, other in enumerate(memory.buffers)
                    if not other.own and other.first < moment <= other.last
                ]
                if not any(np.shares_memory(flat, other) for other in others):
                    flat.fill(np.nan if flat.dtype.kind == "f" else 0)
        if moment < count:
            spoiled.runs[moment].forward()
        else:
            spoiled.runs[2 * count - 1 - moment].backward()
    gradients = [param.blob.diff.tobytes() for param in spoiled.learnable]
    assert gradients == expected[-len(gradients) :]


def net_that_trains(text: str, fuses: bool, keep: Any = ()) -> Program:
    found = planned(text)
    grouped = groups(found, keep=keep) if fuses else ()
    return Program(found, arrange(found, grouped, keep=keep), np.float64, seed=1)


IN_PLACE = ("ReLU", "BatchNorm", "Scale", "Dropout", "Sigmoid")
OPERATIONS = ("SUM", "SUM", "SUM", "MAX", "PROD")
WINDOW = "pooling_param { kernel_size: 3 stride: 1 pad: 1 }"


def drawn_net(seed: int) -> str:
    """A net of layers drawn one by one, each on blobs drawn from those that are there."""
    random = np.random.default_rng(seed)

    def draw(names: Sequence[str]) -> str:
        return names[random.integers(len(names))]

    text, blobs, unread = IMAGES + conv("c", "x"), ["c"], ["c"]
    for number in range(random.integers(6, 16)):
        kind, top = draw(["in place", "sum", "join", "neuron", "pool", "conv"]), f"t{number}"
        if kind == "in place":
            # On what nobody has read yet.
            if unread:
                bottom = draw(unread)
                text += layer(draw(IN_PLACE), bottom, bottom, name=top)
            continue
        read = [draw(blobs), draw(blobs)][: 2 if kind in ("sum", "join") else 1]
        if kind == "sum":
            how = f"eltwise_param {{ operation: {draw(OPERATIONS)} }}"
            text += layer("Eltwise", " ".join(read), top, how)
        elif kind == "join":
            text += layer("Concat", " ".join(read), f"{top}_joined") + conv(top, f"{top}_joined")
        elif kind == "neuron":
            text += layer(draw(["ReLU", "TanH"]), read[0], top)
        elif kind == "pool":
            text += layer("Pooling", read[0], top, WINDOW)
        else:
            # Often with what will be fused with it.
            text += conv(top, read[0]) + draw(["", relu(top), layer("BatchNorm", top, top)])
        blobs.append(top)
        unread = [name for name in (*unread, top) if name not in read]
    total = "reduction_param { operation: SUMSQ } loss_weight: 0.5"
    return text + "".join(layer("Reduction", name, f"sum_of_{name}", total) for name in unread)


@pytest.mark.parametrize("seed", range(40))
def test_any_net_gives_the_same_however_its_memory_is_arranged(seed: int) -> None:
    text = drawn_net(seed)
    found = planned(text)
    expected = Program(found, arrange(found, apart=True), np.float64, seed=1)
    losses = []
    for fuses, keep in ((False, None), (True, None), (False, ()), (True, ())):
        made = net_that_trains(text, fuses, keep)
        for each in (expected, made):
            for number, name in enumerate(found.inputs):
                random = np.random.default_rng(number)
                each.blobs[name].data[...] = random.standard_normal(each.blobs[name].shape)
            each.passes = 0
            losses.append(each.forward())
            each.backward(fresh=True)
        assert losses[-1] == pytest.approx(losses[0], rel=1e-9)
        for mine, theirs in zip(made.learnable, expected.learnable, strict=True):
            wanted = theirs.blob.diff
            atol = 1e-9 * (1 + np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(
                mine.blob.diff, wanted, rtol=1e-8, atol=atol, err_msg=mine.layer
            )


def test_memory_for_forward_alone_refuses_backward() -> None:
    found = planned(STRAIGHT)
    made = Program(found, arrange(found, keep=(), backward=False), seed=1)
    with pytest.raises(ValueError, match="forward passes alone"):
        made.backward()


def test_a_net_that_reuses_memory_takes_other_shapes() -> None:
    for rows in (1, 5, 2):
        text = NETS["inception"]
        found = planned(text)
        made = Program(found, arrange(found, keep=()), seed=1)
        run(made, 1)
        made.reshape({"x": (rows, 4, 6, 6), "b": (rows, 4, 6, 6)})
        made.clear_param_diffs()
        made.passes = 0
        fresh = planned(text.replace("dim: 2 dim: 4", f"dim: {rows} dim: 4"))
        assert run(made) == run(Program(fresh, arrange(fresh), seed=1))


def test_a_net_that_shares_parameters_runs_in_the_memory_of_the_other() -> None:
    found = planned(NETS["residual"])
    train = Program(found, arrange(found, keep=()), seed=1)
    tested = planned(NETS["residual"], "TEST")
    memory = arrange(tested, keep=(), backward=False)
    test = Program(tested, memory, seed=1, share=train)
    assert np.shares_memory(test._arena._bytes, train._arena._bytes)
    assert test._arena._bytes.size >= place(tested, memory).arena
    alone = Program(planned(NETS["residual"], "TEST"), memory, seed=1)
    for mine, theirs in zip(alone.learnable, train.learnable, strict=True):
        mine.blob.data[...] = theirs.blob.data
    assert run(test, 1, backward=False) == run(alone, 1, backward=False)


# --- a part of a net ------------------------------------------------------------------------------


def test_a_part_of_a_chain_in_place_works_on_what_its_blob_shows() -> None:
    """As in Caffe, where all of it is one array."""
    made = Program(planned(CHAIN), seed=1)
    run(made, 1)
    a = made.blobs["a"]
    made.forward(1, 1)
    product = a.data.copy()
    weight, bias = (blob.data for blob in made.params["a"])
    np.testing.assert_allclose(product, made.blobs["x"].data @ weight.T + bias, rtol=1e-5)
    made.forward(2, 2)
    deviation = product - product.mean(axis=0)
    expected = deviation / np.sqrt((deviation**2).mean(axis=0) + 1e-5)
    np.testing.assert_allclose(a.data, expected, rtol=1e-4, atol=1e-5)
    a.data[...] = -3
    made.forward(3, 3)
    assert (a.data == -3).all(), "the scale is 1"
    made.forward(4, 4)
    assert (a.data == 0).all()
