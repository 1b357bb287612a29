"""What was probably meant: hints for the mistakes that people make in a prototxt."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import did_you_mean
from .prototxt_fields import BOOL, ENUM, FLOAT, INTEGER, MESSAGE, STRING, Field, MessageType
from .prototxt_tokens import REAL, shown

if TYPE_CHECKING:
    from .prototxt_scanner import Frame

#: A longer name is no misspelling of anything.
LONGEST_GUESS = 64

_ROOTS = {"NetParameter": "net definition", "SolverParameter": "solver definition"}
_LAYERS = ("LayerParameter", "V1LayerParameter", "V0LayerParameter")

#: What other frameworks and everyday speech call a field.
_OTHER_NAMES = {
    "batch": "batch_size",
    "ceil_mode": "round_mode",
    "dropout": "dropout_ratio",
    "epochs": "max_iter",
    "filters": "num_output",
    "kernel": "kernel_size",
    "learning_rate": "base_lr",
    "lr": "base_lr",
    "num_filters": "num_output",
    "optimizer": "type",
    "padding": "pad",
    "ratio": "dropout_ratio",
    "strides": "stride",
}
#: Fields of forks that the schema lacks, by the fork in which people met them first.
_FORKS = {
    "insanity_param": "caffe-windows",
    "local_param": "caffe-windows",
    "mn_activation_param": "Intel Caffe",
    "mn_grad_compress_param": "Intel Caffe",
    "multinode": "Intel Caffe",
    "squeeze_convolution_param": "Synopsys Caffe",
    "squeeze_inner_product_param": "Synopsys Caffe",
}
#: The V1 spelling of what stands in ``param { }`` since.
_V1_PARAM = {"blobs_lr": "lr_mult", "weight_decay": "decay_mult", "blob_share_mode": "share_mode"}

#: V1 layer types whose later name is more than their words joined.
_V2_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


def title(frame: Frame) -> str:
    """What the user calls the message of ``frame``: ``convolution_param of layer "conv1"``."""
    if frame.type.name in _LAYERS:
        name = getattr(frame.message, "name", "")
        return f'layer "{shown(name)}"' if name else "an unnamed layer"
    if frame.parent is None:
        return f"the {_ROOTS.get(frame.type.name, frame.type.name)}"
    layer = _layer_of(frame)
    return f"{frame.name} of {title(layer)}" if layer else frame.name


def unknown_field(name: str, value: str, frame: Frame) -> str:
    """A hint for field ``name``, given as ``value``, which ``frame`` does not have."""
    if len(name) > LONGEST_GUESS:
        return ""
    known = frame.type.fields
    if frame.type.name == "LayerParameter" and name in _V1_PARAM:
        return (
            f"V1 spelling; in `layer {{ }}` write  param {{ {_V1_PARAM[name]}: {value or '..'} }}"
        )
    if frame.type.name == "V1LayerParameter" and name.endswith("_param"):
        net = frame.parent.type.fields.get("layer") if frame.parent else None
        if net and name in net.message_type.fields:
            return (
                f'the old `layers {{ }}` has no {name}; write this one as  layer {{ type: ".." }}'
            )
    if frame.type.name == "SolverParameter" and name == "batch_size":
        return "the batch size belongs to the net:  data_param { batch_size: .. }"
    if name in _FORKS:
        return f"a field of {_FORKS[name]}, which netdef does not know"
    other = _OTHER_NAMES.get(name.lower(), "")
    if other in known:
        return f"Caffe calls this `{other}`"
    for outer in _enclosing(frame):
        field = outer.type.fields.get(name)
        if field is not None and (field.kind == MESSAGE) == (value == "{"):
            return f"`{name}` belongs to {title(outer)}: close `{frame.name} {{` before it"
    homes = _homes(name, frame.type)
    if homes:
        return f"`{name}` belongs inside {_listed(homes, frame)}"
    return _similar_field(name, value, frame) or _other_home(name, value, frame)


def _similar_field(name: str, value: str, frame: Frame) -> str:
    """A hint naming a field spelled like ``name``, of ``frame`` or one message further in."""
    known = frame.type.fields.values()
    alike = [field.name for field in known if (field.kind == MESSAGE) == (value == "{")]
    if name.endswith("_param"):
        # The ending alone must not make two names alike.
        alike = [each.removesuffix("_param") for each in alike if each.endswith("_param")]
        close = difflib.get_close_matches(name.removesuffix("_param").lower(), alike, 1, 0.75)
        return f'did you mean "{close[0]}_param"?' if close else ""
    similar = did_you_mean(name, alike)
    if similar:
        return similar
    for field in known:
        if field.kind == MESSAGE:
            close = difflib.get_close_matches(name.lower(), field.message_type.fields, 1, 0.8)
            if close:
                homes = _listed(_homes(close[0], frame.type), frame)
                return f"did you mean `{close[0]}`, inside {homes}?"
    return ""


def _other_home(name: str, value: str, frame: Frame) -> str:
    """A hint for a field unlike any of ``frame``: where it may stand, or what may stand here."""
    if frame.parent:
        homes = [home for home in _homes(name, frame.parent.type) if home != frame.name]
        if homes:
            return f"`{name}` belongs inside {_listed(homes, frame)}"
    if len(frame.type.fields) <= 8:
        return f"{frame.name or frame.type.name} has {', '.join(frame.type.fields)}"
    if name.endswith("_param") and value == "{":
        return "not a field of BVLC Caffe 1.0; perhaps the file was written for a fork"
    return ""


def block(field: Field, given: str) -> str:
    """A hint for message ``field`` given as a bare value."""
    inner = field.message_type.fields
    if given[:1] in "\"'":
        for name in ("name", "type"):
            if name in inner and inner[name].kind == STRING:
                return f"write  {field.name} {{ {name}: {shown(given)} }}"
    if given[:1].isdigit() and "dim" in inner:
        return f"write  {field.name} {{ dim: {shown(given)} }}"
    for each in inner.values():
        if given in each.values:
            return f"write  {field.name} {{ {each.name}: {given} }}"
    return f"write  {field.name} {{ .. }}"


def no_block(field: Field, frame: Frame) -> str:
    """A hint for scalar ``field`` given as a block in braces."""
    if frame.type.name == "V1LayerParameter" and field.name == "param":
        return "in the old `layers { }` write  blobs_lr: ..  weight_decay: .."
    return f"write  {field.name}: .."


def wrong_root(name: str, expected: MessageType, other: MessageType) -> str:
    """A sentence for a file of the ``other`` kind, seen by its field ``name``."""
    needed, given = _ROOTS[expected.name], _ROOTS[other.name]
    return f"this is a {given}, where a {needed} is needed: it begins with `{name}`"


#: Files that look like a net or a solver and are neither, by a field that only they have.
_OTHER_FILES = {
    "item": "a label map: the names of the classes of annotated data",
    "isa_version": "the description of an accelerator (Vitis AI)",
    "feature_code": "the description of an accelerator (Vitis AI)",
    "input_schema": "a schema of data",
    "node": "a graph of another framework",
    "opset_import": "a model of another framework (ONNX)",
    "model_config_list": "the configuration of a model server",
    "max_batch_size": "the configuration of a model server",
}


def other_file(name: str) -> str:
    """What a file is whose outermost message has a field ``name``; empty for none that we know."""
    return _OTHER_FILES.get(name, "")


def wrong_file(name: str, expected: MessageType, other: str) -> str:
    """A sentence for a file that is ``other``, seen by its field ``name``."""
    return f"this is {other}, where a {_ROOTS[expected.name]} is needed: it has `{name}`"


def bare_text(field: Field, text: str, frame: Frame) -> str:
    """What ``text`` without quotes says for string ``field``; a V1 type in today's words."""
    if field.name == "type" and frame.type.name == "LayerParameter" and text in _v1_types(frame):
        return v2_type(text)
    return text


def enum_meant(field: Field, given: str) -> str:
    """The one value of enum ``field`` that ``given`` can mean, as a name in other letters, or V2's
    name of a V1 layer type; empty for none."""
    same = [name for name in field.values if name.lower() == given.lower()]
    if field.name == "type" and not same:
        same = [name for name in field.values if v2_type(name) == given]
    return same[0] if len(same) == 1 else ""


def unquoted(field: Field, value: str, frame: Frame) -> str:
    """A hint for a string field whose ``value`` has no quotes."""
    text = value.strip("\"'")
    if field.name == "type" and frame.type.name == "LayerParameter" and text.isupper():
        types = _v1_types(frame)
        if text in types:
            return f'V1 spelling; in `layer {{ }}` write  type: "{v2_type(text)}"'
    return f'write  {field.name}: "{shown(text)}"' if text else "put quotes around the text"


def quoted(field: Field, text: str) -> str:
    """A hint for a number, bool or enum given as the string ``text``."""
    if field.kind == ENUM:
        return enum_value(field, text, quoted=True)
    if field.kind == BOOL and text.lower() in ("true", "false"):
        return f"without quotes:  {field.name}: {text.lower()}"
    if field.kind in (INTEGER, FLOAT) and REAL.fullmatch(text.strip().lstrip("-")):
        return f"without quotes:  {field.name}: {text.strip()}"
    return ""


def enum_value(field: Field, given: str, *, quoted: bool = False) -> str:
    """A hint for ``given``, which is not the name of a value of enum ``field``."""
    if given == "RUN" and field.name == "phase":
        return "RUN is MyCaffe's phase for what is neither training nor testing"
    same = enum_meant(field, given)
    if same:
        return f"write  {field.name}: {same}" + ("  without quotes" if quoted else "")
    guess = did_you_mean(given, field.values) if len(given) <= LONGEST_GUESS else ""
    return guess or (f"one of {', '.join(field.values)}" if len(field.values) <= 8 else "")


def bool_value(field: Field, given: str) -> str:
    """A hint for ``given``, which is neither true nor false."""
    meant = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false"}
    value = meant.get(given.lower(), "false" if given.lower() == "off" else "")
    return f"write  {field.name}: {value}" if value else "write true or false"


def v2_type(name: str) -> str:
    """The layer type string that replaced V1's enum value ``name``."""
    return _V2_TYPES.get(name) or "".join(word.capitalize() for word in name.split("_"))


def _v1_types(frame: Frame) -> dict[str, int]:
    v1 = frame.parent.type.fields.get("layers") if frame.parent else None
    return v1.message_type.fields["type"].values if v1 else {}


def _enclosing(frame: Frame) -> Iterator[Frame]:
    outer = frame.parent
    while outer is not None:
        yield outer
        outer = outer.parent


def _layer_of(frame: Frame) -> Frame | None:
    return next((outer for outer in _enclosing(frame) if outer.type.name in _LAYERS), None)


def _homes(name: str, type: MessageType) -> list[str]:
    """The message fields of ``type`` inside which a field ``name`` may stand: of Caffe, if any."""
    homes = [
        field
        for field in type.fields.values()
        if field.kind == MESSAGE and name in field.message_type.fields
    ]
    own = [f.name for f in homes if not (f.of_fork or f.message_type.fields[name].of_fork)]
    return own or [field.name for field in homes]


def _listed(homes: list[str], frame: Frame) -> str:
    """``homes`` as words; only the one of the layer's own type where its type tells."""
    layer = frame if frame.type.name in _LAYERS else _layer_of(frame)
    if layer is not None and "type" in layer.type.fields:
        field, type = layer.type.fields["type"], getattr(layer.message, "type", "")
        if field.kind != STRING:
            type = next((name for name, number in field.values.items() if number == type), "")
        plain = type.replace("_", "").lower() + "param"
        homes = [home for home in homes if home.replace("_", "") == plain] or homes
    blocks = [f"{home} {{ }}" for home in homes[:4]]
    return " or ".join(blocks) if len(blocks) < 3 else ", ".join(blocks[:-1]) + f" or {blocks[-1]}"
