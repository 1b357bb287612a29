"""``netdef upgrade``: nets and solvers of every generation, as text and binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from netdef import prototxt
from netdef.proto import netdef_pb2 as pb

OLD = """\
name: "old"
layers { layer { name: "d" type: "data" source: "s" batchsize: 2 cropsize: 4 } top: "x" }
layers { layer { name: "p" type: "padding" pad: 1 } bottom: "x" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 } bottom: "p" top: "c" }
"""
NEW = """\
name: "old"
layer { name: "d" type: "Data" top: "x" data_param { source: "s" batch_size: 2 }
  transform_param { crop_size: 4 } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
"""


def net_of(text: str | bytes) -> pb.NetParameter:
    message = prototxt.parse(text, pb.NetParameter).message
    for layer in (*message.layer, *message.layers):
        layer.ClearField("origin")
    return message


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.prototxt").write_text(OLD)
    (tmp_path / "old.caffemodel").write_bytes(net_of(OLD).SerializeToString())
    return tmp_path


@pytest.mark.parametrize("command", [["upgrade", "net"], ["upgrade_net_proto_text"]])
def test_a_net_as_text(cli: Any, old: Path, command: list[str]) -> None:
    cli.succeed(*command, "old.prototxt", "new.prototxt")
    assert net_of((old / "new.prototxt").read_bytes()) == net_of(NEW)


@pytest.mark.parametrize("command", [["upgrade", "net"], ["upgrade_net_proto_binary"]])
def test_a_net_as_binary(cli: Any, old: Path, command: list[str]) -> None:
    cli.succeed(*command, "old.caffemodel", "new.caffemodel")
    assert pb.NetParameter.FromString((old / "new.caffemodel").read_bytes()) == net_of(NEW)


@pytest.mark.parametrize("command", [["upgrade", "solver"], ["upgrade_solver_proto_text"]])
def test_a_solver(cli: Any, old: Path, command: list[str]) -> None:
    (old / "s.prototxt").write_text("solver_type: NESTEROV base_lr: 0.1")
    cli.succeed(*command, "s.prototxt", "t.prototxt")
    assert (old / "t.prototxt").read_text() == 'base_lr: 0.1\ntype: "Nesterov"\n'


def test_mistakes_leave_no_file(cli: Any, old: Path) -> None:
    (old / "bad.prototxt").write_text('layer { frob: 1 type: "ReLU" }')
    assert "E012" in cli.mistake("upgrade", "net", "bad.prototxt", "out")
    assert not (old / "out").exists()
    cli.succeed("upgrade", "net", "bad.prototxt", "out", "--lenient")
    assert net_of((old / "out").read_bytes()).layer[0].type == "ReLU"
    (old / "cut.caffemodel").write_bytes(net_of(OLD).SerializeToString()[:-3])
    said = cli.mistake("upgrade_net_proto_binary", "cut.caffemodel", "cut.out")
    assert "no net in Caffe's binary format" in said
    assert "cannot be read" in cli.mistake("upgrade_net_proto_binary", "nowhere", "cut.out")
    assert not (old / "cut.out").exists()


def test_what_caffe_wrote(cli: Any, tmp_path: Path, shared: Path) -> None:
    """Caffe's own tools on real files: equal as messages."""
    compared = 0
    for path in sorted((shared / "reference" / "upgrade").iterdir()):
        tool, _, name = path.name.partition("__")
        kind: Any = pb.SolverParameter if "solver" in tool else pb.NetParameter
        source = shared / "prototxt" / name.replace("__", "/")
        if not source.is_file():
            continue
        out = tmp_path / "out.prototxt"
        cli.succeed(tool, str(source), str(out))
        want = text_format.Parse(path.read_bytes(), kind())
        assert text_format.Parse(out.read_bytes(), kind()) == want, path.name
        compared += 1
    assert compared > 10
