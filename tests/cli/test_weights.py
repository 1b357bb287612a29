"""``netdef weights``: what is in a file, and which layers of a net would take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import TRAIN, Net


@pytest.fixture
def saved(cli: Any) -> Net:
    """The tiny net, saved as ``w.caffemodel`` and ``w.caffemodel.h5``, with oddities."""
    net = Net("net.prototxt", TRAIN)
    weight, bias = net.params["ip1"]
    weight.data[0, :3] = np.nan, np.inf, -5
    bias.data[:] = 0
    bias.data[0] = 3
    net.params["ip2"][0].data[:] = 0
    net.save("w.caffemodel")
    net.save_hdf5("w.caffemodel.h5")
    net.close()
    return net


def table(text: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each blob behind its shape, by layer and number."""
    rows = [line.split() for line in text.splitlines()]
    return {(row[0], row[2]): row[3:] for row in rows if len(row) > 8 and row[2].isdecimal()}


@pytest.mark.parametrize(
    ("file", "type"), [("w.caffemodel", "InnerProduct"), ("w.caffemodel.h5", "-")]
)
def test_the_table(cli: Any, saved: Net, file: str, type: str) -> None:
    text = cli.succeed("weights", file)
    rows = table(text)
    assert list(rows) == [("ip1", "0"), ("ip1", "1"), ("ip2", "0"), ("ip2", "1")]
    assert rows["ip1", "0"][:3] == ["16x784", str(16 * 784), "-5"]
    assert rows["ip1", "0"][6:] == ["1", "NaN,", "1", "infinite"]
    assert rows["ip1", "1"] == ["16", "16", "0", "3", "0.1875", "0.7262", "93", "%", "zero"]
    assert rows["ip2", "0"][6:] == ["all", "zero"]
    assert f"  {type}  " in text
    assert "layers: 2 with weights, 3 without" in text
    assert "numbers: 12730 in float32" in text


def test_an_object_for_each_file(cli: Any, saved: Net) -> None:
    result = cli.invoke("weights", "w.caffemodel", "absent", "w.caffemodel.h5", "--json")
    assert result.exit_code == 1
    first, absent, last = map(json.loads, result.output.splitlines())
    assert (first["file"], first["ok"], first["parameters"]) == ("w.caffemodel", True, 12730)
    assert first["bytes"] == Path("w.caffemodel").stat().st_size
    blob = {layer["name"]: layer["blobs"] for layer in first["layers"]}["ip1"][0]
    assert (blob["shape"], blob["dtype"], blob["count"]) == ([16, 784], "float32", 12544)
    assert (blob["nan"], blob["inf"], blob["min"], blob["diff"]) == (1, 1, -5, False)
    finite = saved.params["ip1"][0].data[np.isfinite(saved.params["ip1"][0].data)]
    assert blob["max"] == finite.max()
    assert blob["mean"] == pytest.approx(finite.mean(dtype=np.float64))
    assert blob["std"] == pytest.approx(finite.std(dtype=np.float64))
    assert absent["ok"] is False
    assert absent["errors"][0]["code"] == "E401"
    assert last["parameters"] == 12730


def test_which_layers_of_a_net_would_take_it(cli: Any, saved: Net, net: str) -> None:
    text = cli.succeed("weights", "w.caffemodel", "--model", "net.prototxt", "--phase", "TRAIN")
    assert text.endswith("weights from w.caffemodel\n  copied              2  ip1, ip2\n")
    cli.write("other.prototxt", net.replace('name: "ip2"', 'name: "fc"'))
    text = cli.succeed("weights", "w.caffemodel", "-model", "other.prototxt")
    assert "  not in the net      1  ip2\n  not in the file     1  fc\n" in text
    cli.write("wide.prototxt", net.replace("num_output: 16", "num_output: 17"))
    result = cli.invoke("weights", "w.caffemodel", "w.caffemodel.h5", "--model", "wide.prototxt")
    assert result.exit_code == 1
    line = (
        '  do not fit          2  blob 0 of layer "ip1" is 17x784 in the net but 16x784 in the file'
    )
    assert result.output.count(line) == 2
    result = cli.invoke("weights", "w.caffemodel", "--model", "wide.prototxt", "--json")
    assert result.exit_code == 1
    match = json.loads(result.output)["match"]
    assert [found["layer"] for found in match["mismatched"]] == ["ip1", "ip2"]
    assert match["copied"] == []


def test_parameters_that_layers_share_may_be_left_out(cli: Any) -> None:
    shared = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false } }
    """
    cli.write("shared.prototxt", shared)
    Net("shared.prototxt", TRAIN).save_hdf5("s.h5")
    cli.succeed("weights", "s.h5", "--model", "shared.prototxt")
    cli.write("apart.prototxt", shared.replace('param { name: "w" }', ""))
    result = cli.invoke("weights", "s.h5", "--model", "apart.prototxt")
    assert result.exit_code == 1
    assert 'layer "b" has 1 blobs in the net but 0 in the file' in result.output


def test_a_file_that_is_something_else(cli: Any) -> None:
    assert "is text, not a .caffemodel" in cli.mistake("weights", "net.prototxt")
    cli.mistake("weights", status=2)
