"""The characters of a prototxt: from bytes to text, from text to tokens, from escapes to values.

Every pattern here reads each character a bounded number of times, so no text, however odd, takes
more than time in proportion to its length.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from .errors import Location, PrototxtError, printable

#: Larger texts are refused unread; a real prototxt has less than a megabyte.
LARGEST_TEXT: Final = 64 * 1024 * 1024

# Kinds of token: the number of the group that matched, 0 at the end of the text.
END, NAME, NUMBER, STRING, SYMBOL, COMMENT, STRAY = range(7)

_QUOTED = r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"' + r"|'[^'\\\n]*(?:\\[^\n][^'\\\n]*)*'"

TOKEN: Final = re.compile(
    rf"""[ \t\r\n\v\f]*(?:
        ([A-Za-z_][A-Za-z0-9_]*)                # a name
      | (\.?[0-9](?:[eE][+-]|[A-Za-z0-9_.])*)   # what begins as a number; its form is judged later
      | ({_QUOTED})                             # a string that ends on its line
      | ([][{{}}<>:;,-])
      | (\#[^\n]*)
      | (.)                                     # anything else, such as a quote never closed
      | \Z
    )""",
    re.VERBOSE,
)

#: The whole of a value or name, to underline it.
SPAN: Final = re.compile(
    rf"""-?[ \t]*(?:[A-Za-z_][A-Za-z0-9_]*|\.?[0-9](?:[eE][+-]|[A-Za-z0-9_.])*|{_QUOTED}|.)"""
)
DECIMAL: Final = re.compile(r"0|[1-9][0-9]*")
OCTAL: Final = re.compile(r"0[0-7]+")
HEXADECIMAL: Final = re.compile(r"0[xX][0-9A-Fa-f]+")
#: A float as protobuf writes it; an ``f`` may follow.
REAL: Final = re.compile(
    r"((?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)[fF]?"
)

#: Braces and brackets, passing over comments and strings.
BRACE: Final = re.compile(rf"\#[^\n]*|{_QUOTED}|([][{{}}<>])")
#: A value written without the quotes it needs: to the end of its words on this line.
_WORD = r"""[^\s{}<>\[\];,#"']"""
UNQUOTED: Final = re.compile(
    rf"{_WORD}+(?:[ \t]+(?!//|[A-Za-z_]\w*[ \t]*[:{{<]){_WORD}+){{0,20}}[\"']?", re.ASCII
)
#: A single word that can only be text whose quotes are missing: a name, a number, a path.
BARE: Final = re.compile(r"[\w./\\$~+-]+(?![^]\s}>,;#])", re.ASCII)
#: A string between typographic quotation marks, as a word processor makes them.
CURLY_QUOTED: Final = re.compile("[“”„‟«‘’‚]([^“”„‟»‘’\"'\n]*)[“”„‟»‘’\"']?")
#: What follows a name when that name begins a field.
FIELD_FOLLOWS: Final = re.compile(r"[ \t]*[:{<]")
#: Where reading may go on after something unreadable: a closing brace, a line's end, a field.
RESUME: Final = re.compile(r"[}>\n]|\b[A-Za-z_]\w*[ \t]*[:{<]", re.ASCII)

#: The lines that version control leaves in a file whose versions it could not join.
CONFLICT: Final = re.compile(r"^(?:<{7} |={7}\r?$|>{7} )", re.MULTILINE)

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(
    r"""\\(?:
        ([0-7]{1,3})
      | [xX]([0-9A-Fa-f]{1,2})
      | u([dD][89abAB][0-9A-Fa-f]{2})\\u([dD][c-fC-F][0-9A-Fa-f]{2})
      | u([0-9A-Fa-f]{4})
      | U([0-9A-Fa-f]{8})
      | (.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_SIMPLE_ESCAPES = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    "?": b"?",
    "'": b"'",
    '"': b'"',
}

_SIGNATURES = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF-", "a PDF document"),
)
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class Lines:
    """Finds the line and column of an offset in a text."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        # The line that was asked for last: mistakes of one long line share its text.
        self._first = -1
        self._source = ""

    def number(self, offset: int) -> int:
        """The line that holds ``offset``, counted from 1."""
        return self.text.count("\n", 0, offset) + 1

    def location(self, start: int, end: int) -> Location:
        """The place of ``text[start:end]``, cut at the end of its line."""
        first = self.text.rfind("\n", 0, start) + 1
        if first != self._first:
            last = self.text.find("\n", first)
            line = self.text[first : last if last >= 0 else len(self.text)]
            self._first, self._source = first, printable(line.rstrip("\r"))
        column = start - first + 1
        length = max(1, min(end - start, len(self._source) - column + 1))
        return Location(self.file, self.number(start), column, length, self._source)


def shown(text: str) -> str:
    """``text`` for a sentence: printable and short."""
    return printable(text if len(text) <= 40 else text[:37] + "...")


def decode(data: bytes, file: str) -> str:
    """The text of a prototxt file.

    A byte order mark of UTF-8 is dropped. Bytes that are not UTF-8 become lone surrogates: comments
    may hold them, as Caffe allows; strings may not. Raises :class:`PrototxtError` (E002) for what
    is no text at all.
    """
    head = data[:65536]
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            raise _wrong_encoding(file, encoding)
    if len(head) >= 4 and any(head[0:8:2]) != any(head[1:8:2]):
        raise _wrong_encoding(file, "UTF-16")
    for signature, description in _SIGNATURES:
        if head.startswith(signature):
            raise PrototxtError(f"{file} is {description}, not a prototxt", code="E002")
    if (
        head.lstrip()[:9].lower() in (b"<!doctype", b"<html")
        or head.lstrip()[:5].lower() == b"<html"
    ):
        raise PrototxtError(
            f"{file} is a web page, not a prototxt",
            hint="download the raw file instead of the page that shows it",
            code="E002",
        )
    controls = len(head) - len(
        head.translate(None, bytes((*range(9), *range(14, 26), *range(28, 32))))
    )
    if b"\0" in head or controls * 20 > len(head):
        raise PrototxtError(
            f"{file} is a binary file{_binary_kind(head, file)}, not a prototxt",
            hint="a prototxt is the text file that defines the net or the solver",
            code="E002",
        )
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    return data.decode("utf-8", "surrogateescape")


def _wrong_encoding(file: str, encoding: str) -> PrototxtError:
    return PrototxtError(
        f"{file} is encoded as {encoding}; a prototxt is UTF-8 text",
        hint="save it again as UTF-8",
        code="E002",
    )


def _binary_kind(head: bytes, file: str) -> str:
    """Which of Caffe's binary files this seems to be, as the middle of a sentence."""
    suffix = file.lower()
    if suffix.endswith(".solverstate") or (head[:1] == b"\x08" and b".caffemodel" in head):
        return " that looks like a .solverstate (the state of a training run)"
    if suffix.endswith(".binaryproto"):
        return " that looks like a .binaryproto (an image mean)"
    # A NetParameter begins with its name: tag 1, a length, printable characters.
    name = head[2 : 2 + head[1]] if len(head) > 2 and head[0] == 10 and head[1] < 128 else b""
    if suffix.endswith(".caffemodel") or (name and name.isascii() and name.decode().isprintable()):
        return " that looks like a .caffemodel (trained weights)"
    return ""


def integer(text: str) -> int | None:
    """The value of a decimal, octal or hexadecimal number; None if ``text`` is none."""
    if DECIMAL.fullmatch(text):
        # 30 digits exceed every type, and Python refuses to convert a few thousand.
        return int(text[:30])
    if OCTAL.fullmatch(text):
        return int(text, 8)
    if HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    return None


def whole(text: str) -> int | None:
    """The value of a whole number however it is written: ``20``, ``20.0``; None if it is none."""
    value = integer(text)
    match = REAL.fullmatch(text) if value is None else None
    if match is not None:
        real = float(match[1])
        value = int(real) if real.is_integer() and real < 2**53 else None
    return value


def has_invalid_utf8(text: str) -> bool:
    """Whether some of ``text`` was not UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def unescape(token: str) -> bytes:
    """The bytes that a quoted string stands for.

    Raises :class:`EscapeError` at the first escape that means nothing.
    """
    body = token[1:-1]
    if "\\" not in body:
        return _encode(body, 1)
    out = bytearray()
    done = 0
    for match in _ESCAPE.finditer(body):
        out += _encode(body[done : match.start()], done + 1)
        done = match.end()
        octal, hexa, high, low, short, long, other = match.groups()
        if octal:
            out.append(int(octal, 8) & 0xFF)
        elif hexa:
            out.append(int(hexa, 16))
        elif other:
            if other not in _SIMPLE_ESCAPES:
                raise EscapeError(match.start() + 1, match.end() + 1)
            out += _SIMPLE_ESCAPES[other]
        else:
            if high:
                point = 0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF)
            else:
                point = int(short or long, 16)
            if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                raise EscapeError(match.start() + 1, match.end() + 1)
            out += chr(point).encode()
    return bytes(out + _encode(body[done:], done + 1))


def _encode(text: str, offset: int) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EscapeError(offset + error.start, offset + error.end) from None


class EscapeError(ValueError):
    """``token[start:end]`` stands for no character."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start = start
        self.end = end
