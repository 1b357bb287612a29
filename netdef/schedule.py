"""Learning-rate policies: pure functions of the iteration; a resumed run has nothing to remember.

``rate`` computes, ``check`` tells before training what would go wrong. Rates are computed in
float32, rounded where Caffe rounds, so that the two agree in every digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netdef.errors import Diagnostic, Location, SolverError, did_you_mean
from netdef.proto import netdef_pb2 as pb

if TYPE_CHECKING:
    from netdef.prototxt import Positions

ONE = np.float32(1)


def fixed(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr"""
    return solver.base_lr


def step(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr * gamma ^ floor(iteration / stepsize)"""
    return _decayed(solver, iteration // solver.stepsize)


def exp(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr * gamma ^ iteration"""
    return _decayed(solver, iteration)


def inv(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr * (1 + gamma * iteration) ^ -power"""
    base = ONE + np.float32(solver.gamma) * np.float32(iteration)
    return float(np.float32(solver.base_lr) * np.float32(_power(base, -solver.power)))


def multistep(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr * gamma ^ (number of stepvalues reached)"""
    return _decayed(solver, multistep_step(solver, iteration))


def poly(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr * (1 - iteration / max_iter) ^ power"""
    if iteration > solver.max_iter:
        raise SolverError(
            f'lr_policy "poly" ends at max_iter: iteration {iteration} is past {solver.max_iter}',
            code="E204",
            hint="raise max_iter",
        )
    base = ONE - np.float32(iteration) / np.float32(solver.max_iter)
    return float(np.float32(solver.base_lr) * np.float32(_power(base, solver.power)))


def sigmoid(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr / (1 + e ^ (-gamma * (iteration - stepsize)))"""
    past = np.float32(iteration) - np.float32(solver.stepsize)
    share = ONE / (ONE + np.exp(np.float32(-solver.gamma) * past))
    return float(np.float32(solver.base_lr) * share)


def _decayed(solver: pb.SolverParameter, steps: int) -> float:
    # Caffe takes this power, whose exponent is an integer, in double.
    return float(np.float32(solver.base_lr * _power(solver.gamma, steps)))


def _power(base: float | np.float32, exponent: float) -> float:
    """``base ^ exponent`` as in C: nan and infinity where Python would raise or turn complex."""
    return float(np.power(np.float64(base), np.float64(exponent)))


Policy = Callable[[pb.SolverParameter, int], float]

#: Every lr_policy by its name in a solver file; the docstrings are the formulas.
POLICIES: dict[str, Policy] = {
    policy.__name__: policy for policy in (fixed, step, exp, inv, multistep, poly, sigmoid)
}


def rate(solver: pb.SolverParameter, iteration: int) -> float:
    """The learning rate of the update that ends ``iteration``, which counts from 0.

    Raises SolverError for an unknown lr_policy, and for "poly" past max_iter; the rest is for
    :func:`check` to look at.
    """
    policy = POLICIES.get(solver.lr_policy)
    if policy is None:
        raise SolverError(diagnostics=[_unknown(solver.lr_policy, None)])
    with np.errstate(all="ignore"):
        return policy(solver, iteration)


def multistep_step(solver: pb.SolverParameter, iteration: int) -> int:
    """How many stepvalues have been reached at ``iteration``.

    As in Caffe, an iteration takes one step at most: of two equal stepvalues, the second is reached
    one iteration after the first, and so is one that is smaller than the one before it.
    """
    reached = -1
    for count, value in enumerate(solver.stepvalue):
        reached = max(value, reached + 1)
        if reached > iteration:
            return count
    return len(solver.stepvalue)


@dataclass(frozen=True)
class _Needs:
    """What a policy reads besides base_lr.

    ``required``: Caffe stops, or computes nan, where the field is missing or not positive.
    ``expected``: Caffe silently takes 0, with the effect named.
    """

    required: tuple[str, ...] = ()
    expected: tuple[tuple[str, str], ...] = ()


_ZERO_AFTER = "the learning rate is 0 after"
_CONSTANT = "the learning rate never changes"

_NEEDS = {
    "fixed": _Needs(),
    "step": _Needs(("stepsize",), (("gamma", f"{_ZERO_AFTER} the first step"),)),
    "exp": _Needs((), (("gamma", f"{_ZERO_AFTER} iteration 0"),)),
    "inv": _Needs((), (("gamma", _CONSTANT), ("power", _CONSTANT))),
    "multistep": _Needs(
        (), (("gamma", f"{_ZERO_AFTER} the first stepvalue"), ("stepvalue", _CONSTANT))
    ),
    "poly": _Needs(("max_iter",), (("power", _CONSTANT),)),
    "sigmoid": _Needs(("stepsize",), (("gamma", "the learning rate is always half of base_lr"),)),
}

#: Policies of Caffe's forks, which people bring along in their solver files.
_OF_FORKS = {
    "plateau": "it comes from a fork of Caffe; multistep with the steps written out is the closest",
    "sgdr": "it comes from a fork of Caffe; poly is the closest without restarts",
    "multifixed": "it comes from a fork of Caffe; multistep is the closest",
}


def check(solver: pb.SolverParameter, positions: Positions | None = None) -> list[Diagnostic]:
    """What is wrong with the learning-rate fields of ``solver``.

    Where Caffe would train, if oddly, this warns; where it would stop, divide by zero or arrive at
    a rate that is no number, it refuses.

    Returns:
        Warnings, located where ``positions`` are given.

    Raises:
        SolverError: all mistakes found, with the codes E201 (unknown lr_policy), E202 (a field is
            missing), E203 (a value makes no sense) and E204 (the rate is not a number at some
            iteration).
    """

    def at(*path: str | int) -> Location | None:
        return positions.at(*path) if positions is not None else None

    errors: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    needs = _NEEDS.get(solver.lr_policy)
    if needs is None:
        errors.append(_unknown(solver.lr_policy, at("lr_policy")))
        needs = _Needs()
    named = f'lr_policy "{solver.lr_policy}"'
    if not solver.HasField("base_lr"):
        errors.append(
            Diagnostic("E202", "the solver has no base_lr", at(), "add one, such as  base_lr: 0.01")
        )
    for name in needs.required:
        if not solver.HasField(name):
            errors.append(Diagnostic("E202", f"{named} needs {name}", at("lr_policy")))
        elif getattr(solver, name) <= 0:
            given = getattr(solver, name)
            message = f"{named} needs a positive {name}, not {given}"
            errors.append(Diagnostic("E203", message, at(name)))
    for name, effect in needs.expected:
        missing = not solver.stepvalue if name == "stepvalue" else not solver.HasField(name)
        if missing:
            message = f"{named} has no {name}: {effect}"
            warnings.append(Diagnostic("E202", message, at("lr_policy"), severity="warning"))
        elif name == "gamma" and solver.gamma < 0:
            message = f"{named} needs a gamma of 0 or more, not {solver.gamma:g}"
            errors.append(Diagnostic("E203", message, at("gamma")))
    if solver.lr_policy == "multistep":
        errors += _negative_stepvalues(solver, at)
        warnings += _unordered_stepvalues(solver, at)
    if not errors:
        errors += _not_finite(solver, at)
    if errors:
        raise SolverError(diagnostics=errors)
    return warnings


_At = Callable[..., "Location | None"]


def _unknown(given: str, location: Location | None) -> Diagnostic:
    known = ", ".join(POLICIES)
    if not given:
        return Diagnostic("E201", f"the solver has no lr_policy; there are {known}", location)
    hint = _OF_FORKS.get(given) or did_you_mean(given, POLICIES)
    return Diagnostic("E201", f'unknown lr_policy "{given}"; there are {known}', location, hint)


def _negative_stepvalues(solver: pb.SolverParameter, at: _At) -> list[Diagnostic]:
    return [
        Diagnostic("E203", f"stepvalue {value} is negative", at("stepvalue", i))
        for i, value in enumerate(solver.stepvalue)
        if value < 0
    ]


def _unordered_stepvalues(solver: pb.SolverParameter, at: _At) -> list[Diagnostic]:
    """One warning per stepvalue that is not above all before it, saying when it takes effect."""
    found = []
    reached = -1
    for i, value in enumerate(solver.stepvalue):
        if value <= reached:
            message = (
                f"stepvalue {value} does not come after the one before it: "
                f"that step is taken at iteration {reached + 1}"
            )
            found.append(Diagnostic("E203", message, at("stepvalue", i), severity="warning"))
        reached = max(value, reached + 1)
    return found


def _not_finite(solver: pb.SolverParameter, at: _At) -> list[Diagnostic]:
    # Every policy is monotonic, so nothing is worse between the first iteration and the last.
    for iteration in (0, max(solver.max_iter - 1, 0)):
        value = rate(solver, iteration)
        if not math.isfinite(value):
            message = f"the learning rate at iteration {iteration} would be {value:g}"
            wrong = "lr_policy" if math.isfinite(solver.base_lr) else "base_lr"
            return [Diagnostic("E204", message, at(wrong))]
    return []
