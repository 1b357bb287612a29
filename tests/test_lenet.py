"""LeNet on the real MNIST, against a run of Caffe: every loss, line of the log and parameter.

Caffe trained 200 iterations from ``init.caffemodel``, with the records in the order of the files.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from netdef import events, jit, prototxt
from netdef.data import mnist
from netdef.net import TEST, Net
from netdef.proto import netdef_pb2 as pb
from netdef.sinks.caffe_log import CaffeLog
from netdef.solver import Action, Solver
from netdef_cli.main import main

#: What stands before the message: severity, date, time, thread. Caffe's own log has the year, too.
PREFIX = re.compile(r"^([IWEF])\d+ \d\d:\d\d:\d\d\.\d{6} +\d+ ", re.MULTILINE)
SPEED = re.compile(r"\(\S+ iter/s, \S+s/(\d+) iters\)")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")

WEIGHTS = "init_iter_0.caffemodel"


@dataclass
class Run:
    """A training run: the solver as it ended, and all that it told."""

    solver: Solver
    told: list[events.Event] = field(default_factory=list)
    log: str = ""
    folder: Path = field(default_factory=Path.cwd)

    @property
    def losses(self) -> list[float]:
        return [e.loss for e in self.told if isinstance(e, events.IterationDone)]

    @property
    def tests(self) -> dict[int, list[tuple[str, list[float]]]]:
        """By iteration, the outputs of the test net."""
        return {
            e.iteration: [(o.name, list(o.values)) for o in e.outputs]
            for e in self.told
            if isinstance(e, events.TestFinished)
        }

    @property
    def params(self) -> list[np.ndarray[Any, Any]]:
        return [param.blob.data for param in self.solver.net.program.learnable]

    @property
    def history(self) -> list[np.ndarray[Any, Any]]:
        return [array for arrays in self.solver._history for array in arrays]


def train(
    solver_file: str = "solver.prototxt",
    *,
    weights: Sequence[str] = (WEIGHTS,),
    resume: str | None = None,
    action: Callable[[Solver], Action] = lambda solver: Action.NONE,
) -> Run:
    """Train in the current folder, as ``netdef train`` does."""
    told: list[events.Event] = []
    stream = io.StringIO()
    log = CaffeLog(stream)
    built: list[Solver] = []
    solver = Solver(
        solver_file,
        weights=weights,
        # Caffe's command line adds one empty stage where none is given, and prints it.
        stages=[""],
        level=0,
        listeners=[told.append, log],
        action=lambda: action(built[0]) if built else Action.NONE,
        resuming=resume is not None,
    )
    built.append(solver)
    try:
        solver.solve(resume)
    finally:
        solver.close()
    return Run(solver, told, stream.getvalue())


def assert_same_bits(one: Sequence[Any], other: Sequence[Any]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


@pytest.fixture(scope="session")
def databases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST as LMDB."""
    folder = tmp_path_factory.mktemp("mnist")
    mnist.write(folder, source=shared / "data" / "mnist")
    return folder


def prepare(folder: Path, shared: Path, databases: Path) -> None:
    """Put what Caffe had in its folder into this one."""
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (folder / name).symlink_to(databases / name)
    reference = shared / "reference" / "lenet"
    (folder / "lenet_train_test.prototxt").symlink_to(reference / "lenet_train_test.prototxt")
    (folder / "solver.prototxt").symlink_to(reference / "solver_200.prototxt")
    (folder / WEIGHTS).symlink_to(reference / "init.caffemodel")


@pytest.fixture
def folder(tmp_path: Path, shared: Path, databases: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, made as Caffe's was."""
    prepare(tmp_path, shared, databases)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def uncut(shared: Path, databases: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All 200 iterations in one go."""
    folder = tmp_path_factory.mktemp("uncut")
    prepare(folder, shared, databases)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train()


@pytest.fixture(scope="session")
def caffe_log(shared: Path) -> str:
    return (shared / "reference" / "lenet" / "caffe_200.log").read_text()


def solver_text(shared: Path, **changes: object) -> str:
    """Caffe's solver of that run with other values for some fields."""
    text = (shared / "reference" / "lenet" / "solver_200.prototxt").read_text()
    for name, value in changes.items():
        text = re.sub(rf"^{name}:.*\n", "", text, flags=re.MULTILINE) + f"{name}: {value}\n"
    return text


# --- against Caffe --------------------------------------------------------------------------------


def test_every_loss_is_caffes(uncut: Run, caffe_log: str) -> None:
    losses = [float(x) for x in re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", caffe_log)]
    assert len(losses) == 200
    # Promised is 1 %, or 2e-3 near zero; the log has six digits.
    np.testing.assert_allclose(uncut.losses, losses, rtol=1e-5)


def test_every_test_is_caffes(uncut: Run, caffe_log: str) -> None:
    found = re.findall(
        r"Iteration (\d+), Testing.*\n.*\n.*accuracy = (\S+)\n.*: loss = (\S+)", caffe_log
    )
    assert [int(iteration) for iteration, _, _ in found] == [0, 100, 200]
    for iteration, accuracy, loss in found:
        outputs = dict(uncut.tests[int(iteration)])
        assert outputs["accuracy"] == pytest.approx([float(accuracy)], abs=1e-6)
        assert outputs["loss"] == pytest.approx([float(loss)], rel=1e-5)


def test_the_parameters_end_as_caffes(uncut: Run, folder: Path, shared: Path) -> None:
    caffe = Net("lenet_train_test.prototxt", TEST)
    caffe.copy_from(shared / "reference" / "lenet" / "ref_iter_200.caffemodel")
    caffe.close()
    for name, blobs in uncut.solver.net.params.items():
        for mine, theirs in zip(blobs, caffe.params[name], strict=True):
            distance = np.linalg.norm(mine.flat - theirs.flat)
            # Promised is 1e-3.
            assert distance <= 1e-5 * np.linalg.norm(theirs.flat), name


def messages(log: str) -> list[str]:
    """The lines of a log without date, time, thread and speed."""
    return SPEED.sub(r"(speed, \1 iters)", PREFIX.sub(r"\1 ", log)).splitlines()


def test_the_log_is_caffes(uncut: Run, caffe_log: str) -> None:
    ours, theirs = messages(uncut.log), messages(caffe_log)
    assert len(ours) == len(theirs)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert NUMBER.sub("#", mine) == NUMBER.sub("#", wanted)
        numbers = [[float(x) for x in NUMBER.findall(line)] for line in (mine, wanted)]
        # The last of the six digits may fall to the other side of a rounding.
        assert numbers[0] == pytest.approx(numbers[1], rel=1.5e-5), (mine, wanted)


def test_training_goes_on_from_caffes_last_snapshot(uncut: Run, folder: Path, shared: Path) -> None:
    """Its state and ours are equal but for rounding, so what follows is."""
    (folder / "solver.prototxt").unlink()
    (folder / "solver.prototxt").write_text(solver_text(shared, max_iter=205, test_interval=1000))
    resumed = train(resume=str(shared / "reference" / "lenet" / "ref_iter_200.solverstate"))
    assert resumed.solver.iter == 205

    again = Solver("solver.prototxt", resuming=True)
    again.restore(uncut.folder / "ref_iter_200.solverstate")
    # A snapshot of Caffe does not know where the data was: it begins again.
    for source in again.net.program.sources:
        source.seek(0)
    again.step(5)
    again.close()
    for name, blobs in resumed.solver.net.params.items():
        for mine, wanted in zip(again.net.params[name], blobs, strict=True):
            np.testing.assert_allclose(mine.data, wanted.data, rtol=1e-4, atol=1e-6)


# --- against itself -------------------------------------------------------------------------------


def test_a_run_cut_in_two_is_the_uncut_run(uncut: Run, folder: Path) -> None:
    first = train(action=lambda s: Action.STOP if s.iter == 100 else Action.NONE)
    assert first.solver.iter == 100
    second = train(resume="ref_iter_100.solverstate")
    assert first.losses + second.losses == uncut.losses
    assert {**first.tests, **second.tests} == uncut.tests
    assert_same_bits(second.params, uncut.params)
    assert_same_bits(second.history, uncut.history)


def test_the_number_of_threads_does_not_matter(folder: Path, shared: Path) -> None:
    if os.cpu_count() == 1:
        pytest.skip("there is one core")
    changes = {"max_iter": 20, "test_iter": 5, "test_interval": 10}
    (folder / "short.prototxt").write_text(solver_text(shared, **changes))
    before = jit.num_threads()
    runs = []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            assert jit.num_threads() == threads
            runs.append(train("short.prototxt"))
    finally:
        jit.set_num_threads(before)
    assert runs[0].losses == runs[1].losses
    assert runs[0].tests == runs[1].tests
    assert_same_bits(runs[0].params, runs[1].params)


def test_the_seed_decides_everything(folder: Path, shared: Path) -> None:
    runs = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        changes = {"max_iter": 3, "test_iter": 1, "test_interval": 1000, "random_seed": seed}
        (folder / f"{name}.prototxt").write_text(solver_text(shared, **changes))
        runs.append(train(f"{name}.prototxt", weights=()))
    assert runs[0].losses == runs[1].losses
    assert_same_bits(runs[0].params, runs[1].params)
    assert runs[0].losses != runs[2].losses


# --- a model that somebody else trained -----------------------------------------------------------


def test_a_published_model_scores_as_published(folder: Path, shared: Path) -> None:
    """The LeNet of caffe-tensorflow, through ``netdef test``, on the whole test set."""
    model = shared / "reference" / "models" / "lenet_caffe_tensorflow"
    deploy = prototxt.read(model / "deploy.prototxt", pb.NetParameter).message
    # In place of the input and the probabilities: the test set, and the two scores.
    data, layers, scores = deploy.layer[0], deploy.layer[1:-1], deploy.layer[-1]
    assert (data.type, scores.type) == ("Input", "Softmax")
    test = prototxt.parse(
        """
        name: "LeNet"
        layer {
          name: "mnist" type: "Data" top: "data" top: "label"
          transform_param { scale: 0.00390625 }
          data_param { source: "mnist_test_lmdb" batch_size: 100 backend: LMDB }
        }
        """,
        pb.NetParameter,
    ).message
    test.layer.extend(layers)
    for kind, top in (("Accuracy", "accuracy"), ("SoftmaxWithLoss", "loss")):
        test.layer.add(name=top, type=kind, bottom=[*scores.bottom, "label"], top=[top])
    (folder / "test.prototxt").write_text(prototxt.to_text(test))

    weights = str(model / "weights.caffemodel")
    command = ["test", "--model", "test.prototxt", "--weights", weights, "--log-format", "caffe"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    found = dict(re.findall(r"\] (accuracy|loss) = (\S+)", done.output))
    assert float(found["accuracy"]) == pytest.approx(0.9914, abs=1e-6)
    assert float(found["loss"]) == pytest.approx(0.0272693, rel=1e-5)
