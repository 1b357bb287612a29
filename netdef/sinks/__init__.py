"""What the solver's events become: the Caffe log, a progress bar, JSON lines, or little."""

from __future__ import annotations

import os
from typing import Protocol, TextIO

from netdef.events import Event

__all__ = ["FORMATS", "Sink", "choose"]

#: What ``--log-format`` takes.
FORMATS = ("auto", "caffe", "json", "quiet")


class Sink(Protocol):
    """Takes every event of a run; ``close`` leaves the stream tidy, and may be called twice.

    No sink raises because of its stream: see :class:`netdef.sinks.stream.Stream`.
    """

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


def choose(format: str, stream: TextIO) -> Sink:
    """The sink for one of :data:`FORMATS`, writing to ``stream``.

    "auto" is a progress bar where ``stream`` is a terminal that can move its cursor, and the Caffe
    log elsewhere. Raises ValueError for another format.
    """
    if format == "auto":
        movable = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        format = "progress" if movable else "caffe"
    # A sink brings what it needs to run: rich alone takes a while to import.
    if format == "progress":
        from netdef.sinks.progress import Progress

        return Progress(stream)
    if format == "caffe":
        from netdef.sinks.caffe_log import CaffeLog

        return CaffeLog(stream)
    if format == "json":
        from netdef.sinks.json_lines import JsonLines

        return JsonLines(stream)
    if format == "quiet":
        from netdef.sinks.quiet import Quiet

        return Quiet(stream)
    raise ValueError(f"unknown log format {format!r}; there are {', '.join(FORMATS)}")
