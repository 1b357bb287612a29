"""What lies beside the code: prototxt that parses, documents that name what exists."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import click
import pytest

from netdef import forks, prototxt
from netdef.errors import PrototxtError
from netdef.layer import layer_types
from netdef.proto import netdef_pb2 as pb
from netdef_cli.main import main

REPOSITORY = Path(__file__).parent.parent

FOLDERS = (".", "docs", "models", "models/*", "solvers")
DOCUMENTS = sorted(path for folder in FOLDERS for path in REPOSITORY.glob(f"{folder}/*.md"))
PROTOTXT = sorted(
    path for folder in FOLDERS[1:] for path in REPOSITORY.glob(f"{folder}/*.prototxt")
)
SOLVERS = [path for path in PROTOTXT if path.parent.name == "solvers" or "solver" in path.stem]
NETS = [path for path in PROTOTXT if path not in SOLVERS]
MODELS = sorted(path for path in REPOSITORY.glob("models/*") if path.is_dir())
READMES = [REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md"]


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def read(path: str | Path) -> str:
    return (REPOSITORY / path).read_text("utf-8")


def code_blocks(path: Path, language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(path), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> set[str]:
    """What a document tells its reader to type: ``scripts/...`` and ``netdef ...``."""
    lines = [line for block in code_blocks(path, "sh") for line in re.split(r"\n|&&", block)]
    lines += re.findall(r"`([^`\n]+)`", read(path))
    command = re.compile(r"(PYTHON=\S+ )?(netdef|scripts/\w+|\.ci/run)(?=\s|$)")
    stripped = (line.partition(" #")[0].strip() for line in lines)
    return {line for line in stripped if command.match(line)}


@pytest.mark.parametrize("path", NETS, ids=name)
def test_every_net_parses_and_its_layers_exist(path: Path) -> None:
    document = prototxt.read(path, pb.NetParameter)
    assert document.warnings == []
    assert {layer.type for layer in document.message.layer} <= set(layer_types())


@pytest.mark.parametrize("path", SOLVERS, ids=name)
def test_every_solver_parses_and_its_net_exists(path: Path) -> None:
    document = prototxt.read(path, pb.SolverParameter)
    assert document.warnings == []
    assert REPOSITORY / document.message.net in NETS
    assert (REPOSITORY / document.message.snapshot_prefix).parent.is_dir()


def test_lenet_is_the_same_on_mnist_and_on_drawn_digits() -> None:
    mnist = read("models/lenet/train_val.prototxt").partition("\nname:")[2]
    digits = read("models/lenet/digits_train_val.prototxt").partition("\nname:")[2]
    assert mnist.replace("mnist", "digits") == digits


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_every_model_has_a_card(path: Path) -> None:
    head = read(path / "README.md").split("---\n")[1]
    fields = [line.partition(":")[0] for line in head.splitlines()]
    assert fields == ["name", "caffemodel", "caffemodel_url", "license", "sha1"]
    assert f"({path.name}/README.md)" in read("models/README.md")


def test_every_recipe_is_in_the_list_of_recipes() -> None:
    listed = re.findall(r"\]\((\w+\.prototxt)\)", read("solvers/README.md"))
    assert sorted(listed) == sorted(path.name for path in REPOSITORY.glob("solvers/*.prototxt"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", read(path)):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_files_of_the_repository_that_are_named_exist(path: Path) -> None:
    for named in re.findall(r"\b(?:models|solvers)/[\w/]+\.(?:prototxt|md)\b", read(path)):
        assert (REPOSITORY / named).is_file(), named


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_exist(path: Path) -> None:
    for command in commands(path):
        word, *rest = re.sub(r"^PYTHON=\S+ ", "", command).split()
        if word != "netdef":
            assert os.access(REPOSITORY / word, os.X_OK), command
        elif rest and re.fullmatch(r"[a-z]\w*", rest[0]):
            assert main.get_command(click.Context(main), rest[0]) is not None, command


def test_both_readmes_show_the_same_commands_and_code() -> None:
    assert commands(READMES[0]) == commands(READMES[1]) != set()
    # Comments and placeholders are translated.
    english, chinese = (
        [re.sub(r"#.*|<.*?>", "", block) for block in code_blocks(path, r"\w*")] for path in READMES
    )
    assert english == chinese


def test_the_readme_shows_what_netdef_says() -> None:
    _, net, solver, _, error, *_ = code_blocks(READMES[0])
    prototxt.parse(net, pb.NetParameter)
    prototxt.parse(solver, pb.SolverParameter)
    wrong = net.replace("num_output: 100", "num_outputs: 100")
    wrong = wrong.replace("phase: TEST", "phase: VALIDATION", 1)
    with pytest.raises(PrototxtError) as caught:
        prototxt.parse(wrong, pb.NetParameter, "digits.prototxt")
    assert str(caught.value) == error.rstrip()


@pytest.mark.parametrize("path", READMES, ids=name)
def test_the_readmes_count_the_layers(path: Path) -> None:
    (row,) = re.findall(r"^\| (?:layers|层) \|([^|]*)", read(path), re.MULTILINE)
    caffe, others = (int(count) for count in re.findall(r" (\d\d+) ", row))
    assert caffe == len(set(layer_types()) - set(forks.LAYERS))
    assert others == len(set(layer_types()) & set(forks.LAYERS))


def test_the_architecture_describes_every_room_in_its_order() -> None:
    (rooms,) = (
        node.value
        for node in ast.parse(read("tests/test_architecture.py")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    )
    described = re.findall(r"^\| `(\w+)` \|", read("docs/architecture.md"), re.MULTILINE)
    assert described == list(ast.literal_eval(rooms))


def test_the_changelog_is_open() -> None:
    assert "\n## [Unreleased]\n" in read("CHANGELOG.md")


def test_the_license_is_bsd_2_clause() -> None:
    assert read("LICENSE").startswith("BSD 2-Clause License\n")
    assert 'license = "BSD-2-Clause"' in read("pyproject.toml")
