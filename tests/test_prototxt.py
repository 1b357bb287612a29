"""netdef.prototxt: what is read, where it stands, what is said about mistakes."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import Message

from netdef import prototxt
from netdef.errors import Diagnostic, PrototxtError
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt_fields import PRIVATE


def net(text: str | bytes) -> pb.NetParameter:
    return without_origin(prototxt.parse(text, pb.NetParameter).message)


def solver(text: str) -> pb.SolverParameter:
    return prototxt.parse(text, pb.SolverParameter).message


def without_origin(message: Message) -> Any:
    for field, value in message.ListFields():
        if field.name == "origin":
            message.ClearField("origin")
        elif field.message_type:
            for each in [value] if isinstance(value, Message) else value:
                without_origin(each)
    return message


def mistakes(text: str | bytes, type: type[Message] = pb.NetParameter) -> list[Diagnostic]:
    with pytest.raises(PrototxtError) as caught:
        prototxt.parse(text, type, "net.prototxt")
    str(caught.value).encode()  # what is printed must be printable
    return caught.value.diagnostics


# What is accepted.


def test_every_form_of_the_language(golden: Path) -> None:
    got = net((golden / "prototxt" / "every_form.prototxt").read_text(encoding="utf-8"))
    want = pb.NetParameter(
        name="EveryForm!!éé\U0001f600\n\t\\'\"?",
        input=["data", "label"],
        input_dim=[1, 3, 8, -5, -6, 7],
        force_backward=True,
        debug_info=False,
        state={"phase": pb.TEST, "level": -(2**31), "stage": ["a", "b", "c"]},
        input_shape=[{"dim": [1, 2**63 - 1, -(2**63)]}, {}],
        layer=[{"name": "list"}, {"name": "of layers"}],
    )
    conv = want.layer.add(name="conv1", type="Convolution", bottom=["data"], top=["conv1"])
    conv.loss_weight[:] = [1, 1, 0.5, 1.5, 2]
    conv.loss_weight.extend([1e5, 1e-5, 1e5, -0.0, math.inf, -math.inf, math.inf, -3, 2.0**64])
    conv.loss_weight.append(math.inf)
    conv.param.add(lr_mult=1)
    conv.param.add(lr_mult=2, decay_mult=0)
    conv.propagate_down[:] = [True, True, False, False, False, True, False]
    conv.convolution_param.num_output = 2**32 - 1
    conv.convolution_param.kernel_size[:] = [3, 5]
    conv.convolution_param.engine = pb.ConvolutionParameter.CAFFE
    conv.convolution_param.weight_filler.type = "xavier"
    v1 = want.layers.add(name="v1", type=pb.V1LayerParameter.CONVOLUTION, param=["w"])
    v1.blobs_lr[:] = [1, 2]
    v1.layer.name = "v0"
    v1.layer.kernelsize = 3
    want.layer.add(name="clip", clip_param={"min": -1, "max": 1})
    assert got == want


@pytest.mark.parametrize(
    "text", ["", " \n\t", "# only a comment", "#\n#\r\n", "\ufeff", b"\xef\xbb\xbf"]
)
def test_an_empty_text_is_an_empty_message(text: str | bytes) -> None:
    assert net(text) == pb.NetParameter()


def test_line_ends_tabs_and_byte_order_mark() -> None:
    text = '\ufeffname:\t"a"\r\nlayer {\r\n\tname: "b" # c\r\n}\r\n'
    want = pb.NetParameter(name="a", layer=[{"name": "b"}])
    assert net(text) == want
    assert net(text.encode()) == want


def test_comments_need_not_be_utf8() -> None:
    assert net('# caf\xe9\nname: "a"'.encode("latin-1")).name == "a"


def test_strings_hold_utf8_and_bytes_hold_anything() -> None:
    assert net('name: "训练"'.encode()).name == "训练"
    assert net(r'name: "\350\256\255" "\347" "\273\x83"').name == "训练"
    assert net(r'name: "\ud83d\ude00"').name == "\U0001f600"
    datum = prototxt.parse(rb'data: "\0\377\xfe' + b"\xe9" + b'" label: 1', pb.Datum).message
    assert datum.data == b"\x00\xff\xfe\xe9"


def test_nan() -> None:
    weights = net("layer { loss_weight: [nan, -NaN] }").layer[0].loss_weight
    assert all(math.isnan(weight) for weight in weights)


def test_any_type_can_be_read_to_the_depth_protobuf_allows() -> None:
    text = "nested_type { " * 100 + "}" * 100
    message = prototxt.parse(text, DescriptorProto).message
    assert message == text_format.Parse(text, DescriptorProto())
    (mistake,) = mistakes("nested_type { " * 101 + "}" * 101, DescriptorProto)
    assert mistake.code == "E008"


def test_real_files_agree_with_protobuf(shared: Path) -> None:
    compared = 0
    for path in sorted((shared / "prototxt").rglob("*.prototxt")):
        data = path.read_bytes()
        for kind in (pb.NetParameter, pb.SolverParameter):
            try:
                want = text_format.Parse(data, kind())
            except text_format.ParseError:
                # What protobuf refuses is refused, or read with a warning.
                with contextlib.suppress(PrototxtError):
                    assert prototxt.parse(data, kind, str(path)).warnings
                continue
            got = prototxt.parse(data, kind, str(path)).message
            assert without_origin(got) == want, path
            compared += 1
    assert compared > 100


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    signed = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
    unsigned = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}
    if field.cpp_type in signed:
        bits = signed[field.cpp_type]
        return st.integers(-(2**bits), 2**bits - 1)
    if field.cpp_type in unsigned:
        return st.integers(0, 2 ** unsigned[field.cpp_type] - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return st.floats(width=32, allow_nan=False)
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats(allow_nan=False)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    return st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> dict[str, Any]:
    """The fields of a random message, as keyword arguments of its class."""
    fields = [f for f in descriptor.fields if f.number not in PRIVATE]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda f: f.name))
    required = [
        f for f in fields if f.name in ("min", "max") and descriptor.name == "ClipParameter"
    ]
    given: dict[str, Any] = {}
    for field in {f.name: f for f in [*chosen, *required]}.values():
        if field.message_type and depth > 3:
            continue
        one = messages(field.message_type, depth + 1) if field.message_type else _values(field)
        given[field.name] = draw(
            st.lists(one, max_size=3) if field.name in _repeated(descriptor) else one
        )
    return given


def _repeated(descriptor: Descriptor) -> set[str]:
    schema = DescriptorProto()
    descriptor.CopyToProto(schema)
    return {field.name for field in schema.field if field.label == field.LABEL_REPEATED}


PRINTERS = {
    "plain": {},
    "one line": {"as_one_line": True},
    "short lists": {"use_short_repeated_primitives": True},
    "one line of short lists": {"as_one_line": True, "use_short_repeated_primitives": True},
    "utf8": {"as_utf8": True},
    "angle brackets": {"pointy_brackets": True},
    "all colons": {"force_colon": True},
    "index order": {"use_index_order": True},
}


@pytest.mark.parametrize("type", [pb.NetParameter, pb.SolverParameter, pb.Datum, pb.BlobProto])
@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data())
def test_what_protobuf_prints_is_read_back(type: type[Message], data: st.DataObject) -> None:
    want = type(**data.draw(messages(type.DESCRIPTOR)))
    for options in PRINTERS.values():
        text = text_format.MessageToString(want, **options)
        assert without_origin(prototxt.parse(text, type).message) == want
    ours = prototxt.to_text(want)
    assert without_origin(prototxt.parse(ours, type).message) == want
    assert text_format.Parse(ours, type()) == want


VALID = """
name: "net" # comment
layer {
  name: "conv" type: "Convolution" bottom: "data" loss_weight: [1, 0.5]
  convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } }
}
layers < type: POOLING pooling_param { pool: MAX kernel_size: 2 } >
"""
PIECES = [
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ":",
    ",",
    '"',
    "'",
    "\\",
    "#",
    "-",
    "//",
    "=",
    "“",
    "\udcff",
]
PIECES += ["layer {", "1.5f", "inf", "0x", "type: ReLU", "nested", "\x00", "\n"]


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
    edits=st.lists(
        st.tuples(st.integers(0, len(VALID)), st.integers(0, 9), st.sampled_from(["", *PIECES])),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_text_gives_a_message_or_located_mistakes(
    edits: list[tuple[int, int, str]],
) -> None:
    text = VALID
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    try:
        prototxt.parse(text, pb.NetParameter)
    except PrototxtError as error:
        lines = text.split("\n")
        for mistake in error.diagnostics:
            assert mistake.location is not None
            assert 1 <= mistake.location.line <= len(lines)
            assert 1 <= mistake.location.column <= len(lines[mistake.location.line - 1]) + 1
        str(error).encode()


# Positions.

POSITIONED = """\
name: "LeNet"
layer {
  name: "data" type: "Input"
}
layer {
  name: "conv1"
  convolution_param {
    kernel_size: 5 kernel_size: [3, 7]
    weight_filler: <type: "xavier">
  }
}
layers { name: "v1" }
layer: [ { name: "x" } ]
"""


@pytest.mark.parametrize(
    ("path", "line", "column", "length"),
    [
        ((), 1, 1, 1),
        (("name",), 1, 7, 7),
        (("debug_info",), 1, 1, 1),
        (("layer", 0), 2, 1, 5),
        (("layer", 0, "type"), 3, 22, 7),
        (("layer", 0, "bottom", 0), 2, 1, 5),
        (("layer", 1), 5, 1, 5),
        (("layer", 1, "name"), 6, 9, 7),
        (("layer", 1, "convolution_param"), 7, 3, 17),
        (("layer", 1, "convolution_param", "stride"), 7, 3, 17),
        (("layer", 1, "convolution_param", "kernel_size"), 8, 18, 1),
        (("layer", 1, "convolution_param", "kernel_size", 0), 8, 18, 1),
        (("layer", 1, "convolution_param", "kernel_size", 1), 8, 34, 1),
        (("layer", 1, "convolution_param", "kernel_size", 2), 8, 37, 1),
        (("layer", 1, "convolution_param", "kernel_size", 3), 7, 3, 17),
        (("layer", 1, "convolution_param", 0, "weight_filler", "type"), 9, 27, 8),
        (("layers", 0, "name"), 12, 16, 4),
        (("layer", 2), 13, 10, 1),
        (("layer", 2, "name"), 13, 18, 3),
        (("layer", 9, "name"), 1, 1, 1),
    ],
)
def test_positions(path: tuple[str | int, ...], line: int, column: int, length: int) -> None:
    where = prototxt.parse(POSITIONED, pb.NetParameter, "lenet.prototxt").positions.at(*path)
    assert where is not None
    assert (where.line, where.column, where.length) == (line, column, length)
    assert str(where) == f"lenet.prototxt:{line}:{column}"
    assert where.source == POSITIONED.split("\n")[line - 1]


def test_a_negative_value_is_underlined_with_its_sign() -> None:
    document = prototxt.parse("input_dim: - 5", pb.NetParameter)
    where = document.positions.at("input_dim", 0)
    assert where is not None
    assert (where.column, where.length) == (12, 3)


def test_layers_are_found_by_their_origin() -> None:
    text = """
    train_net_param { layer { name: "a" } layers { name: "b" } }
    net_param: < layer: [{ name: "c" }, { name: "d" type: "T" }] >
    """
    document = prototxt.parse(text, pb.SolverParameter)
    nets = document.message.train_net_param, document.message.net_param
    layers = [*nets[0].layer, *nets[0].layers, *nets[1].layer]
    assert [(layer.name, layer.origin) for layer in layers] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("d", 4),
    ]
    positions = document.positions
    for layer in layers:
        where = positions.layer(layer.origin, "name")
        assert where is not None
        assert where.source[where.column - 1 :].startswith(f'"{layer.name}"')
    assert positions.layer(4, "type") != positions.layer(4) == positions.layer(4, "bottom", 0)
    assert positions.layer(0) is None
    assert positions.layer(5) is None


def test_a_message_that_was_no_text_has_no_positions() -> None:
    positions = prototxt.Positions("built")
    assert positions.file == "built"
    assert positions.at("layer", 0) is None
    assert positions.layer(1) is None


def test_a_layer_read_by_itself_has_an_origin() -> None:
    document = prototxt.parse('name: "a"', pb.LayerParameter)
    assert document.message.origin == 1
    assert document.positions.layer(1, "name") == document.positions.at("name")


# Writing.


def test_to_text_writes_what_caffe_writes(golden: Path) -> None:
    for path in sorted((golden / "upgrade").glob("*.after.prototxt")):
        kind = pb.SolverParameter if path.name.startswith("solver") else pb.NetParameter
        text = path.read_text(encoding="utf-8")
        assert prototxt.to_text(prototxt.parse(text, kind).message) == text, path


def test_to_text_leaves_out_the_origin_and_the_message_alone() -> None:
    message = prototxt.parse('net_param { layer { name: "a" } }', pb.SolverParameter).message
    assert prototxt.to_text(message) == 'net_param {\n  layer {\n    name: "a"\n  }\n}\n'
    assert message.net_param.layer[0].origin == 1


def test_to_text_keeps_other_private_fields() -> None:
    state = pb.SolverState(iter=3, random_seed=7, cursor=[{"layer": "data", "records": 5}])
    text = prototxt.to_text(state)
    assert "random_seed: 7" in text
    assert "records: 5" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (1e5, "100000"),
        (1e6, "1e+06"),
        (16777217.0 - 1, "16777216"),
        (104.00698793, "104.006989"),
        (-0.0, "-0"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_to_text_writes_floats_as_cpp_protobuf_does(value: float, text: str) -> None:
    assert prototxt.to_text(pb.PowerParameter(power=value)) == f"power: {text}\n"


def test_to_text_writes_doubles_exactly() -> None:
    blob = pb.BlobProto(double_data=[0.1, 1 / 3])
    assert prototxt.to_text(blob) == "double_data: 0.1\ndouble_data: 0.33333333333333331\n"


# Mistakes: text, line, column, code, words of the message or its hint.

LAYER = 'layer {\n  name: "conv1"\n  type: "Convolution"\n  @\n}\n'
CONV = 'layer {\n  name: "conv1"\n  convolution_param {\n    @\n  }\n}\n'
POOL = 'layer { type: "Pooling" pooling_param { @ } }'

NET_MISTAKES = [
    # Something where a field should be.
    (CONV.replace("@", "num_output: 20 // twenty"), 4, 20, "E003", "comments begin with #"),
    (CONV.replace("@", "/* a\n b: { */ num_output: 20"), 4, 5, "E003", "begin each of its lines"),
    (CONV.replace("@", "kernel_size: 3, 3"), 4, 21, "E003", "kernel_size: [1, 2]"),
    (CONV.replace("@", "num_output: 3 3"), 4, 19, "E003", "`num_output` takes one value"),
    ('layer { bottom: "a", "b" }', 1, 22, "E003", 'bottom: ["a", "b"]'),
    ('name: "a",, debug_info: 1', 1, 11, "E003", "one `,` too many"),
    ('layer { : "a" }', 1, 9, "E003", "no field name before `:`"),
    ("layer { { x: 1 } }", 1, 9, "E003", "no field name before `{`"),
    ('$name: "a"', 1, 1, "E003", "found `$`"),
    ("<<<<<<< mine\ninput_dim: 1", 1, 1, "E003", "merge conflict"),
    ("input_dim: 1\n=======\ninput_dim: 1", 2, 1, "E003", "merge conflict"),
    ("input_dim: 1\n>>>>>>> theirs\ninput_dim: 1", 2, 1, "E003", "merge conflict"),
    ('```\nname: "a"', 1, 1, "E003", "code fence"),
    ("input_dim: [1 2 3]", 1, 15, "E003", "expected `,` or `]`"),
    ("input_dim: [1, 2,]", 1, 18, "E003", "leave it out"),
    # Braces.
    ('layer {\n  name: "a"\n', 1, 7, "E004", "the text ends without its `}`"),
    ('layer {\n  name: "a"\n\nlayer {\n}\n', 1, 7, "E004", "missing before `layer` on line 4"),
    (
        "layer {\n  convolution_param {\n    pad: 1\n}\nlayer {\n}\n",
        2,
        21,
        "E004",
        "`convolution_param {` is never closed",
    ),
    (
        'layer {\n  convolution_param {\n    weight_filler {\n      type: "x"\n  }\n}\nlayer {}',
        3,
        19,
        "E004",
        "`weight_filler {` is never closed",
    ),
    (CONV.replace("@", "weight_filler {\n  bias_filler {}"), 4, 19, "E004", "before `bias_filler`"),
    ("layer {\n}\n}\n", 3, 1, "E004", "closes nothing"),
    ('layer {\n  name: "a"\n  }\n  top: "b"\n}\n', 3, 3, "E004", "`top` on line 4 belongs to it"),
    ("layer { relu_param { engine: CAFFE > }", 1, 36, "E004", "write `}`"),
    ('layer\n  name: "a"\n}', 1, 1, "E004", "write  layer {"),
    ("input_dim: [1, 2\nname: 'a'", 1, 12, "E004", "`]` is missing"),
    # Strings.
    ('name: "a\ndebug_info: 1', 1, 7, "E005", 'not closed by `"`'),
    ("layer { name: 'a }", 1, 15, "E005", "not closed by `'`"),
    ("name: “a”", 1, 7, "E005", 'write  name: "a"'),
    ('name: "a”', 1, 7, "E005", "typographic"),
    (r'name: "C:\data"', 1, 10, "E005", "paths use /"),
    (r'name: "ok" "\xzz"', 1, 13, "E005", "stands for no character"),
    (r'name: "\ud800"', 1, 8, "E005", "stands for no character"),
    (r'name: "\U00110000"', 1, 8, "E005", "stands for no character"),
    (r'name: "\377"', 1, 7, "E005", "not UTF-8"),
    (b'name: "caf\xe9"', 1, 7, "E005", "save the file as UTF-8"),
    # Colons.
    (CONV.replace("@", "num_output 20"), 4, 5, "E006", "write  num_output: 20"),
    (CONV.replace("@", "num_output = 20"), 4, 16, "E006", "followed by `=`"),
    (CONV.replace("@", "num_output:"), 4, 15, "E006", "takes an integer from 0 up"),
    (CONV.replace("@", "num_output\n stride: 2"), 4, 5, "E006", "has no value"),
    ("layer { param = { lr_mult: 1 } }", 1, 15, "E006", "write  param { .. }"),
    ('name:\nlayer { name: "a" }', 1, 5, "E006", "text in quotes"),
    ("input_dim: [1,, 2]", 1, 14, "E006", "has no value"),
    ("input_dim [1]", 1, 1, "E006", "has no `:`"),
    ("state\ndebug_info: 1", 1, 1, "E006", "write  state { .. }"),
    # Numbers.
    ("layer { loss_weight: 1.2.3 }", 1, 22, "E007", "1.2.3 is not a number"),
    ("layer { loss_weight: 010.5 }", 1, 22, "E007", "is not a number"),
    ("layer { loss_weight: 010 }", 1, 22, "E007", "octal"),
    ("layer { loss_weight: 0x10 }", 1, 22, "E007", "hexadecimal"),
    ("layer { loss_weight: +1 }", 1, 22, "E007", "no `+`"),
    ("input_dim: 1_000", 1, 12, "E007", "without `_`"),
    ("input_dim: 08", 1, 12, "E007", "octal"),
    ("input_dim: 5x", 1, 12, "E007", "5x is not a number"),
    # Fields that are not there.
    (LAYER.replace("@", "blobs_lr: 3"), 4, 3, "E012", "write  param { lr_mult: 3 }"),
    (LAYER.replace("@", "weight_decay: 0"), 4, 3, "E012", "write  param { decay_mult: 0 }"),
    (LAYER.replace("@", "kernel_size: 5"), 4, 3, "E012", "inside convolution_param { }"),
    ("layer { kernel_size: 5 }", 1, 9, "E012", "inside convolution_param { } or pooling_param { }"),
    (LAYER.replace("@", "lr_mult: 5"), 4, 3, "E012", "inside param { }"),
    (CONV.replace("@", "num_ouput: 20"), 4, 5, "E012", 'did you mean "num_output"?'),
    (CONV.replace("@", "filters: 20"), 4, 5, "E012", "Caffe calls this `num_output`"),
    (CONV.replace("@", 'top: "x"'), 4, 5, "E012", "close `convolution_param {` before it"),
    (POOL.replace("@", "group: 5"), 1, 41, "E012", "inside convolution_param { }"),
    ("layer { kernelsize: 5 }", 1, 9, "E012", "did you mean `kernel_size`, inside"),
    ("layer { convolutional_param { } }", 1, 9, "E012", 'did you mean "convolution_param"?'),
    ("layer { local_param { num_output: 6 } }", 1, 9, "E012", "caffe-windows"),
    (
        "layer { frobnicate_param { x: [1] } }",
        1,
        9,
        "E012",
        "perhaps the file was written for a fork",
    ),
    ("layers { batch_norm_param { } }", 1, 10, "E012", "layer {"),
    ("layer { relu_param { slope: 1 } }", 1, 22, "E012", "slope"),
    ("layer { origin: 3 }", 1, 9, "E012", "unknown field `origin`"),
    ("Layer { }", 1, 1, "E012", 'did you mean "layer"?'),
    ("what is this", 1, 1, "E012", "behind a #"),
    # Values of another kind.
    (CONV.replace("@", "num_output: ten"), 4, 17, "E013", "takes an integer from 0 up, not `ten`"),
    (CONV.replace("@", "num_output { 20 }"), 4, 16, "E013", "not a block"),
    ("debug_info: off", 1, 13, "E013", "write  debug_info: false"),
    ("debug_info: 2", 1, 13, "E013", "true or false"),
    ("name: conv 1 # c", 1, 7, "E013", 'write  name: "conv 1"'),
    ('name: conv1"', 1, 7, "E013", 'write  name: "conv1"'),
    ("layers { param { lr_mult: 1 } }", 1, 16, "E013", "blobs_lr"),
    ('layer { param: "w" }', 1, 16, "E013", 'write  param { name: "w" }'),
    ("layer { include: TRAIN }", 1, 18, "E013", "write  include { phase: TRAIN }"),
    ("layer { input_param { shape: 5 } }", 1, 30, "E013", "write  shape { dim: 5 }"),
    # Numbers out of range.
    ("input_dim: 2147483648", 1, 12, "E014", "from -2147483648 to 2147483647"),
    ("input_dim: - 2147483649", 1, 12, "E014", "out of range"),
    ("input_shape { dim: 9223372036854775808 }", 1, 20, "E014", "9223372036854775807"),
    (CONV.replace("@", "num_output: 4294967296"), 4, 17, "E014", "from 0 to 4294967295"),
    (CONV.replace("@", "pad: -1"), 4, 10, "E014", "cannot be negative"),
    ("input_dim: " + "9" * 5000, 1, 12, "E014", "out of range"),
    # Names of an enum.
    (POOL.replace("@", "pool: AVG"), 1, 47, "E015", 'did you mean "AVE"?'),
    (POOL.replace("@", "pool: 7"), 1, 47, "E015", "one of MAX, AVE, STOCHASTIC"),
    # Too many, too few.
    ('name: "a"\nname: "b"', 2, 1, "E016", "first given at net.prototxt:1:7"),
    ("state { level: 1 }\nstate { levl: 2 }", 2, 1, "E016", "first given at net.prototxt:1:1"),
    ("layer { clip_param { min: 0 } }", 1, 9, "E017", "`max`"),
    (CONV.replace("@", "num_output: [20]"), 4, 17, "E018", "write  num_output: 20"),
    ("input_dim: [[1], 2]", 1, 13, "E018", "a list within the list"),
    ("[some.extension]: 5\ndebug_info: 1", 1, 1, "E019", "not part of Caffe's format"),
    ("layer { [type/of.Any] { x: 1 } name: 'a' }", 1, 9, "E019", "not part of Caffe's format"),
    # The wrong file.
    ("base_lr: 0.1\nlr_policy: 'fixed'", 1, 1, "E011", "this is a solver definition"),
]
SOLVER_MISTAKES = [
    ("name: 'LeNet'\nlayer {}", 1, 1, "E011", "this is a net definition"),
    ("base_lr: 0,01", 1, 12, "E003", "decimal point"),
    ("snapshot_prefix: examples/a b # c", 1, 18, "E013", '"examples/a b"'),
    ("lr: 0.1", 1, 1, "E012", "Caffe calls this `base_lr`"),
    ("batch_size: 64", 1, 1, "E012", "data_param"),
]


def check(
    text: str | bytes, type: type[Message], line: int, column: int, code: str, words: str
) -> None:
    found = mistakes(text, type)
    (mistake,) = found
    where = mistake.location
    assert where is not None
    assert (where.line, where.column, mistake.code) == (line, column, code)
    assert words in str(mistake)
    assert mistake.severity == "error"


def named(cases: list[Any]) -> list[Any]:
    return [pytest.param(*case, id=f"{case[3]} {ascii(case[0])[:60]}") for case in cases]


@pytest.mark.parametrize(("text", "line", "column", "code", "words"), named(NET_MISTAKES))
def test_mistakes_in_a_net(text: str, line: int, column: int, code: str, words: str) -> None:
    check(text, pb.NetParameter, line, column, code, words)


@pytest.mark.parametrize(("text", "line", "column", "code", "words"), named(SOLVER_MISTAKES))
def test_mistakes_in_a_solver(text: str, line: int, column: int, code: str, words: str) -> None:
    check(text, pb.SolverParameter, line, column, code, words)


#: What protobuf refuses though it can mean only one thing: text, place, code, and the same as it
#: should be written.
DOUBTS = [
    ('layer { convolution_param { num_output: "20" } }', 41, "E013", "num_output: 20"),
    ("layer { convolution_param { num_output: '-2' } }", 41, "", ""),
    ("layer { convolution_param { num_output: 20.0 } }", 41, "E013", "num_output: 20"),
    ("layer { convolution_param { num_output: 20.5 } }", 41, "", ""),
    ("layer { convolution_param { num_output: '2 0' } }", 41, "", ""),
    ('layer { convolution_param { bias_term: "true" } }', 40, "E013", "bias_term: true"),
    ("debug_info: TRUE", 13, "E013", "debug_info: true"),
    ("debug_info: yes", 13, "", ""),
    ('layer { loss_weight: "0.5" }', 22, "E013", "loss_weight: 0.5"),
    ('layer { loss_weight: ["-1e-3", 2] }', 23, "E013", "loss_weight: [-1e-3, 2]"),
    ('layer { loss_weight: "half" }', 22, "", ""),
    ("layer { type: Softmax }", 15, "E013", 'type: "Softmax"'),
    ("layer { type: RELU }", 15, "E013", 'type: "ReLU"'),
    ("layer { type: INNER_PRODUCT }", 15, "E013", 'type: "InnerProduct"'),
    ("layer { name: conv 1 }", 15, "", ""),
    ("layer { name: name: 'a' }", 13, "", ""),
    ("layer { name:\n  type: 'ReLU' }", 13, "", ""),
    ("layer { top: [a, b] }", 15, "E013", 'top: ["a", "b"]'),
    ("layer { data_param { source: data/mnist-train_lmdb } }", 30, "E013",
     'data_param { source: "data/mnist-train_lmdb" }'),
    ('layers { type: "SoftmaxWithLoss" }', 16, "E013", "type: SOFTMAX_LOSS"),
    ("layers { type: Convolution }", 16, "E013", "type: CONVOLUTION"),
    ('layer { pooling_param { pool: "MAX" } }', 31, "E013", "pool: MAX"),
    ("layer { pooling_param { pool: max } }", 31, "E013", "pool: MAX"),
    ("layer { pooling_param { pool: maxi } }", 31, "", ""),
    ("force_backward: true force_backward: true", 22, "E016", "force_backward: true"),
    ("force_backward: true force_backward: false", 22, "", ""),
    ("name: 'a' name: 'b'", 11, "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "code", "meant"), DOUBTS)
def test_what_can_mean_one_thing_is_read_with_a_warning(
    text: str, column: int, code: str, meant: str
) -> None:
    """Where ``code`` is empty it can mean more than one, and is an error."""
    if not code:
        found = mistakes(text)
        assert found[0].location is not None
        assert found[0].location.column == column
        return
    document = prototxt.parse(text, pb.NetParameter)
    warning = document.warnings[0]
    assert warning.location is not None
    assert (warning.location.column, warning.code) == (column, code)
    assert warning.severity == "warning"
    inner = text[: text.rindex(meant.split(":")[0].split(" ")[0])]
    right = inner + meant + " }" * inner.count("{")
    assert document.message == prototxt.parse(right, pb.NetParameter).message


def test_an_unknown_field_is_a_warning_where_that_is_asked_for() -> None:
    text = "frob: 1 layer { name: 'a' frob_param { x: [1] y { z: 2 } } type: 'ReLU' } input: 'b'"
    assert [each.code for each in mistakes(text)] == ["E012", "E012"]
    with prototxt.lenient():
        document = prototxt.parse(text, pb.NetParameter)
        assert len(mistakes("frob frob\nlayer { frob: 1 }")) == 1
    assert [(w.code, w.severity) for w in document.warnings] == [("E012", "warning")] * 2
    (layer,) = document.message.layer
    assert (layer.name, layer.type, *document.message.input) == ("a", "ReLU", "b")
    assert len(mistakes(text)) == 2
    assert [w.code for w in document.positions.take_warnings()] == ["E012", "E012"]
    assert document.positions.take_warnings() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('item { name: "cat" label: 1 }', "a label map"),
        ('isa_version: 0x00 name: "X"', "an accelerator (Vitis AI)"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(text: str, words: str) -> None:
    for kind in (pb.NetParameter, pb.SolverParameter):
        last = mistakes(text, kind)[-1]
        assert last.code == "E011"
        assert words in last.message


def test_one_mistake_does_not_hide_the_next() -> None:
    found = mistakes("net: a.prototxt // the net\nlr: 1", pb.SolverParameter)
    assert [each.code for each in found] == ["E003", "E012"]
    assert [each.code for each in mistakes("layer { frob { x: 1 ")] == ["E012", "E004"]
    found = mistakes("layer { state { x: [1, { } ] } frob: {} name: {} }")
    assert [each.message.split("`")[1] for each in found] == ["state", "frob", "name"]


def test_all_mistakes_of_a_file_at_once(golden: Path) -> None:
    text = (golden / "prototxt" / "broken.prototxt").read_text(encoding="utf-8")
    report = (golden / "prototxt" / "broken.txt").read_text(encoding="utf-8")
    with pytest.raises(PrototxtError) as caught:
        prototxt.parse(text, pb.NetParameter, "broken.prototxt")
    assert f"{caught.value}\n" == report


def test_the_underline_covers_the_word_and_tabs_keep_it_in_place() -> None:
    (mistake,) = mistakes("layer {\n\tkernal_size: 3\n}")
    assert "2 | \tkernal_size: 3\n  | \t^^^^^^^^^^^ did" in str(mistake)


def test_mistakes_beyond_the_first_fifty_are_counted() -> None:
    found = mistakes("frob: 1\n" * 60)
    assert len(found) == 51
    assert found[-1].code == "E010"
    assert found[-1].message == "and 10 more mistakes"
    assert mistakes("frob: 1\n" * 51)[-1].message == "and 1 more mistake"
    assert mistakes("frob: 1\n" * 5000)[-1].message == "and at least 950 more mistakes"


def test_a_required_field_of_the_whole_message() -> None:
    (mistake,) = mistakes("max: 1", pb.ClipParameter)
    assert mistake.code == "E017"
    assert "`min`" in mistake.message


def test_private_fields_cannot_be_set() -> None:
    assert [each.code for each in mistakes("iter: 1 forward_passes: 2", pb.SolverState)] == ["E012"]


def test_nothing_in_a_text_reaches_the_terminal_raw() -> None:
    (mistake,) = mistakes('\x1b[31mname: "a"'.replace("[", "!"))
    assert "\x1b" not in str(mistake)


# Texts that are no prototxt at all.

LARGE = 1 << 20
FLOODS = {
    "opening braces": "{" * LARGE,
    "closing braces": "}" * LARGE,
    "nested blocks": "x {\n" * (LARGE // 4),
    "unclosed layers": "layer {\n" * (LARGE // 8),
    "misplaced layers": "layer { convolution_param { " * (LARGE // 28),
    "early braces": "layer { } top: 'a' } " * (LARGE // 21),
    "brackets": "[" * LARGE,
    "brackets in a list": "input_dim: [" + "[" * LARGE,
    "angles": "<" * LARGE,
    "double quotes": '"' * (LARGE + 1),
    "single quotes": "'" * (LARGE + 1),
    "escapes": 'name: "' + "\\q" * LARGE + '"',
    "backslashes": "\\" * LARGE,
    "one name": "a" * LARGE,
    "many names": "a " * LARGE,
    "one number": "input_dim: 1" + "e+" * LARGE,
    "digits": "input_dim: " + "7" * LARGE,
    "words": "name: " + "a " * LARGE,
    "minus signs": "input_dim: " + "- " * LARGE,
    "equal signs": "=" * LARGE,
    "slashes": "/" * LARGE,
    "open comments": "/*" * LARGE,
    "curly quotes": "name: " + "“" * LARGE,
    "commas": "," * LARGE,
    "missing commas": "input_dim: [" + "1 " * (LARGE // 4),
    "lone surrogates": 'name: "' + "\udcff" * LARGE + '"',
    "lines": "\n" * LARGE + "x",
}


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_is_answered(text: str) -> None:
    assert 1 <= len(mistakes(text)) <= 51


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\n<HTML lang='en'>", "a web page"),
        (b"name: 'a'\n\0\0", "a binary file"),
        (bytes(range(1, 9)) * 9, "a binary file"),
        ("name: 'a'".encode("utf-16"), "UTF-16"),
        ("name: 'a'".encode("utf-16-le"), "UTF-16"),
        ("name: 'a'".encode("utf-16-be"), "UTF-16"),
        ("name: 'a'".encode("utf-32"), "UTF-32"),
    ],
)
def test_what_is_no_text(data: bytes, words: str) -> None:
    (mistake,) = mistakes(data)
    assert mistake.code == "E002"
    assert words in mistake.message


def test_binary_files_of_caffe_are_recognised() -> None:
    weights = pb.NetParameter(name="LeNet", layer=[{"name": "ip", "blobs": [{"data": [0.5] * 9}]}])
    (mistake,) = mistakes(weights.SerializeToString())
    assert "looks like a .caffemodel" in mistake.message
    state = pb.SolverState(iter=10000, learned_net="lenet_iter_10000.caffemodel")
    (mistake,) = mistakes(state.SerializeToString() + bytes(9))
    assert "looks like a .solverstate" in mistake.message


# Files.


def unreadable(path: str | os.PathLike[str]) -> Diagnostic:
    with pytest.raises(PrototxtError) as caught:
        prototxt.read(path, pb.NetParameter)
    (mistake,) = caught.value.diagnostics
    return mistake


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'name: "a"\r\n')
    for name in (path, str(path)):
        document = prototxt.read(name, pb.NetParameter)
        assert document.message.name == "a"
        assert document.positions.file == str(path)
        assert str(document.positions.at("name")) == f"{path}:1:7"
        assert document.warnings == []


def test_mistakes_in_a_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("nam: 'a'", encoding="utf-8")
    assert str(unreadable(path).location) == f"{path}:1:1"


def test_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "lenet_solver.prototxt").touch()
    mistake = unreadable(tmp_path / "lenet_solvr.prototxt")
    assert mistake.code == "E001"
    assert "does not exist" in mistake.message
    assert mistake.hint == 'did you mean "lenet_solver.prototxt"?'
    assert unreadable(tmp_path / "frob").hint == ""
    assert "there is no folder" in unreadable(tmp_path / "no" / "net.prototxt").message
    below_file = tmp_path / "lenet_solver.prototxt" / "net.prototxt"
    assert "there is no folder" in unreadable(below_file).message
    assert "empty" in unreadable("").message


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "train_val.prototxt").touch()
    mistake = unreadable(tmp_path)
    assert mistake.code == "E001"
    assert "is a folder" in mistake.message
    assert "train_val.prototxt" in mistake.hint


def test_a_device_and_a_pipe(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names on this system")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", os.devnull):
        assert "device or a pipe" in unreadable(path).message


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.touch(mode=0o000)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    assert "permission denied" in unreadable(path).message


def test_a_name_that_is_none() -> None:
    assert "cannot be read" in unreadable("a\0b").message


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    assert "more than 64 MB" in unreadable(path).message
