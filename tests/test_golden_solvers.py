"""Every update rule against Caffe: a small net trained, and resumed from Caffe's snapshot."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import snapshot, weights
from netdef.solver import Solver

FOLDER = Path(__file__).parent / "golden" / "solvers"

RTOL, ATOL = 2e-6, 2e-7


class Case:
    """One .npz file, and Caffe's snapshot beside it."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with np.load(path) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.solver = str(self.arrays["solver"])
        self.snapshot_iter = int(self.arrays["snapshot_iter"])
        self.iterations = len(self.arrays["X"])
        (self.model,) = FOLDER.glob(f"{self.name}.caffemodel*")
        (self.state,) = FOLDER.glob(f"{self.name}.solverstate*")

    def params(self, at: str) -> dict[str, Any]:
        start = f"{at}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    def build(self) -> Solver:
        """The solver, in the current folder, its parameters as they were before training."""
        Path("net.prototxt").write_text(str(self.arrays["net"]), encoding="utf-8")
        Path("solver.prototxt").write_text(self.solver, encoding="utf-8")
        solver = Solver("solver.prototxt")
        for key, values in self.params("init").items():
            param_of(solver, key).data[...] = values
        return solver

    def step(self, solver: Solver) -> None:
        """The next iteration, on its own batch."""
        solver.net.blobs["x"].data[...] = self.arrays["X"][solver.iter]
        solver.net.blobs["lab"].data[...] = self.arrays["Y"][solver.iter]
        solver.step(1)

    def check(self, solver: Solver) -> None:
        """Compare the parameters with those Caffe had after as many updates."""
        for key, values in self.params(f"iter{solver.iter}").items():
            np.testing.assert_allclose(
                param_of(solver, key).data,
                values,
                rtol=RTOL,
                atol=ATOL,
                err_msg=f"{key} after {solver.iter} updates",
            )


def param_of(solver: Solver, key: str) -> Any:
    layer, _, index = key.rpartition("/")
    return solver.net.params[layer][int(index)]


CASES = [Case(path) for path in sorted(FOLDER.glob("*.npz"))]
RUNS = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@RUNS
def test_training_agrees_with_caffe(case: Case) -> None:
    solver = case.build()
    for k in range(case.iterations):
        case.step(solver)
        loss = solver.net.blobs["loss"].data
        np.testing.assert_allclose(loss, case.arrays["loss"][k], rtol=RTOL)
        case.check(solver)
    assert solver.iter == case.iterations


@RUNS
def test_training_goes_on_from_a_snapshot_of_caffe(case: Case) -> None:
    solver = case.build()
    for blobs in solver.net.params.values():
        for blob in blobs:
            blob.data[...] = 7
    shutil.copy(case.state, case.state.name)
    # The state names the model as it was called when Caffe wrote it.
    shutil.copy(case.model, f"snap_iter_{case.snapshot_iter}{''.join(case.model.suffixes)}")
    solver.restore(case.state.name)
    assert solver.iter == case.snapshot_iter
    case.check(solver)
    while solver.iter < case.iterations:
        case.step(solver)
        case.check(solver)


@RUNS
def test_a_snapshot_holds_what_caffe_would_write(case: Case) -> None:
    solver = case.build()
    while solver.iter < case.snapshot_iter:
        case.step(solver)
    path = Path(solver.snapshot())
    ours, theirs = snapshot.read_state(path), snapshot.read_state(case.state)
    assert path.suffix == case.state.suffix
    assert (ours.iteration, ours.learned_net) == (theirs.iteration, theirs.learned_net)
    assert ours.current_step == theirs.current_step
    assert len(ours.history) == len(theirs.history)
    for mine, wanted in zip(ours.history, theirs.history, strict=True):
        assert mine.shape == wanted.shape
        np.testing.assert_allclose(mine, wanted, rtol=RTOL, atol=ATOL)
    for mine, wanted in zip(
        weights.read_weights(ours.learned_net), weights.read_weights(case.model), strict=True
    ):
        assert mine.name == wanted.name
        for a, b in zip(mine.blobs, wanted.blobs, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a.data, b.data, rtol=RTOL, atol=ATOL)


def test_the_folder_is_whole() -> None:
    assert len(CASES) == 13
