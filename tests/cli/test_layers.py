"""``netdef layers``: the list, a page, and names that are not quite right."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from netdef import reference
from netdef.layer import layer_types


def test_the_list_has_every_type(cli: Any) -> None:
    lines = cli.succeed("layers").splitlines()
    assert [line.split()[0] for line in lines] == list(layer_types())
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("given", ["InnerProduct", "innerproduct", "INNER_PRODUCT"])
def test_a_type_is_explained(cli: Any, given: str) -> None:
    assert cli.succeed("layers", given) == reference.layer_page("InnerProduct")


@pytest.mark.parametrize(("options", "raw"), [([], False), (["--markdown"], True)])
def test_on_a_terminal_it_is_laid_out(cli: Any, options: list[str], raw: bool) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = cli.run("layers", "ReLU", *options, stdout=theirs)
        os.close(theirs)
        shown = b""
        # Linux reports the end of a terminal as an error.
        with suppress(OSError):
            while part := terminal.read(4096):
                shown += part
    assert done.returncode == 0
    assert b"negative_slope" in shown
    assert (b"|---|" in shown) == raw


def test_an_unknown_type_gets_a_hint(cli: Any) -> None:
    said = cli.mistake("layers", "Convolutoin")
    assert 'there is no layer type "Convolutoin"' in said
    assert 'did you mean "Convolution"?' in said


def test_python_runs_the_package() -> None:
    command = [sys.executable, "-m", "netdef", "layers", "ReLU"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == reference.layer_page("ReLU")
