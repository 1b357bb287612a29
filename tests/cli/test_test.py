"""``netdef test``: which net, which weights, which records."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netdef import TEST, Net

SCORES = re.compile(r"accuracy = (\S+)\nloss = (\S+)\n")


@pytest.fixture
def trained(cli: Any) -> Any:
    """Commands, in a folder with snapshots at iterations 20 and 40."""
    cli.succeed("train", "solver.prototxt")
    return cli


def scores(output: str) -> list[float]:
    found = SCORES.fullmatch(output)
    assert found, output
    return [float(value) for value in found.groups()]


def mean_of_single_records(net: str, weights: str) -> list[float]:
    """The outputs of the test net for each record alone, and of them the mean."""
    one = Net.from_text(net.replace("batch_size: 20", "batch_size: 1"), TEST, weights=weights)
    try:
        values = [[float(v) for v in one.forward().values()] for _ in range(70)]
    finally:
        one.close()
    return np.mean(values, axis=0).tolist()


def test_the_whole_set_once(trained: Any, net: str) -> None:
    # 70 records make three batches of 20, and one of 10.
    output = trained.succeed(
        "test", "--model", "net.prototxt", "--weights", "snap_iter_40.caffemodel"
    )
    expected = mean_of_single_records(net, "snap_iter_40.caffemodel")
    np.testing.assert_allclose(scores(output), expected, rtol=2e-6)


def test_some_batches(trained: Any) -> None:
    def score(iterations: int) -> list[float]:
        options = ("-weights=snap_iter_40.caffemodel", f"-iterations={iterations}")
        return scores(trained.succeed("test", "-model=net.prototxt", *options))

    # 140 batches of 20 see each of the 70 records 40 times.
    whole = trained.succeed("test", "-model", "net.prototxt", "-weights", "snap_iter_40.caffemodel")
    np.testing.assert_allclose(score(140), scores(whole), rtol=2e-6)
    assert score(1) != score(3)


def test_snapshots_in_hdf5(cli: Any) -> None:
    cli.solver(snapshot_format="HDF5", type='"Adam"', base_lr=0.001)
    log = cli.succeed("train", "solver.prototxt", log="caffe")
    assert "Snapshotting to HDF5 file snap_iter_40.caffemodel.h5" in log
    assert "Snapshotting solver state to HDF5 file snap_iter_40.solverstate.h5" in log
    by_state, by_weights = (
        scores(cli.succeed("test", *arguments))
        for arguments in (
            ("solver.prototxt", "--snapshot", "snap_iter_40.solverstate.h5"),
            ("--model", "net.prototxt", "--weights", "snap_iter_40.caffemodel.h5"),
        )
    )
    assert by_state == by_weights
    tuned = cli.succeed(
        "train", "solver.prototxt", "--weights", "snap_iter_40.caffemodel.h5", log="caffe"
    )
    assert "Finetuning from snap_iter_40.caffemodel.h5" in tuned


FEATURES = """
layer { name: "rows" type: "HDF5Output" bottom: "ip2" bottom: "label" include { phase: TEST }
  hdf5_output_param { file_name: "features.h5" } }
"""


def test_features_of_the_whole_set(trained: Any, net: str) -> None:
    """The last batch is smaller, and of a net of its own; its rows go to the same file."""
    trained.write("net.prototxt", net + FEATURES)
    trained.succeed("test", "--model", "net.prototxt", "--weights", "snap_iter_40.caffemodel")
    with h5py.File("features.h5") as file:
        assert file["data"].shape == (70, 10, 1, 1)
        assert file["label"].shape == (70, 1, 1, 1)


def test_the_rows_of_a_file_as_a_test_set(cli: Any) -> None:
    """70 rows in two files, in batches of 32."""
    random = np.random.default_rng(0)
    for name, count in (("a.h5", 50), ("b.h5", 20)):
        with h5py.File(name, "w") as file:
            file["data"] = random.standard_normal((count, 5))
            file["label"] = np.arange(count) % 10
    cli.write("list.txt", "a.h5\nb.h5\n")
    text = """
    layer { name: "d" type: "HDF5Data" top: "data" top: "label"
      hdf5_data_param { source: "list.txt" batch_size: 32 } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 10 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    """
    cli.write("rows.prototxt", text)
    Net.from_text(text, TEST).save("w.caffemodel")
    output = cli.succeed("test", "--model", "rows.prototxt", "--weights", "w.caffemodel")
    assert float(output.split("=")[1]) == pytest.approx(np.log(10), rel=1e-5)


def test_a_snapshot_brings_its_net_and_weights(trained: Any) -> None:
    by_state, by_weights = (
        trained.succeed("test", *arguments)
        for arguments in (
            ("solver.prototxt", "--snapshot", "snap_iter_20.solverstate"),
            ("--model", "net.prototxt", "--weights", "snap_iter_20.caffemodel"),
        )
    )
    assert by_state == by_weights
    other = trained.succeed("test", "solver.prototxt", "-snapshot=snap_iter_40.solverstate")
    assert other != by_state


def test_the_net_that_a_solver_tests_first(trained: Any, net: str) -> None:
    trained.write("first.prototxt", net.replace('top: "accuracy"', 'top: "first"'))
    trained.solver(net=None, train_net='"net.prototxt"', test_net='"first.prototxt"')
    output = trained.succeed("test", "solver.prototxt", "--snapshot", "snap_iter_20.solverstate")
    assert output.startswith("first = ")
    trained.solver(net=None, train_net='"net.prototxt"', test_iter=None)
    output = trained.mistake("test", "solver.prototxt", "--snapshot", "snap_iter_20.solverstate")
    assert "the solver names no net to test" in output


def test_the_log_is_that_of_caffe(trained: Any) -> None:
    log = trained.succeed(
        "test",
        "-model",
        "net.prototxt",
        "-weights",
        "snap_iter_40.caffemodel",
        "-iterations",
        "3",
        "-gpu",
        "0",
        log="caffe",
    )
    assert "] -gpu 0 is ignored" in log
    assert "] Running for 3 iterations.\n" in log
    batches = re.findall(r"\] Batch (\d+), (\S+) = ([\d.]+)\n", log)
    assert [(batch, name) for batch, name, _ in batches] == [
        (str(batch), name) for batch in range(3) for name in ("accuracy", "loss")
    ]
    accuracy = np.mean([float(value) for _, name, value in batches if name == "accuracy"])
    last = re.search(r"\] accuracy = (\S+)\n.*\] loss = (\S+) \(\* 1 = \2 loss\)\n$", log)
    assert last
    assert float(last[1]) == pytest.approx(accuracy, abs=1e-6)


def test_a_log_of_json(trained: Any) -> None:
    weights = ("-weights", "snap_iter_40.caffemodel")
    log = trained.succeed("test", "-model", "net.prototxt", *weights, log="json")
    last = json.loads(log.splitlines()[-1])
    assert last["type"] == "evaluation_finished"
    assert [output["name"] for output in last["outputs"]] == ["accuracy", "loss"]


def test_level_and_stages_reach_the_net(trained: Any, net: str) -> None:
    staged = net.replace('include { phase: TEST } }\nlayer { name: "loss"', "STAGED")
    staged = staged.replace("STAGED", 'include { stage: "on" } }\nlayer { name: "loss"')
    trained.write("net.prototxt", staged)
    arguments = ("test", "-model", "net.prototxt", "-weights", "snap_iter_20.caffemodel")
    assert trained.succeed(*arguments).startswith("loss = ")
    assert trained.succeed(*arguments, "-stage", "x,on").startswith("accuracy = ")


def test_layers_that_do_not_fit(trained: Any, net: str) -> None:
    trained.write("net.prototxt", net.replace("num_output: 16", "num_output: 17"))
    arguments = ("test", "--model", "net.prototxt", "--weights", "snap_iter_20.caffemodel")
    output = trained.mistake(*arguments, errors=2)
    assert "pass --skip-mismatch" in output
    assert "--> net.prototxt:8:1\n" in output
    output = trained.succeed(*arguments, "--skip-mismatch")
    assert 'blob 0 of layer "ip1" is 17x784 in the net but 16x784 in the file' in output


def test_a_net_that_cannot_take_a_smaller_batch(trained: Any, net: str) -> None:
    softmax = 'layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }\n'
    fixed = """
    layer { name: "fixed" type: "DummyData" top: "zero"
      dummy_data_param { shape { dim: 20 dim: 10 } } }
    layer { name: "away" type: "EuclideanLoss" bottom: "ip2" bottom: "zero" top: "away" }
    """
    arguments = ("--model", "net.prototxt", "--weights", "snap_iter_20.caffemodel")
    for layers, message in {
        softmax: "there is no mean over them",
        fixed: "(EuclideanLoss)",
    }.items():
        trained.write("net.prototxt", net + layers)
        output = trained.mistake("test", *arguments)
        assert "70 records are no whole number of batches of 20" in output
        assert message in output
        assert "give --iterations" in output
        assert "accuracy" in trained.succeed("test", *arguments, "--iterations", 2)


def test_a_net_without_records(trained: Any) -> None:
    net = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }'
    trained.write("net.prototxt", net)
    arguments = ("--model", "net.prototxt", "--weights", "snap_iter_20.caffemodel")
    assert "give --iterations" in trained.mistake("test", *arguments)


def test_an_interrupt_ends_a_test(trained: Any) -> None:
    arguments = ("-model", "net.prototxt", "-weights", "snap_iter_40.caffemodel")
    running = trained.start("test", *arguments, "-iterations", 10**9)
    running.wait_for("Batch 1,")
    running.send(signal.SIGINT)
    assert running.end() == 130
    assert running.log.endswith("Aborted!\n")


MODEL, WEIGHTS = ["-model", "net.prototxt"], ["-weights", "snap_iter_20.caffemodel"]
SNAPSHOT = ["-snapshot", "snap_iter_20.solverstate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (MODEL, "give --model and --weights"),
        (WEIGHTS, "give --model and --weights"),
        (SNAPSHOT, "give --model and --weights, or SOLVER and --snapshot"),
        (["solver.prototxt"], "which weights?"),
        (["solver.prototxt", *MODEL], "give SOLVER with --snapshot"),
        ([*MODEL, *WEIGHTS, *SNAPSHOT], "--snapshot goes with SOLVER"),
        ([*MODEL, "-weights", " , "], "--weights names no file"),
        ([*MODEL, *WEIGHTS, "-iterations", "0"], "0 is not in the range"),
    ],
)
def test_usage(cli: Any, arguments: list[str], message: str) -> None:
    assert message in cli.mistake("test", *arguments, status=2)


def test_files_that_are_something_else(trained: Any) -> None:
    Path("half").write_bytes(Path("snap_iter_20.caffemodel").read_bytes()[:20_000])
    for arguments, message in (
        (["-model", "absent", *WEIGHTS], "does not exist"),
        (["-model", "solver.prototxt", *WEIGHTS], "a net definition is needed"),
        ([*MODEL, "-weights", "absent"], "there is no such file"),
        ([*MODEL, "-weights", "half"], "half is damaged at byte"),
        ([*MODEL, "-weights", "snap_iter_20.solverstate"], "is a .solverstate, not a .caffemodel"),
        (["solver.prototxt", "-snapshot", "snap_iter_20.caffemodel"], "not a .solverstate"),
        (["net.prototxt", *SNAPSHOT], "a solver definition is needed"),
    ):
        assert message in trained.mistake("test", *arguments)


def test_a_snapshot_whose_weights_are_gone(trained: Any) -> None:
    Path("snap_iter_20.caffemodel").unlink()
    output = trained.mistake("test", "solver.prototxt", *SNAPSHOT)
    assert "the weights that belong to snap_iter_20.solverstate are missing" in output
