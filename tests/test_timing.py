"""What is timed, how often, and what is told of it; never how long it takes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from netdef import TEST, TRAIN, Net, cost, events, prototxt
from netdef.errors import NetError
from netdef.proto import netdef_pb2 as pb
from netdef.timing import time_file, time_net

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "relu" include { phase: TRAIN } }
layer { name: "deep" type: "ReLU" bottom: "ip" top: "relu" include { stage: "deep" phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "relu" bottom: "label" top: "loss" }
"""


def test_every_layer_runs_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net.from_text(NET, TRAIN, seed=1)
    ran: Counter[tuple[str, str]] = Counter()
    for layer in net.layers:
        for direction in ("forward", "backward"):
            real = getattr(layer, direction)

            def counted(a: object, b: object, real=real, key=(layer.name, direction)) -> None:  # type: ignore[no-untyped-def]
                ran[key] += 1
                real(a, b)

            monkeypatch.setattr(layer, direction, counted)
    time_net(net, 3, lambda event: None)
    # Three that are timed, and one before them.
    names = ("data", "label", "ip", "relu", "loss")
    assert ran == {
        **{(name, "forward"): 4 for name in names},
        **{(name, "backward"): 4 for name in names[2:]},
    }


def test_what_is_told() -> None:
    told: list[events.Event] = []
    net = Net.from_text(NET, TRAIN, seed=1)
    result = time_net(net, 2, told.append)
    warm, *iterations, finished = told
    assert isinstance(warm, events.WarmedUp)
    assert warm.iterations == 2
    assert warm.loss == pytest.approx(np.log(3), rel=1e-6)  # inputs of zeros tell nothing
    assert [one.iteration for one in iterations if isinstance(one, events.IterationTimed)] == [0, 1]
    assert finished is result
    assert [(layer.name, layer.type) for layer in result.layers] == [
        ("data", "Input"),
        ("label", "Input"),
        ("ip", "InnerProduct"),
        ("relu", "ReLU"),
        ("loss", "SoftmaxWithLoss"),
    ]
    assert result.batch_size == 4
    for layer, step in zip(result.layers, net.program.steps, strict=True):
        work = cost.forward(net.plan, step.plan, step.ends)
        assert (layer.forward.flops, layer.forward.bytes) == (work.flops, work.bytes)
        work = cost.backward(net.plan, step.plan, step.ends)
        assert (layer.backward.flops, layer.backward.bytes) == (work.flops, work.bytes)


def test_layers_that_run_as_one_have_one_line() -> None:
    """And what passes between them is not moved: y, and backward its gradient."""
    net = Net.from_text(CONVOLVED, TRAIN, seed=1, keep=())
    result = time_net(net, 1, lambda event: None)
    (line,) = [layer for layer in result.layers if "conv" in layer.name]
    assert (line.name, line.type) == ("conv+relu", "Convolution+ReLU")
    x, y, weights = 2 * 3 * 5 * 5, 2 * 4 * 5 * 5, 4 * 3 + 4
    assert line.forward.bytes == 4 * (x + weights + y)
    assert line.forward.flops == 2 * 4 * 3 * 2 * 5 * 5
    assert line.forward.seconds > 0
    assert line.backward.seconds > 0


CONVOLVED = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }
layer { name: "sum" type: "Reduction" bottom: "relu" top: "sum" loss_weight: 1 }
"""


def test_times_add_up() -> None:
    result = time_net(Net.from_text(NET, TRAIN, seed=1), 5, lambda event: None)
    assert all(layer.forward.seconds > 0 for layer in result.layers)
    assert 0 < sum(layer.forward.seconds for layer in result.layers) <= result.forward
    assert 0 < sum(layer.backward.seconds for layer in result.layers) <= result.backward
    assert 5 * (result.forward + result.backward) <= result.total


def test_a_net_that_was_timed_is_as_it_was() -> None:
    net = Net.from_text(NET, TRAIN, seed=1)
    before = [dict(vars(step)) for step in net.program.steps]
    time_net(net, 1, lambda event: None)
    assert [vars(step).keys() for step in net.program.steps] == [names.keys() for names in before]


def test_a_net_that_only_runs_forward() -> None:
    net = Net.from_text(NET.replace("phase: TRAIN", "phase: TEST"), TEST, seed=1, keep=())
    result = time_net(net, 1, lambda event: None)
    assert result.forward > 0
    assert all(layer.backward == events.Pass(0.0) for layer in result.layers)


def test_parameters_stay_as_they_are() -> None:
    net = Net.from_text(NET, TRAIN, seed=1)
    before = net.params["ip"][0].data.copy()
    time_net(net, 2, lambda event: None)
    assert (net.params["ip"][0].data == before).all()


def test_phase_stages_and_weights(tmp_path: Path) -> None:
    weights = str(tmp_path / "w.caffemodel")
    saved = Net.from_text(NET, TRAIN, seed=2)
    saved.save(weights)
    told: list[events.Event] = []
    result = time_file(
        prototxt.parse(NET, pb.NetParameter),
        [weights],
        iterations=1,
        phase=TEST,
        stages=["deep"],
        emit=told.append,
    )
    assert [layer.name for layer in result.layers if layer.type == "ReLU"] == ["deep"]
    assert isinstance(told[0], events.TimingStarted)
    assert any(isinstance(one, events.WeightsLoaded) for one in told)


def test_a_net_without_layers() -> None:
    text = 'layer { name: "data" type: "Input" top: "data" include { phase: TRAIN } }'
    told: list[events.Event] = []
    with pytest.raises(NetError, match="no layers in phase TEST"):
        time_file(prototxt.parse(text, pb.NetParameter), iterations=1, phase=TEST, emit=told.append)
