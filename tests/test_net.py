"""Net, as pycaffe behaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netdef
import netdef as caffe
from netdef import events, jit
from netdef.blob import Blob
from netdef.errors import NetError, PrototxtError, WeightsError
from netdef.net import Net, set_random_seed
from netdef.proto import netdef_pb2 as pb
from netdef.solver import Solver, get_solver
from netdef.weights import read_weights

TEXT = """
name: "small"
layer {
  name: "in" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 4 dim: 6 } shape { dim: 4 } }
}
layer {
  name: "ip1" type: "InnerProduct" bottom: "x" top: "h" propagate_down: true
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } bias_filler { value: 0.25 } }
}
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
layer {
  name: "ip2" type: "InnerProduct" bottom: "h" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer {
  name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "y" top: "loss"
  include { phase: TRAIN }
}
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" include { phase: TEST } }
layer { name: "quiet" type: "Silence" bottom: "y" include { phase: TEST } }
"""

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
Y = np.array([0, 2, 1, 1], np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def train() -> Net:
    return Net.from_text(TEXT, netdef.TRAIN, seed=1)


@pytest.fixture
def test() -> Net:
    return Net.from_text(TEXT, netdef.TEST, seed=1)


def softmax(scores: Any) -> Any:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def scores_of(net: Net, x: Any = X) -> Any:
    """What numpy makes of the net's parameters."""
    (w1, b1), (w2, b2) = ([blob.data for blob in net.params[name]] for name in ("ip1", "ip2"))
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


# --- what a net is --------------------------------------------------------------------------------


def test_names(train: Net) -> None:
    assert train.name == "small"
    assert train.phase == netdef.TRAIN
    assert train.inputs == ["x", "y"]
    assert train.outputs == ["loss"]
    assert list(train.blobs) == ["x", "y", "h", "scores", "loss"]
    assert list(train.params) == ["ip1", "ip2"]
    assert [layer.type for layer in train.layers] == [
        "Input",
        "InnerProduct",
        "ReLU",
        "InnerProduct",
        "SoftmaxWithLoss",
    ]
    assert list(train.layer_dict) == ["in", "ip1", "relu", "ip2", "loss"]
    assert train.layer_dict["ip1"].blobs[0].data is train.params["ip1"][0].data
    assert train.top_names["in"] == ["x", "y"]
    assert train.bottom_names["loss"] == ["scores", "y"]
    assert train.bottom_names["in"] == []
    assert dict(train.blob_loss_weights) == {"x": 0, "y": 0, "h": 0, "scores": 0, "loss": 1}
    assert repr(train) == '<Net "small": 5 layers, 53 parameters>'


def test_the_phase_chooses_the_layers(train: Net, test: Net) -> None:
    assert test.outputs == ["prob"]
    assert "loss" not in test.blobs
    assert "prob" not in train.blobs


def test_splits_are_layers_and_blobs_as_in_caffe() -> None:
    text = TEXT.replace("include { phase: TRAIN }", "")
    net = Net.from_text(text, netdef.TEST)
    assert "scores_ip2_0_split" in net.layer_dict
    assert net.top_names["scores_ip2_0_split"] == ["scores_ip2_0_split_0", "scores_ip2_0_split_1"]
    net.forward(x=X, y=Y)
    copy = net.blobs["scores_ip2_0_split_1"].data
    assert np.array_equal(copy, net.blobs["scores"].data)


def test_blobs(train: Net) -> None:
    x = train.blobs["x"]
    assert x.shape == (4, 6)
    assert (x.count, x.num, x.channels, x.height, x.width) == (24, 4, 6, 1, 1)
    for array in (x.data, x.diff):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert train.blobs["loss"].shape == ()
    assert repr(x) == "<Blob x 4x6>"
    w, b = train.params["ip1"]
    assert (w.shape, b.shape) == ((5, 6), (5,))
    assert (b.data == 0.25).all()


def test_a_blob_is_the_same_each_time_it_is_asked_for(train: Net) -> None:
    held = train.blobs["h"].data
    train.forward(x=X, y=Y)
    assert train.blobs["h"].data is held
    assert held.any()


# --- making one -----------------------------------------------------------------------------------


def weights_of(net: Net, path: Path) -> str:
    net.save(path)
    return str(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda file, weights: Net(file, netdef.TEST, weights=weights),
        lambda file, weights: Net(file, phase=netdef.TEST, weights=weights),
        lambda file, weights: Net(network_file=file, phase=netdef.TEST, weights=weights),
        lambda file, weights: Net(file, weights, netdef.TEST),
        lambda file, weights: Net(file, weights, phase=netdef.TEST),
        lambda file, weights: Net(file, netdef.TEST, 0, None, weights),
        lambda file, weights: Net(str(file), Path(weights), netdef.TEST),
    ],
)
def test_forms(make: Callable[[Path, str], Net], file: Path, train: Net, tmp_path: Path) -> None:
    net = make(file, weights_of(train, tmp_path / "w.caffemodel"))
    assert net.phase == netdef.TEST
    for name, blobs in train.params.items():
        for mine, theirs in zip(net.params[name], blobs, strict=True):
            assert np.array_equal(mine.data, theirs.data)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {}),
        (("w.caffemodel",), {}),
        ((netdef.TEST,), {"phase": netdef.TEST}),
        (("w.caffemodel", netdef.TEST), {"weights": "w.caffemodel"}),
        (("w.caffemodel", netdef.TEST, 0), {}),
        ((2,), {}),
        ((netdef.TEST, 0, None, "w.caffemodel", 1), {}),
    ],
)
def test_forms_that_make_no_sense(file: Path, arguments: Any, named: Any) -> None:
    with pytest.raises(TypeError, match="Net "):
        Net(file, *arguments, **named)


RULES = """
state { stage: "of the file" level: 5 }
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }
layer { name: "a" type: "ReLU" bottom: "x" top: "a" include { stage: "of the file" } }
layer { name: "b" type: "ReLU" bottom: "x" top: "b" include { stage: "mine" } }
layer { name: "c" type: "ReLU" bottom: "x" top: "c" include { min_level: 1 } }
"""


def test_stages_and_level(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(RULES, encoding="utf-8")
    for make in (Net, lambda path, *rest, **named: Net.from_text(path.read_text(), *rest, **named)):
        assert make(path, netdef.TEST).outputs == ["a"]
        assert make(path, netdef.TEST, level=1, stages=["mine"]).outputs == ["a", "b", "c"]
    assert Net(path, netdef.TEST, 1, ["mine"]).outputs == ["a", "b", "c"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"nowhere\.prototxt"):
        Net(tmp_path / "nowhere.prototxt", netdef.TEST)


def test_what_is_wrong_is_found_in_the_file(file: Path) -> None:
    file.write_text(TEXT.replace('"InnerProduct" bottom: "h"', '"InerProduct" bottom: "h"'))
    with pytest.raises(NetError) as caught:
        Net(file, netdef.TEST)
    (found,) = caught.value.diagnostics
    assert str(found.location).startswith(f"{file}:13:")
    assert found.hint == 'did you mean "InnerProduct"?'


def test_old_definitions_are_upgraded() -> None:
    net = Net.from_text(
        'name: "old" input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layers { name: "r" type: RELU bottom: "x" top: "y" }',
        netdef.TEST,
    )
    assert net.inputs == ["x"]
    assert net.blobs["y"].shape == (1, 2, 3, 3)


def test_debug_info_keeps_every_blob() -> None:
    text = "debug_info: true\n" + TEXT.replace("include { phase: TRAIN }", "")
    net = Net.from_text(text, netdef.TEST)
    assert not np.shares_memory(net.blobs["scores_ip2_0_split_0"].data, net.blobs["scores"].data)


# --- forward --------------------------------------------------------------------------------------


def test_forward(test: Net) -> None:
    test.blobs["x"].data[...] = X
    out = test.forward()
    assert list(out) == ["prob"]
    assert out["prob"] is test.blobs["prob"].data
    np.testing.assert_allclose(out["prob"], softmax(scores_of(test)), rtol=1e-5)


def test_forward_with_inputs(train: Net) -> None:
    out = train.forward(x=X.astype(np.float64), y=Y.astype(np.int64))
    assert train.blobs["x"].data.dtype == np.float32
    probabilities = softmax(scores_of(train))
    expected = -np.log(probabilities[range(4), Y.astype(int)]).mean()
    assert out["loss"].shape == ()
    assert float(out["loss"]) == pytest.approx(expected, rel=1e-5)


def test_forward_returns_more_blobs_when_asked(test: Net) -> None:
    out = test.forward(blobs=["h", "x"], x=X, y=Y)
    assert sorted(out) == ["h", "prob", "x"]
    assert np.array_equal(out["x"], X)


def test_forward_of_a_part(test: Net) -> None:
    test.forward(x=X, y=Y)
    whole = test.blobs["prob"].data.copy()
    assert list(test.forward(end="relu")) == ["h"]

    test.blobs["h"].data[...] = 1
    assert list(test.forward(start="ip2")) == ["prob"]
    w, b = (blob.data for blob in test.params["ip2"])
    expected = softmax(np.ones((4, 5)) @ w.T + b)
    np.testing.assert_allclose(test.blobs["prob"].data, expected, rtol=1e-5)
    assert np.array_equal(test.blobs["x"].data, X)

    assert sorted(test.forward(["x"], "ip1", "ip2")) == ["scores", "x"]
    assert np.array_equal(test.forward(start="prob")["prob"], whole)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": X}, r"expected arrays for \['x', 'y'\], but got \['x'\]"),
        ({"x": X, "y": Y, "z": Y}, r"but got \['x', 'y', 'z'\]"),
        (
            {"x": X[:2], "y": Y},
            r'holds a batch of 4, but 2 were given: net.blobs\["x"\].reshape\(...\) changes that',
        ),
        ({"x": np.ones((4, 7)), "y": Y}, '"x" is 4x6, but 4x7 was given'),
    ],
)
def test_inputs_that_do_not_fit(test: Net, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        test.forward(**inputs)


def test_layers_that_do_not_exist(test: Net) -> None:
    for call in (test.forward, test.backward):
        for where in ("start", "end"):
            with pytest.raises(ValueError, match='the net has no layer "ip9"'):
                call(**{where: "ip9"})
    with pytest.raises(KeyError):
        test.forward(blobs=["ip9"])


def test_forward_all_runs_batch_by_batch(test: Net) -> None:
    x = np.random.default_rng(1).standard_normal((10, 6)).astype(np.float32)
    out = test.forward_all(blobs=["h"], x=x, y=np.zeros(10))
    assert out["prob"].shape == (10, 3)
    assert out["h"].shape == (10, 5)
    np.testing.assert_allclose(out["prob"], softmax(scores_of(test, x)), rtol=1e-5)
    with pytest.raises(ValueError, match="the same length"):
        test.forward_all(x=x, y=np.zeros(9))
    with pytest.raises(ValueError, match="the inputs are"):
        test.forward_all(x=x)


# --- backward -------------------------------------------------------------------------------------


def test_backward(train: Net) -> None:
    train.forward(x=X, y=Y)
    out = train.backward()
    assert list(out) == ["x", "y"]
    gradient = softmax(scores_of(train))
    gradient[range(4), Y.astype(int)] -= 1
    gradient /= 4
    h = train.blobs["h"].data
    w1, w2 = train.params["ip1"][0], train.params["ip2"][0]
    np.testing.assert_allclose(w2.diff, gradient.T @ h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(train.params["ip2"][1].diff, gradient.sum(0), rtol=1e-4, atol=1e-6)
    below = (gradient @ w2.data) * (h > 0)
    np.testing.assert_allclose(out["x"], below @ w1.data, rtol=1e-4, atol=1e-6)
    assert not out["y"].any()


def test_backward_from_given_gradients() -> None:
    net = Net.from_text(
        "force_backward: true\n" + TEXT.replace('type: "Softmax"', 'type: "ReLU"'), netdef.TEST
    )
    net.forward(x=X, y=Y)
    gradient = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
    out = net.backward(diffs=["h"], prob=gradient)
    assert sorted(out) == ["h", "x", "y"]
    below = gradient * (net.blobs["scores"].data > 0)
    expected = (below @ net.params["ip2"][0].data) * (net.blobs["h"].data > 0)
    np.testing.assert_allclose(net.blobs["h"].diff, expected, rtol=1e-4, atol=1e-6)

    for wrong, message in (
        ({"scores": gradient}, r"expected arrays for \['prob'\]"),
        ({"prob": gradient[:1]}, "holds a batch of 4, but 1"),
    ):
        with pytest.raises(ValueError, match=message):
            net.backward(**wrong)


def test_backward_of_a_part(train: Net) -> None:
    train.forward(x=X, y=Y)
    out = train.backward(end="ip2")
    assert list(out) == ["h"]
    assert train.params["ip2"][0].diff.any()
    assert not train.params["ip1"][0].diff.any()
    train.backward(start="relu")
    assert train.params["ip1"][0].diff.any()


def test_gradients_of_parameters_add_up_until_they_are_cleared(train: Net) -> None:
    train.forward(x=X, y=Y)
    train.backward()
    once = train.params["ip2"][0].diff.copy()
    train.backward()
    np.testing.assert_allclose(train.params["ip2"][0].diff, 2 * once, rtol=1e-6)
    train.clear_param_diffs()
    assert not train.params["ip2"][0].diff.any()


# --- shapes ---------------------------------------------------------------------------------------


def test_reshape(test: Net) -> None:
    test.blobs["x"].reshape(7, 6)
    test.blobs["y"].reshape(7)
    test.reshape()
    assert test.blobs["prob"].shape == (7, 3)
    x = np.random.default_rng(2).standard_normal((7, 6)).astype(np.float32)
    out = test.forward(x=x, y=np.zeros(7))
    np.testing.assert_allclose(out["prob"], softmax(scores_of(test, x)), rtol=1e-5)


def test_forward_follows_a_reshape_and_keeps_what_was_written(test: Net) -> None:
    test.blobs["x"].reshape(2, 6)
    test.blobs["x"].data[...] = X[:2]
    out = test.forward()
    np.testing.assert_allclose(out["prob"], softmax(scores_of(test, X[:2])), rtol=1e-5)


def test_reshape_there_and_back(test: Net) -> None:
    before = test.forward(x=X, y=Y)["prob"].copy()
    test.blobs["x"].reshape(1, 6)
    test.blobs["x"].reshape(4, 6)
    test.blobs["x"].data[...] = X[::-1]
    assert np.array_equal(test.forward()["prob"], before[::-1])


def test_reshape_to_what_the_parameters_do_not_fit(test: Net) -> None:
    test.blobs["x"].reshape(4, 9)
    message = "the new input shapes would need a weight of 5x9, but it is 5x6"
    for call in (test.reshape, test.forward):
        with pytest.raises(NetError, match=message):
            call()
    test.blobs["x"].reshape(4, 6)
    out = test.forward(x=X, y=Y)
    np.testing.assert_allclose(out["prob"], softmax(scores_of(test)), rtol=1e-5)


def test_reshape_of_a_blob() -> None:
    blob = Blob(np.arange(6, dtype=np.float32), np.ones(6, np.float32), "b")
    blob.reshape(2, 3)
    assert blob.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert blob.diff.shape == (2, 3)
    blob.reshape(2, 4)
    assert not blob.data.any()
    assert blob.diff.shape == (2, 4)
    with pytest.raises(ValueError, match="cannot have the shape"):
        blob.reshape(-1, 2)
    blob.reshape(1, 1, 2, 2, 2)
    with pytest.raises(ValueError, match="a blob of 5 axes has no num"):
        _ = blob.num


# --- weights --------------------------------------------------------------------------------------


def test_save_and_copy_from(train: Net, tmp_path: Path) -> None:
    first, second = tmp_path / "a.caffemodel", tmp_path / "b.caffemodel"
    train.save(first)
    other = Net.from_text(TEXT, netdef.TRAIN, seed=2)
    assert not np.array_equal(other.params["ip1"][0].data, train.params["ip1"][0].data)
    other.copy_from(first)
    assert np.array_equal(other.params["ip1"][0].data, train.params["ip1"][0].data)
    other.save(second)
    assert second.read_bytes() == first.read_bytes()
    message = pb.NetParameter.FromString(first.read_bytes())
    assert message.name == "small"
    assert [layer.name for layer in message.layer] == ["in", "ip1", "relu", "ip2", "loss"]
    assert {layer.phase for layer in message.layer} == {pb.TRAIN}
    assert not message.layer[1].blobs[0].diff


def test_save_with_gradients(train: Net, tmp_path: Path) -> None:
    train.forward(x=X, y=Y)
    train.backward()
    train.save(tmp_path / "a.caffemodel", diff=True)
    message = pb.NetParameter.FromString((tmp_path / "a.caffemodel").read_bytes())
    weight = train.params["ip1"][0]
    assert np.array_equal(np.array(message.layer[1].blobs[0].diff, np.float32), weight.diff.ravel())


def test_a_model_of_caffe_is_saved_as_caffe_saved_it(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "solvers" / "sgd_fixed.npz") as arrays:
        net = Net.from_text(str(arrays["net"]), netdef.TRAIN)
        model = golden / "solvers" / "sgd_fixed.caffemodel"
        net.copy_from(model)
        for name, blobs in net.params.items():
            for i, blob in enumerate(blobs):
                expected = arrays[f"iter3/{name}/{i}"]
                assert np.array_equal(blob.data, expected)
    net.save(tmp_path / "saved.caffemodel")
    assert (tmp_path / "saved.caffemodel").read_bytes() == model.read_bytes()


def test_save_and_load_hdf5(train: Net, tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel.h5"
    train.save_hdf5(path)
    for load in ("load_hdf5", "copy_from"):
        other = Net.from_text(TEXT, netdef.TRAIN, seed=2)
        getattr(other, load)(path)
        for name, blobs in train.params.items():
            for mine, theirs in zip(blobs, other.params[name], strict=True):
                assert np.array_equal(mine.data, theirs.data)
    assert [layer.name for layer in read_weights(path)] == ["in", "ip1", "ip2", "loss", "relu"]
    assert read_weights(path)[1].blobs[0].diff is None
    train.forward(x=X, y=Y)
    train.backward()
    train.save_hdf5(path, diff=True)
    found = read_weights(path)[1].blobs[0]
    assert np.array_equal(found.diff, train.params["ip1"][0].diff.ravel())


SIAMESE = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer {
  name: "b" type: "InnerProduct" bottom: "x" top: "one" param { name: "w" }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } bias_filler { value: 1 } }
}
layer {
  name: "a" type: "InnerProduct" bottom: "x" top: "two" param { name: "w" }
  inner_product_param { num_output: 4 bias_filler { value: 2 } }
}
"""


def test_shared_parameters_in_hdf5(tmp_path: Path) -> None:
    """The first layer of the net has them, which need not be the first of the file."""
    path = tmp_path / "a.caffemodel.h5"
    first = Net.from_text(SIAMESE, netdef.TRAIN, seed=1)
    first.save_hdf5(path)
    a, b, _ = read_weights(path)[:3]
    assert (a.name, a.indices, b.name, b.indices) == ("a", [1], "b", [0, 1])
    second = Net.from_text(SIAMESE, netdef.TRAIN, seed=2)
    second.copy_from(path)
    for name in ("a", "b"):
        for mine, theirs in zip(first.params[name], second.params[name], strict=True):
            assert np.array_equal(mine.data, theirs.data)
    alone = Net.from_text(SIAMESE.replace('param { name: "w" }', ""), netdef.TRAIN)
    with pytest.raises(WeightsError, match='layer "a" has 2 blobs in the net but 1 in the file'):
        alone.copy_from(path)


def test_a_published_hdf5_model(shared: Path) -> None:
    folder = shared / "reference" / "models" / "cifar10_quick_h5"
    net = Net(folder / "deploy.prototxt", folder / "weights.caffemodel.h5", netdef.TEST)
    with np.load(folder / "reference_caffe.npz") as reference:
        found = net.forward(data=reference["in/data"])
        np.testing.assert_allclose(found["prob"], reference["out/prob"], rtol=1e-4, atol=1e-6)


def test_copy_from_goes_by_name_and_tells(train: Net, tmp_path: Path) -> None:
    train.save(tmp_path / "w.caffemodel")
    told: list[events.Event] = []
    net = Net.from_text(
        TEXT.replace('"ip2" type', '"fc" type'), netdef.TRAIN, seed=9, emit=told.append
    )
    fresh = net.params["fc"][0].data.copy()
    net.copy_from(tmp_path / "w.caffemodel")
    assert np.array_equal(net.params["ip1"][0].data, train.params["ip1"][0].data)
    assert np.array_equal(net.params["fc"][0].data, fresh)
    assert isinstance(told[0], events.NetBuilt)
    (loaded,) = [event for event in told if isinstance(event, events.WeightsLoaded)]
    assert list(loaded.ignored) == ["ip2"]
    assert list(loaded.missing) == ["fc"]
    assert "ip1" in loaded.copied


def test_copy_from_a_file_with_none_of_the_layers(train: Net, tmp_path: Path) -> None:
    train.save(tmp_path / "w.caffemodel")
    other = Net.from_text(TEXT.replace('"ip', '"other'), netdef.TRAIN)
    with pytest.warns(UserWarning, match="no layer of this net has its name in the file"):
        other.copy_from(tmp_path / "w.caffemodel")


def test_copy_from_with_other_shapes(train: Net, tmp_path: Path) -> None:
    train.save(tmp_path / "w.caffemodel")
    other = Net.from_text(TEXT.replace("num_output: 3", "num_output: 8"), netdef.TRAIN, seed=4)
    before = {name: blobs[0].data.copy() for name, blobs in other.params.items()}
    with pytest.raises(WeightsError, match="ip2") as caught:
        other.copy_from(tmp_path / "w.caffemodel")
    assert "<text>:12:1" in str(caught.value)
    for name, values in before.items():
        assert np.array_equal(other.params[name][0].data, values), "nothing is half copied"
    with pytest.warns(UserWarning, match="ip2"):
        other.copy_from(tmp_path / "w.caffemodel", skip_mismatch=True)
    assert np.array_equal(other.params["ip1"][0].data, train.params["ip1"][0].data)
    assert np.array_equal(other.params["ip2"][0].data, before["ip2"])


def test_share_with(train: Net, test: Net) -> None:
    test.share_with(train)
    train.params["ip1"][0].data[...] = 0.5
    train.params["ip1"][1].data[...] = -1
    assert np.array_equal(test.params["ip1"][0].data, train.params["ip1"][0].data)
    out = test.forward(x=X, y=Y)
    np.testing.assert_allclose(out["prob"], softmax(scores_of(train)), rtol=1e-5)
    with pytest.raises(NetError, match="a parameter is 8x5 here, but 3x5") as caught:
        Net.from_text(TEXT.replace("num_output: 3", "num_output: 8")).share_with(train)
    assert caught.value.diagnostics[0].code == "E130"


# --- random numbers -------------------------------------------------------------------------------


def test_set_random_seed() -> None:
    def drawn(seed: int) -> list[bytes]:
        set_random_seed(seed)
        return [Net.from_text(TEXT).params["ip1"][0].data.tobytes() for _ in range(2)]

    try:
        assert drawn(3) == drawn(3)
        assert drawn(3) != drawn(4)
        assert drawn(3)[0] != drawn(3)[1], "the second net is another net"
    finally:
        netdef.net._seeds.fixed = None  # type: ignore[attr-defined]
    one, other = (Net.from_text(TEXT).params["ip1"][0].data for _ in range(2))
    assert not np.array_equal(one, other)


# --- solvers, and the module as pycaffe's ---------------------------------------------------------


@pytest.fixture
def solver_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(file.parent)
    path = file.parent / "solver.prototxt"
    path.write_text(
        'net: "net.prototxt" test_iter: 1 test_interval: 100 base_lr: 0.5 lr_policy: "fixed" '
        'momentum: 0.5 max_iter: 6 random_seed: 3 snapshot_prefix: "snap"',
        encoding="utf-8",
    )
    return path


def test_pycaffe_script(solver_file: Path) -> None:
    """What a script does that begins with ``import caffe``."""
    caffe.set_mode_cpu()
    solver = caffe.get_solver(str(solver_file))
    assert isinstance(solver, caffe.Solver)
    solver.net.blobs["x"].data[...] = X
    solver.net.blobs["y"].data[...] = Y
    losses = []
    for _ in range(4):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert losses == sorted(losses, reverse=True)
    assert solver.iter == 4

    (test,) = solver.test_nets
    assert test.phase == caffe.TEST
    for name in ("ip1", "ip2"):
        assert test.params[name][0].data is solver.net.params[name][0].data
    out = test.forward(x=X, y=Y)
    np.testing.assert_allclose(out["prob"], softmax(scores_of(solver.net)), rtol=1e-5)

    state = solver.snapshot()
    assert state == "snap_iter_4.solverstate"
    kept = solver.net.params["ip1"][0].data.copy()
    solver.solve()
    assert solver.iter == 6
    assert not np.array_equal(solver.net.params["ip1"][0].data, kept)
    ended = solver.net.params["ip1"][0].data.copy()

    solver.restore(state)
    assert solver.iter == 4
    assert np.array_equal(solver.net.params["ip1"][0].data, kept)
    solver.solve()
    assert np.array_equal(solver.net.params["ip1"][0].data, ended)

    net = caffe.Net("net.prototxt", "snap_iter_6.caffemodel", caffe.TEST)
    assert np.array_equal(net.params["ip1"][0].data, ended)


def test_solver_classes(solver_file: Path) -> None:
    solver = caffe.SGDSolver(str(solver_file))
    assert solver.param.type == "SGD"
    assert isinstance(solver, Solver)
    assert repr(solver) == "<SGDSolver solver.prototxt at iteration 0>"
    solver_file.write_text(solver_file.read_text() + ' type: "Nesterow"')
    assert caffe.SGDSolver(solver_file).param.type == "SGD"
    with pytest.raises(caffe.NetdefError, match="Nesterow"):
        get_solver(solver_file)


def test_solver_parameters_can_be_read(solver_file: Path) -> None:
    solver = caffe.get_solver(solver_file)
    assert solver.param.max_iter == 6
    assert solver.lr == 0.5
    solver.param.base_lr = 0.25
    assert solver.lr == 0.25


def test_the_module() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (pb.TRAIN, pb.TEST)
    assert caffe.Net is Net
    assert caffe.Blob is Blob
    assert caffe.set_num_threads is jit.set_num_threads
    assert {"Convolution", "Data", "InnerProduct", "SoftmaxWithLoss"} <= set(
        caffe.layer_type_list()
    )
    assert caffe.layer_type_list() == sorted(caffe.layer_type_list())
    for name in dir(caffe):
        assert getattr(caffe, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nett'"):
        _ = caffe.Nett


def test_weights_that_are_shared_later_reach_every_layer() -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 1, 2, 2] } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "y"
                convolution_param { num_output: 1 kernel_size: 2 } }
    """
    first, second = Net.from_text(text), Net.from_text(text)
    second.share_with(first)
    first.params["c"][1].data[...] = 7
    assert second.forward(x=np.zeros((1, 1, 2, 2)))["y"].item() == 7
    # Only values are shared: a gradient of one net is not one of the other.
    assert second.params["c"][0].diff is not first.params["c"][0].diff


def test_layers_of_one_name_are_told() -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 2] } } }
        layer { name: "r" type: "ReLU" bottom: "x" top: "y" }
        layer { name: "r" type: "ReLU" bottom: "y" top: "z" }
    """
    with pytest.warns(UserWarning, match='2 layers are called "r"'):
        Net.from_text(text)


def test_an_array_is_written_not_assigned(train: Net) -> None:
    blob = train.params["ip"][0] if "ip" in train.params else next(iter(train.params.values()))[0]
    before = blob.data.copy()
    blob.data *= 2
    np.testing.assert_array_equal(blob.data, before * 2)
    with pytest.raises(AttributeError, match=r"blob\.data\[\.\.\.\] = values"):
        blob.data = before
