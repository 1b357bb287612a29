"""The schema is Caffe's, field by field; the generated module is its own and loads everywhere."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from netdef.proto import netdef_pb2 as pb

REPOSITORY = Path(__file__).parent.parent
SCHEMA = REPOSITORY / "proto" / "netdef.proto"

#: Fields from this number on are netdef's own; Caffe has none.
FIRST_PRIVATE_NUMBER = 20000
#: Fields and enum values from this number on are those of forks, merged in by name.
FIRST_FORK_NUMBER = 20100
PRIVATE_MESSAGES = {"DataCursor"}

#: A row of tests/golden/schema.tsv: kind, in, name, number, label, type, default, option.
Row = tuple[str, str, str, int, str, str, str, str]


@pytest.fixture(scope="module")
def ours() -> descriptor_pb2.FileDescriptorProto:
    """The schema that the generated module carries."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    return file


# ------------------------------------------------------------------------ the schema is Caffe's


def test_every_caffe_field_and_enum_value_is_ours_and_the_other_way_round(
    ours: descriptor_pb2.FileDescriptorProto, golden: Path
) -> None:
    caffe = set(_golden_rows(golden / "schema.tsv"))
    netdef = set(_rows(ours))
    added = {row for row in netdef if _is_private(row) or _is_of_a_fork(row, caffe)}

    assert len(caffe) == 534
    assert caffe - netdef == set()
    assert netdef - caffe == added


def test_forks_take_no_number_that_caffe_could_read(
    ours: descriptor_pb2.FileDescriptorProto, golden: Path
) -> None:
    caffe = {row[1] for row in _golden_rows(golden / "schema.tsv")}
    forks = [row for row in _rows(ours) if _is_of_a_fork(row, set()) and row[1] in caffe]
    assert len(forks) > 300
    assert [row for row in forks if row[4] == "required"] == []


def test_private_fields_are_these_and_no_more(ours: descriptor_pb2.FileDescriptorProto) -> None:
    private = {(row[1], row[2], row[3]) for row in _rows(ours) if _is_private(row)}
    assert private == {
        ("LayerParameter", "origin", 20000),
        ("V1LayerParameter", "origin", 20000),
        ("SolverState", "random_seed", 20000),
        ("SolverState", "forward_passes", 20001),
        ("SolverState", "cursor", 20002),
        ("DataCursor", "net", 1),
        ("DataCursor", "layer", 2),
        ("DataCursor", "records", 3),
    }


def _golden_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            kind, parent, name = row["kind"], row["in"], row["name"]
            number, default = int(row["number"]), _default(row["default"], row["type"])
            yield (kind, parent, name, number, row["label"], row["type"], default, row["option"])


def _rows(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Row]:
    """The schema in the columns of schema.tsv, type names without the package."""
    prefix = f".{file.package}."

    def enum(parent: str, described: descriptor_pb2.EnumDescriptorProto) -> Iterator[Row]:
        for value in described.value:
            yield ("enum", f"{parent}{described.name}", value.name, value.number, "", "", "", "")

    def message(described: descriptor_pb2.DescriptorProto) -> Iterator[Row]:
        for nested in described.enum_type:
            yield from enum(f"{described.name}.", nested)
        for field in described.field:
            type_name = field.type_name.removeprefix(prefix)
            type_name = type_name or field.Type.Name(field.type).removeprefix("TYPE_").lower()
            yield (
                "field",
                described.name,
                field.name,
                field.number,
                field.Label.Name(field.label).removeprefix("LABEL_").lower(),
                type_name,
                _default(field.default_value, type_name),
                "packed" if field.options.packed else "",
            )

    for described in file.enum_type:
        yield from enum("", described)
    for described_message in file.message_type:
        assert not described_message.nested_type
        yield from message(described_message)


def _default(text: str, type_name: str) -> str:
    """``text``, in one spelling where it stands for a float: protobuf may print 0.999000013."""
    return str(np.float32(text)) if type_name == "float" and text else text


def _is_private(row: Row) -> bool:
    ours = FIRST_PRIVATE_NUMBER <= row[3] < FIRST_FORK_NUMBER
    return row[1] in PRIVATE_MESSAGES or (row[0] == "field" and ours)


def _is_of_a_fork(row: Row, caffe: set[Row]) -> bool:
    """Whether a row has a number of forks, or stands in a message or an enum that ``caffe`` lacks.

    In one that Caffe has, anything below that number would be read by Caffe as something else.
    """
    known = {each[1] for each in caffe}
    return row[3] >= FIRST_FORK_NUMBER or (bool(caffe) and row[1] not in known)


# ------------------------------------------------------------------- bytes that Caffe can read


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        # A field starts with number << 3 | wire type: 0 varint, 1 64-bit, 2 length, 5 32-bit.
        (pb.BlobShape(dim=[1, 300]), "0a 03 01 ac02"),
        (pb.BlobProto(data=[1.0, -2.0]), "2a 08 0000803f 000000c0"),
        (pb.BlobProto(double_data=[1.0]), "42 08 000000000000f03f"),
        (pb.Datum(float_data=[1.0, -2.0]), "35 0000803f 35 000000c0"),
        (pb.Datum(channels=1, data=b"\x07", label=-1), "08 01 22 01 07 28 ffffffffffffffffff01"),
        (pb.NetParameter(layer=[pb.LayerParameter(name="a")]), "a2 06 03 0a 01 61"),
        (pb.LayerParameter(clip_param=pb.ClipParameter(min=0, max=1)), "a2 09 0a"
         "0d 00000000 15 0000803f"),
        (pb.ConvolutionParameter(kernel_size=[3, 5], dilation=[2]), "20 03 20 05 90 01 02"),
        (pb.SolverParameter(solver_mode=pb.SolverParameter.CPU), "88 01 00"),
        (pb.SolverState(iter=5, current_step=2), "08 05 20 02"),
        (pb.SolverState(random_seed=1), "80 e2 09 01"),
    ],
)  # fmt: skip
def test_messages_have_the_bytes_of_the_wire_format(message: pb.NetParameter, encoded: str) -> None:
    assert message.SerializeToString() == bytes.fromhex(encoded)
    assert type(message).FromString(bytes.fromhex(encoded)) == message


def test_packed_fields_are_read_unpacked_and_the_other_way_round() -> None:
    unpacked = bytes.fromhex("2d 0000803f 2d 000000c0")
    assert list(pb.BlobProto.FromString(unpacked).data) == [1.0, -2.0]
    packed = bytes.fromhex("32 08 0000803f 000000c0")
    assert list(pb.Datum.FromString(packed).float_data) == [1.0, -2.0]


def test_clip_limits_are_required() -> None:
    assert not pb.ClipParameter(min=0).IsInitialized()
    assert not pb.NetParameter(layer=[{"clip_param": {"max": 1}}]).IsInitialized()


def test_defaults_are_seen_through_absent_messages() -> None:
    layer = pb.LayerParameter()
    assert layer.convolution_param.bias_term
    assert layer.lrn_param.beta == 0.75
    assert layer.loss_param.normalization == pb.LossParameter.VALID
    assert pb.NetState().phase == pb.TEST


# ----------------------------------------------------------------- beside a foreign caffe_pb2


@pytest.mark.parametrize("first", ["caffe", "netdef"])
def test_a_foreign_caffe_package_lives_in_the_same_process(first: str) -> None:
    # In a process of its own, so that the default pool of the other tests stays as it was.
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FOREIGN, first],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


#: Registers Caffe's messages as an installed caffe_pb2 does: package caffe, in the default pool.
FOREIGN = """
import sys
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

def load_caffe():
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    phase = file.enum_type.add(name="Phase")
    phase.value.add(name="TRAIN", number=0)
    phase.value.add(name="TEST", number=1)
    layer = file.message_type.add(name="LayerParameter")
    layer.field.add(name="name", number=1, label=1, type=9)
    layer.field.add(name="type", number=2, label=1, type=9)
    net = file.message_type.add(name="NetParameter")
    net.field.add(name="name", number=1, label=1, type=9)
    net.field.add(name="layer", number=100, label=3, type=11, type_name=".caffe.LayerParameter")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))

if sys.argv[1] == "caffe":
    CaffeNet = load_caffe()
    from netdef.proto import netdef_pb2 as pb
else:
    from netdef.proto import netdef_pb2 as pb
    CaffeNet = load_caffe()

ours = pb.NetParameter(name="n", layer=[pb.LayerParameter(name="a", type="ReLU")])
theirs = CaffeNet.FromString(ours.SerializeToString())
assert type(theirs) is not type(ours)
assert theirs.layer[0].type == "ReLU"
assert pb.NetParameter.FromString(theirs.SerializeToString()) == ours
"""


def test_the_schema_is_registered_under_a_name_of_its_own() -> None:
    assert pb.DESCRIPTOR.name == "netdef/netdef.proto"
    assert pb.DESCRIPTOR.package == "netdef"


# ------------------------------------------------------------------------- the generated files


def test_generated_files_are_fresh() -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed; pip install -e '.[dev]'")
    command = [sys.executable, str(REPOSITORY / "scripts" / "gen_proto"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_generated_module_demands_no_version_of_protobuf() -> None:
    text = Path(pb.__file__).read_text(encoding="ascii")
    assert "runtime_version" not in text


# --------------------------------------------------------------------------------- its comments


def test_every_declaration_has_a_comment() -> None:
    lines = SCHEMA.read_text(encoding="ascii").splitlines()
    declaration = re.compile(
        r"\s*(?:(?:message|enum) \w+ \{|(?:optional|required|repeated) \S+ \w+ = |[A-Z]\w* = -?\d+)"
    )
    declared = [n for n, line in enumerate(lines) if declaration.match(line)]
    bare = [
        f"{SCHEMA.name}:{n + 1}: {lines[n].strip()}"
        for n in declared
        if not lines[n - 1].lstrip().startswith("//") and "//" not in lines[n]
    ]
    assert len(declared) > 600
    assert bare == []
