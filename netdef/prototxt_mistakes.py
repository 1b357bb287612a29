"""What can stand in a wrong place of a prototxt: how to say so, and where to read on."""

from __future__ import annotations

from . import prototxt_hints as hints
from . import prototxt_tokens as tokens
from .prototxt_fields import BOOL, BYTES, ENUM, FLOAT, INTEGER, MESSAGE, STRING, Field
from .prototxt_scanner import Frame, Hint, Scanner
from .prototxt_tokens import NAME, NUMBER, STRAY, shown


class Mistakes(Scanner):
    """The scanner, able to explain the token it stands on."""

    def _no_value(self, frame: Frame, field: Field, span: tuple[int, int]) -> None:
        hint = f"it takes {field.takes}"
        if field.kind == MESSAGE:
            hint = f"write  {field.name} {{ .. }}"
        self._error("E006", f"`{field.name}` has no value", span, hint, frame)

    def _colon_missing(self, frame: Frame, field: Field, span: tuple[int, int]) -> bool:
        """``field`` at ``span`` has no ``:``. Returns whether a value follows all the same."""
        if self._kind == STRAY and self._token == "=":
            hint = f"write  {field.name}: .."
            self._error(
                "E006", f"`{field.name}` is followed by `=`, not `:`", hint=hint, frame=frame
            )
            self._advance()
            return True
        if self._at("{<"):
            return True
        if self._ends_value():
            self._no_value(frame, field, span)
            return False
        hint = f"write  {field.name}: {'[..]' if self._at('[') else shown(self._token)}"
        self._error("E006", f"`{field.name}` has no `:` after it", span, hint, frame)
        return True

    def _brace_missing(self, frame: Frame, field: Field, span: tuple[int, int]) -> bool:
        """Message ``field`` at ``span`` has no ``{``. Returns whether to read on as if it had."""
        name = field.name
        if self._field_follows() and self._token in field.message_type.fields:
            hint = f"write  {name} {{"
            self._error("E004", f"`{name}` has no `{{` after it", span, hint, frame)
            self._imbalance += 1
            return True
        if self._ends_value():
            self._no_value(frame, field, span)
            return False
        if self._kind == STRAY and self._token == "=":
            hint = f"write  {name} {{ .. }}"
            self._error("E006", f"`{name}` is followed by `=`", hint=hint, frame=frame)
            self._advance()
            if self._at("{<"):
                return True
        else:
            message = f"`{name}` takes {field.takes}, not {self._described()}"
            hint = hints.block(field, self._token)
            self._error("E013", message, hint=hint, frame=frame)
        self._skip_value()
        return False

    def _bad_value(self, frame: Frame, field: Field, start: int) -> None:
        """No value of ``field`` stands at ``start``: say why and pass over what does."""
        if self._ends_value():
            # Point at the last character that is there: the colon, or a comma in a list.
            before = self.text[max(0, start - 300) : start].rstrip()
            last = max(0, start - 300) + len(before)
            self._no_value(frame, field, (last - 1, last))
            return
        if self._at("{<"):
            message = f"`{field.name}` takes {field.takes}, not a block in braces"
            hint = hints.no_block(field, frame)
            end = self._block_end(self._start)
            self._error("E013", message, hint=hint, frame=frame)
        else:
            code, message, end, hint = self._explain_value(frame, field, start)
            self._error(code, message, (start, end), hint, frame)
        self._jump(max(end, self._end))

    def _explain_value(self, frame: Frame, field: Field, start: int) -> tuple[str, str, int, str]:
        """Code, message, end and hint for the value at ``start``, which ``field`` cannot take."""
        kind, token, end = self._kind, self._token, self._end
        name, takes = field.name, field.takes
        message = f"`{name}` takes {takes}, not {self._described()}"
        curly = tokens.CURLY_QUOTED.match(self.text, self._start)
        if curly:
            message = "typographic quotation marks around a value"
            return "E005", message, curly.end(), f'write  {name}: "{shown(curly[1])}"'
        if kind == STRAY and token in "\"'":
            end = self._open_string_end(self._start)
            message = f"the text that begins here is not closed by `{token}` on its line"
            typographic = any(mark in self.text[self._start : end] for mark in "“”‘’")
            hint = f"it ends with a typographic mark: write `{token}`" if typographic else ""
            return "E005", message, end, hint
        if field.kind in (STRING, BYTES):
            unquoted = tokens.UNQUOTED.match(self.text, start)
            end = unquoted.end() if unquoted else end
            hint = hints.unquoted(field, self.text[start:end], frame)
            return "E013", f"the text of `{name}` needs quotes", end, hint
        if kind == tokens.STRING:
            message = f"`{name}` takes {takes}, not text in quotes"
            return "E013", message, end, hints.quoted(field, token[1:-1])
        if kind == NUMBER or token == "+":
            return self._explain_number(field)
        if kind == NAME and field.kind == ENUM:
            message = f"`{name}` has no value {shown(token)}"
            return "E015", message, end, hints.enum_value(field, token)
        if kind == NAME and field.kind == BOOL:
            return "E013", message, end, hints.bool_value(field, token)
        if kind == STRAY:
            unquoted = tokens.UNQUOTED.match(self.text, start)
            end = unquoted.end() if unquoted else end
        return "E013", message, end, ""

    def _explain_number(self, field: Field) -> tuple[str, str, int, str]:
        """The same for something like a number."""
        token, end = self._token, self._end
        name, takes = field.name, field.takes
        if token == "+":
            match = tokens.SPAN.match(self.text, end)
            return "E007", "a number has no `+` in front", match.end() if match else end, ""
        if field.kind == ENUM:
            hint = hints.enum_value(field, token)
            return "E015", f"`{name}` has no value {shown(token)}", end, hint
        if field.kind == BOOL:
            return "E013", f"`{name}` takes {takes}, not {shown(token)}", end, ""
        real = tokens.REAL.fullmatch(token)
        if real and field.kind == INTEGER:
            value = float(real[1])
            hint = f"write  {name}: {value:.0f}" if value.is_integer() and value < 1e15 else ""
            return "E013", f"`{name}` takes {takes}, not {shown(token)}", end, hint
        hint = ""
        if token[0] == "0" and token.isdigit():
            hint = "a leading zero makes it octal: leave it out"
        elif tokens.integer(token) is not None:
            hint = "only integers may be hexadecimal"
        elif "_" in token:
            hint = "write the digits without `_`"
        return "E007", f"{shown(token)} is not a number", end, hint

    def _described(self) -> str:
        """The current token as words for a sentence."""
        if self._kind == tokens.STRING:
            return "text"
        if self._kind == NUMBER:
            return f"the number {shown(self._token)}"
        return f"`{shown(self._token)}`"

    def _not_a_field(self, frame: Frame) -> None:
        """The current token begins no field: say why and go to where one may begin."""
        token, start, end = self._token, self._start, self._end
        code, message = "E003", f"expected a field name, found `{shown(token)}`"
        hint: Hint = ""
        resume = -1
        if self.text.startswith("//", start):
            message, hint = "a comment that begins with //", "comments begin with #"
            end, resume = start + 2, self._line_end(start)
        elif self.text.startswith("/*", start):
            message, hint = "a comment that begins with /*", "begin each of its lines with #"
            closed = self.text.find("*/", start)
            end, resume = start + 2, closed + 2 if closed >= 0 else len(self.text)
        elif tokens.CONFLICT.match(self.text, start):
            message, hint = "a merge conflict was left unresolved", "keep one of the two versions"
            end = resume = self._line_end(start)
        elif self._at("["):
            code, message = "E019", "extensions and Any values are not part of Caffe's format"
            end = self._block_end(start)
            resume = self._line_end(end)
            self._jump(end)
            if self._at(":"):
                self._advance()
            if self._at("{<"):
                resume = self._block_end(self._start)
        elif self._at("{<"):
            message = f"no field name before `{token}`"
            resume = self._block_end(start)
        elif self._at(",;"):
            message, resume = f"one `{token}` too many", end
        elif self._at(":"):
            message = "no field name before `:`"
        elif self._kind in (tokens.STRING, NUMBER):
            hint = self._second_value(frame)
        elif token in "\"'":
            code, message = "E005", f"a quotation mark `{token}` with nothing to quote"
            resume = self._open_string_end(start)
        elif self.text.startswith("```", start):
            message, hint = "a code fence of a document was copied along", "delete this line"
            end = resume = self._line_end(start)
        self._error(code, message, (start, end), hint, frame)
        self._jump(self._resume(end) if resume < 0 else resume)

    def _second_value(self, frame: Frame) -> str:
        """A hint for a value that follows another value."""
        field = frame.recent
        if field is None or field.kind == MESSAGE:
            return ""
        if field.repeated:
            example = {STRING: '"a", "b"', FLOAT: "0.1, 0.2"}.get(field.kind, "1, 2")
            return f"several values go in a list:  {field.name}: [{example}]"
        if field.kind == FLOAT and self._kind == NUMBER and self.text[self._start - 1] == ",":
            return "the decimal point is `.`, not `,`"
        return f"`{field.name}` takes one value"

    def _never_closed(self, frame: Frame) -> None:
        """The text ended within ``frame``."""
        outermost, open_braces = frame, 1
        while outermost.parent is not None and outermost.parent.parent is not None:
            outermost = outermost.parent
            open_braces += 1
        at = self._unclosed(outermost.opened, len(self.text))
        hint = "opened here, and the text ends without its `}`"
        if open_braces > 1:
            hint = f"the text ends with {open_braces} braces open"
        self._error("E004", self._unclosed_message(at), (at, at + 1), hint)
