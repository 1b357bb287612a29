"""Filter: selectors of any kind, and nets whose shapes change in the middle of a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.net import Net
from netdef.testing import Case, Draw, Mistake, Trial, normal, values


def chosen(*x: Any) -> Any:
    *data, selector = x
    keep = [n for n, value in enumerate(selector.reshape(len(selector))) if value != 0]
    return tuple(blob[keep] for blob in data)


def flags(random: np.random.Generator, shape: Any) -> Any:
    """Two thirds are chosen, by values of any kind."""
    return random.choice([0, 1, -0.5], shape)


X, SELECTOR = (6, 3, 2), (6,)

CASES = [
    Case('type: "Filter"', [X, SELECTOR], chosen, [normal, flags]),
    Case('type: "Filter"', [X, (6, 1, 1)], chosen, [normal, flags]),
    Case(
        'type: "Filter" top: "a" top: "b" top: "c"',
        [X, (6,), (6, 4), (6, 1)],
        chosen,
        [normal, normal, normal, flags],
    ),
    Case('type: "Filter"', [X, SELECTOR], chosen, [normal, values(1)]),
    Case('type: "Filter"', [X, SELECTOR], chosen, [normal, values(0)]),
    Case('type: "Filter"', [(1, 2), (1,)], chosen, [normal, values(-1)]),
    Case('type: "Filter"', [(0, 2), (0, 1)], chosen),
    Case('type: "Filter"', [(3, 0), (3,)], chosen, [normal, flags]),
]

MISTAKES = [
    Mistake('type: "Filter"', [X], "takes 2 or more bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "Filter"',
        [X, X, SELECTOR],
        "has 3 bottoms but 1 tops: give one top for each bottom but the last, the selector",
        "layer",
    ),
    Mistake('type: "Filter" top: "a" top: "b"', [X, SELECTOR], "has 2 bottoms but 2 tops", '"b"'),
    Mistake(
        'type: "Filter"',
        [X, (6, 2)],
        "the last bottom is the selector, with one value for each item, but it is 6x2",
        '"x1"',
    ),
    Mistake('type: "Filter"', [(3, 2), (3, 1, 3)], "but it is 3x1x3", '"x1"'),
    Mistake('type: "Filter"', [X, ()], "the last bottom is the selector", '"x1"'),
    Mistake(
        'type: "Filter" top: "a" top: "b"',
        [X, (5, 2), SELECTOR],
        "bottom 1 is 5x2, but the selector 6 chooses among 6 items",
        '"x1"',
    ),
    Mistake('type: "Filter"', [(), SELECTOR], "bottom 0 is scalar, but the selector 6", '"x0"'),
    Mistake('type: "Filter" top: "x0"', [X, SELECTOR], 'cannot work in place on "x0"', '"x0"'),
]


def test_nan_selects() -> None:
    draw: list[Draw] = [normal, values([0, np.nan, 0, -0.0, 1e-30, 0])]
    with Trial(Case('type: "Filter"', [X, SELECTOR], chosen, draw)) as trial:
        trial.forward()
        np.testing.assert_array_equal(trial.top[0].data, trial.bottom[0].data[[1, 4]])


# -- in nets ---------------------------------------------------------------------------------------


def inputs(**shapes: tuple[int, ...]) -> str:
    text = "force_backward: true\n"
    for name, shape in shapes.items():
        dims = " ".join(f"dim: {n}" for n in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        text += f"input_param {{ shape {{ {dims} }} }} }}\n"
    return text


def filtered(*bottoms: str) -> str:
    """A Filter whose tops are called as its bottoms, with an f behind."""
    text = " ".join(f'bottom: "{name}"' for name in bottoms)
    text += "".join(f' top: "{name}f"' for name in bottoms[:-1])
    return f'layer {{ name: "filter_{bottoms[0]}" type: "Filter" {text} }}\n'


def layer(kind: str, bottoms: str, top: str, options: str = "") -> str:
    text = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return f'layer {{ name: "{top}" type: "{kind}" {text} top: "{top}" {options} }}\n'


CLASSIFIER = (
    inputs(x=(6, 5), label=(6,), s=(6,))
    + filtered("x", "label", "s")
    + layer("InnerProduct", "xf", "ip", "inner_product_param { num_output: 4 }")
    + layer("ReLU", "ip", "relu")
    + layer("SoftmaxWithLoss", "relu labelf", "loss", "loss_weight: 1")
)

#: What one pass of a net gives.
Found = dict[str, Any]


def run(net: Net, seed: int, selected: str, batch: str = "s") -> Found:
    """A pass over random values where ``selected`` says who stays, "101100" say."""
    random = np.random.default_rng(seed)
    for name in net.inputs:
        blob = net.blobs[name]
        draw = (
            random.integers(0, 4, blob.shape) if name == "label" else random.normal(size=blob.shape)
        )
        blob.data[...] = [float(c) for c in selected] if name == batch else draw
    net.clear_param_diffs()
    net.forward()
    net.backward()
    found = {name: blob.data.copy() for name, blob in net.blobs.items()}
    found |= {f"d{name}": net.blobs[name].diff.copy() for name in net.inputs if name != batch}
    for name, params in net.params.items():
        found |= {f"d{name}/{i}": param.diff.copy() for i, param in enumerate(params)}
    return found


def assert_same(mine: Found, theirs: Found, names: list[str] | None = None) -> None:
    for name in names or mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_what_follows_takes_the_items_that_are_there() -> None:
    """Any sequence of passes gives what a new net gives; and what one gives without the others."""
    net = Net.from_text(CLASSIFIER, seed=1)
    params = [blob.data.copy() for blob in net.params["ip"]]
    for seed, selected in enumerate(("111111", "101100", "010000", "110110", "110110")):
        found = run(net, seed, selected)
        items = selected.count("1")
        assert found["xf"].shape == (items, 5)
        assert found["relu"].shape == (items, 4)
        new = Net.from_text(CLASSIFIER, seed=1)
        assert_same(found, run(new, seed, selected))
        keep = [c == "1" for c in selected]
        alone = Net.from_text(CLASSIFIER.replace("dim: 6", f"dim: {items}"), seed=1)
        for ours, theirs in zip(params, alone.params["ip"], strict=True):
            np.testing.assert_array_equal(theirs.data, ours)
        for name in ("x", "label"):
            alone.blobs[name].data[...] = found[name][keep]
        alone.blobs["s"].data[...] = 1
        alone.forward()
        alone.backward()
        assert alone.blobs["loss"].data == found["loss"]
        np.testing.assert_array_equal(alone.blobs["x"].diff, found["dx"][keep])
        assert not found["dx"][np.logical_not(keep)].any()
        np.testing.assert_array_equal(alone.params["ip"][0].diff, found["dip/0"])


def test_no_item_at_all() -> None:
    net = Net.from_text(CLASSIFIER, seed=1)
    expected = run(net, 0, "101100")
    found = run(net, 0, "000000")
    assert found["relu"].shape == (0, 4)
    assert found["loss"] == 0
    assert not any(found[name].any() for name in ("dx", "dip/0", "dip/1"))
    assert_same(run(net, 0, "101100"), expected)


SCORES = layer("InnerProduct", "xf", "ip", "inner_product_param { num_output: 4 }")

BEHIND = [
    layer("InnerProduct", "xf", "y", "inner_product_param { num_output: 4 }"),
    layer("InnerProduct", "xf", "y", "inner_product_param { num_output: 4 transpose: true }"),
    layer("Convolution", "xf", "y", "convolution_param { num_output: 4 kernel_size: 2 pad: 1 }"),
    layer("Pooling", "xf", "y", "pooling_param { pool: MAX kernel_size: 2 }"),
    layer("Pooling", "xf", "y", "pooling_param { pool: AVE kernel_size: 2 }"),
    layer("ReLU", "xf", "y"),
    layer("Dropout", "xf", "y"),
    layer("Softmax", "xf", "y"),
    layer("Concat", "xf xf", "y"),
    layer("Concat", "xf xf", "y", "concat_param { axis: 0 }"),
    layer("Slice", "xf", "y", 'top: "z" slice_param { axis: 2 }'),
    layer("Flatten", "xf", "y"),
    layer("Reshape", "xf", "y", "reshape_param { shape { dim: 0 dim: -1 } }"),
    layer("Tile", "xf", "y", "tile_param { tiles: 2 }"),
    layer("ArgMax", "xf", "y"),
    layer("ArgMax", "xf", "y", "argmax_param { axis: 1 out_max_val: true }"),
    layer("BatchReindex", "xf sf", "y"),
    layer("EuclideanLoss", "xf xf", "y"),
    SCORES + layer("Accuracy", "ip sf", "y"),
    SCORES + layer("SoftmaxWithLoss", "ip sf", "y"),
]


@pytest.mark.parametrize("text", BEHIND)
def test_layers_behind_take_an_empty_batch(text: str) -> None:
    """And afterwards a full one, as if nothing had been."""
    text = (
        inputs(x=(3, 2, 4, 4), s=(3,))
        + layer("Split", "s", "s0", 'top: "s1"')
        + layer("Filter", "x s0 s1", "xf", 'top: "sf"')
        + text
    )
    net = Net.from_text(text, seed=1)
    found = run(net, 0, "000")
    assert found["xf"].shape[0] == 0
    assert found["y"].size == 0 or found["y"] == 0
    assert not found["dx"].any()
    fresh = Net.from_text(text, seed=1)
    fresh.program.passes = net.program.passes
    assert_same(run(net, 1, "110"), run(fresh, 1, "110"))


def test_two_in_a_row() -> None:
    """The second selector comes through the first Filter."""
    text = (
        inputs(x=(6, 2), s=(6,), t=(6,))
        + filtered("x", "t", "s")
        + filtered("xf", "tf")
        + layer("InnerProduct", "xff", "ip", "inner_product_param { num_output: 3 }")
    )
    net = Net.from_text(text, seed=1)
    random = np.random.default_rng(1)
    for first, second in (
        ("111111", "111111"),
        ("110111", "101010"),
        ("110111", "010101"),
        ("110100", "101010"),
        ("001011", "000000"),
        ("000000", "111111"),
        ("111111", "100000"),
    ):
        net.blobs["x"].data[...] = random.normal(size=(6, 2))
        net.blobs["s"].data[...] = [float(c) for c in first]
        net.blobs["t"].data[...] = [float(c) for c in second]
        net.forward()
        keep = [a == b == "1" for a, b in zip(first, second, strict=True)]
        expected = net.blobs["x"].data[keep]
        np.testing.assert_array_equal(net.blobs["xff"].data, expected)
        assert net.blobs["ip"].shape == (len(expected), 3)
        net.blobs["ip"].diff[...] = 1
        net.backward()
        slope = net.params["ip"][0].data.sum(axis=0)
        wanted = np.outer(keep, slope)
        np.testing.assert_allclose(net.blobs["x"].diff, wanted, rtol=1e-6, atol=1e-7)


def test_two_side_by_side_that_meet() -> None:
    """Between the first and the second, what reads both cannot be planned."""
    text = (
        inputs(x=(4, 2), y=(4, 2), s=(4,))
        + filtered("x", "s")
        + layer("ReLU", "xf", "xr")
        + filtered("y", "s")
        + layer("EuclideanLoss", "xr yf", "loss")
    )
    net = Net.from_text(text, seed=1)
    for seed, selected in enumerate(("1111", "0110", "0010", "1011", "0000", "1111")):
        found = run(net, seed, selected)
        keep = [c == "1" for c in selected]
        difference = np.maximum(found["x"], 0)[keep] - found["y"][keep]
        wanted = (difference**2).sum() / 2 / max(1, sum(keep))
        np.testing.assert_allclose(found["loss"], wanted, rtol=1e-6)
        np.testing.assert_allclose(
            found["dy"][keep], -difference / max(1, sum(keep)), rtol=1e-6, atol=1e-7
        )


def test_after_a_reshape_of_the_net() -> None:
    net = Net.from_text(CLASSIFIER, seed=1)
    for items, selected in ((6, "010010"), (3, "011"), (8, "10000001"), (8, "11111111"), (2, "00")):
        for name, rest in (("x", (5,)), ("label", ()), ("s", ())):
            net.blobs[name].reshape(items, *rest)
        net.reshape()
        assert net.blobs["xf"].shape[1:] == (5,)
        new = Net.from_text(CLASSIFIER.replace("dim: 6", f"dim: {items}"), seed=1)
        assert_same(run(net, items, selected), run(new, items, selected))


def test_a_filter_whose_bottoms_keep_their_shapes_is_left_alone() -> None:
    net = Net.from_text(CLASSIFIER, seed=1)
    run(net, 0, "101100")
    arrays = {name: blob.data for name, blob in net.blobs.items()}
    run(net, 1, "010011")
    assert all(blob.data is arrays[name] for name, blob in net.blobs.items())
    net.reshape()
    assert net.blobs["xf"].shape == (3, 5), "nothing changed, nothing was planned"


def test_the_selector_has_no_gradient_and_the_labels_before_it_may_have() -> None:
    net = Net.from_text(inputs(x=(2, 3), y=(2, 1), s=(2,)) + filtered("x", "y", "s"))
    (planned,) = (each for each in net.plan.layers if each.type == "Filter")
    assert planned.propagate == (True, True, False)
