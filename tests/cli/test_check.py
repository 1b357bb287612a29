"""``netdef check``: exit status, JSON for programs, and what ``--lenient`` lets pass."""

from __future__ import annotations

import json
from typing import Any

GOOD = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 2] } } }\n'
BAD = GOOD + 'layer { name: "a" type: "Tile" bottom: "x" top: "a" }\n'
UNKNOWN = GOOD + "frob: 1\n"


def test_every_file_is_checked_and_one_error_is_an_error(cli: Any) -> None:
    for name, text in (("good", GOOD), ("bad", BAD), ("unknown", UNKNOWN)):
        cli.write(f"{name}.prototxt", text)
    assert cli.succeed("check", "good.prototxt") == "good.prototxt: net, ok\n"
    said = cli.mistake("check", "bad.prototxt", "unknown.prototxt", "good.prototxt", errors=2)
    assert "--> bad.prototxt:2:" in said
    assert "bad.prototxt: net, 1 error\n" in said
    assert "unknown.prototxt: 1 error\n" in said
    assert "good.prototxt: net, ok\n" in said
    said = cli.succeed("check", "--lenient", "unknown.prototxt")
    assert "warning[E012]" in said
    assert "unknown.prototxt: net, ok, 1 warning\n" in said


def test_json_is_one_object_a_line_and_file(cli: Any) -> None:
    cli.write("bad.prototxt", BAD + "layer { type: ReLU name: 'r' bottom: 'x' top: 'r' }")
    cli.write("good.prototxt", GOOD)
    result = cli.invoke("check", "--json", "bad.prototxt", "good.prototxt", "none.prototxt")
    assert result.exit_code == 1
    bad, good, none = map(json.loads, result.output.splitlines())
    assert good == {"file": "good.prototxt", "ok": True, "errors": [], "warnings": []}
    assert list(bad) == ["file", "ok", "errors", "warnings"]
    (error,) = bad["errors"]
    assert error == {
        "line": 2,
        "column": 1,
        "code": "E100",
        "message": 'layer "a" (Tile): tiles is missing',
    }
    (warning,) = bad["warnings"]
    assert (warning["line"], warning["column"], warning["code"]) == (3, 15, "E013")
    assert none["ok"] is False
    assert (none["errors"][0]["line"], none["errors"][0]["code"]) == (1, "E001")


def test_nets_that_run_refuse_what_check_warns_of(cli: Any, net: str) -> None:
    cli.write("net.prototxt", net.replace("num_output: 16", "num_output: 16 output_scale: 2"))
    assert "warning[E132]" in cli.succeed("check", "net.prototxt")
    said = cli.mistake("train", "solver.prototxt")
    assert "inner_product_param.output_scale comes from a fork" in said
    cli.succeed("train", "solver.prototxt", "--lenient")
    solver = cli.solver("min.prototxt", min_lr="0.1")
    cli.write("net.prototxt", net)
    assert "min_lr comes from a fork" in cli.mistake("train", solver)
