"""Text to message and back: prototxt as Caffe reads it, every value with its place.

::

    document = prototxt.read("lenet_train_test.prototxt", pb.NetParameter)
    document.message.layer[3].convolution_param.num_output
    str(document.positions.at("layer", 3, "convolution_param", "num_output"))  # file:line:column

The reader accepts what protobuf's own text format accepts, for any message type, and with a warning
what that refuses though it can mean only one thing (``type: SGD``). It reports all mistakes of a
file at once, as one :class:`PrototxtError` with a :class:`Diagnostic` for each:

====  ==============================================================
E001  the file is missing, a folder, unreadable or too large
E002  no text, or not UTF-8 (binary, UTF-16, a web page)
E003  something stands where a field or a value should
E004  a brace or bracket is missing, too many, or closes another
E005  a string: not closed, an unknown escape, not UTF-8
E006  ``:`` or the value is missing
E007  a malformed number
E008  messages nested too deep
E010  more mistakes than are shown
E011  a solver given for a net, the reverse, or another kind of file
E012  an unknown field
E013  a value of another kind than the field takes
E014  an integer out of range
E015  an unknown name of an enum
E016  a second value for a field that takes one
E017  a required field is missing
E018  a list for a field that takes one value
E019  extensions and Any, which Caffe does not use
====  ==============================================================

Layers remember where they came from: every layer read gets the running number ``origin``, from 1
on, in the order of the text, nets within a solver included. It survives upgrades and copies, and
:meth:`Positions.layer` finds the place of a layer's fields by it.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from google.protobuf import text_encoding
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .errors import Diagnostic, Location, PrototxtError, did_you_mean, printable
from .prototxt_fields import PRIVATE
from .prototxt_parser import Parser
from .prototxt_scanner import Place
from .prototxt_tokens import LARGEST_TEXT, SPAN, Lines, decode

M = TypeVar("M", bound=Message)

#: Whether unknown fields are warnings: nets are read in many places, for one command each.
_LENIENT: ContextVar[bool] = ContextVar("lenient", default=False)


@contextmanager
def lenient(on: bool = True) -> Iterator[None]:
    """While it lasts, an unknown field in a text is a warning, and what it holds is passed over."""
    token = _LENIENT.set(on)
    try:
        yield
    finally:
        _LENIENT.reset(token)


_DOUBLE = FieldDescriptor.CPPTYPE_DOUBLE


class Positions:
    """Where the parts of a message stand in the text they were read from.

    Made by :func:`parse`. ``Positions(file)`` belongs to a message that never was a text: it has no
    places and answers None.
    """

    def __init__(
        self,
        file: str = "<message>",
        lines: Lines | None = None,
        root: Place | None = None,
        layers: list[Place] | None = None,
        warnings: list[Diagnostic] | None = None,
    ) -> None:
        self.file = file
        self._warnings = warnings or []
        self._lines = lines
        self._root = root
        self._layers = layers or []

    def take_warnings(self) -> list[Diagnostic]:
        """The warnings of the text that nobody has taken yet: each is told once."""
        taken, self._warnings = self._warnings, []
        return taken

    def at(self, *path: str | int) -> Location | None:
        """The place of ``path``, such as ``("layer", 3, "convolution_param", "kernel_size", 0)``.

        A message is found by its name, a scalar by its value. What the text does not mention has
        the place of the nearest message around it; the whole message stands at the first character.
        """
        return self._find(self._root, path)

    def layer(self, origin: int, *path: str | int) -> Location | None:
        """The place of ``path`` within the layer of this ``origin``; None if there is none."""
        known = 1 <= origin <= len(self._layers)
        return self._find(self._layers[origin - 1], path) if known else None

    def _find(self, place: Place | None, path: tuple[str | int, ...]) -> Location | None:
        if place is None or self._lines is None:
            return None
        steps = list(reversed(path))
        while steps:
            name = steps.pop()
            found = place.fields.get(name) if isinstance(name, str) else None
            index = steps.pop() if steps and isinstance(steps[-1], int) else 0
            if isinstance(found, list):
                assert isinstance(index, int)
                found = found[index] if 0 <= index < len(found) else None
            if isinstance(found, int):
                return self._location(found)
            if found is None:
                break
            place = found
        return self._location(place.start) if place is not self._root else self._top()

    def _location(self, start: int) -> Location:
        assert self._lines is not None
        match = SPAN.match(self._lines.text, start)
        return self._lines.location(start, match.end() if match else start + 1)

    def _top(self) -> Location:
        assert self._lines is not None
        return self._lines.location(0, 1)


@dataclass(frozen=True)
class Document(Generic[M]):
    """A message, where its parts stand, and what is odd about the text without being wrong."""

    message: M
    positions: Positions
    warnings: list[Diagnostic] = field(default_factory=list)


def is_lenient() -> bool:
    """Whether :func:`lenient` is in force."""
    return _LENIENT.get()


def parse(text: str | bytes, type: type[M], file: str = "<text>") -> Document[M]:
    """Read ``text`` as a message of ``type``; ``file`` is the name that positions carry.

    Bytes are UTF-8. Where :func:`lenient` is in force, unknown fields are warnings. Raises
    :class:`PrototxtError` with all mistakes of the text.
    """
    if len(text) > LARGEST_TEXT:
        raise _too_large(file, len(text))
    decoded = decode(text, file) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    message = type()
    parser = Parser(decoded, message, file, _LENIENT.get())
    parser.read()
    mistakes = parser.diagnostics()
    if mistakes:
        raise PrototxtError(diagnostics=mistakes)
    warnings = parser.warnings()
    positions = Positions(file, parser.lines, parser.root, parser.layers, list(warnings))
    return Document(message, positions, warnings)


def read(path: str | os.PathLike[str], type: type[M]) -> Document[M]:
    """Read the file ``path`` as a message of ``type``.

    Raises :class:`PrototxtError` for a file that cannot be read, and as :func:`parse` does.
    """
    file = os.fspath(path)
    try:
        status = os.stat(file)
        if stat.S_ISDIR(status.st_mode):
            names = _prototxts_in(file)
            hint = f"it holds {', '.join(names[:5])}{', ..' if names[5:] else ''}" if names else ""
            raise PrototxtError(f"{file} is a folder, not a prototxt file", hint=hint)
        if not stat.S_ISREG(status.st_mode):
            raise PrototxtError(f"{file} is a device or a pipe, not a prototxt file")
        if status.st_size > LARGEST_TEXT:
            raise _too_large(file, status.st_size)
        data = Path(file).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(file) from None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise PrototxtError(f"{printable(file)} cannot be read: {reason.lower()}") from None
    return parse(data, type, file)


def to_text(message: Message) -> str:
    """``message`` in the layout in which Caffe prints and saves it, without ``origin``.

    Numbers are written as C++ protobuf writes them (``1``, not ``1.0``), so logs and saved files
    compare equal with Caffe's.
    """
    lines: list[str] = []
    _print(message, "", lines)
    return "".join(lines)


def _print(message: Message, indent: str, lines: list[str]) -> None:
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if name == "origin" and descriptor.number in PRIVATE:
            continue
        single = isinstance(value, (Message, str, bytes, int, float))
        for each in (value,) if single else value:
            if isinstance(each, Message):
                lines.append(f"{indent}{name} {{\n")
                _print(each, indent + "  ", lines)
                lines.append(f"{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(each, descriptor)}\n")


def _scalar(value: str | bytes | float, descriptor: FieldDescriptor) -> str:
    if isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        return f'"{text_encoding.CEscape(data, False)}"'
    if isinstance(value, float):
        # As few digits as tell the value, but never fewer than C++ begins with.
        few, full = (".15g", ".17g") if descriptor.cpp_type == _DOUBLE else (".6g", ".9g")
        short = format(value, few)
        exact = float(short) if descriptor.cpp_type == _DOUBLE else _float32(float(short))
        return short if exact == value or value != value else format(value, full)
    if isinstance(value, bool):
        return "true" if value else "false"
    if descriptor.enum_type is not None:
        known = descriptor.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return str(value)


def _float32(value: float) -> float:
    """The nearest single-precision number."""
    (single,) = struct.unpack("f", struct.pack("f", value))
    return float(single)


def _too_large(file: str, size: int) -> PrototxtError:
    return PrototxtError(
        f"{file} has {size >> 20} MB; a prototxt of more than {LARGEST_TEXT >> 20} MB is not read",
        hint="weights are kept in a .caffemodel, which is no prototxt",
    )


def _missing(file: str) -> PrototxtError:
    if not file:
        return PrototxtError("the name of the prototxt file is empty")
    folder = os.path.dirname(file) or "."
    if not os.path.isdir(folder):
        return PrototxtError(f"{file} does not exist: there is no folder {folder}")
    hint = did_you_mean(os.path.basename(file), _prototxts_in(folder))
    return PrototxtError(f"{file} does not exist", hint=hint)


def _prototxts_in(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".prototxt"))
    except OSError:
        return []
