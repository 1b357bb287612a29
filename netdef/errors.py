"""What a user can get wrong, as exceptions that say where, what was given, what is allowed.

::

    NetdefError
    ├── PrototxtError   a text that is not a valid message of its type        E0xx
    ├── NetError        a net that cannot be built: layers, shapes, sharing   E1xx
    ├── SolverError     a solver definition that makes no sense               E2xx
    ├── DataError       records, databases, images, labels                    E3xx
    ├── WeightsError    a .caffemodel or .solverstate that cannot be used     E4xx
    └── OutputError     a file that cannot be written                         E5xx

A ``NetdefError`` is the user's mistake: the command line prints it and exits with status 1. Any
other exception is ours, and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

#: A source line longer than this is shown around the caret only.
WIDEST_SOURCE_LINE = 120

_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Location:
    """A span of text in a file; ``line`` and ``column`` count from 1, ``source`` is that line."""

    file: str
    line: int
    column: int
    length: int = 1
    source: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One thing that is wrong: ``code`` is stable, ``hint`` says what was probably meant."""

    code: str
    message: str
    location: Location | None = None
    hint: str = ""
    severity: str = "error"

    def __str__(self) -> str:
        head = f"{self.severity}[{self.code}]: {printable(self.message)}"
        hint = printable(self.hint)
        if self.location is None:
            return f"{head}\n  hint: {hint}" if hint else head
        where = self.location
        lines = [head, f"  --> {printable(str(where))}"]
        if where.source:
            shown, column = _window(where.source, where.column)
            number = str(where.line)
            margin = " " * len(number)
            carets = "^" * max(1, min(where.length, len(shown) - column + 1))
            # Tabs keep their width in both lines, so the caret stays under its text.
            padding = "".join("\t" if c == "\t" else " " for c in shown[: column - 1])
            lines.append(f"{number} | {shown}")
            lines.append(f"{margin} | {padding}{carets} {hint}".rstrip())
        elif hint:
            lines.append(f"  hint: {hint}")
        return "\n".join(lines)


def _window(source: str, column: int) -> tuple[str, int]:
    """The part of ``source`` around ``column`` that fits a terminal, and the column within it."""
    if len(source) <= WIDEST_SOURCE_LINE:
        return source, column
    start = max(0, column - 1 - WIDEST_SOURCE_LINE // 2)
    part = source[start : start + WIDEST_SOURCE_LINE]
    lead = "..." if start else ""
    tail = "..." if start + WIDEST_SOURCE_LINE < len(source) else ""
    return lead + part + tail, column - start + len(lead)


class NetdefError(Exception):
    """A mistake the user can mend. Carries one or more :class:`Diagnostic`."""

    code = "E000"

    def __init__(
        self,
        message: str = "",
        *,
        location: Location | None = None,
        hint: str = "",
        code: str | None = None,
        diagnostics: Iterable[Diagnostic] = (),
    ) -> None:
        """Either one ``message`` with its place and hint, or a list of ``diagnostics``."""
        self.diagnostics = list(diagnostics) or [
            Diagnostic(code or type(self).code, message, location, hint)
        ]
        super().__init__("\n\n".join(str(d) for d in self.diagnostics))


class PrototxtError(NetdefError):
    """A text that cannot be read as a message of its type."""

    code = "E001"


class NetError(NetdefError):
    """A net that cannot be built or run as it is defined."""

    code = "E100"


class SolverError(NetdefError):
    """A solver definition that makes no sense."""

    code = "E200"


class DataError(NetdefError):
    """Records that are missing, unreadable or do not fit the layer."""

    code = "E300"


class WeightsError(NetdefError):
    """A .caffemodel or .solverstate that is damaged or does not fit the net."""

    code = "E400"


class OutputError(NetdefError):
    """A file that cannot be written."""

    code = "E500"


def printable(text: str) -> str:
    """``text`` with every character that could upset a terminal replaced, one for one."""
    return _UNPRINTABLE.sub("\ufffd", text)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint naming the closest of ``known`` to ``given``, or the empty string."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f'did you mean "{names[close[0]]}"?' if close else ""


def name_some(names: Iterable[str], most: int = 5) -> str:
    """A list short enough for a line: ``conv1, conv2, conv3, conv4, conv5, 7 more``."""
    listed = list(names)
    rest = [f"{len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *rest])
