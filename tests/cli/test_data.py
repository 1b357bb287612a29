"""``netdef data``."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import netdef as caffe
from netdef.data import digits, mnist, writer
from netdef.errors import DataError, OutputError
from netdef.proto import netdef_pb2 as pb
from netdef_cli import data as command
from netdef_cli.main import main


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
        ["cifar10", "x", "--backend", "mdb"],
        ["images", "x/", "list.txt"],
        ["images", "x/", "list.txt", "db", "--resize_height", "3"],
        ["images", "x/", "list.txt", "db", "--encode_type", "gif"],
        ["images", "x/", "list.txt", "db", "--gray=perhaps"],
        ["images", "x/", "list.txt", "db", "--resize_height=-1"],
        ["show", "db"],
        ["show", "db", "-o", "sheet.gif"],
        ["features", "w", "net", "a,b", "db"],
        ["features", "w", "net", "a,b", "db,db"],
        ["features", "w", "net", "a", "db", "3", "rocksdb"],
        ["imagse"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(command.data, arguments).exit_code == 2


def test_limits_are_those_of_the_library() -> None:
    assert tuple(writer.BACKENDS) == command.BACKENDS
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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images of 4 x 6 in photos/, their list beside."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        image = np.full((4, 6, 3), (10 * i, 20 * i, 30 * i), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), image)
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in (0, 1, 3)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_images_to_a_sheet(folder: Path) -> None:
    output = run("images", "photos/", "list.txt", "db")
    assert "wrote 3 images to db (LMDB): 3 x 4 x 6; 3 labels, 0 to 3" in output
    output = run("info", "db")
    assert "db: LMDB, 3 records" in output
    assert "3 x 4 x 6" in output
    assert "gaps     no image has label 2" in output
    assert "all 3 records are sound" in run("verify", "db")
    # Blue, green, red: the mean of 0, 10, 30 and so on.
    output = run("mean", "db", "mean.binaryproto")
    assert output.splitlines()[:3] == [
        "mean_value: 13.3333",
        "mean_value: 26.6667",
        "mean_value: 40",
    ]
    assert (folder / "mean.binaryproto").exists()
    assert "drew 3 of 3 images" in run("show", "db", "-o", "sheet.png")
    assert cv2.imread("sheet.png") is not None


def test_a_dry_run_writes_nothing_and_fails_if_a_conversion_would(folder: Path) -> None:
    before = sorted(os.listdir(folder))
    output = run("images", "photos/", "list.txt", "--dry-run")
    assert "images   3 of 3 can be used; 0 cannot" in output
    assert "labels   3 different, from 0 to 3; 1 record each" in output
    assert "gaps     no image has label 2" in output
    (folder / "photos" / "1.png").write_text("no image")
    result = CliRunner().invoke(command.data, ["images", "photos/", "list.txt", "--dry-run"])
    assert result.exit_code == 1
    assert "images   2 of 3 can be used; 1 cannot" in result.output
    assert "list.txt:2:1" in result.output
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("prefix", [["data"], []])
def test_the_tools_of_caffe_by_their_names(folder: Path, prefix: list[str]) -> None:
    def tool(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*prefix, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    # As the scripts among Caffe's examples call them.
    tool(
        "convert_imageset", "--logtostderr=1", "-gray=true", "--resize_height=8",
        "--resize_width=10", "--shuffle=false", "--nocheck_size", "-backend=lmdb",
        "photos/", "list.txt", "db",
    )  # fmt: skip
    output = tool("compute_image_mean", "-backend=lmdb", "db", "mean.binaryproto")
    assert "3 images, 1 x 8 x 10" in output
    for name, head, body in (
        ("images", "00000803 00000002 00000002 00000003", bytes(12)),
        ("labels", "00000801 00000002", b"\x0b\x01"),
    ):
        (folder / name).write_bytes(bytes.fromhex(head) + body)
    assert "wrote 2 images" in tool(
        "convert_mnist_data", "images", "labels", "pair", "--backend=lmdb"
    )
    (folder / "net.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "x" top: "y" '
        'data_param { source: "db" batch_size: 1 backend: LMDB } }'
        'layer { name: "p" type: "Power" bottom: "x" top: "z" power_param { scale: 2 } }'
    )
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.save("w.caffemodel")
    net.close()
    output = tool(
        "extract_features", "w.caffemodel", "net.prototxt", "x,z", "a,b", "3", "lmdb", "CPU"
    )
    assert "wrote 3 records of z to b" in output


def test_a_database_with_damaged_records_fails_verification(folder: Path) -> None:
    with writer.LMDBWriter("db") as out:
        out.put(b"good", pb.Datum(channels=1, height=1, width=1, data=b"a").SerializeToString())
        out.put(b"poor", pb.Datum(channels=9, height=1, width=1, data=b"a").SerializeToString())
    result = CliRunner().invoke(command.data, ["verify", "db"])
    assert result.exit_code == 1
    assert 'record 1 (key "poor") of "db" has 1 bytes of data, but 9 channels' in result.output
    assert "damaged  record 1" in run("info", "db")


def test_mistakes_with_databases(folder: Path) -> None:
    run("images", "photos/", "list.txt", "db")
    assert "exists already" in run("images", "photos/", "list.txt", "db", raises=OutputError)
    assert "end it with a slash" in run("images", "photos", "list.txt", "d", raises=DataError)
    assert "did you mean" in run("images", "photos/", "lits.txt", "d", raises=DataError)
    assert "no record 3" in run("show", "db", "-o", "s.png", "--first", 3, raises=DataError)
    assert "has label 9" in run("show", "db", "-o", "s.png", "--label", 9, raises=DataError)
    assert "it is a folder" in run("mean", "db", "photos", raises=OutputError)
    assert "there is no folder" in run("mean", "db", "no/mean", raises=OutputError)
    assert 'did you mean "' in run("info", folder, raises=DataError)
    for name in ("info", "verify", "mean"):
        assert "there is no database" in run(name, "nowhere", raises=DataError)
    assert sorted(os.listdir(folder)) == ["db", "list.txt", "photos"]
