"""Learning-rate policies against Caffe's log and against their formulas."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from netdef import prototxt, schedule
from netdef.errors import Diagnostic, SolverError
from netdef.proto import netdef_pb2 as pb


def solver(text: str) -> pb.SolverParameter:
    return prototxt.parse(text, pb.SolverParameter).message


def errors(text: str) -> list[Diagnostic]:
    document = prototxt.parse(text, pb.SolverParameter, "s.prototxt")
    with pytest.raises(SolverError) as caught:
        schedule.check(document.message, document.positions)
    return caught.value.diagnostics


def test_rates_in_the_log_of_caffe(shared: Path) -> None:
    folder = shared / "reference" / "lenet"
    lenet = prototxt.read(folder / "solver_200.prototxt", pb.SolverParameter).message
    printed = re.findall(r"Iteration (\d+), lr = (\S+)", (folder / "caffe_200.log").read_text())
    assert len(printed) == 200
    for iteration, rate in printed:
        assert f"{schedule.rate(lenet, int(iteration)):g}" == rate, iteration


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ('lr_policy: "fixed"', lambda i: 1.0),
        ('lr_policy: "step" gamma: 0.5 stepsize: 30', lambda i: 0.5 ** (i // 30)),
        ('lr_policy: "exp" gamma: 0.99', lambda i: 0.99**i),
        ('lr_policy: "inv" gamma: 0.01 power: 0.75', lambda i: (1 + 0.01 * i) ** -0.75),
        (
            'lr_policy: "multistep" gamma: 0.1 stepvalue: 10 stepvalue: 50',
            lambda i: 0.1 ** ((i >= 10) + (i >= 50)),
        ),
        ('lr_policy: "poly" power: 2 max_iter: 100', lambda i: (1 - i / 100) ** 2),
        (
            'lr_policy: "sigmoid" gamma: 0.1 stepsize: 50',
            lambda i: 1 / (1 + math.exp(-0.1 * (i - 50))),
        ),
    ],
    ids=lambda value: re.findall(r'"(.*)"', value)[0] if isinstance(value, str) else "",
)
def test_formula(text: str, formula) -> None:  # type: ignore[no-untyped-def]
    message = solver(f"base_lr: 0.25 {text}")
    assert schedule.check(message) == []
    for iteration in range(100):
        rate = schedule.rate(message, iteration)
        assert rate == pytest.approx(0.25 * formula(iteration), rel=1e-5)
        assert rate == np.float32(rate)


def test_every_policy_is_documented_by_its_formula() -> None:
    assert list(schedule.POLICIES) == [
        "fixed",
        "step",
        "exp",
        "inv",
        "multistep",
        "poly",
        "sigmoid",
    ]
    assert all("base_lr" in (policy.__doc__ or "") for policy in schedule.POLICIES.values())


def caffe_steps(stepvalues: list[int], iterations: int) -> list[int]:
    """Caffe's own loop: the step reached is kept, and looked at once an iteration."""
    step, steps = 0, []
    for iteration in range(iterations):
        if step < len(stepvalues) and iteration >= stepvalues[step]:
            step += 1
        steps.append(step)
    return steps


@pytest.mark.parametrize("stepvalues", [[], [0], [3, 7], [5, 5, 5], [6, 2], [4, 5, 3, 9]])
def test_multistep_step_by_step(stepvalues: list[int]) -> None:
    message = pb.SolverParameter(stepvalue=stepvalues)
    ours = [schedule.multistep_step(message, iteration) for iteration in range(15)]
    assert ours == caffe_steps(stepvalues, 15)


def test_poly_ends_at_max_iter() -> None:
    message = solver('base_lr: 1 lr_policy: "poly" power: 0.5 max_iter: 10')
    assert schedule.rate(message, 10) == 0
    with pytest.raises(SolverError, match="iteration 11 is past 10"):
        schedule.rate(message, 11)


def test_far_ends_are_quiet() -> None:
    message = solver('base_lr: 1 lr_policy: "sigmoid" gamma: 100 stepsize: 100')
    assert schedule.rate(message, 0) == 0
    assert schedule.rate(message, 200) == 1
    message = solver('base_lr: 1 lr_policy: "exp" gamma: 1e30')
    assert schedule.rate(message, 2) == math.inf


def test_unknown_policy() -> None:
    (told,) = errors('base_lr: 1\nlr_policy: "stpe"')
    assert told.code == "E201"
    assert told.message.endswith("there are fixed, step, exp, inv, multistep, poly, sigmoid")
    assert told.hint == 'did you mean "step"?'
    assert told.location is not None
    assert told.location.line == 2
    with pytest.raises(SolverError, match="stpe"):
        schedule.rate(solver('lr_policy: "stpe"'), 0)
    (told,) = errors('base_lr: 1 lr_policy: "plateau"')
    assert "fork" in told.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_lr: 1", "the solver has no lr_policy; there are fixed, "),
        ('lr_policy: "fixed"', "the solver has no base_lr"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1', 'lr_policy "step" needs stepsize'),
        (
            'base_lr: 1 lr_policy: "step" gamma: 0.1 stepsize: 0',
            'lr_policy "step" needs a positive stepsize, not 0',
        ),
        ('base_lr: 1 lr_policy: "poly" power: 1', 'lr_policy "poly" needs max_iter'),
        ('base_lr: 1 lr_policy: "sigmoid" gamma: 1', 'lr_policy "sigmoid" needs stepsize'),
        (
            'base_lr: 1 lr_policy: "inv" gamma: -0.5 power: 1',
            'lr_policy "inv" needs a gamma of 0 or more, not -0.5',
        ),
        (
            'base_lr: 1 lr_policy: "multistep" gamma: 0.1 stepvalue: -5',
            "stepvalue -5 is negative",
        ),
        ('base_lr: nan lr_policy: "fixed"', "the learning rate at iteration 0 would be nan"),
        (
            'base_lr: 1 lr_policy: "exp" gamma: 2 max_iter: 1000',
            "the learning rate at iteration 999 would be inf",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    (told,) = errors(text)
    assert told.message.startswith(message)
    assert told.severity == "error"
    assert told.location is not None


def test_all_mistakes_at_once() -> None:
    told = errors('lr_policy: "step" gamma: -1')
    assert [diagnostic.code for diagnostic in told] == ["E202", "E202", "E203"]


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ('"step" stepsize: 5', ["has no gamma: the learning rate is 0 after the first step"]),
        ('"exp"', ["has no gamma: the learning rate is 0 after iteration 0"]),
        (
            '"inv"',
            [
                "has no gamma: the learning rate never changes",
                "has no power: the learning rate never changes",
            ],
        ),
        ('"multistep" gamma: 0.1', ["has no stepvalue: the learning rate never changes"]),
        ('"poly" max_iter: 9', ["has no power: the learning rate never changes"]),
        (
            '"sigmoid" stepsize: 5',
            ["has no gamma: the learning rate is always half of base_lr"],
        ),
        (
            '"multistep" gamma: 0.1 stepvalue: 5 stepvalue: 5 stepvalue: 2',
            [
                "stepvalue 5 does not come after the one before it: "
                "that step is taken at iteration 6",
                "stepvalue 2 does not come after the one before it: "
                "that step is taken at iteration 7",
            ],
        ),
    ],
)
def test_warned_where_caffe_trains(text: str, effects: list[str]) -> None:
    document = prototxt.parse(f"base_lr: 1 lr_policy: {text}", pb.SolverParameter)
    warnings = schedule.check(document.message, document.positions)
    assert [warning.severity for warning in warnings] == ["warning"] * len(effects)
    assert all(w.message.endswith(e) for w, e in zip(warnings, effects, strict=True))
    assert all(warning.location is not None for warning in warnings)


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ('"step" stepsize: 5', [1.0] * 5 + [0.0] * 5),
        ('"exp"', [1.0] + [0.0] * 9),
        ('"inv"', [1.0] * 10),
        ('"poly" max_iter: 9', [1.0] * 9),
        ('"sigmoid" stepsize: 5', [0.5] * 10),
    ],
)
def test_warnings_tell_the_truth(text: str, constant: list[float]) -> None:
    message = solver(f"base_lr: 1 lr_policy: {text}")
    assert [schedule.rate(message, i) for i in range(len(constant))] == constant
