"""All update rules at once: how they are found, documented, and offered to pycaffe scripts."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import numpy as np
import pytest

import netdef
from netdef import prototxt
from netdef.errors import SolverError
from netdef.proto import netdef_pb2 as pb
from netdef.solver import Solver
from netdef.solvers import rule
from netdef.upgrade import SOLVER_TYPES

RULES = pytest.mark.parametrize("name", rule.rules())


def test_all_rules_of_caffe_are_there() -> None:
    assert set(rule.rules()) == set(SOLVER_TYPES.values())


@RULES
def test_names_are_written_as_caffe_writes_them(name: str) -> None:
    for wrong in (name.upper(), name.lower()):
        if wrong == name:
            continue
        with pytest.raises(SolverError, match=f'unknown solver type "{wrong}"') as caught:
            rule.create(pb.SolverParameter(type=wrong), np.float32)
        assert caught.value.diagnostics[0].hint == f'did you mean "{name}"?'


@RULES
def test_the_page_of_a_rule(name: str) -> None:
    page = inspect.getdoc(rule.rules()[name])
    assert page is not None
    first, formula, fields, *rest = page.split("\n\n")
    assert first.endswith(".")
    assert formula.startswith("    ")
    rows = textwrap.dedent(fields).splitlines()
    assert rows[0].startswith("fields   ")
    assert rows[-1].startswith("history  ")
    for row in rows[:-1]:
        assert row[9:].split()[0] in pb.SolverParameter.DESCRIPTOR.fields_by_name
    assert len(rows[-1].split(", then")) == rule.rules()[name].histories
    assert rest[-1].startswith("Source: ")
    example = textwrap.dedent(rest[rest.index("Example::") + 1])
    document = prototxt.parse(example, pb.SolverParameter)
    assert document.warnings == []
    assert document.message.type == name
    assert isinstance(rule.create(document.message, np.float32), rule.rules()[name])


@RULES
def test_a_class_for_pycaffe_scripts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
        "inner_product_param { num_output: 1 } } "
        'input: "x" input_shape { dim: 1 dim: 1 }'
    )
    Path("solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" type: "{name}"'
    )
    made = getattr(netdef, f"{name}Solver")("solver.prototxt")
    assert isinstance(made, Solver)
    assert repr(made) == f"<{name}Solver solver.prototxt at iteration 0>"
    assert f"{name}Solver" in netdef.__all__
    # The class decides, as in pycaffe; the old numbers are names, too.
    number = next(k for k, v in SOLVER_TYPES.items() if v == name)
    text = Path("solver.prototxt").read_text()
    for other in ('type: "SGD"', f"solver_type: {pb.SolverParameter.SolverType.Name(number)}"):
        Path("solver.prototxt").write_text(text.replace(f'type: "{name}"', other))
        assert getattr(netdef, f"{name}Solver")("solver.prototxt").param.type == name
    assert netdef.get_solver("solver.prototxt")._rule.type == name


@RULES
def test_a_recipe_for_every_rule(name: str) -> None:
    recipes = [
        prototxt.read(path, pb.SolverParameter)
        for path in (Path(__file__).parents[2] / "solvers").glob("*.prototxt")
    ]
    mine = [document for document in recipes if document.message.type == name]
    assert mine
    for document in mine:
        rule.create(document.message, np.float32, document.positions)


def test_a_rule_of_another_file_cannot_take_a_name() -> None:
    class Other(rule.Rule):
        pass

    with pytest.raises(RuntimeError, match='update rule "SGD" is registered by'):
        rule.rule("SGD")(Other)
