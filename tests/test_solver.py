"""The training loop: its order and events, as in Caffe; snapshots, resume, what it refuses."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import events
from netdef.data import digits
from netdef.errors import (
    Diagnostic,
    NetdefError,
    NetError,
    OutputError,
    PrototxtError,
    SolverError,
    WeightsError,
)
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.solver import Action, Solver
from netdef.solver import test_net_of as net_to_test

#: A linear fit: loss = |W x + b - y|^2 / 2N, whose gradient numpy can follow.
FIT = """
name: "fit"
layer {
  name: "in" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((4, 3)).astype(np.float32)
Y = RANDOM.standard_normal((4, 2)).astype(np.float32)

Listener = Callable[[events.Event], None]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(FIT, encoding="utf-8")


class Made:
    """Makes solvers in the current folder, and closes them when the test is over."""

    def __init__(self) -> None:
        self.solvers: list[Solver] = []
        self.told: list[events.Event] = []

    def __call__(self, text: str, leave_out: Sequence[str] = (), **options: Any) -> Solver:
        """A solver from the fields in ``text``, and the usual ones that it does not name."""
        usual = {
            "net": '"net.prototxt"',
            "base_lr": "0.1",
            "lr_policy": '"fixed"',
            "max_iter": "4",
            "random_seed": "1",
            "snapshot_prefix": '"snap"',
        }
        lines = [text]
        named = {*leave_out} | {
            line.split(":")[0].split("{")[0].strip() for line in text.splitlines()
        }
        if named & {"train_net", "net_param", "train_net_param"}:
            named.add("net")
        lines += [f"{name}: {value}" for name, value in usual.items() if name not in named]
        Path("solver.prototxt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        options.setdefault("listeners", [self.told.append])
        solver = Solver("solver.prototxt", **options)
        self.solvers.append(solver)
        feed(solver)
        return solver

    def of(self, *kinds: type[events.Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kinds)]


@pytest.fixture
def make() -> Iterator[Made]:
    made = Made()
    yield made
    for solver in made.solvers:
        solver.close()


def feed(solver: Solver, x: Any = X, y: Any = Y) -> None:
    for net in (solver.net, *solver.test_nets):
        for name, values in {"x": x, "y": y}.items():
            if name in net.inputs and net.blobs[name].shape == values.shape:
                net.blobs[name].data[...] = values


def weight(solver: Solver) -> Any:
    return solver.net.params["ip"][0].data


def refused(make: Made, text: str, kind: type[NetdefError] = SolverError) -> Diagnostic:
    """The one thing that is wrong with a solver."""
    with pytest.raises(kind) as caught:
        make(text)
    (found,) = caught.value.diagnostics
    return found


def line_of(found: Diagnostic) -> str:
    """The line of the file that a message points at, from the place on."""
    assert found.location is not None
    return found.location.source[found.location.column - 1 :]


def summary(told: Sequence[events.Event]) -> list[str]:
    """What happened, in short."""
    lines = []
    for event in told:
        match event:
            case events.SolveStarted():
                lines.append(f"start {event.iteration}")
            case events.TestStarted():
                lines.append(f"test {event.index} at {event.iteration}")
            case events.TestBatch():
                lines.append(f"batch {event.batch}")
            case events.TestFinished():
                lines.append("interrupted" if event.interrupted else "tested")
            case events.IterationDone():
                lines.append(f"iteration {event.iteration}" + (" shown" if event.display else ""))
            case events.RateSet():
                lines.append(f"rate at {event.iteration}")
            case events.SnapshotWriting():
                lines.append(f"write {event.kind}")
            case events.SnapshotWritten():
                lines.append(f"snapshot {event.iteration}")
            case events.SolveFinished():
                lines.append(f"end {event.iteration}" + (" early" if event.early else ""))
            case events.OptimizationDone():
                lines.append("done")
    return lines


# --- the order of things --------------------------------------------------------------------------


def test_the_order_of_the_loop(make: Made) -> None:
    solver = make("display: 2\ntest_iter: 2\ntest_interval: 2\nsnapshot: 3")
    solver.solve()
    test = ["batch 0", "batch 1", "tested"]
    files = ["write model", "write state"]
    assert summary(make.told) == [
        "start 0",
        *("test 0 at 0", *test),
        *("iteration 0 shown", "rate at 0", "iteration 1"),
        *("test 0 at 2", *test),
        *("iteration 2 shown", "rate at 2"),
        *(*files, "snapshot 3"),
        "iteration 3",
        *(*files, "snapshot 4"),
        "end 4",
        *("test 0 at 4", *test),
        "done",
    ]
    assert solver.iter == 4


def test_what_is_told_before_the_loop(make: Made) -> None:
    make("test_iter: 1\ntest_interval: 1").solve()
    assert [type(event).__name__ for event in make.told[:7]] == [
        "SolverStarted",
        "NetBuilding",
        "NetBuilt",
        "NetBuilding",
        "NetBuilt",
        "SolverReady",
        "SolveStarted",
    ]
    (started,) = make.of(events.SolveStarted)
    assert (started.net, started.lr_policy, started.max_iter) == ("fit", "fixed", 4)
    assert started.batch_size == 4


def test_no_test_before_the_first_iteration(make: Made) -> None:
    make("test_initialization: false\ntest_iter: 1\ntest_interval: 2").solve()
    assert [event.iteration for event in make.of(events.TestStarted)] == [2, 4]


def test_without_test_nets_nothing_is_tested(make: Made) -> None:
    make("test_interval: 1").solve()
    assert not make.of(events.TestStarted)


def test_an_end_that_display_and_test_interval_do_not_divide(make: Made) -> None:
    make("max_iter: 3\ndisplay: 2\ntest_iter: 1\ntest_interval: 2").solve()
    (end,) = make.of(events.SolveFinished)
    assert end.loss is None
    assert [event.iteration for event in make.of(events.TestStarted)] == [0, 2]


def test_the_last_loss_is_that_of_one_more_pass(make: Made) -> None:
    solver = make("display: 4")
    solver.solve()
    (end,) = make.of(events.SolveFinished)
    w, b = (blob.data.astype(np.float64) for blob in solver.net.params["ip"])
    assert end.loss == pytest.approx(((X @ w.T + b - Y) ** 2).sum() / 8, rel=1e-5)


def test_gradient_descent(make: Made) -> None:
    """Weight, bias, loss and outputs of each iteration, against numpy."""
    solver = make("max_iter: 3\nmomentum: 0.9\nweight_decay: 0.01\ndisplay: 1")
    w, b = (blob.data.astype(np.float64) for blob in solver.net.params["ip"])
    velocities = [np.zeros_like(w), np.zeros_like(b)]
    for iteration in range(3):
        solver.step(1)
        residual = X @ w.T + b - Y
        shown = make.of(events.IterationDone)[-1]
        assert shown.loss == pytest.approx((residual**2).sum() / 8, rel=1e-5)
        (output,) = shown.outputs
        assert (output.name, output.loss_weight) == ("loss", 1)
        assert output.values == pytest.approx([shown.loss], rel=1e-6)
        gradients = [residual.T @ X / 4 + 0.01 * w, residual.sum(0) / 4 + 0.01 * b]
        velocities = [0.9 * v + 0.1 * g for v, g in zip(velocities, gradients, strict=True)]
        w, b = w - velocities[0], b - velocities[1]
        for blob, expected in zip(solver.net.params["ip"], (w, b), strict=True):
            np.testing.assert_allclose(blob.data, expected, rtol=1e-5, atol=1e-6)
        assert solver.iter == iteration + 1


def test_callbacks(make: Made) -> None:
    solver = make("test_iter: 1\ntest_interval: 1\nmax_iter: 2")
    seen: list[Any] = []

    def start() -> None:
        tests = len(make.of(events.TestFinished))
        assert not solver.net.params["ip"][0].diff.any()
        seen.append(("start", solver.iter, tests, weight(solver).copy()))

    def gradients_ready() -> None:
        assert solver.net.params["ip"][0].diff.any()
        seen.append(
            ("ready", solver.iter, len(make.of(events.IterationDone)), weight(solver).copy())
        )

    solver.add_callback(start, gradients_ready)
    solver.solve()
    assert [entry[:3] for entry in seen] == [
        ("start", 0, 1),
        ("ready", 0, 1),
        ("start", 1, 2),
        ("ready", 1, 2),
    ]
    assert np.array_equal(seen[0][3], seen[1][3])
    assert not np.array_equal(seen[1][3], seen[2][3])


def test_steps_go_on_where_the_last_ended(make: Made) -> None:
    solver = make("max_iter: 100")
    solver.step(3)
    solver.step(2)
    assert solver.iter == 5
    whole = make("max_iter: 100")
    whole.step(5)
    assert np.array_equal(weight(whole), weight(solver))
    assert not make.of(events.SnapshotWriting)


def test_a_script_that_steps_needs_no_max_iter(make: Made) -> None:
    solver = make("", leave_out=["max_iter"])
    solver.step(2)
    assert solver.iter == 2
    with pytest.raises(SolverError, match="the solver has no max_iter"):
        solver.solve()


def test_inputs_that_a_script_gives_another_shape(make: Made) -> None:
    solver = make("test_iter: 1\ntest_interval: 10")
    reshaped = [solver.net, *solver.test_nets]
    for net in reshaped:
        net.blobs["x"].reshape(2, 3)
        net.blobs["y"].reshape(2, 2)
    feed(solver, X[:2], Y[:2])
    solver.step(1)
    told = make.of(events.TestFinished, events.IterationDone)

    make.told.clear()
    Path("net.prototxt").write_text(FIT.replace("dim: 4", "dim: 2"))
    fresh = make("test_iter: 1\ntest_interval: 10")
    feed(fresh, X[:2], Y[:2])
    fresh.step(1)
    assert np.array_equal(weight(solver), weight(fresh))
    test, iteration = make.of(events.TestFinished, events.IterationDone)
    assert (told[0].outputs, told[1].loss) == (test.outputs, iteration.loss)
    assert told[1].loss > 0


def test_apply_update_alone(make: Made) -> None:
    solver = make("base_lr: 0.5")
    before = weight(solver).copy()
    solver.net.params["ip"][0].diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(weight(solver), before - 0.5, rtol=1e-6)
    assert solver.iter == 0


def test_float64(make: Made) -> None:
    solver = make("momentum: 0.5", dtype=np.float64)
    solver.solve()
    assert weight(solver).dtype == np.float64


# --- loss and gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 50])
def test_average_loss(make: Made, window: int) -> None:
    plain = make("max_iter: 8")
    plain.solve()
    losses = [event.loss for event in make.of(events.IterationDone)]
    make.told.clear()
    solver = make(f"max_iter: 8\naverage_loss: {window}")
    solver.solve()
    smoothed = [event.loss for event in make.of(events.IterationDone)]
    for i, value in enumerate(smoothed):
        assert value == pytest.approx(np.mean(losses[max(0, i - window + 1) : i + 1]), rel=1e-5)


def test_the_window_of_average_loss_begins_anew_with_each_step(make: Made) -> None:
    plain, smoothed = make(""), make("average_loss: 3")
    last = []
    for solver in (plain, smoothed):
        solver.step(4)
        make.told.clear()
        solver.step(1)
        last += [event.loss for event in make.of(events.IterationDone)]
    assert last[1] == pytest.approx(last[0], rel=1e-6)


def test_iter_size_averages_over_its_passes(make: Made, database: Path) -> None:
    text = "weight_decay: 0.1\nmomentum: 0.9\ndisplay: 1\n"
    Path("net.prototxt").write_text(pixels(database, batch_size=8))
    whole = make(text)
    whole.step(3)
    told = make.of(events.IterationDone)

    make.told.clear()
    Path("net.prototxt").write_text(pixels(database, batch_size=4))
    halves = make(text + "iter_size: 2")
    halves.step(3)
    np.testing.assert_allclose(weight(halves), weight(whole), rtol=1e-4, atol=1e-6)
    for mine, wanted in zip(make.of(events.IterationDone), told, strict=True):
        assert mine.loss == pytest.approx(wanted.loss, rel=1e-5)
        # The outputs are those of the last pass, as in Caffe's log.
        assert mine.outputs[0].values != pytest.approx([mine.loss], rel=1e-4)
    assert halves.net.program.passes == 6


def test_records_of_an_iteration_are_those_of_all_its_passes(make: Made, database: Path) -> None:
    Path("net.prototxt").write_text(pixels(database, batch_size=4))
    make("iter_size: 3\nmax_iter: 0").solve()
    assert make.of(events.SolveStarted)[0].batch_size == 12


def norm_of_gradients(solver: Solver) -> float:
    diffs = [blob.diff.astype(np.float64) for blob in solver.net.params["ip"]]
    return math.sqrt(sum(float((diff**2).sum()) for diff in diffs))


@pytest.mark.parametrize("iter_size", [1, 3])
def test_clip_gradients(make: Made, iter_size: int) -> None:
    """The norm is that of the sum over all passes, before it is divided by their number."""
    solver = make(f"clip_gradients: 0.25\niter_size: {iter_size}\nbase_lr: 1")
    before = weight(solver).copy()
    gradients: list[Any] = []
    solver.add_callback(
        lambda: None, lambda: gradients.append((norm_of_gradients(solver), diff_of(solver).copy()))
    )
    solver.step(1)
    ((norm, gradient),) = gradients
    assert norm > 0.25
    (clipped,) = make.of(events.GradientsClipped)
    assert clipped.norm == pytest.approx(norm, rel=1e-6)
    assert clipped.limit == 0.25
    assert clipped.factor == pytest.approx(0.25 / norm, rel=1e-6)
    expected = before - gradient * (0.25 / norm) / iter_size
    np.testing.assert_allclose(weight(solver), expected, rtol=1e-5, atol=1e-6)


def diff_of(solver: Solver) -> Any:
    return solver.net.params["ip"][0].diff


def test_gradients_below_the_limit_are_left_alone(make: Made) -> None:
    limited, free = make("clip_gradients: 100"), make("")
    limited.step(2)
    free.step(2)
    assert not make.of(events.GradientsClipped)
    assert np.array_equal(weight(limited), weight(free))


def test_weight_decay_l1_pulls_by_the_sign(make: Made) -> None:
    plain = make("weight_decay: 0")
    pulled = make('weight_decay: 0.25\nregularization_type: "L1"')
    before = weight(pulled).copy()
    for solver in (plain, pulled):
        solver.step(1)
    expected = weight(plain) - 0.1 * 0.25 * np.sign(before)
    np.testing.assert_allclose(weight(pulled), expected, rtol=1e-5, atol=1e-6)


def test_multipliers_of_a_parameter(make: Made) -> None:
    rates = "param { lr_mult: 3 decay_mult: 2 } param { lr_mult: 0 } "
    Path("net.prototxt").write_text(FIT.replace('top: "ip"', 'top: "ip" ' + rates))
    solver = make("weight_decay: 0.25")
    before = [blob.data.astype(np.float64) for blob in solver.net.params["ip"]]
    solver.step(1)
    residual = X @ before[0].T + before[1] - Y
    expected = before[0] - 0.1 * 3 * (residual.T @ X / 4 + 0.25 * 2 * before[0])
    np.testing.assert_allclose(weight(solver), expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(solver.net.params["ip"][1].data, before[1])


def test_parameters_of_one_rate_are_updated_together(make: Made) -> None:
    """And as they would be one by one: a rule works on each value by itself."""
    second = FIT[FIT.index('layer {\n  name: "ip"') : FIT.index('layer { name: "loss"')]
    second = second.replace('"ip"', '"ip2"').replace('bottom: "x"', 'bottom: "ip"')
    Path("net.prototxt").write_text(
        FIT.replace('bottom: "ip" bottom: "y"', 'bottom: "ip2" bottom: "y"').replace(
            'layer { name: "loss"', second + 'layer { name: "loss"'
        )
    )
    solver, apart = (
        make("momentum: 0.5\nweight_decay: 0.25"),
        make("momentum: 0.5\nweight_decay: 0.25"),
    )
    assert len(solver._parts()) == 1
    for blobs in apart.net.params.values():
        for blob in blobs:
            blob.bind(blob.data.copy(), blob.diff)
    apart.net.program.rebind()
    assert len(apart._parts()) == 4
    for _ in range(3):
        solver.step(1)
        apart.step(1)
    for name, blobs in solver.net.params.items():
        for mine, theirs in zip(blobs, apart.net.params[name], strict=True):
            assert mine.data.tobytes() == theirs.data.tobytes()


def test_parameters_of_another_net_are_updated_where_they_are(make: Made) -> None:
    solver = make("base_lr: 0.5")
    other = Net("net.prototxt", pb.TRAIN)
    solver.step(1)
    solver.net.share_with(other)
    before = other.params["ip"][0].data.copy()
    solver.step(1)
    assert not np.array_equal(other.params["ip"][0].data, before)
    assert other.params["ip"][0].data is weight(solver)


POLICIES: dict[str, tuple[str, Callable[[int], float]]] = {
    "fixed": ("", lambda i: 0.5),
    "step": ("gamma: 0.5\nstepsize: 3", lambda i: 0.5 * 0.5 ** (i // 3)),
    "exp": ("gamma: 0.75", lambda i: 0.5 * 0.75**i),
    "inv": ("gamma: 0.25\npower: 0.75", lambda i: 0.5 * (1 + 0.25 * i) ** -0.75),
    "multistep": (
        "gamma: 0.5\nstepvalue: 2\nstepvalue: 5",
        lambda i: 0.5 * 0.5 ** ((i >= 2) + (i >= 5)),
    ),
    "poly": ("power: 2", lambda i: 0.5 * (1 - i / 8) ** 2),
    "sigmoid": ("gamma: 0.5\nstepsize: 4", lambda i: 0.5 / (1 + math.exp(-0.5 * (i - 4)))),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_learning_rates(make: Made, policy: str) -> None:
    fields, rate = POLICIES[policy]
    base = f'base_lr: 0.5\nmax_iter: 8\nlr_policy: "{policy}"\n{fields}\n'
    solver = make(base + "display: 1")
    before = weight(solver).copy()
    assert solver.lr == 0.5 or policy == "sigmoid"
    solver.solve()
    told = make.of(events.RateSet)
    assert [event.iteration for event in told] == list(range(8))
    assert [event.rate for event in told] == pytest.approx([rate(i) for i in range(8)], rel=1e-6)
    assert not np.array_equal(weight(solver), before)


def test_steps_of_multistep_are_told(make: Made) -> None:
    make(
        'lr_policy: "multistep"\ngamma: 0.5\nstepvalue: 2\nstepvalue: 3\nmax_iter: 5\ndisplay: 1'
    ).solve()
    assert [(event.iteration, event.step) for event in make.of(events.StepReached)] == [
        (2, 1),
        (3, 2),
    ]
    # As in Caffe's log, before the rate they lead to.
    kinds = [type(e) for e in make.told if isinstance(e, events.StepReached | events.RateSet)]
    assert kinds.index(events.StepReached) == 2


def test_doubts_about_the_rate_are_told_and_training_goes_on(make: Made) -> None:
    make('lr_policy: "step"\nstepsize: 2').solve()
    (warned,) = make.of(events.Warned)
    assert "has no gamma" in warned.text


# --- snapshots ------------------------------------------------------------------------------------


def files() -> list[str]:
    return sorted(path.name for path in Path().glob("*_iter_*"))


@pytest.mark.parametrize(
    ("text", "iterations"),
    [
        ("", [4]),
        ("snapshot: 2", [2, 4]),
        ("snapshot: 3", [3, 4]),
        ("snapshot: 5", [4]),
        ("snapshot_after_train: false", []),
        ("snapshot: 3\nsnapshot_after_train: false", [3]),
        ("max_iter: 0", [0]),
    ],
)
def test_when_snapshots_are_written(make: Made, text: str, iterations: list[int]) -> None:
    make(text).solve()
    assert [event.iteration for event in make.of(events.SnapshotWritten)] == iterations
    assert files() == [
        f"snap_iter_{i}.{kind}" for i in iterations for kind in ("caffemodel", "solverstate")
    ]


def test_where_snapshots_are_written(make: Made) -> None:
    assert make("snapshot_prefix: 'there'").snapshot() == "there_iter_0.solverstate"
    without = make("", leave_out=["snapshot_prefix"])
    assert without.param.snapshot_prefix == "solver"
    assert without.snapshot() == "solver_iter_0.solverstate"
    Path("folder").mkdir()
    assert make("snapshot_prefix: 'folder'").snapshot() == "folder/solver_iter_0.solverstate"
    assert make("snapshot_prefix: 'folder/a.b'").snapshot() == "folder/a.b_iter_0.solverstate"
    (written,) = make.of(events.SnapshotWritten)[-1:]
    assert written == events.SnapshotWritten(
        "folder/a.b_iter_0.caffemodel", "folder/a.b_iter_0.solverstate", 0
    )


def test_a_folder_for_snapshots_that_is_missing(make: Made) -> None:
    found = refused(make, "snapshot_prefix: 'nowhere/snap'", OutputError)
    assert line_of(found) == "'nowhere/snap'"
    # Where none will be written it does not matter.
    make("snapshot_prefix: 'nowhere/snap'\nsnapshot_after_train: false").solve()


def test_a_snapshot_that_cannot_be_written_leaves_the_last_one_whole(make: Made) -> None:
    solver = make("max_iter: 100")
    solver.step(2)
    first = solver.snapshot()
    solver.step(2)
    Path("snap_iter_4.solverstate").mkdir()
    with pytest.raises(OutputError, match="snap_iter_4"):
        solver.snapshot()
    again = make("")
    again.restore(first)
    assert again.iter == 2


def test_snapshot_diff(make: Made) -> None:
    for text, has_diff in (("snapshot_diff: true", True), ("", False)):
        solver = make(text)
        solver.step(1)
        solver.snapshot()
        model = pb.NetParameter.FromString(Path("snap_iter_1.caffemodel").read_bytes())
        assert bool(model.layer[1].blobs[0].diff) == has_diff


def test_what_a_snapshot_holds(make: Made) -> None:
    solver = make("momentum: 0.5")
    solver.step(3)
    solver.snapshot()
    state = pb.SolverState.FromString(Path("snap_iter_3.solverstate").read_bytes())
    assert (state.iter, state.learned_net) == (3, "snap_iter_3.caffemodel")
    assert [list(blob.shape.dim) for blob in state.history] == [[2, 3], [2]]
    assert (state.random_seed, state.forward_passes) == (1, 3)


# --- test nets ------------------------------------------------------------------------------------


def building(make: Made) -> list[tuple[str, str, int]]:
    return [(event.role, event.source, event.index) for event in make.of(events.NetBuilding)]


INLINE = " ".join(FIT.split())


@pytest.mark.parametrize(
    ("text", "nets"),
    [
        ("", []),
        ("test_iter: 1", ["net file: net.prototxt"]),
        ("test_iter: 1\ntest_iter: 2", ["net file: net.prototxt"] * 2),
        ("test_iter: 1\ntest_net: 'other.prototxt'", ["test_net file: other.prototxt"]),
        (
            "test_iter: 1\ntest_iter: 1\ntest_net: 'other.prototxt'",
            ["test_net file: other.prototxt", "net file: net.prototxt"],
        ),
        (
            f"test_iter: [1, 1, 1]\ntest_net_param {{ {INLINE} }}\ntest_net: 'other.prototxt'",
            ["test_net_param", "test_net file: other.prototxt", "net file: net.prototxt"],
        ),
        (
            f"test_iter: [1, 1]\nnet_param {{ {INLINE} }}\ntest_net: 'other.prototxt'",
            ["test_net file: other.prototxt", "net_param"],
        ),
        ("train_net: 'other.prototxt'", []),
        (
            "train_net: 'other.prototxt'\ntest_net: 'net.prototxt'\ntest_iter: 1",
            ["test_net file: net.prototxt"],
        ),
    ],
)
def test_which_nets_are_tested(make: Made, text: str, nets: list[str]) -> None:
    shutil.copy("net.prototxt", "other.prototxt")
    solver = make(text + "\ntest_interval: 2")
    train, *tests = building(make)
    assert train[0] == "train"
    assert tests == [("test", source, i) for i, source in enumerate(nets)]
    assert len(solver.test_nets) == len(nets)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", "net file: net.prototxt"),
        ("train_net: 'net.prototxt'", "train_net file: net.prototxt"),
        (f"net_param {{ {INLINE} }}", "net_param"),
        (f"train_net_param {{ {INLINE} }}", "train_net_param"),
    ],
)
def test_which_net_is_trained(make: Made, text: str, source: str) -> None:
    solver = make(text)
    assert building(make) == [("train", source, 0)]
    solver.step(1)


def test_test_nets_share_the_parameters(make: Made) -> None:
    solver = make("test_iter: [1, 1]\ntest_interval: 10")
    for net in solver.test_nets:
        assert net.phase == pb.TEST
        assert net.params["ip"][0].data is solver.net.params["ip"][0].data
    solver.step(1)
    assert np.array_equal(weight(solver), solver.test_nets[1].params["ip"][0].data)


def test_results_are_means_over_the_batches(make: Made, database: Path) -> None:
    Path("net.prototxt").write_text(pixels(database, batch_size=4))
    solver = make("test_iter: 3\ntest_iter: 1\ntest_interval: 10\ntest_compute_loss: true")
    solver.step(1)
    first, second = make.of(events.TestFinished)
    assert [output.name for output in first.outputs] == ["accuracy", "loss"]
    assert [output.loss_weight for output in first.outputs] == [0, 1]
    assert first.loss == pytest.approx(first.outputs[1].values[0], rel=1e-6)
    assert (first.index, second.index) == (0, 1)

    again = make("test_iter: 1\ntest_interval: 10")
    values = []
    for _ in range(3):
        out = again.test_nets[0].forward()
        values.append([float(out["accuracy"]), float(out["loss"])])
    # The second net read the first batch only.
    assert [o.values[0] for o in second.outputs] == pytest.approx(values[0], rel=1e-5)
    means = [float(x) for x in np.mean(values, axis=0)]
    assert [o.values[0] for o in first.outputs] == pytest.approx(means, rel=1e-5)


def test_without_test_compute_loss_there_is_no_loss_of_the_whole(make: Made) -> None:
    make("test_iter: 1\ntest_interval: 10").solve()
    assert make.of(events.TestFinished)[0].loss is None


def test_every_value_of_an_output_is_told(make: Made) -> None:
    Path("net.prototxt").write_text(FIT + 'layer { type: "ReLU" bottom: "ip" top: "shown" }')
    make("test_iter: 2\ntest_interval: 10\ndisplay: 1").step(1)
    for event in (*make.of(events.TestFinished), *make.of(events.IterationDone)):
        assert [(o.name, len(o.values)) for o in event.outputs] == [("loss", 1), ("shown", 8)]


STAGED = FIT + "".join(
    f'layer {{ name: "{name}" type: "ReLU" bottom: "ip" top: "{name}" include {{ {rule} }} }}\n'
    for name, rule in {
        "a": 'stage: "a"',
        "b": 'stage: "b"',
        "high": "min_level: 2",
        "train": "phase: TRAIN",
        "own": 'stage: "own"',
    }.items()
)


def test_states(make: Made) -> None:
    Path("net.prototxt").write_text("state { stage: 'own' }\n" + STAGED)
    solver = make(
        "train_state { stage: 'a' level: 2 phase: TEST }\n"
        "test_iter: [1, 1]\ntest_interval: 10\n"
        "test_state { stage: 'b' }\ntest_state { level: 3 phase: TRAIN }"
    )
    outputs = [sorted(set(net.outputs) - {"loss"}) for net in (solver.net, *solver.test_nets)]
    # The phase of a test net is TEST, whatever a state says.
    assert outputs == [["a", "high", "own"], ["b", "own"], ["high", "own"]]


def test_stages_and_level_of_the_command_line(make: Made) -> None:
    Path("net.prototxt").write_text(STAGED)
    solver = make("train_state { stage: 'a' level: 1 }", stages=["b"], level=2)
    assert solver.net.outputs == ["a", "b", "high", "loss", "train"]


# --- what is wrong with a solver ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "at", "hint"),
    [
        (
            "net: 'a'\ntrain_net: 'b'",
            "the solver must give one train net, but gives 2: net, train_net",
            "'b'",
            "give one of net, net_param, train_net, train_net_param",
        ),
        ("net: 'nets.prototxt'", 'the net "nets.prototxt" does not exist', "'nets.prototxt'", None),
        ("net: '/gone.prototxt'", 'the net "/gone.prototxt" does not exist', "'/gone", None),
        ("net: '/'", "/ is a folder, not a prototxt file", "'/'", ""),
        ("max_iter: -1", "max_iter cannot be negative", "-1", ""),
        ("momentum: nan", "momentum must be a number, but is nan", "nan", ""),
        ("clip_gradients: -inf", "clip_gradients must be a number, but is -inf", "-inf", ""),
        ("display: -1", "display cannot be negative", "-1", ""),
        ("snapshot: -2", "snapshot cannot be negative", "-2", ""),
        ("test_interval: -2", "test_interval cannot be negative", "-2", ""),
        ("iter_size: 0", "iter_size must be at least 1", "0", ""),
        ("average_loss: 0", "average_loss must be at least 1", "0", ""),
        (
            "regularization_type: 'L3'",
            'unknown regularization_type "L3"',
            "'L3'",
            '"L1" or "L2"',
        ),
        ("test_iter: 1\ntest_iter: 0", "test_iter must be at least 1", "0", ""),
        (
            "test_iter: 1",
            "there is a test net, but test_interval is missing",
            None,
            "say how many iterations lie between tests, such as  test_interval: 500",
        ),
        (
            "test_iter: 1\ntest_interval: 0",
            "there is a test net, but test_interval is missing",
            "0",
            "say how many iterations lie between tests, such as  test_interval: 500",
        ),
        (
            "test_net: 'net.prototxt'\ntest_interval: 1",
            "test_iter has 0 entries for 1 test nets: give one for each",
            None,
            "",
        ),
        (
            "train_net: 'net.prototxt'\ntest_iter: 7",
            "test_iter has 1 entries for 0 test nets: give one for each",
            "7",
            "",
        ),
        (
            "test_iter: 1\ntest_interval: 1\ntest_state { }\ntest_state { }",
            "there are 2 test_state for 1 test nets: give none, or one for each",
            "test_state",
            "",
        ),
        ("type: 'SDG'", 'unknown solver type "SDG"', "'SDG'", 'did you mean "SGD"?'),
        ("lr_policy: 'stepp'", None, "'stepp'", 'did you mean "step"?'),
    ],
)
def test_mistakes(
    make: Made, text: str, message: str | None, at: str | None, hint: str | None
) -> None:
    found = refused(make, text)
    assert message is None or found.message == message
    assert at is None or line_of(found).startswith(at)
    assert hint is None or found.hint == hint


def test_a_solver_without_a_net(make: Made) -> None:
    with pytest.raises(SolverError, match="must give one train net, but gives 0"):
        make("", leave_out=["net"])


def test_a_solver_that_is_no_solver() -> None:
    with pytest.raises(PrototxtError) as caught:
        Solver("net.prototxt")
    assert "net.prototxt:" in str(caught.value)
    with pytest.raises(PrototxtError, match="nowhere"):
        Solver("nowhere")


def test_a_name_that_hdf5_cannot_hold_is_refused_before_training(make: Made) -> None:
    net = Path("net.prototxt").read_text(encoding="utf-8")
    Path("net.prototxt").write_text(net.replace('name: "ip"', 'name: "a//ip"'), encoding="utf-8")
    found = refused(make, "snapshot_format: HDF5")
    assert found.message == 'HDF5 cannot hold a layer called "a//ip"'
    assert found.hint == "rename the layer, or say BINARYPROTO"
    assert line_of(found) == "HDF5"
    make("snapshot_format: BINARYPROTO").solve()


def test_a_mistake_in_an_inline_net_is_found_in_the_solver(make: Made) -> None:
    bad = FIT.replace('"EuclideanLoss"', '"EuclidianLoss"')
    for field in ("net_param", "train_net_param"):
        found = refused(make, f"{field} {{\n{bad}}}", NetError)
        assert found.location is not None
        assert found.location.file == "solver.prototxt"
        assert line_of(found).startswith('"EuclidianLoss"')
    found = refused(make, f"test_iter: 1\ntest_interval: 1\ntest_net_param {{\n{bad}}}", NetError)
    assert line_of(found).startswith('"EuclidianLoss"')


def test_a_mistake_in_a_net_file_is_found_there(make: Made) -> None:
    Path("net.prototxt").write_text(FIT.replace("num_output: 2", "num_output: 5"))
    found = refused(make, "", NetError)
    assert found.location is not None
    assert found.location.file == "net.prototxt"


def test_a_net_beside_the_solver(make: Made, tmp_path: Path) -> None:
    Path("models").mkdir()
    shutil.move("net.prototxt", "models/net.prototxt")
    Path("models/solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 random_seed: 1'
    )
    solver = Solver("models/solver.prototxt", listeners=[make.told.append])
    assert solver.param.snapshot_prefix == "models/solver"
    notes = [event.text for event in make.of(events.Note)]
    assert notes == ['net "net.prototxt" is not in this folder; reading models/net.prototxt']


# --- random numbers -------------------------------------------------------------------------------


def test_without_random_seed_one_is_drawn_and_told(make: Made) -> None:
    first = make("", leave_out=["random_seed"])
    (note,) = make.of(events.Note)
    assert note.text.startswith(f"random_seed: {first.seed} ")
    assert 0 <= first.seed < 2**31
    again = make(f"random_seed: {first.seed}")
    assert np.array_equal(weight(again), weight(first))
    assert not np.array_equal(weight(make("", leave_out=["random_seed"])), weight(first))


# --- weights to start from ------------------------------------------------------------------------


@pytest.fixture
def two_models(make: Made) -> None:
    """a.caffemodel and b.caffemodel: layers "ip" and "other", all 1 and all 2."""
    for name, layer, value in (("a", "ip", 1), ("b", "other", 2)):
        Path("net.prototxt").write_text(FIT.replace('name: "ip"', f'name: "{layer}"'))
        solver = make("")
        for blob in solver.net.params[layer]:
            blob.data[...] = value
        solver.net.save(f"{name}.caffemodel")
    other = 'layer { name: "other" type: "InnerProduct" bottom: "x" top: "o" '
    other += "inner_product_param { num_output: 2 } }"
    Path("net.prototxt").write_text(FIT + other)
    make.told.clear()


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("weights: 'a.caffemodel'\nweights: 'b.caffemodel'", ()),
        ("weights: 'a.caffemodel, b.caffemodel'", ()),
        ("weights: 'a.caffemodel,b.caffemodel,'", ()),
        ("", ["a.caffemodel", "b.caffemodel"]),
        ("", ["a.caffemodel,b.caffemodel"]),
        ("weights: 'nowhere.caffemodel'", ["a.caffemodel", " b.caffemodel "]),
    ],
)
def test_weights(make: Made, two_models: None, text: str, given: Sequence[str]) -> None:
    solver = make(text, weights=given)
    for name, value in (("ip", 1), ("other", 2)):
        assert (solver.net.params[name][0].data == value).all()
        assert (solver.net.params[name][1].data == value).all()
    loaded = make.of(events.WeightsLoaded)
    assert [event.path for event in loaded] == ["a.caffemodel", "b.caffemodel"]
    assert "ip" in loaded[0].copied
    assert "other" in loaded[0].missing


def test_weights_go_into_test_nets_too(make: Made, two_models: None) -> None:
    make("weights: 'a.caffemodel'\ntest_iter: 1\ntest_interval: 1")
    assert len(make.of(events.WeightsLoaded)) == 2


def test_a_run_that_will_be_resumed_does_not_load_them(make: Made, two_models: None) -> None:
    make("weights: 'nowhere.caffemodel'", resuming=True)
    assert not make.of(events.WeightsLoaded)


def test_weights_that_are_missing(make: Made) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.caffemodel"):
        make("weights: 'nowhere.caffemodel'")


# --- debug_info -----------------------------------------------------------------------------------


def test_debug_info_is_told_when_an_iteration_is_shown(make: Made) -> None:
    solver = make("debug_info: true\ndisplay: 2")
    solver.step(1)
    lines = [event.text for event in make.of(events.DebugLine)]
    kinds = [line.split("]")[0].strip(" [") for line in lines]
    assert kinds == sorted(kinds, key=["Forward", "Backward", "Update"].index)
    assert [line.partition(": ")[0] for line in lines if "Update" in line] == [
        "    [Update] Layer ip, param 0 data",
        "    [Update] Layer ip, param 1 data",
    ]
    make.told.clear()
    solver.step(1)
    assert not make.of(events.DebugLine)
    solver.step(1)
    assert make.of(events.DebugLine)


def test_without_debug_info_nothing_of_it_is_told(make: Made) -> None:
    make("display: 1").solve()
    assert not make.of(events.DebugLine)


# --- signals --------------------------------------------------------------------------------------


class Asks:
    """An ``action`` that asks for something at the n-th time of asking."""

    def __init__(self, **at: Action) -> None:
        self.at = {int(when.strip("_")): what for when, what in at.items()}
        self.asked = -1

    def __call__(self) -> Action:
        self.asked += 1
        return self.at.get(self.asked, Action.NONE)


def test_stop_between_iterations(make: Made) -> None:
    solver = make("max_iter: 10\ndisplay: 1", action=Asks(_1=Action.STOP))
    solver.solve()
    assert solver.iter == 2
    assert summary(make.told)[-5:] == [
        "write model",
        "write state",
        "snapshot 2",
        "end 2 early",
        "done",
    ]
    assert make.of(events.OptimizationDone) == [events.OptimizationDone(early=True)]
    # Solving again goes on to the end.
    solver.solve()
    assert solver.iter == 10


def test_stop_just_after_a_snapshot_writes_no_other(make: Made) -> None:
    make("max_iter: 10\nsnapshot: 2", action=Asks(_1=Action.STOP)).solve()
    assert [event.iteration for event in make.of(events.SnapshotWritten)] == [2]


def test_stop_without_snapshot_after_train(make: Made) -> None:
    make("max_iter: 10\nsnapshot_after_train: false", action=Asks(_1=Action.STOP)).solve()
    assert not files()


def test_stop_between_test_batches(make: Made) -> None:
    # Asked before each test batch and after each iteration: here before the third batch of a test.
    ask = Asks(_2=Action.STOP)
    solver = make("max_iter: 10\ntest_iter: [4, 4]\ntest_interval: 5", action=ask)
    solver.solve()
    assert summary(make.told) == [
        "start 0",
        *("test 0 at 0", "batch 0", "batch 1", "interrupted"),
        *("write model", "write state", "snapshot 0"),
        "end 0 early",
        "done",
    ]
    assert make.of(events.TestFinished)[0].outputs == ()


def test_snapshot_between_iterations(make: Made) -> None:
    make("max_iter: 3", action=Asks(_0=Action.SNAPSHOT)).solve()
    assert [event.iteration for event in make.of(events.SnapshotWritten)] == [1, 3]


def test_snapshot_between_test_batches(make: Made) -> None:
    ask = Asks(_2=Action.SNAPSHOT)
    solver = make("max_iter: 1\ntest_iter: 4\ntest_interval: 5", action=ask)
    solver.solve()
    assert summary(make.told)[:9] == [
        "start 0",
        *("test 0 at 0", "batch 0", "batch 1"),
        *("write model", "write state", "snapshot 0"),
        *("batch 2", "batch 3"),
    ]
    assert solver.iter == 1


# --- resume ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    digits.write(folder, train=50, test=20)
    return folder


def pixels(database: Path, batch_size: int) -> str:
    """A net on digits whose update one can follow: no random numbers, one parameter layer."""
    return (
        'name: "pixels"\n'
        + "".join(
            f'layer {{ name: "data" type: "Data" top: "data" top: "label" '
            f"include {{ phase: {phase} }} transform_param {{ scale: 0.00390625 }} data_param {{ "
            f'source: "{database}/digits_{which}_lmdb" '
            f"batch_size: {batch_size} backend: LMDB }} }}\n"
            for phase, which in (("TRAIN", "train"), ("TEST", "test"))
        )
        + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
        'inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }\n'
        'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" '
        "include { phase: TEST } }\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
    )


def random_pixels(database: Path) -> str:
    """Everything that is random: crops, mirrors, skipped records, dropout."""
    text = pixels(database, batch_size=7).replace(
        "scale: 0.00390625", "scale: 0.00390625 crop_size: 24 mirror: true"
    )
    text = text.replace("batch_size: 7", "batch_size: 7 rand_skip: 5")
    dropout = 'layer { name: "drop" type: "Dropout" bottom: "data" top: "dropped" }\n'
    at = text.index('layer { name: "ip"')
    return text[:at] + dropout + text[at:].replace('bottom: "data"', 'bottom: "dropped"')


def results(make: Made) -> list[Any]:
    """All that was measured, each time it was."""
    found: list[Any] = []
    for event in make.told:
        if isinstance(event, events.IterationDone):
            found.append((event.iteration, event.loss, [list(o.values) for o in event.outputs]))
        elif isinstance(event, events.TestFinished):
            found.append(("test", event.iteration, [list(o.values) for o in event.outputs]))
        elif isinstance(event, events.SolveFinished):
            found.append(("end", event.loss))
    return found


@pytest.mark.parametrize(
    ("type", "iter_size", "form", "told"),
    [
        ("SGD", 1, "BINARYPROTO", "binary proto"),
        ("SGD", 2, "BINARYPROTO", "binary proto"),
        ("Adam", 1, "BINARYPROTO", "binary proto"),
        ("Adam", 1, "HDF5", "HDF5"),
    ],
)
def test_a_run_cut_anywhere_is_the_uncut_run(
    make: Made, database: Path, type: str, iter_size: int, form: str, told: str
) -> None:
    """Data longer than an epoch, tests that do not end with one, random crops and dropout."""
    Path("net.prototxt").write_text(random_pixels(database))
    text = (
        "max_iter: 12\ndisplay: 1\nmomentum: 0.9\nweight_decay: 0.01\ntest_iter: 2\n"
        f"test_interval: 4\niter_size: {iter_size}\nlr_policy: 'multistep'\ngamma: 0.5\n"
        f"stepvalue: 3\nstepvalue: 7\nsnapshot: 5\ntype: '{type}'\nsnapshot_format: {form}"
    )
    suffix = ".h5" if form == "HDF5" else ""
    uncut = make(text, leave_out=["random_seed"])
    uncut.solve()
    expected = results(make)
    assert {event.format for event in make.of(events.SnapshotWriting)} == {told}
    assert any(event.layer == "data" for event in make.of(events.DataWrapped))
    final = [blob.data.tobytes() for blobs in uncut.net.params.values() for blob in blobs]
    models = {name: Path(name).read_bytes() for name in files()}

    for cut in (5, 10):
        make.told.clear()
        resumed = make(text, leave_out=["random_seed"], resuming=True)
        assert resumed.seed != uncut.seed
        resumed.solve(f"snap_iter_{cut}.solverstate{suffix}")
        assert resumed.seed == uncut.seed
        # From the loss of iteration ``cut`` on, with the test that comes before it if there is one.
        start = next(i for i, entry in enumerate(expected) if entry[0] == cut)
        assert results(make) == expected[start:]
        assert final == [b.data.tobytes() for blobs in resumed.net.params.values() for b in blobs]
        assert {name: Path(name).read_bytes() for name in models} == models


def test_random_numbers_are_really_at_work(make: Made, database: Path) -> None:
    """The test above would pass without any."""
    Path("net.prototxt").write_text(random_pixels(database))
    runs = []
    for seed in (1, 1, 2):
        make.told.clear()
        make(f"max_iter: 3\nrandom_seed: {seed}").solve()
        runs.append(results(make))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_restore_of_a_solver_that_has_gone_on(make: Made, database: Path) -> None:
    Path("net.prototxt").write_text(random_pixels(database))
    solver = make("max_iter: 100\nmomentum: 0.9")
    solver.step(3)
    state = solver.snapshot()
    solver.step(4)
    ended = weight(solver).copy()
    solver.restore(state)
    assert solver.iter == 3
    solver.step(4)
    assert np.array_equal(weight(solver), ended)


def test_resume_is_told(make: Made) -> None:
    make("max_iter: 2").solve()
    make.told.clear()
    Path("net.prototxt").write_text(FIT)
    solver = make("max_iter: 3", resuming=True)
    solver.solve("snap_iter_2.solverstate")
    (resumed,) = make.of(events.Resumed)
    assert (resumed.path, resumed.iteration, resumed.type) == ("snap_iter_2.solverstate", 2, "SGD")
    kinds = [type(event) for event in make.told]
    assert kinds.index(events.Resumed) < kinds.index(events.SolveStarted)
    assert make.of(events.SolveStarted)[0].iteration == 2
    assert [event.iteration for event in make.of(events.IterationDone)] == [2]


def test_a_snapshot_that_was_moved(make: Made, tmp_path: Path) -> None:
    solver = make("max_iter: 2\nmomentum: 0.9")
    solver.solve()
    Path("kept").mkdir()
    for name in files():
        shutil.move(name, f"kept/{name}")
    resumed = make("max_iter: 3", resuming=True)
    resumed.restore("kept/snap_iter_2.solverstate")
    assert np.array_equal(weight(resumed), weight(solver))
    os.remove("kept/snap_iter_2.caffemodel")
    with pytest.raises(WeightsError, match="the weights that belong to") as caught:
        resumed.restore("kept/snap_iter_2.solverstate")
    assert caught.value.diagnostics[0].code == "E406"


def untouched(solver: Solver, call: Callable[[], Any], kind: type[NetdefError]) -> Diagnostic:
    """The mistake that ``call`` reports, which must leave the solver as it was."""
    before = [blob.data.copy() for blobs in solver.net.params.values() for blob in blobs]
    history = [array.copy() for arrays in solver._history for array in arrays]
    iteration = solver.iter
    with pytest.raises(kind) as caught:
        call()
    (found,) = caught.value.diagnostics
    after = [blob.data for blobs in solver.net.params.values() for blob in blobs]
    assert all(map(np.array_equal, before, after))
    assert all(map(np.array_equal, history, [a for arrays in solver._history for a in arrays]))
    assert solver.iter == iteration
    return found


def test_a_caffemodel_is_no_solverstate(make: Made) -> None:
    solver = make("")
    solver.step(1)
    solver.snapshot()
    found = untouched(solver, lambda: solver.restore("snap_iter_1.caffemodel"), WeightsError)
    assert "snap_iter_1.caffemodel" in found.message
    assert ".solverstate" in found.message + found.hint


def test_a_solverstate_of_another_net(make: Made) -> None:
    make("max_iter: 1").solve()
    Path("net.prototxt").write_text(
        FIT.replace("dim: 2 }", "dim: 5 }").replace("num_output: 2", "num_output: 5")
    )
    solver = make("", resuming=True)
    found = untouched(solver, lambda: solver.restore("snap_iter_1.solverstate"), WeightsError)
    assert found.code == "E407"
    assert found.message == (
        "snap_iter_1.solverstate: its history is of 2 blobs with 8 values, "
        'but solver type "SGD" of this net keeps 2 with 20'
    )
    assert found.hint == "it was written by another net or another solver type"


def test_a_solverstate_whose_model_is_of_another_net(make: Made) -> None:
    make("max_iter: 1").solve()
    shutil.copy("snap_iter_1.solverstate", "kept.solverstate")
    Path("net.prototxt").write_text(
        FIT.replace("dim: 3 }", "dim: 1 }")
        .replace("dim: 2 }", "dim: 6 }")
        .replace("num_output: 2", "num_output: 6")
    )
    feeding = make("max_iter: 1")
    feeding.solve()
    Path("net.prototxt").write_text(FIT)
    solver = make("", resuming=True)
    found = untouched(solver, lambda: solver.restore("kept.solverstate"), WeightsError)
    assert "ip" in found.message


def test_a_solverstate_that_is_cut_short(make: Made) -> None:
    make("max_iter: 1\nmomentum: 0.5").solve()
    path = Path("snap_iter_1.solverstate")
    path.write_bytes(path.read_bytes()[:-20])
    solver = make("", resuming=True)
    untouched(solver, lambda: solver.restore(path), WeightsError)
    untouched(solver, lambda: solver.restore("nowhere.solverstate"), WeightsError)


def test_a_resumed_test_net_draws_the_same_numbers(make: Made) -> None:
    """DummyData of the test net fills its top anew in each pass."""
    net = Path("net.prototxt").read_text(encoding="utf-8")
    noise = """
        layer { name: "noise" type: "DummyData" top: "noise" include { phase: TEST }
                dummy_data_param { shape { dim: 3 } data_filler { type: "gaussian" } } }
    """
    Path("noisy.prototxt").write_text(net + noise, encoding="utf-8")
    text = 'net: "noisy.prototxt"\ntest_iter: 1\ntest_interval: 1\nsnapshot: 2'

    def noises() -> list[Any]:
        return [
            output.values
            for event in make.of(events.TestFinished)
            for output in event.outputs
            if output.name == "noise"
        ]

    make(text).solve()
    whole = noises()
    make.told.clear()
    make(text).solve("snap_iter_2.solverstate")
    assert noises() == whole[2:]
    assert whole[2] != whole[1]


def test_a_snapshot_that_lacks_a_layer_is_of_another_net(make: Made) -> None:
    solver = make("")
    solver.step(1)
    state = solver.snapshot()
    net = Path("net.prototxt").read_text(encoding="utf-8")
    Path("renamed.prototxt").write_text(net.replace('name: "ip"', 'name: "fc"'), encoding="utf-8")
    other = make('net: "renamed.prototxt"')
    with pytest.raises(WeightsError, match="it has no weights for fc"):
        other.restore(state)


def test_a_diverged_loss_is_told_once(make: Made) -> None:
    make("base_lr: 1e30\nmax_iter: 5").solve()
    told = [event.text for event in make.of(events.Warned) if "diverged" in event.text]
    assert len(told) == 1
    assert "base_lr below 1e+30" in told[0]


def test_a_gpu_is_taken_as_the_cpu(make: Made) -> None:
    make("solver_mode: GPU")
    assert any("GPU" in event.text for event in make.of(events.Note))


def test_the_state_of_the_test_net_goes_with_it(make: Made) -> None:
    make('test_state { stage: "deep" }\ntest_iter: 1\ntest_interval: 1')
    document, state = net_to_test("solver.prototxt", make.told.append)
    assert list(state.stage) == ["deep"]
    assert document.positions.file == "net.prototxt"
