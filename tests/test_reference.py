"""The reference documentation: complete, fresh, and its examples run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from google.protobuf.message import Message

from netdef import fillers, prototxt, reference, schedule
from netdef.data import digits
from netdef.layer import layer_types
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt_fields import PRIVATE
from netdef.solver import Solver
from netdef.solvers.rule import rules

DOCS = Path(__file__).parent.parent / "docs"
TYPES = pytest.mark.parametrize("type_name", layer_types())
RULES = pytest.mark.parametrize("name", rules())

#: A bottom of an example, and its shape in the comment behind it.
BOTTOM = re.compile(r'^ *bottom: "(\w+)"(?: +# (scalar|\d+(?:x\d+)*))?$', re.MULTILINE)

#: A row of the block that says what a layer takes and gives.
BLOB = re.compile(r"^    (bottom|top|params) +(\S.*)", re.MULTILINE)


@pytest.mark.parametrize("path", reference.pages())
def test_a_page_is_what_docstrings_and_schema_say(path: str) -> None:
    """Run scripts/gen_docs where this fails."""
    assert (DOCS / path).read_text("utf-8") == reference.pages()[path]


def test_there_is_no_page_of_a_layer_that_is_gone() -> None:
    found = {f"layers/{page.name}" for page in DOCS.glob("layers/*.md")}
    assert found == {path for path in reference.pages() if path.startswith("layers/")}


@TYPES
def test_a_layer_is_documented(type_name: str) -> None:
    said, layer = reference.layer_entries()[type_name], layer_types()[type_name]
    assert said.summary.endswith("."), said.summary
    assert said.source.endswith("."), "the docstring has no Source:"
    assert said.example, "the docstring has no Example::"
    rows = {match[1]: match[2] for match in BLOB.finditer(said.body)}
    for kind, arity in (("bottom", layer.bottoms), ("top", layer.tops)):
        assert kind in rows, f"no line `{kind}`"
        assert (rows[kind] == "none") == (arity == 0), rows[kind]
    page = reference.layer_page(type_name)
    for message in filter(None, (layer.config_field, *layer.also_reads)):
        assert f"## `{message}`" in page


@TYPES
def test_every_field_has_a_comment(type_name: str) -> None:
    layer = layer_types()[type_name]
    messages = pb.LayerParameter.DESCRIPTOR.fields_by_name
    for name in filter(None, (layer.config_field, *layer.also_reads)):
        for field in messages[name].message_type.fields:
            assert reference.comment(field), f"{field.full_name} has no comment in the schema"


# -- examples --------------------------------------------------------------------------------------


class Example:
    """The layer that a docstring shows."""

    def __init__(self, type_name: str) -> None:
        self.text = reference.layer_entries()[type_name].example
        net = prototxt.parse(self.text, pb.NetParameter).message
        self.message = net.layer[0]
        shapes = dict(BOTTOM.findall(self.text))
        self.shapes = [
            () if shapes[name] == "scalar" else tuple(map(int, shapes[name].split("x")))
            for name in self.message.bottom
        ]

    def net(self) -> str:
        """The layer behind an Input layer for each bottom."""
        text = "force_backward: true\n"
        for name, shape in zip(self.message.bottom, self.shapes, strict=True):
            dims = " ".join(f"dim: {n}" for n in shape)
            text += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            text += f"input_param {{ shape {{ {dims} }} }} }}\n"
        return text + self.text


def python_module() -> None:
    shutil.copy(Path(__file__).parent / "layers" / "user_layers.py", "pyloss.py")


def lmdb() -> None:
    digits.write(Path("examples/mnist"), train=100, test=20)
    os.rename("examples/mnist/digits_train_lmdb", "examples/mnist/mnist_train_lmdb")


def photographs() -> None:
    """A list of two images, and windows in them: objects and background."""
    folder = Path("examples/images")
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 300, 260, 3), np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        assert cv2.imwrite(str(folder / f"{name}.png"), image)
    (folder / "train.txt").write_text("a.png 0\nb.png 1\n", encoding="utf-8")
    windows = "2\n1 0.9 10 10 100 120\n1 0.1 50 60 200 200\n"
    (folder / "windows.txt").write_text(
        "".join(f"# {i}\n{name}.png\n3\n300\n260\n{windows}" for i, name in enumerate("ab")),
        encoding="utf-8",
    )


def hdf5() -> None:
    with h5py.File("train.h5", "w") as file:
        file["data"] = np.zeros((100, 3), np.float32)
        file["label"] = np.zeros(100, np.float32)
    Path("train_h5_list.txt").write_text("train.h5\n", encoding="utf-8")


def images_in_memory(net: Net) -> None:
    net.set_input_arrays(np.zeros((32, 3, 32, 32), np.float32), np.zeros(32, np.float32))


def an_image(net: Net) -> None:
    net.blobs["im_info"].data[...] = [600, 800, 1.5]


def prior_boxes(net: Net) -> None:
    priors = net.blobs["mbox_priorbox"].data.reshape(2, -1, 4)
    priors[:] = [[[0.25, 0.25, 0.75, 0.75]], [[0.1, 0.1, 0.2, 0.2]]]
    if "label" in net.blobs:
        net.blobs["label"].data[...] = [0, 1, 0, 0.25, 0.25, 0.75, 0.75, 0]


def nothing_found(net: Net) -> None:
    for name in ("detection_out", "label"):
        net.blobs[name].data.fill(-1)


#: What the examples of some types need: their files, or arrays of the user's.
PREPARE: dict[str, Callable[[], None]] = {
    "Data": lmdb,
    "HDF5Data": hdf5,
    "ImageData": photographs,
    "Python": python_module,
    "WindowData": photographs,
}
FEED: dict[str, Callable[[Net], None]] = {
    "DetectionEvaluate": nothing_found,
    "DetectionOutput": prior_boxes,
    "MemoryData": images_in_memory,
    "MultiBoxLoss": prior_boxes,
    "Proposal": an_image,
}


@TYPES
def test_an_example_runs(type_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = Example(type_name)
    assert example.message.type == type_name
    assert [line for line in example.text.splitlines() if len(line) > 100] == []
    PREPARE.get(type_name, lambda: None)()
    only = [rule.phase for rule in example.message.include if rule.HasField("phase")]
    net = Net.from_text(example.net(), *only or [pb.TRAIN], seed=1)
    try:
        FEED.get(type_name, lambda net: None)(net)
        net.forward()
        for name in example.message.top:
            assert not np.isnan(net.blobs[name].data).any()
        net.backward()
        documented = "    params " in reference.layer_entries()[type_name].body
        assert documented or not net.params, "the docstring has no line `params`"
    finally:
        net.close()


@RULES
def test_an_example_of_a_rule_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = reference.entry(rules()[name])
    assert said.source.endswith("."), "the docstring has no Source:"
    fields = prototxt.parse(said.example, pb.SolverParameter).message
    assert fields.type == name
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { '
        'shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
        'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }\n'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "x" top: "loss" }\n',
        encoding="utf-8",
    )
    fields.net = "net.prototxt"
    Path("solver.prototxt").write_text(prototxt.to_text(fields), encoding="utf-8")
    solver = Solver("solver.prototxt")
    before = solver.net.params["ip"][0].data.copy()
    solver.step(3)
    after = solver.net.params["ip"][0].data
    assert np.isfinite(after).all()
    assert (after != before).any()


def test_the_page_of_solvers_has_every_rule_policy_and_field() -> None:
    page = reference.solvers_page()
    assert all(f"### {name}\n" in page for name in rules())
    assert all(f'`"{name}"`' in page for name in schedule.POLICIES)
    assert all(f"| `{name}` |" in page for name in of_caffe(pb.SolverParameter))


def test_the_page_of_fillers_has_every_filler_and_field() -> None:
    page = reference.fillers_page()
    assert all(f'`"{name}"`' in page for name in fillers.FILLERS)
    assert all(f"| `{name}` |" in page for name in of_caffe(pb.FillerParameter))


def of_caffe(message: type[Message]) -> list[str]:
    """The fields of a message, without netdef's own and those of forks."""
    return [field.name for field in message.DESCRIPTOR.fields if field.number < PRIVATE.start]


# -- how a docstring is read -----------------------------------------------------------------------


def test_a_docstring_falls_into_its_parts() -> None:
    def documented() -> None:
        """What it is, said
        in one sentence.

            y = x

            bottom  x  any shape

        A remark.

        Example::

            layer {

              name: "a"
            }

        Another remark.

        Deviations: one
        or two.

        Source: somebody,
        somewhere.
        """

    said = reference.entry(documented)
    assert said == reference.Entry(
        "What it is, said in one sentence.",
        "    y = x\n\n    bottom  x  any shape\n\nA remark.\n\nAnother remark.",
        'layer {\n\n  name: "a"\n}',
        "one or two.",
        "somebody, somewhere.",
    )


def test_a_field_is_one_row() -> None:
    rows = reference.fields_table(pb.PoolingParameter.DESCRIPTOR).splitlines()
    assert len(rows) == 2 + len(of_caffe(pb.PoolingParameter))
    assert all(row.count(" | ") >= 3 for row in rows[2:])
    [pool] = [row for row in rows if row.startswith("| `pool` |")]
    assert "`MAX`, `AVE`, `STOCHASTIC` | `MAX`" in pool
    clip = reference.fields_table(pb.ClipParameter.DESCRIPTOR)
    assert "| `min` | number | must be given |" in clip
    shape = reference.fields_table(pb.InputParameter.DESCRIPTOR)
    assert "| `shape` | `BlobShape`; repeated |" in shape
