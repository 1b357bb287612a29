"""How a mistake is told: where, what was given, what was probably meant."""

from __future__ import annotations

import inspect

import pytest

from netdef import errors
from netdef.errors import (
    WIDEST_SOURCE_LINE,
    DataError,
    Diagnostic,
    Location,
    NetdefError,
    NetError,
    OutputError,
    PrototxtError,
    SolverError,
    WeightsError,
    did_you_mean,
    name_some,
)

SOURCE = '  type: "Convolutoin"'


def test_a_message_alone() -> None:
    assert str(Diagnostic("E100", "it is wrong")) == "error[E100]: it is wrong"


def test_a_message_with_a_hint() -> None:
    found = Diagnostic("E100", "it is wrong", hint="mend it")
    assert str(found) == "error[E100]: it is wrong\n  hint: mend it"


def test_a_place_in_a_file() -> None:
    found = Diagnostic(
        "E101", "unknown type", Location("net.prototxt", 12, 9, 13, SOURCE), "did you mean X?"
    )
    assert str(found) == (
        "error[E101]: unknown type\n"
        "  --> net.prototxt:12:9\n"
        '12 |   type: "Convolutoin"\n'
        "   |         ^^^^^^^^^^^^^ did you mean X?"
    )


def test_what_could_upset_a_terminal_is_replaced() -> None:
    where = Location("n\x1b.prototxt", 1, 1, 1, "x")
    found = str(Diagnostic("E101", "m\x1b[2J\n\udcff", where, "h\x07"))
    assert found == (
        "error[E101]: m\ufffd[2J\ufffd\ufffd\n  --> n\ufffd.prototxt:1:1\n1 | x\n  | ^ h\ufffd"
    )


def test_a_place_without_its_line() -> None:
    found = Diagnostic("E101", "m", Location("n.prototxt", 3, 1), "h")
    assert str(found) == "error[E101]: m\n  --> n.prototxt:3:1\n  hint: h"


def test_carets_without_a_hint_end_the_line() -> None:
    lines = str(Diagnostic("E1", "m", Location("f", 1, 1, 3, "abcdef"))).splitlines()
    assert lines[-1] == "  | ^^^"


@pytest.mark.parametrize(("length", "carets"), [(0, 1), (1, 1), (4, 4), (100, 4)])
def test_carets_stay_under_the_line(length: int, carets: int) -> None:
    lines = str(Diagnostic("E1", "m", Location("f", 1, 3, length, "abcdef"))).splitlines()
    assert lines[-1] == "  |   " + "^" * carets


def test_tabs_keep_their_width() -> None:
    lines = str(Diagnostic("E1", "m", Location("f", 1, 3, 1, "\t\tx: 1"))).splitlines()
    assert lines[-2:] == ["1 | \t\tx: 1", "  | \t\t^"]


@pytest.mark.parametrize("column", [1, 40, 500, 960, 1000])
def test_of_a_long_line_only_the_part_around_the_place(column: int) -> None:
    source = "".join(chr(ord("a") + i % 26) for i in range(1000))
    text = str(Diagnostic("E1", "m", Location("f", 7, column, 1, source)))
    _, where, line, carets = text.splitlines()
    assert where == f"  --> f:7:{column}"
    shown = line.removeprefix("7 | ")
    assert len(shown) <= WIDEST_SOURCE_LINE + len("......")
    assert shown.startswith("...") == (column > 61)
    assert shown.endswith("...") == (column < 941)
    assert shown[carets.index("^") - len("7 | ")] == source[column - 1]


def test_a_warning() -> None:
    assert str(Diagnostic("E203", "odd", severity="warning")) == "warning[E203]: odd"


def test_one_mistake() -> None:
    where = Location("f", 1, 2)
    error = NetError("bad", location=where, hint="h", code="E130")
    assert error.diagnostics == [Diagnostic("E130", "bad", where, "h")]
    assert str(error) == str(error.diagnostics[0])


def test_several_mistakes() -> None:
    found = [Diagnostic("E1", "a"), Diagnostic("E2", "b")]
    error = PrototxtError(diagnostics=iter(found))
    assert error.diagnostics == found
    assert str(error) == "error[E1]: a\n\nerror[E2]: b"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (NetdefError, "E000"),
        (PrototxtError, "E001"),
        (NetError, "E100"),
        (SolverError, "E200"),
        (DataError, "E300"),
        (WeightsError, "E400"),
        (OutputError, "E500"),
    ],
)
def test_codes(kind: type[NetdefError], code: str) -> None:
    assert kind("m").diagnostics[0].code == code
    assert issubclass(kind, NetdefError)
    assert not issubclass(kind, OSError)


def test_the_tree_in_the_docstring_is_whole() -> None:
    assert errors.__doc__ is not None
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, NetdefError):
            assert name in errors.__doc__, name


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("Convolutoin", 'did you mean "Convolution"?'),
        ("convolution", 'did you mean "Convolution"?'),
        ("RELU", 'did you mean "ReLU"?'),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(given: str, hint: str) -> None:
    assert did_you_mean(given, ["Convolution", "ReLU", "Pooling"]) == hint


def test_did_you_mean_nothing() -> None:
    assert did_you_mean("x", []) == ""


def test_a_list_for_a_line() -> None:
    assert name_some([]) == ""
    assert name_some("abcde") == "a, b, c, d, e"
    assert name_some("abcdefg") == "a, b, c, d, e, 2 more"
