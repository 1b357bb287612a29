"""The moving part under the parser: the current token, the mistakes found, the pairs of braces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, NoReturn

from google.protobuf.message import Message

from . import prototxt_hints as hints
from . import prototxt_tokens as tokens
from .errors import Diagnostic
from .prototxt_fields import Field, MessageType
from .prototxt_tokens import COMMENT, END, NAME, STRAY, SYMBOL, TOKEN, Lines

#: Messages within messages, as many as protobuf itself reads.
DEEPEST: Final = 100
#: Diagnostics shown; the rest are counted.
MOST_SHOWN: Final = 50
#: After so many mistakes the text is no prototxt, and reading stops.
MOST_COUNTED: Final = 1000

#: A hint may be asked for later: when the whole text is read, and only if it is shown.
Hint = str | Callable[[], str]


class Stop(Exception):  # noqa: N818  (a signal, not an error)
    """Reading cannot go on."""


class Place:
    """Where a message begins and where its fields are.

    ``fields`` maps a name to the offset of a value or to the :class:`Place` of a message, or to a
    list of these for a repeated field.
    """

    __slots__ = ("fields", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.fields: dict[str, Any] = {}


class Frame:
    """A message while it is read; ``name`` is its field in ``parent``."""

    __slots__ = ("closed", "last", "message", "name", "opened", "parent", "place", "recent", "type")

    def __init__(
        self, type: MessageType, message: Message, place: Place, name: str, parent: Frame | None
    ) -> None:
        self.type = type
        self.message = message
        self.place = place
        self.name = name
        self.parent = parent
        #: Offsets of its braces.
        self.opened = place.start
        self.closed = -1
        #: The submessage that was closed last, and the field that was read last.
        self.last: Frame | None = None
        self.recent: Field | None = None


#: Code, span, message, hint, and the message whose field it is about.
_Remark = tuple[str, int, int, str, Hint, Frame | None]


class Scanner:
    """Walks over the tokens of ``text`` and collects mistakes."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.lines = Lines(file, text)
        self._mistakes: list[_Remark] = []
        self._count = 0
        self._doubts: list[_Remark] = []
        self._doubt_count = 0
        self._depth = 0
        # The current token.
        self._kind = END
        self._token = ""
        self._start = 0
        self._end = 0

    def diagnostics(self) -> list[Diagnostic]:
        """Every mistake, in the order of the text; beyond the first :data:`MOST_SHOWN` a count."""
        return self._told(self._mistakes, self._count, "mistake", "error")

    def warnings(self) -> list[Diagnostic]:
        """What was accepted though it is not as protobuf writes it, told in the same way."""
        return self._told(self._doubts, self._doubt_count, "warning", "warning")

    def _told(
        self, remarks: list[_Remark], count: int, what: str, severity: str
    ) -> list[Diagnostic]:
        found = []
        for code, start, end, message, hint, frame in sorted(remarks, key=lambda m: m[1]):
            if frame is not None:
                # Behind the name of the field where the sentence begins with it, else at the end.
                middle = message.find("`", 1) + 1 if message.startswith("`") else len(message)
                message = f"{message[:middle]} in {hints.title(frame)}{message[middle:]}"
            where = self.lines.location(start, end)
            said = hint if isinstance(hint, str) else hint()
            found.append(Diagnostic(code, message, where, said, severity))
        hidden = count - len(found)
        if hidden:
            least = "at least " if what == "mistake" and count >= MOST_COUNTED else ""
            plural = "s" if hidden > 1 else ""
            more = f"and {least}{hidden} more {what}{plural}"
            found.append(Diagnostic("E010", more, severity=severity))
        return found

    def _advance(self) -> None:
        """Go to the next token, over comments."""
        end = self._end
        while True:
            match = TOKEN.match(self.text, end)
            assert match is not None  # every character and the end of the text begin some token
            kind = match.lastindex or END
            end = match.end()
            if kind != COMMENT:
                break
        self._kind = kind
        self._token = match[kind] if kind else ""
        self._start = match.start(kind)
        self._end = end

    def _jump(self, offset: int) -> None:
        """Go to the first token from ``offset`` on."""
        self._end = offset
        self._advance()

    def _at(self, symbols: str) -> bool:
        """Whether the current token is one of ``symbols``."""
        return self._kind == SYMBOL and self._token in symbols

    def _error(
        self,
        code: str,
        message: str,
        span: tuple[int, int] | None = None,
        hint: Hint = "",
        frame: Frame | None = None,
    ) -> None:
        """Note a mistake at ``span``, by default the current token; ``frame`` holds the field."""
        self._count += 1
        if self._count <= MOST_SHOWN:
            start, end = span or (self._start, self._end)
            self._mistakes.append((code, start, end, message, hint, frame))
        elif self._count >= MOST_COUNTED:
            raise Stop

    def _doubt(
        self,
        code: str,
        message: str,
        span: tuple[int, int],
        hint: Hint = "",
        frame: Frame | None = None,
    ) -> None:
        """Note at ``span`` what is read all the same, because it can mean only one thing."""
        self._doubt_count += 1
        if self._doubt_count <= MOST_SHOWN:
            self._doubts.append((code, *span, message, hint, frame))

    def _fatal(self, code: str, message: str, span: tuple[int, int], hint: Hint = "") -> NoReturn:
        self._error(code, message, span, hint)
        raise Stop

    # Looking around.

    def _line_end(self, offset: int) -> int:
        end = self.text.find("\n", offset)
        return len(self.text) if end < 0 else end

    def _field_follows(self) -> bool:
        """Whether the current token is the name of a field, by what stands after it."""
        return self._kind == NAME and tokens.FIELD_FOLLOWS.match(self.text, self._end) is not None

    def _ends_value(self) -> bool:
        """Whether no value stands here: the text or the message ends, or another field begins."""
        return self._kind == END or self._at("}>],;") or self._field_follows()

    def _resume(self, offset: int) -> int:
        """Where the next field may begin, from ``offset`` on."""
        match = tokens.RESUME.search(self.text, offset)
        return match.start() if match else len(self.text)

    def _skip_value(self) -> None:
        """Pass over the value that begins with the current token, whatever it is."""
        if self._at("{<["):
            self._jump(self._block_end(self._start))
        elif self._kind == tokens.STRING:
            while self._kind == tokens.STRING:
                self._advance()
        elif self._kind == STRAY and self._token in "\"'":
            self._jump(self._open_string_end(self._start))
        else:
            match = tokens.UNQUOTED.match(self.text, self._start)
            self._jump(match.end() if match else self._end)

    def _open_string_end(self, start: int) -> int:
        """Where to go on after a string that is not closed: the braces that end its line."""
        end = self._line_end(start)
        return start + len(self.text[start:end].rstrip("} \t\r"))

    # Braces.

    @cached_property
    def _imbalance(self) -> int:
        """Opening less closing braces of the whole text, without those already complained about."""
        total = 0
        for match in tokens.BRACE.finditer(self.text):
            brace = match[1]
            if brace is not None and brace not in "[]":
                total += 1 if brace in "{<" else -1
        return total

    def _block_end(self, start: int) -> int:
        """The offset after the block or list that opens at ``start``."""
        depth = self._depth
        for match in tokens.BRACE.finditer(self.text, start):
            brace = match[1]
            if brace is None:
                continue
            if brace in "{<[":
                depth += 1
                if depth > DEEPEST:
                    self._too_deep(match.span(1))
            else:
                depth -= 1
                if depth == self._depth:
                    return match.end()
        hint = "opened here, and the text ends before it is closed"
        return self._fatal("E004", self._unclosed_message(start), (start, start + 1), hint)

    def _too_deep(self, span: tuple[int, int]) -> NoReturn:
        self._fatal("E008", f"messages are nested more than {DEEPEST} deep", span)

    def _unclosed(self, first: int, end: int) -> int:
        """The brace that most likely lacks its partner, from the one at ``first`` on to ``end``."""
        stack: list[int] = []
        for match in tokens.BRACE.finditer(self.text, first, end):
            brace = match[1]
            if brace is None or brace in "[]":
                continue
            if brace in "{<":
                stack.append(match.start())
            elif stack:
                opener = stack.pop()
                inside, outside = self._indentation(opener), self._indentation(match.start())
                # A closing brace left of the line that opened it belongs to an outer message.
                if inside is not None and outside is not None and outside < inside:
                    return opener
        return stack[-1] if stack else first

    def _indentation(self, offset: int) -> int | None:
        """Blanks before the first character of the line of ``offset``; None in a long line."""
        first = self.text.rfind("\n", max(0, offset - 300), offset) + 1
        if first == 0 and offset > 300:
            return None
        line = self.text[first : offset + 1]
        return len(line) - len(line.lstrip())

    def _unclosed_message(self, at: int) -> str:
        line = self.text[max(0, at - 60) : at + 1].rpartition("\n")[2].strip()
        return f"`{tokens.shown(line)}` is never closed"
