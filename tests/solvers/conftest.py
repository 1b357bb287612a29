"""What the tests of all update rules share: a net to train, and what its gradients must be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from netdef.errors import SolverError
from netdef.proto import netdef_pb2 as pb
from netdef.solver import Solver
from netdef.solvers import rule
from netdef.testing import threads

#: A linear fit: loss = |x W' + b - y|^2 / 2N. The bias learns at its own rate, without decay.
NET = """
layer {
  name: "in" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  param { lr_mult: 0.5 decay_mult: 2 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param {
    num_output: 2 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }
  }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""

#: rule(g, history, rate, t): what is subtracted from the weights by update number t, from 1;
#: ``history`` is a list of float64 arrays to be changed in place.
Reference: TypeAlias = Callable[[Any, list[Any], float, int], Any]

STEPS = 5


def follow(text: str, reference: Reference, decay: str, iter_size: int, dtype: type[Any]) -> None:
    """Train the fit, and beside it in plain numpy, and compare after every update."""
    Path("net.prototxt").write_text(NET, encoding="utf-8")
    Path("solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: 0.125 lr_policy: "step" gamma: 0.5 stepsize: 2 '
        f"random_seed: 3 iter_size: {iter_size} {decay} {text}",
        encoding="utf-8",
    )
    solver = Solver("solver.prototxt", dtype=dtype)
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((STEPS, 4, n)).astype(np.float32) for n in (3, 2))
    params = [blob.data.astype(np.float64) for blob in solver.net.params["ip"]]
    histories = [[np.zeros_like(p) for _ in range(solver._rule.histories)] for p in params]
    for step in range(STEPS):
        solver.net.blobs["x"].data[...] = x[step]
        solver.net.blobs["y"].data[...] = y[step]
        solver.step(1)
        residual = x[step] @ params[0].T + params[1] - y[step]
        gradients = [residual.T @ x[step] / 4, residual.sum(axis=0) / 4]
        for i, (lr_mult, decay_mult) in enumerate([(0.5, 2), (2, 0)]):
            strength = solver.param.weight_decay * decay_mult
            l1 = solver.param.regularization_type == "L1"
            gradients[i] += strength * (np.sign(params[i]) if l1 else params[i])
            rate = 0.125 * 0.5 ** (step // 2) * lr_mult
            params[i] -= reference(gradients[i], histories[i], rate, step + 1)
        tolerance = 2e-5 if dtype == np.float32 else 1e-10
        for blob, expected in zip(solver.net.params["ip"], params, strict=True):
            np.testing.assert_allclose(blob.data, expected, rtol=tolerance, atol=tolerance / 10)
        state = solver._state()
        # All first histories, then all second ones.
        expected = [h[k] for k in range(solver._rule.histories) for h in histories]
        for found, wanted in zip(state.history, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=10 * tolerance, atol=tolerance / 10)
    solver.close()


@pytest.fixture
def agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``agrees(text, reference)``: training by the solver fields in ``text`` follows the reference.

    With L2 and L1 decay and without, with gradients of one pass and of three, in both types.
    """
    monkeypatch.chdir(tmp_path)

    def run(text: str, reference: Reference) -> None:
        decays = ["", "weight_decay: 0.25", 'weight_decay: 0.25 regularization_type: "L1"']
        for decay, iter_size, dtype in product(decays, [1, 3], [np.float32, np.float64]):
            follow(text, reference, decay, iter_size, dtype)

    return run


class Update:
    """One update of many values at once, with ``decay``: what it reads, and what it leaves."""

    SIZE = 10_001

    def __init__(self, text: str, dtype: type[Any] = np.float32, count: int | None = 1) -> None:
        self.solver = pb.SolverParameter()
        for field, value in (pair.split(": ") for pair in text.split(", ")):
            setattr(self.solver, field, value.strip('"') if '"' in value else float(value))
        self.rule = rule.create(self.solver, dtype)
        random = np.random.default_rng(0)
        draw = random.standard_normal((4, self.SIZE)).astype(dtype)
        self.w, self.dw = draw[:2]
        self.history = [abs(values) for values in draw[2 : 2 + self.rule.histories]]
        self.rate = dtype(0.0317)
        self.decay = rule.Decay(dtype(0.3), dtype(0.0123), dtype(0))
        self.before = self.w.copy(), self.dw.copy(), [h.copy() for h in self.history]
        with threads(count):
            rate = float(self.rate)
            self.rule.update(rule.Update(self.w, self.dw, self.history, rate, self.decay, 6))

    @property
    def gradient(self) -> Any:
        w, dw, _ = self.before
        return fused(self.decay.l2, w, self.decay.scale * dw)


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c in one rounding: in float64 the product of two float32 is exact."""
    wide = np.float64(a) * np.float64(b) + np.float64(c)
    return np.float32(wide)


@pytest.fixture
def rounds() -> Callable[..., None]:
    """``rounds(text, exact)``: an update gives ``exact``, bit for bit, on any number of threads.

    ``exact(g, history, rate, fused)`` gives the step and the new history in float32.
    """

    def run(text: str, exact: Callable[..., tuple[Any, list[Any]]]) -> None:
        one, all_threads = Update(text), Update(text, count=None)
        w, _, history = one.before
        step, new = exact(one.gradient, history, one.rate, fused)
        for update in (one, all_threads):
            for found, wanted in zip(update.history, new, strict=True):
                np.testing.assert_array_equal(found, wanted)
            np.testing.assert_array_equal(update.dw, step)
            np.testing.assert_array_equal(update.w, w - step)

    return run


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, str]]:
    """``refused(fields)``: what a solver with these fields is told, and what that points at."""
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> tuple[str, str]:
        Path("net.prototxt").write_text(NET, encoding="utf-8")
        usual = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed"'
        Path("solver.prototxt").write_text(f"{usual}\n{text}\n", encoding="utf-8")
        with pytest.raises(SolverError) as caught:
            Solver("solver.prototxt")
        (found,) = caught.value.diagnostics
        assert found.location is not None
        return found.message, found.location.source[found.location.column - 1 :]

    return run
