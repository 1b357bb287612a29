"""The log against one that Caffe 1.0 printed: LeNet, 200 iterations on MNIST."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from netdef import events, prototxt
from netdef.events import Output
from netdef.proto import netdef_pb2 as pb
from netdef.sinks.caffe_log import CaffeLog

PREFIX = re.compile(r"^([IWEF])(\d{8}) (\d\d:\d\d:\d\d\.\d{6}) +(\d+) ", re.MULTILINE)
OUR_PREFIX = re.compile(r"^([IWEF])(\d{4}) (\d\d:\d\d:\d\d\.\d{6}) +(\d+) ", re.MULTILINE)


def log(*happened: events.Event) -> str:
    """What CaffeLog prints for these events, without date, time and thread."""
    stream = io.StringIO()
    sink = CaffeLog(stream)
    for event in happened:
        sink(event)
    sink.close()
    return OUR_PREFIX.sub(r"\1 ", stream.getvalue())


def layer(
    name: str,
    type: str,
    bottoms: str,
    tops: str,
    *shapes: tuple[int, ...],
    loss: float = 0.0,
    needs_backward: bool = True,
) -> Any:
    """A layer of a plan, by the fields that the log reads."""
    below, above = tuple(bottoms.split()), tuple(tops.split())
    return SimpleNamespace(
        name=name,
        type=type,
        bottoms=below,
        tops=above,
        in_place=tuple(j < len(below) and below[j] == top for j, top in enumerate(above)),
        top_shapes=shapes,
        loss_weights=tuple(loss if j == 0 else 0.0 for j in range(len(above))),
        needs_backward=needs_backward,
        params=(),
    )


def body(n: int) -> list[Any]:
    """LeNet between its data and its loss, for ``n`` images."""
    return [
        layer("conv1", "Convolution", "data", "conv1", (n, 20, 24, 24)),
        layer("pool1", "Pooling", "conv1", "pool1", (n, 20, 12, 12)),
        layer("conv2", "Convolution", "pool1", "conv2", (n, 50, 8, 8)),
        layer("pool2", "Pooling", "conv2", "pool2", (n, 50, 4, 4)),
        layer("ip1", "InnerProduct", "pool2", "ip1", (n, 500)),
        layer("relu1", "ReLU", "ip1", "ip1", (n, 500)),
        layer("ip2", "InnerProduct", "ip1", "ip2", (n, 10)),
    ]


def planned_for_training() -> Any:
    data = layer("mnist", "Data", "", "data label", (64, 1, 28, 28), (64,), needs_backward=False)
    loss = layer("loss", "SoftmaxWithLoss", "ip2 label", "loss", (), loss=1.0)
    return SimpleNamespace(layers=[data, *body(64), loss], outputs=("loss",))


def planned_for_test() -> Any:
    n = 100
    data = layer("mnist", "Data", "", "data label", (n, 1, 28, 28), (n,), needs_backward=False)
    labels = "label_mnist_1_split_0 label_mnist_1_split_1"
    scores = "ip2_ip2_0_split_0 ip2_ip2_0_split_1"
    return SimpleNamespace(
        layers=[
            data,
            layer(
                "label_mnist_1_split", "Split", "label", labels, (n,), (n,), needs_backward=False
            ),
            *body(n),
            layer("ip2_ip2_0_split", "Split", "ip2", scores, (n, 10), (n, 10)),
            layer(
                "accuracy",
                "Accuracy",
                "ip2_ip2_0_split_0 label_mnist_1_split_0",
                "accuracy",
                (),
                needs_backward=False,
            ),
            layer(
                "loss",
                "SoftmaxWithLoss",
                "ip2_ip2_0_split_1 label_mnist_1_split_1",
                "loss",
                (),
                loss=1.0,
            ),
        ],
        outputs=("accuracy", "loss"),
    )


def parameters(net: pb.NetParameter, state: pb.NetState) -> pb.NetParameter:
    """The layers of ``net`` for ``state``, by phase alone."""
    kept = pb.NetParameter(name=net.name, state=state)
    for message in net.layer:
        if not message.include or message.include[0].phase == state.phase:
            kept.layer.add().CopyFrom(message)
    return kept


def numbers(pattern: str, text: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, found.groups())) for found in re.finditer(pattern, text)]


def run_events(shared: Path, expected: str) -> list[events.Event]:
    """The events of that run, in order, with the numbers it computed."""
    folder = shared / "reference" / "lenet"
    solver = prototxt.read(folder / "solver_200.prototxt", pb.SolverParameter).message
    train_state = pb.NetState(phase=pb.TRAIN, level=0, stage=[""])
    solver.train_state.CopyFrom(pb.NetState(level=0, stage=[""]))
    solver.weights.append("init_iter_0.caffemodel")
    net = prototxt.read(folder / "lenet_train_test.prototxt", pb.NetParameter).message
    source = "net file: lenet_train_test.prototxt"
    rule = "The NetState phase ({}) differed from the phase ({}) specified by a rule in layer {}"

    happened: list[events.Event] = [
        events.SolverStarted(solver),
        events.NetBuilding("train", source),
        events.NetBuilt(
            planned_for_training(),
            parameters(net, train_state),
            [rule.format(0, 1, "mnist"), rule.format(0, 1, "accuracy")],
        ),
        events.WeightsLoaded("init_iter_0.caffemodel"),
        events.NetBuilding("test", source, 0),
        events.NetBuilt(
            planned_for_test(),
            parameters(net, pb.NetState(phase=pb.TEST)),
            [rule.format(1, 0, "mnist")],
        ),
        events.WeightsLoaded("init_iter_0.caffemodel"),
        events.SolverReady(),
        events.SolveStarted("LeNet", "inv", 0, 200),
    ]
    losses = numbers(r"Iteration \d+ \(\S+ iter/s, (\S+)s/1 iters\), loss = (\S+)", expected)
    rates = numbers(r"lr = (\S+)", expected)
    tests = numbers(r"accuracy = (\S+)\n.*: loss = (\S+) ", expected)
    ((last_loss,),) = numbers(r"Iteration 200, loss = (\S+)", expected)
    assert (len(losses), len(rates), len(tests)) == (200, 200, 3)

    def test(iteration: int) -> list[events.Event]:
        accuracy, loss = tests.pop(0)
        outputs = [Output("accuracy", [accuracy]), Output("loss", [loss], 1.0)]
        return [
            events.TestStarted(iteration, 0, 100),
            events.DataWrapped("mnist"),
            events.TestBatch(99, 100),
            events.TestFinished(iteration, 0, outputs),
        ]

    for iteration, ((seconds, loss), (rate,)) in enumerate(zip(losses, rates, strict=True)):
        if iteration % 100 == 0:
            happened += test(iteration)
        outputs = [Output("loss", np.array([loss], np.float32), 1.0)]
        happened += [
            events.IterationDone(iteration, loss, True, seconds, iteration > 0, 1, outputs),
            events.RateSet(iteration, rate),
        ]
    happened += [
        events.SnapshotWriting("ref_iter_200.caffemodel", "model"),
        events.SnapshotWriting("ref_iter_200.solverstate", "state"),
        events.SnapshotWritten("ref_iter_200.caffemodel", "ref_iter_200.solverstate", 200),
        events.SolveFinished(200, last_loss),
        *test(200),
        events.OptimizationDone(),
    ]
    return happened


def test_log_of_caffe_itself(shared: Path) -> None:
    expected = (shared / "reference" / "lenet" / "caffe_200.log").read_text()
    printed = log(*run_events(shared, expected))
    expected = PREFIX.sub(r"\1 ", expected)
    # Caffe has not initialised the counter behind the first speed it prints.
    expected = expected.replace("Iteration 0 (-1.00893e-43 iter/s", "Iteration 0 (0 iter/s")
    assert printed.splitlines() == expected.splitlines()


def test_prefix_is_that_of_glog() -> None:
    stream = io.StringIO()
    CaffeLog(stream)(events.SolverReady())
    pattern = r"I\d{4} \d\d:\d\d:\d\d\.\d{6} [ \d]{5,} solver\.cpp:57\] Solver scaffolding done\.\n"
    assert re.fullmatch(pattern, stream.getvalue())


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (events.Note("seed 7 was drawn"), "I netdef:0] seed 7 was drawn"),
        (events.Warned("labels start at 1"), "W netdef:0] labels start at 1"),
        (
            events.NetBuilding("train", "train_net_param"),
            "I solver.cpp:88] Creating training net specified in train_net_param.",
        ),
        (
            events.NetBuilding("train", "train_net file: t.prototxt"),
            "I solver.cpp:92] Creating training net from train_net file: t.prototxt",
        ),
        (
            events.NetBuilding("test", "test_net_param", 1),
            "I solver.cpp:190] Creating test net (#1) specified by test_net_param",
        ),
        (
            events.WeightsLoaded("w.caffemodel", ["conv1"], ["fc8"], ["fc9"]),
            "I solver.cpp:72] Finetuning from w.caffemodel\n"
            "I net.cpp:746] Ignoring source layer fc8\n"
            "I netdef:0] weights from w.caffemodel\n"
            "I netdef:0]   copied              1  conv1\n"
            "I netdef:0]   not in the file     1  fc9",
        ),
        (
            events.Resumed("s.solverstate", 100, "Nesterov"),
            "I caffe.cpp:235] Resuming from s.solverstate\n"
            "I sgd_solver.cpp:329] SGDSolver: restoring history",
        ),
        (
            events.Resumed("s.solverstate.h5", 100),
            "I caffe.cpp:235] Resuming from s.solverstate.h5",
        ),
        (events.TestFinished(5, 0, (), interrupted=True), "I solver.cpp:396] Test interrupted."),
        (
            events.TestFinished(5, 0, [Output("p", [0.25, 1e-5])], loss=0.5),
            "I solver.cpp:401] Test loss: 0.5\n"
            "I solver.cpp:414]     Test net output #0: p = 0.25\n"
            "I solver.cpp:414]     Test net output #1: p = 1e-05",
        ),
        (events.IterationDone(7, 0.5, display=False), ""),
        (
            events.IterationDone(40, float("nan"), True, 0.8, 20, 20),
            "I solver.cpp:239] Iteration 40 (25 iter/s, 0.8s/20 iters), loss = nan",
        ),
        (
            events.StepReached(5000, 1),
            "I sgd_solver.cpp:50] MultiStep Status: Iteration 5000, step = 1",
        ),
        (
            events.GradientsClipped(1.03171, 0.1, 0.0969264),
            "I sgd_solver.cpp:99] Gradient clipping: scaling down gradients "
            "(L2 norm 1.03171 > 0.1) by scale factor 0.0969264",
        ),
        (
            events.SnapshotWriting("n.caffemodel.h5", "model", "HDF5"),
            "I solver.cpp:474] Snapshotting to HDF5 file n.caffemodel.h5",
        ),
        (
            events.SnapshotWriting("n.solverstate.h5", "state", "HDF5"),
            "I sgd_solver.cpp:293] Snapshotting solver state to HDF5 file n.solverstate.h5",
        ),
        (
            events.DebugLine("    [Forward] Layer x, top blob t data: 1", "net.cpp:600"),
            "I net.cpp:600]     [Forward] Layer x, top blob t data: 1",
        ),
    ],
)
def test_line(event: events.Event, expected: str) -> None:
    assert log(event) == (expected + "\n" if expected else "")


def test_stopped_early() -> None:
    printed = log(events.SolveFinished(70, early=True), events.OptimizationDone(early=True))
    assert printed == (
        "I solver.cpp:311] Optimization stopped early.\nI caffe.cpp:250] Optimization Done.\n"
    )


def test_compiling_is_said_once() -> None:
    printed = log(events.KernelCompiled("a"), events.KernelCompiled("b"))
    assert printed == "I netdef:0] Compiling kernels (first run only)\n"


def test_shared_parameters_and_inner_layers() -> None:
    owner = SimpleNamespace(layer="a", index=0, name="w", owner=0)
    sharer = SimpleNamespace(layer="b", index=0, name="w", owner=0)
    scale = layer("b", "Scale", "x", "y", (2, 3), needs_backward=False)
    scale.params = (1,)
    plan = SimpleNamespace(layers=[scale], outputs=("y",), params=[owner, sharer])
    net = pb.NetParameter(layer=[pb.LayerParameter(name="b", type="Scale")])
    net.layer[0].scale_param.bias_term = True
    net.layer[0].origin = 0
    text = log(events.NetBuilt(plan, net))  # type: ignore[arg-type]
    assert "origin" not in text
    assert text.count("layer_factory.hpp:77] Creating layer b\n") == 2
    assert "] Sharing parameters 'w' owned by layer 'a', param index 0\n" in text


def test_timing() -> None:
    layers = [
        events.LayerTime("data", "Input", events.Pass(1.5e-6), events.Pass(0.0)),
        events.LayerTime(
            "inception_3a/1x1",
            "Convolution",
            events.Pass(0.0125, 10**9, 10**6),
            events.Pass(0.0301234567, 2 * 10**9, 10**6),
        ),
    ]
    text = log(
        events.TimingStarted(),
        events.WarmedUp(2.302585, 2),
        events.IterationTimed(0, 0.0425),
        events.IterationTimed(1, 0.04),
        events.TimingFinished(2, layers, 0.0125, 0.030125, 0.0852, 16),
    )
    # As tools/caffe.cpp of Caffe 1.0 words it; then what it does not tell.
    assert text == (
        "I caffe.cpp:352] Use CPU.\n"
        "I caffe.cpp:360] Performing Forward\n"
        "I caffe.cpp:365] Initial loss: 2.30259\n"
        "I caffe.cpp:366] Performing Backward\n"
        "I caffe.cpp:374] *** Benchmark begins ***\n"
        "I caffe.cpp:375] Testing for 2 iterations.\n"
        "I caffe.cpp:403] Iteration: 1 forward-backward time: 42.5 ms.\n"
        "I caffe.cpp:403] Iteration: 2 forward-backward time: 40 ms.\n"
        "I caffe.cpp:406] Average time per layer: \n"
        "I caffe.cpp:409]       data\tforward: 0.0015 ms.\n"
        "I caffe.cpp:412]       data\tbackward: 0 ms.\n"
        "I caffe.cpp:409] inception_3a/1x1\tforward: 12.5 ms.\n"
        "I caffe.cpp:412] inception_3a/1x1\tbackward: 30.1235 ms.\n"
        "I caffe.cpp:417] Average Forward pass: 12.5 ms.\n"
        "I caffe.cpp:419] Average Backward pass: 30.125 ms.\n"
        "I caffe.cpp:421] Average Forward-Backward: 42.6 ms.\n"
        "I caffe.cpp:423] Total Time: 85.2 ms.\n"
        "I caffe.cpp:424] *** Benchmark ends ***\n"
        "I netdef:0] layer             type         "
        "forward ms  GFLOP/s  GB/s  backward ms  GFLOP/s  GB/s    share\n"
        "I netdef:0] data              Input        "
        "     0.002        -     -        0.000        -     -    0.0 %\n"
        "I netdef:0] inception_3a/1x1  Convolution  "
        "    12.500     80.0   0.1       30.123     66.4   0.0  100.0 %\n"
    )
