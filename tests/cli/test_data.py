"""``netdef data``."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from netdef.data import digits, mnist
from netdef.errors import DataError, OutputError
from netdef_cli import data as command


def run(*arguments: object, raises: type[Exception] | None = None) -> str:
    result = CliRunner().invoke(command.data, [str(a) for a in arguments])
    if raises is not None:
        assert isinstance(result.exception, raises), result.output
        return str(result.exception)
    assert result.exception is None, result.output
    return result.output


def test_digits(tmp_path: Path) -> None:
    output = run("digits", tmp_path / "new", "--train", 60, "--test", 20, "--seed", 3)
    assert "wrote 60 images to" in output
    assert "netdef train --solver" in output
    assert sorted(os.listdir(tmp_path / "new")) == ["digits_test_lmdb", "digits_train_lmdb"]


def test_digits_are_the_same_twice_and_replaced_by_force_only(tmp_path: Path) -> None:
    sizes = ("--train", 40, "--test", 10)
    run("digits", tmp_path, *sizes)
    first = (tmp_path / "digits_train_lmdb" / "data.mdb").read_bytes()
    assert "exists already" in run("digits", tmp_path, *sizes, raises=OutputError)
    run("digits", tmp_path, *sizes, "--force")
    assert (tmp_path / "digits_train_lmdb" / "data.mdb").read_bytes() == first
    run("digits", tmp_path, *sizes, "--force", "--seed", 1)
    assert (tmp_path / "digits_train_lmdb" / "data.mdb").read_bytes() != first


def test_one_database_in_the_way_leaves_neither(tmp_path: Path) -> None:
    (tmp_path / "digits_test_lmdb").write_text("")
    run("digits", tmp_path, "--train", 10, "--test", 10, raises=OutputError)
    assert os.listdir(tmp_path) == ["digits_test_lmdb"]


def test_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = run("digits", tmp_path / "file", "--train", 1, "--test", 1, raises=OutputError)
    assert "it is a file, not a folder" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["digits"],
        ["digits", "x", "--train", "0"],
        ["digits", "x", "--test", "1000001"],
        ["digits", "x", "--seed", "-1"],
        ["digits", "x", "--seed", str(2**64)],
        ["mnist", "x", "--from", "y", "--url", "http://z/"],
        ["mnist", "x", "--no-verify"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(command.data, arguments).exit_code == 2


def test_limits_are_those_of_the_library() -> None:
    assert command.MOST_DIGITS == digits.MOST_IMAGES
    assert command.LARGEST_SEED == digits.LARGEST_SEED


def test_mnist_in_its_format_from_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "fashion"
    source.mkdir()
    for file in mnist.FILES:
        shape = (2, 3, 4)[: file.dimensions]
        head = b"".join(n.to_bytes(4, "big") for n in (0x0800 + len(shape), *shape))
        body = bytes(24 if file.dimensions == 3 else 2)
        (source / file.name).write_bytes(gzip.compress(head + body))
    out = tmp_path / "out"
    assert "known by" in run("mnist", out, "--from", source, raises=DataError)
    assert not out.exists()
    assert "wrote 2 images to" in run("mnist", out, "--from", source, "--no-verify")
    assert sorted(os.listdir(out)) == ["mnist_test_lmdb", "mnist_train_lmdb"]


def test_own_mirrors_are_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:1/public/",))
    message = run("mnist", tmp_path, "--url", "http://127.0.0.1:2/own", raises=DataError)
    assert message.index("127.0.0.1:2") < message.index("127.0.0.1:1")


def test_help_does_not_load_the_library() -> None:
    script = (
        "import sys, netdef_cli.data\n"
        "print([name for name in ('numpy', 'numba', 'lmdb', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
