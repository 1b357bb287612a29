"""The parser behind :mod:`netdef.prototxt`: tokens to fields of a message.

Reading does not stop at a mistake: it is noted, the rest of its field is passed over, and the next
field is read. Four mistakes would make nonsense of what follows and are undone instead: a missing
closing brace (when an outer message owns the next field and the text has more ``{`` than ``}``), a
closing brace too many (the reverse), a missing ``:`` and a missing ``{``.

What protobuf refuses though it can mean only one thing is read, with a warning: text without its
quotes, numbers, bools and enum values within quotes or in other letter case, whole numbers with a
decimal point, a field given twice with one value. So are unknown fields where ``lenient``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from . import prototxt_hints as hints
from . import prototxt_tokens as tokens
from .prototxt_fields import (
    BOOL,
    BYTES,
    ENUM,
    FLOAT,
    INTEGER,
    MESSAGE,
    STRING,
    Field,
    message_type,
)
from .prototxt_mistakes import Mistakes
from .prototxt_scanner import DEEPEST, MOST_SHOWN, Frame, Place, Stop
from .prototxt_tokens import END, NAME, NUMBER, SYMBOL, shown

_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}


class Parser(Mistakes):
    """Reads ``text`` into ``message``; :meth:`diagnostics` tells afterwards what went wrong."""

    def __init__(self, text: str, message: Message, file: str, lenient: bool = False) -> None:
        super().__init__(text, file)
        self._lenient = lenient
        self.root = Place(0)
        #: The place of each layer, in order of ``origin``, which counts from 1.
        self.layers: list[Place] = []
        self._message = message
        self._invalid_utf8 = tokens.has_invalid_utf8(text)
        #: The message to return to after a missing brace.
        self._return_to: Frame | None = None
        self._end_reported = False

    def read(self) -> None:
        """Read the whole text."""
        root = Frame(message_type(self._message.DESCRIPTOR), self._message, self.root, "", None)
        if root.type.has_origin:
            self._number_layer(root)
        try:
            self._advance()
            self._read_fields(root)
            while self._kind != END:
                self._error("E004", f"this `{self._token}` closes nothing", hint="one too many")
                self._imbalance += 1
                self._advance()
                self._read_fields(root)
            self._require(root)
        except Stop:
            pass

    # Messages and fields.

    def _read_fields(self, frame: Frame) -> None:
        """Read fields into ``frame`` until a closing brace or the end of the text."""
        known = frame.type.fields
        while self._kind != END:
            if self._kind == NAME:
                field = known.get(self._token)
                if field is not None:
                    self._read_field(frame, field)
                else:
                    self._unknown_field(frame)
                if self._return_to is not None:
                    if self._return_to is not frame:
                        return
                    self._return_to = None
                if self._kind == SYMBOL and self._token in ",;":
                    self._advance()
            elif self._at("}>") and not tokens.CONFLICT.match(self.text, self._start):
                return
            else:
                self._not_a_field(frame)

    def _read_field(self, frame: Frame, field: Field) -> None:
        """Read one field, whose name is the current token."""
        span = self._start, self._end
        places = frame.place.fields
        if not field.repeated and field.name in places:
            self._second_time(frame, field)
            return
        frame.recent = field
        self._advance()
        if self._kind == SYMBOL and self._token == ":":
            self._advance()
        elif field.kind != MESSAGE and not self._colon_missing(frame, field, span):
            places.setdefault(field.name, [] if field.repeated else span[0])
            return
        if self._kind == SYMBOL and self._token == "[":
            self._read_list(frame, field)
        elif field.kind == MESSAGE:
            self._read_message(frame, field, span)
        else:
            self._read_value(frame, field)

    def _second_time(self, frame: Frame, field: Field) -> None:
        """Pass over ``field``, which was given before and takes one value."""
        before = frame.place.fields[field.name]
        offset = before.start if isinstance(before, Place) else before
        span = self._start, self._end
        self._advance()
        if self._at(":"):
            self._advance()

        def first() -> str:
            return f"first given at {self.lines.location(offset, offset)}"

        value = self._value_text(offset)
        if field.kind != MESSAGE and not self._ends_value() and value == self._value_text():
            message = f"`{field.name}` is given twice, with the same value"
            self._doubt("E016", message, span, first, frame)
        else:
            self._error("E016", f"`{field.name}` is given twice", span, first, frame)
        if not self._ends_value():
            self._skip_value()

    def _value_text(self, start: int = -1) -> str:
        """The value at ``start``, by default at the current token, as it is written."""
        match = tokens.SPAN.match(self.text, self._start if start < 0 else start)
        return match[0] if match else ""

    def _read_list(self, frame: Frame, field: Field) -> None:
        """Read ``[a, b, ...]``."""
        opened, name = self._start, field.name
        if not field.repeated:
            end = self._block_end(opened)
            hint = f"write  {name}: {shown(self.text[opened + 1 : end - 1].strip()) or '..'}"
            self._error("E018", f"`{name}` takes one value, not a list", (opened, end), hint, frame)
            frame.place.fields[name] = opened
            self._jump(end)
            return
        self._advance()
        if self._at("]"):
            self._advance()
            return
        comma_missing = False
        while True:
            if field.kind == MESSAGE:
                self._read_message(frame, field, (self._start, self._end))
                if self._return_to is not None:
                    return
            elif self._at("["):
                end = self._block_end(self._start)
                message = f"a list within the list of `{name}`"
                self._error("E018", message, (self._start, end), frame=frame)
                self._jump(end)
            else:
                self._read_value(frame, field)
            if self._at("]"):
                self._advance()
                return
            if self._at(","):
                self._advance()
                if self._at("]"):
                    self._error("E003", "a comma before `]`", hint="leave it out", frame=frame)
                    self._advance()
                    return
            elif self._ends_value() or self._at(":") or self._kind == tokens.STRAY:
                message = f"the list of `{name}` is never closed"
                self._error("E004", message, (opened, opened + 1), "`]` is missing", frame)
                return
            elif not comma_missing:
                message = f"expected `,` or `]` in a list, found `{shown(self._token)}`"
                self._error("E003", message, frame=frame)
                comma_missing = True

    def _read_message(self, parent: Frame, field: Field, span: tuple[int, int]) -> None:
        """Read ``{ ... }`` into a new message of ``field``, whose name or brace is at ``span``."""
        name = field.name
        if not self._at("{<") and not self._brace_missing(parent, field, span):
            if not field.repeated:
                parent.place.fields[name] = span[0]
            return
        if self._depth >= DEEPEST:
            self._too_deep((self._start, self._end))
        place = Place(span[0])
        if field.repeated:
            message = getattr(parent.message, name).add()
            parent.place.fields.setdefault(name, []).append(place)
        else:
            message = getattr(parent.message, name)
            message.SetInParent()
            parent.place.fields[name] = place
        frame = Frame(field.message_type, message, place, name, parent)
        if frame.type.has_origin:
            self._number_layer(frame)
        closing = ">" if self._token == "<" else "}"
        if self._at("{<"):
            frame.opened = self._start
            self._advance()
        self._depth += 1
        self._read_fields(frame)
        self._depth -= 1
        if self._return_to is None:
            self._close(frame, closing)
        if frame.type.required:
            self._require(frame)

    def _close(self, frame: Frame, closing: str) -> None:
        """Pass over the closing brace of ``frame``, where the current token should be one."""
        if self._kind == END:
            if not self._end_reported:
                self._never_closed(frame)
            self._end_reported = True
            return
        if self._token != closing:
            opener = self.text[frame.opened]
            hint = f"write `{closing}`"
            self._error("E004", f"`{opener}` is closed by `{self._token}`", hint=hint)
        frame.closed = self._start
        if frame.parent is not None:
            frame.parent.last = frame
        self._advance()

    def _number_layer(self, frame: Frame) -> None:
        self.layers.append(frame.place)
        setattr(frame.message, "origin", len(self.layers))  # noqa: B010  (not every message has it)

    def _require(self, frame: Frame) -> None:
        """Complain about required fields that were not given."""
        for name in frame.type.required:
            if name not in frame.place.fields:
                start = frame.place.start
                span = start, start + max(1, len(frame.name))
                self._error("E017", f"`{name}` is missing", span, f"add  {name}: ..", frame)

    # Values. Each reader returns None for what it had to complain about.

    def _read_value(self, frame: Frame, field: Field) -> None:
        """Read one scalar and store it."""
        start = self._start
        value = _READERS[field.kind](self, frame, field)
        if field.repeated:
            if value is not None:
                getattr(frame.message, field.name).append(value)
                frame.place.fields.setdefault(field.name, []).append(start)
        else:
            if value is not None:
                setattr(frame.message, field.name, value)
            frame.place.fields[field.name] = start

    def _minus(self) -> bool:
        if self._kind == SYMBOL and self._token == "-":
            self._advance()
            return True
        return False

    def _read_integer(self, frame: Frame, field: Field) -> int | None:
        start = self._start
        negative = self._minus()
        value = tokens.integer(self._token) if self._kind == NUMBER else None
        if value is None:
            written = self._quoted_or_bare()
            negative ^= written.startswith("-")
            value = tokens.whole(written.removeprefix("-"))
            if value is None:
                self._bad_value(frame, field, start)
                return None
            self._not_as_written(frame, field, str(-value if negative else value))
        if negative:
            value = -value
        if not field.low <= value <= field.high or (negative and field.low == 0):
            given = shown(self.text[start : self._end])
            hint = f"from {field.low} to {field.high}"
            if negative and field.low == 0:
                hint = "it cannot be negative"
            message = f"{given} is out of range for `{field.name}`"
            self._error("E014", message, (start, self._end), hint, frame)
            value = None
        self._advance()
        return value

    def _read_float(self, frame: Frame, field: Field) -> float | None:
        start = self._start
        negative = self._minus()
        value = None
        if self._kind == NUMBER:
            match = tokens.REAL.fullmatch(self._token)
            value = float(match[1]) if match else None
        elif self._kind == NAME and self._token.lower() in ("inf", "infinity", "nan"):
            value = None if self._field_follows() else float(self._token)
        elif self._kind == tokens.STRING:
            written = self._quoted_or_bare()
            match = tokens.REAL.fullmatch(written.removeprefix("-"))
            value = float(match[1]) if match else None
            if value is not None:
                negative ^= written.startswith("-")
                self._not_as_written(frame, field, written)
        if value is None:
            self._bad_value(frame, field, start)
            return None
        self._advance()
        return -value if negative else value

    def _read_bool(self, frame: Frame, field: Field) -> bool | None:
        value = _BOOLS.get(self._token)
        if self._kind == NUMBER:
            number = tokens.integer(self._token)
            value = bool(number) if number in (0, 1) else None
        if value is None and self._quoted_or_bare().lower() in ("true", "false"):
            meant = self._quoted_or_bare().lower()
            if not self._field_follows():
                self._not_as_written(frame, field, meant)
                value = _BOOLS[meant]
        if value is None or self._field_follows():
            self._bad_value(frame, field, self._start)
            return None
        self._advance()
        return value

    def _read_enum(self, frame: Frame, field: Field) -> int | None:
        start = self._start
        if self._kind in (NAME, tokens.STRING):
            given = self._quoted_or_bare()
            value = field.values.get(given) if self._kind == NAME else None
            meant = hints.enum_meant(field, given) if value is None else ""
            if meant and not self._field_follows():
                self._not_as_written(frame, field, meant)
                value = field.values[meant]
        else:
            sign = -1 if self._minus() else 1
            number = tokens.integer(self._token) if self._kind == NUMBER else None
            value = None if number is None else sign * number
            if value not in field.values.values():
                value = None
        if value is None or self._field_follows():
            self._bad_value(frame, field, start)
            return None
        self._advance()
        return value

    def _read_string(self, frame: Frame, field: Field) -> str | None:
        start, end, token = self._start, self._end, self._token
        if self._kind != tokens.STRING:
            bare, words = (
                tokens.BARE.match(self.text, start),
                tokens.UNQUOTED.match(self.text, start),
            )
            if bare is None or words is None or bare[0] != words[0] or self._ends_value():
                self._bad_value(frame, field, start)
                return None
            meant = hints.bare_text(field, bare[0], frame)
            self._jump(bare.end())
            message = f"the text of `{field.name}` has no quotes"
            hint = f'read as  {field.name}: "{shown(meant)}"'
            self._doubt("E013", message, bare.span(), hint, frame)
            return meant
        self._advance()
        if "\\" not in token and self._kind != tokens.STRING and not self._invalid_utf8:
            return token[1:-1]
        data = self._join_strings(start, token)
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError:
            message = f"the text of `{field.name}` is not UTF-8"
            self._error("E005", message, (start, end), "save the file as UTF-8", frame)
            return None

    def _quoted_or_bare(self) -> str:
        """The current token, without its quotes if it has some."""
        return self._token[1:-1].strip() if self._kind == tokens.STRING else self._token

    def _not_as_written(self, frame: Frame, field: Field, meant: str) -> None:
        """The current token is no value of ``field``, but ``meant`` is, and nothing else can be."""
        message = f"`{field.name}` takes {field.takes}, not {shown(self._token)}"
        hint = f"read as  {field.name}: {meant}"
        self._doubt("E013", message, (self._start, self._end), hint, frame)

    def _read_bytes(self, frame: Frame, field: Field) -> bytes | None:
        start, token = self._start, self._token
        if self._kind != tokens.STRING:
            self._bad_value(frame, field, start)
            return None
        self._advance()
        return self._join_strings(start, token)

    def _join_strings(self, start: int, token: str) -> bytes | None:
        """The string ``token`` at ``start`` and those that follow it, as one."""
        parts: list[bytes] = []
        valid = True
        while True:
            try:
                parts.append(tokens.unescape(token))
            except tokens.EscapeError as error:
                escape = token[error.start : error.end]
                span = start + error.start, start + error.end
                hint = "a backslash is written \\\\; paths use /" if escape[0] == "\\" else ""
                self._error("E005", f"`{shown(escape)}` stands for no character", span, hint)
                valid = False
            if self._kind != tokens.STRING:
                return b"".join(parts) if valid else None
            start, token = self._start, self._token
            self._advance()

    # Fields that do not belong here.

    def _unknown_field(self, frame: Frame) -> None:
        """The current token is a name that no field of ``frame`` has."""
        name = self._token
        owner = frame.parent
        while owner is not None and name not in owner.type.fields:
            owner = owner.parent
        if owner is not None and self._imbalance > 0:
            self._brace_forgotten(frame, owner)
            return
        last = frame.last
        if last is not None and name in last.type.fields and self._imbalance < 0:
            self._brace_too_early(last)
            return
        if frame.parent is None:
            self._expect_root(name, frame)
        span = self._start, self._end
        self._advance()
        separated = self._token in (":", "=")
        if separated:
            self._advance()
        ends = self._ends_value()
        value = "" if ends or (self._kind == SYMBOL and self._token != "{") else self._token
        no_field = not separated and not self._at("{<[")
        hint = "what is no field belongs behind a #" if no_field else ""
        note = self._doubt if self._lenient and not no_field else self._error
        note(
            "E012",
            f"unknown field `{shown(name)}`",
            span,
            lambda: hints.unknown_field(name, value, frame) or hint,
            frame,
        )
        if no_field:
            # Leave the rest of its line.
            self._jump(self._resume(span[1]))
        elif not ends:
            self._skip_value()

    def _expect_root(self, name: str, frame: Frame) -> None:
        """Stop at a file of another kind, seen by its first field or by one that only it has."""
        roots = ("NetParameter", "SolverParameter")
        if frame.type.name not in roots:
            return
        span = self._start, self._end
        other = hints.other_file(name)
        if other:
            self._fatal("E011", hints.wrong_file(name, frame.type, other), span)
        if frame.place.fields:
            return
        known = self._message.DESCRIPTOR.file.message_types_by_name
        solver = message_type(known[roots[frame.type.name == roots[0]]])
        if name in solver.fields:
            self._fatal("E011", hints.wrong_root(name, frame.type, solver), span)

    def _brace_forgotten(self, frame: Frame, owner: Frame) -> None:
        """A field of ``owner`` stands within ``frame``: close all that lies between."""
        outermost, between = frame, 1
        while outermost.parent is not None and outermost.parent is not owner:
            outermost = outermost.parent
            between += 1
        name, start, at = self._token, self._start, frame.opened
        if self._count < MOST_SHOWN:
            at = self._unclosed(outermost.opened, start)

        def hint() -> str:
            return f"its `}}` is missing before `{name}` on line {self.lines.number(start)}"

        self._error("E004", self._unclosed_message(at), (at, at + 1), hint)
        self._imbalance -= between
        self._return_to = owner

    def _brace_too_early(self, frame: Frame) -> None:
        """Fields of ``frame`` follow its closing brace: take that brace for a slip and read on."""
        name, start = self._token, self._start
        span = frame.closed, frame.closed + 1

        def hint() -> str:
            return f"`{name}` on line {self.lines.number(start)} belongs to it"

        self._error("E004", f"this brace closes {hints.title(frame)} too early", span, hint)
        self._imbalance += 1
        self._depth += 1
        self._read_fields(frame)
        self._depth -= 1
        if self._return_to is None:
            self._close(frame, "}")


_READERS: dict[str, Callable[[Parser, Frame, Field], Any]] = {
    INTEGER: Parser._read_integer,
    FLOAT: Parser._read_float,
    BOOL: Parser._read_bool,
    STRING: Parser._read_string,
    BYTES: Parser._read_bytes,
    ENUM: Parser._read_enum,
}
