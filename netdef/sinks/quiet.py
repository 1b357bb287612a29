"""Warnings, and one line at the end."""

from __future__ import annotations

import threading
from typing import TextIO

from netdef import events
from netdef.sinks.stream import Stream
from netdef.sinks.text import evaluation_lines, summary, timing_lines


class Quiet:
    """Prints warnings to ``stream`` as they come, and how the run ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = Stream(stream)
        self._lock = threading.Lock()
        self._loaded: set[str] = set()
        self._tests: dict[int, events.TestFinished] = {}
        self._loss: float | None = None
        self._end: events.SolveFinished | None = None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Warned(text):
                self._print(f"warning: {text}")
            case events.WeightsLoaded(path, mismatched=mismatched) if path not in self._loaded:
                # Every net loads them; once will do.
                self._loaded.add(path)
                for mismatch in mismatched:
                    self._print(f"warning: {path}: {mismatch}; it stays as it was")
            case events.IterationDone():
                self._loss = event.loss
            case events.TestFinished(interrupted=False):
                self._tests[event.index] = event
            case events.EvaluationFinished():
                for line in evaluation_lines(event):
                    self._print(line)
            case events.TimingFinished():
                for line in timing_lines(event):
                    self._print(line)
            case events.SolveFinished():
                self._end = event
            case events.OptimizationDone() if self._end is not None:
                loss = self._end.loss if self._end.loss is not None else self._loss
                self._print(summary(self._end, loss, self._tests))

    def close(self) -> None:
        with self._lock:
            self._stream.flush()

    def _print(self, line: str) -> None:
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()
