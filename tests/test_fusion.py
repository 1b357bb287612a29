"""Groups of layers that run as one: which are found, and that they compute what the layers do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from netdef import graph, prototxt
from netdef.fusion import groups
from netdef.memory import arrange
from netdef.net import Net
from netdef.plan import Plan, plan
from netdef.program import FusedStep, Program
from netdef.proto import netdef_pb2 as pb


def planned(text: str, phase: str = "TRAIN") -> Plan:
    document = prototxt.parse(text, pb.NetParameter, "n.prototxt")
    kept = graph.keep(document.message, pb.NetState(phase=phase), document.positions)
    return plan(graph.split(kept, document.positions), document.positions)


def layer(type: str, bottoms: str, tops: str, rest: str = "", name: str = "") -> str:
    words = [f'name: "{name or tops.split()[0]}" type: "{type}"']
    words += [f'bottom: "{bottom}"' for bottom in bottoms.split()]
    words += [f'top: "{top}"' for top in tops.split()]
    return f"layer {{ {' '.join(words)} {rest} }}\n"


def input_of(tops: str, *shape: int) -> str:
    dims = " ".join(f"dim: {n}" for n in shape)
    return layer("Input", "", tops, f"input_param {{ shape {{ {dims} }} }}", "in")


def conv(name: str, bottom: str, outputs: int = 4, more: str = "") -> str:
    settings = f"num_output: {outputs} kernel_size: 3 pad: 1 {more}"
    settings += ' weight_filler { type: "xavier" } bias_filler { type: "uniform" }'
    return layer("Convolution", bottom, name, f"convolution_param {{ {settings} }}")


def norm(bottom: str, top: str = "", rest: str = "") -> str:
    return layer("BatchNorm", bottom, top or bottom, rest, f"norm of {bottom}")


#: NVIDIA's: it learns a scale and a bias.
OWN = "batch_norm_param { scale_bias: true }"


def scale(bottom: str, top: str = "", rest: str = "bias_term: true") -> str:
    filler = 'filler { type: "uniform" min: 0.5 max: 2 } bias_filler { type: "uniform" }'
    settings = f"scale_param {{ {filler if 'bias' in rest else ''} {rest} }}"
    return layer("Scale", bottom, top or bottom, settings, f"scale of {bottom}")


def relu(bottom: str, top: str = "", rest: str = "") -> str:
    return layer("ReLU", bottom, top or bottom, rest, f"relu of {bottom}")


def add(a: str, b: str, top: str, rest: str = "") -> str:
    return layer("Eltwise", f"{a} {b}", top, rest)


def loss(a: str, b: str = "b") -> str:
    return layer("EuclideanLoss", f"{a} {b}", "loss")


IMAGES = input_of("x b", 2, 4, 6, 6)
PLAIN = IMAGES + conv("a", "x") + relu("a") + conv("c", "a") + relu("c", "d") + loss("d")
NORMED = IMAGES + conv("a", "x") + norm("a") + scale("a") + relu("a")
NORMED += conv("c", "a", more="bias_term: false") + norm("c", "n") + relu("n", "r") + loss("r")
RESIDUAL = (
    IMAGES
    + conv("a", "x")
    + norm("a")
    + scale("a")
    + relu("a")
    # A block whose shortcut is its bottom.
    + conv("c", "a")
    + relu("c")
    + conv("d", "c")
    + norm("d")
    + scale("d")
    + add("a", "d", "e")
    + relu("e")
    # One whose shortcut is projected.
    + conv("f", "e")
    + norm("f")
    + scale("f")
    + conv("g", "e")
    + norm("g", "gn")
    + scale("gn", "gs")
    + add("f", "gs", "h")
    + relu("h", "hr")
    # And one whose sum is not plain, nor rectified.
    + conv("i", "hr")
    + add("i", "hr", "j", "eltwise_param { coeff: -0.5 coeff: 1 }")
    + loss("j")
)
NETS = {"plain": PLAIN, "normed": NORMED, "residual": RESIDUAL}


def found(text: str, phase: str = "TRAIN", keep: Collection[str] | None = ()) -> list[str]:
    return [
        group.name for group in groups(planned(text, phase), keep=keep, backward=phase == "TRAIN")
    ]


# --- which groups ---------------------------------------------------------------------------------


def test_groups_that_train() -> None:
    assert found(PLAIN) == ["a+relu of a", "c+relu of c"]
    assert found(NORMED) == ["norm of a+scale of a+relu of a", "norm of c+relu of n"]
    assert found(RESIDUAL) == [
        "norm of a+scale of a+relu of a",
        "c+relu of c",
        "norm of d+scale of d",
        "e+relu of e",
        "norm of f+scale of f",
        "norm of g+scale of gn",
        "h+relu of h",
    ]


def test_groups_that_only_run_forward() -> None:
    assert found(RESIDUAL, "TEST") == [
        "a+norm of a+scale of a+relu of a",
        "c+relu of c",
        "d+norm of d+scale of d+e+relu of e",
        "f+norm of f+scale of f",
        "g+norm of g+scale of gn+h+relu of h",
        "i+j",
    ]
    train = planned(RESIDUAL)
    assert "a+norm" not in "".join(group.name for group in groups(train, keep=(), backward=False))


def test_what_users_see_is_not_passed_over() -> None:
    """Where all blobs are kept, only a blob that is worked on in place passes unseen."""
    assert found(PLAIN, keep=None) == ["a+relu of a"]
    assert found(NORMED, keep=None) == ["norm of a+scale of a+relu of a"]
    assert found(PLAIN, keep=["c"]) == ["a+relu of a"]
    assert found(PLAIN, keep=["d", "a"]) == found(PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        # Somebody else reads it, or its loss.
        IMAGES + conv("a", "x") + relu("a", "r") + conv("c", "a") + loss("r", "c"),
        IMAGES + conv("a", "x").replace("top", "loss_weight: 1 top") + relu("a", "r") + loss("r"),
        IMAGES + conv("a", "x") + relu("a").replace("top", "loss_weight: 1 top"),
        # A slope, a negative one at that.
        IMAGES + conv("a", "x") + relu("a", "", "relu_param { negative_slope: 0.1 }") + loss("a"),
        # Scales of other axes than the channels, or by a blob.
        IMAGES + conv("a", "x") + scale("a", "", "axis: 0") + loss("a"),
        IMAGES + norm("x", "n") + scale("n", "n", "axis: 2 bias_term: true") + loss("n"),
        # A BatchNorm that has a scale of its own.
        IMAGES + norm("x", "n", OWN) + relu("n") + loss("n"),
        # The sum is in place, or is none.
        IMAGES + conv("a", "x") + conv("c", "x") + add("a", "c", "a") + relu("a") + loss("a"),
        IMAGES
        + conv("a", "x")
        + add("a", "b", "e", "eltwise_param { operation: PROD }")
        + relu("e")
        + loss("e"),
    ],
)
def test_layers_that_do_not_go_together(text: str) -> None:
    assert found(text) == []


def test_a_norm_with_a_scale_of_its_own_is_not_folded_into_a_convolution() -> None:
    text = IMAGES + conv("a", "x") + norm("a", "", OWN) + relu("a")
    assert found(text, phase="TEST") == []


def test_a_gradient_that_ends_in_the_middle_is_no_group() -> None:
    text = IMAGES + conv("a", "x") + relu("a", "r", "propagate_down: false") + conv("c", "r")
    assert found(text + loss("c")) == []


# --- results --------------------------------------------------------------------------------------


def run(made: Program, backward: bool, passes: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(passes):
        random = np.random.default_rng(number)
        for name in made.plan.inputs:
            blob = made.blobs[name]
            blob.data[...] = random.standard_normal(blob.shape)
        found[f"loss {number}"] = np.float64(made.forward())
        for name in made.plan.outputs:
            found[f"{name} {number}"] = made.blobs[name].data.copy()
        if backward:
            made.backward(fresh=number == 1)
            for param in made.learnable:
                found[f"{param.layer} {param.name} {number}"] = param.blob.diff.copy()
    for name, blobs in made.params.items():
        found |= {f"{name} {i} after": blob.data.copy() for i, blob in enumerate(blobs)}
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("what", ["trains", "tests", "tests as trained"])
@pytest.mark.parametrize("name", NETS)
def test_a_group_computes_what_its_layers_compute(name: str, what: str, dtype: Any) -> None:
    phase = "TEST" if what == "tests" else "TRAIN"
    backward = what == "trains"
    results = []
    for keep, fuses in ((None, False), (None, True), ((), False), ((), True)):
        text = NETS[name] if backward else NETS[name].replace(loss("d"), "")
        of = planned(text, phase)
        grouped = groups(of, keep=keep, backward=backward or keep is None) if fuses else ()
        assert bool(grouped) == fuses
        made = Program(of, arrange(of, grouped, keep=keep, backward=backward), dtype, seed=1)
        for blobs in made.params.values():
            # Statistics as they are after training.
            if phase == "TEST" and len(blobs) == 3:
                for i, blob in enumerate(blobs):
                    blob.data[...] = np.random.default_rng(i).uniform(1, 2, blob.shape)
        results.append(run(made, backward))
    first, *others = results
    # Some are exactly 0, as that of a bias before a BatchNorm: all that is left of it is rounding.
    size = max(float(np.abs(values).max(initial=0)) for values in first.values())
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for other in others:
        assert other.keys() == first.keys()
        for key, values in first.items():
            np.testing.assert_allclose(
                other[key], values, rtol=tolerance, atol=tolerance * size, err_msg=key
            )


@pytest.mark.parametrize("keep", [None, ()])
def test_convolution_and_relu_keep_every_bit(keep: Collection[str] | None) -> None:
    results = []
    for fuses in (False, True):
        of = planned(PLAIN)
        grouped = groups(of, keep=keep) if fuses else ()
        results.append(run(Program(of, arrange(of, grouped, keep=keep), seed=1), True))
    for key, values in results[0].items():
        np.testing.assert_array_equal(results[1][key], values, err_msg=key)


@pytest.mark.parametrize("name", NETS)
def test_gradients_of_groups_are_right(name: str) -> None:
    """Along a random direction of all parameters, against the difference of two losses."""
    of = planned(NETS[name])
    made = Program(of, arrange(of, groups(of, keep=()), keep=()), np.float64, seed=1)
    assert any(isinstance(step, FusedStep) for step in made.runs)
    random = np.random.default_rng(3)
    for input in of.inputs:
        made.blobs[input].data[...] = random.standard_normal(made.blobs[input].shape)
    made.forward()
    made.backward(fresh=True)
    learned = [param.blob for param in made.learnable if param.lr_mult]
    moves = [random.standard_normal(blob.shape) for blob in learned]
    claimed = sum(
        float((blob.diff * move).sum()) for blob, move in zip(learned, moves, strict=True)
    )
    losses = []
    for step in (1e-6, -1e-6):
        for blob, move in zip(learned, moves, strict=True):
            blob.data[...] += step * move
        losses.append(made.forward())
        for blob, move in zip(learned, moves, strict=True):
            blob.data[...] -= step * move
    assert claimed == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5)


def test_a_sum_passes_its_gradient_on_without_a_copy() -> None:
    of = planned(RESIDUAL)
    memory = arrange(of, groups(of, keep=()), keep=())
    by_name = {layer.name: ends for layer, ends in zip(of.layers, memory.layers, strict=True)}
    for name in ("e", "h"):
        ends = by_name[name]
        assert ends.free_backward
        assert len(set(ends.bottom_diff)) == 1
    assert not by_name["j"].free_backward
    # Where all blobs are kept, each shows its own gradient.
    assert not any(ends.free_backward and len(ends.bottom_diff) > 1 for ends in arrange(of).layers)


def test_a_sum_in_whose_gradient_somebody_works_is_copied() -> None:
    """y = a + relu(conv(a)): the group would mask what the other branch still needs."""
    text = IMAGES + conv("a", "x") + conv("c", "a") + relu("c") + add("c", "a", "e") + loss("e")
    of = planned(text)
    memory = arrange(of, groups(of, keep=()), keep=())
    (ends,) = [e for layer, e in zip(of.layers, memory.layers, strict=True) if layer.name == "e"]
    assert not ends.free_backward


# --- parts of a net -------------------------------------------------------------------------------


def net_of(text: str, **options: Any) -> Net:
    return Net.from_text(text, pb.TRAIN, seed=1, **options)


def fill(net: Net) -> None:
    for name in net.inputs:
        random = np.random.default_rng(len(name))
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)


def test_a_pass_that_cuts_a_group_runs_its_layers() -> None:
    net, apart = net_of(NORMED), net_of(NORMED, keep_all=True)
    for each in (net, apart):
        fill(each)
    for end in ("a", "norm of a", "scale of a", "relu of a"):
        np.testing.assert_allclose(
            net.forward(end=end)["a"], apart.forward(end=end)["a"], rtol=1e-5, atol=1e-6
        )
    assert net.forward(start="scale of a", end="scale of a")["a"].any()


def test_backward_that_cuts_a_group_that_ran_as_one_is_refused() -> None:
    net = net_of(NORMED)
    fill(net)
    net.forward()
    message = "the layers norm of a[+]scale of a[+]relu of a ran forward as one"
    with pytest.raises(ValueError, match=message):
        net.backward(end="scale of a")
    with pytest.raises(ValueError, match=message):
        net.backward(start="norm of a")


def test_backward_goes_through_a_group_whose_layers_ran() -> None:
    text = "force_backward: true\n" + NORMED
    net, apart = net_of(text), net_of(text, keep_all=True)
    for each in (net, apart):
        fill(each)
        each.forward(end="scale of a")
        each.forward(start="relu of a")
        each.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, apart.blobs["x"].diff, rtol=1e-4, atol=1e-6)


def test_reused_memory_has_no_part_of_a_group() -> None:
    net = net_of(NORMED, keep=())
    fill(net)
    with pytest.raises(ValueError, match="run as one"):
        net.forward(end="scale of a")
    net.forward(end="relu of a")


def test_debug_info_shows_each_layer() -> None:
    told: list[Any] = []
    net = net_of("debug_info: true\n" + NORMED, emit=told.append)
    net.forward()
    assert not net.program.memory.groups
    assert any("Layer norm of a, top blob a" in str(event) for event in told)


def test_a_solver_that_shows_debug_lines_fuses_nothing(tmp_path: Any) -> None:
    net = net_of(NORMED, keep_all=True)
    assert all(not isinstance(run, FusedStep) for run in net.program.runs)


def test_reshape_of_a_net_with_groups() -> None:
    for keep in (None, ()):
        net = net_of(RESIDUAL, keep=keep)
        fill(net)
        net.forward()
        net.program.backward()
        for name in net.inputs:
            net.blobs[name].reshape(3, 4, 6, 6)
        fill(net)
        fresh = net_of(RESIDUAL.replace("dim: 2 dim: 4", "dim: 3 dim: 4"), keep=keep)
        fill(fresh)
        # Not the first pass of this net: its statistics have moved on.
        for mine, theirs in zip(net.program.learnable, fresh.program.learnable, strict=True):
            theirs.blob.data[...] = mine.blob.data
        for each in (net, fresh):
            each.clear_param_diffs()
            each.forward()
            each.program.backward()
        for mine, theirs in zip(net.program.learnable, fresh.program.learnable, strict=True):
            np.testing.assert_array_equal(mine.blob.diff, theirs.blob.diff, err_msg=mine.layer)
