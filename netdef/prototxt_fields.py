"""What the schema says about a message type, in the shape the reader asks for it.

Built once per type from its descriptor. Fields whose number is in :data:`PRIVATE` are netdef's
own notes on a message (``origin``, the cursors of a snapshot): no text sets them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

#: Numbers of fields that no text can set. Fields merged in from forks of Caffe stand above them.
PRIVATE: Final = range(20000, 20100)
#: The first number of a field that forks added to a message of Caffe's.
FIRST_OF_FORKS: Final = PRIVATE.stop

INTEGER: Final = "integer"
FLOAT: Final = "float"
BOOL: Final = "bool"
STRING: Final = "string"
BYTES: Final = "bytes"
ENUM: Final = "enum"
MESSAGE: Final = "message"

_F = FieldDescriptorProto
_INTEGERS = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (0, 2**64 - 1)),
}
_KINDS = {
    _F.TYPE_FLOAT: FLOAT,
    _F.TYPE_DOUBLE: FLOAT,
    _F.TYPE_BOOL: BOOL,
    _F.TYPE_STRING: STRING,
    _F.TYPE_BYTES: BYTES,
    _F.TYPE_ENUM: ENUM,
    _F.TYPE_MESSAGE: MESSAGE,
    _F.TYPE_GROUP: MESSAGE,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``low`` and ``high`` bound an integer, ``values`` are the names of an enum.

    ``of_fork`` tells that BVLC Caffe does not have it.
    """

    name: str
    kind: str
    repeated: bool
    low: int
    high: int
    values: dict[str, int]
    submessage: Descriptor | None
    of_fork: bool

    @property
    def message_type(self) -> MessageType:
        """The type of a message field."""
        assert self.submessage is not None, f"{self.name} is no message"
        return message_type(self.submessage)

    @property
    def takes(self) -> str:
        """What may stand after the name, as words for a sentence: ``an integer``."""
        if self.kind == INTEGER:
            return "an integer from 0 up" if self.low == 0 else "an integer"
        if self.kind == ENUM:
            names = list(self.values)
            if len(names) > 8:
                return "a name without quotes"
            return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
        return {
            FLOAT: "a number",
            BOOL: "true or false",
            STRING: "text in quotes",
            BYTES: "text in quotes",
            MESSAGE: "fields in braces, { }",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class MessageType:
    """The fields of a message by name, the required ones, and whether it has an ``origin``."""

    name: str
    fields: dict[str, Field]
    required: tuple[str, ...]
    has_origin: bool


@functools.cache
def message_type(descriptor: Descriptor) -> MessageType:
    """What the reader knows about the messages that ``descriptor`` describes."""
    # The serialized form names labels and types alike in every protobuf we support.
    schema = DescriptorProto()
    descriptor.CopyToProto(schema)
    fields: dict[str, Field] = {}
    required: list[str] = []
    for each in schema.field:
        if each.number in PRIVATE:
            continue
        known = descriptor.fields_by_name[each.name]
        low, high = _INTEGERS.get(each.type, (0, 0))
        fields[each.name] = Field(
            name=each.name,
            kind=_KINDS.get(each.type, INTEGER),
            repeated=each.label == _F.LABEL_REPEATED,
            low=low,
            high=high,
            values={v.name: v.number for v in known.enum_type.values} if known.enum_type else {},
            submessage=known.message_type,
            of_fork=each.number >= FIRST_OF_FORKS,
        )
        if each.label == _F.LABEL_REQUIRED:
            required.append(each.name)
    has_origin = any(f.name == "origin" and f.number in PRIVATE for f in schema.field)
    return MessageType(descriptor.name, fields, tuple(required), has_origin)
