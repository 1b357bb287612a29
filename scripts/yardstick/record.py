"""What was measured, as one JSON object that grows from call to call.

machine  what :func:`yardstick.machine.describe` says
date     of the last measurement
peak     FLOP/s of fused multiply-adds, by number of threads
races    rows {what, net, batch, threads, flops, engines, caffe}: ``engines`` has by name
         {median, fastest, steps, memory}, in seconds and bytes; ``caffe`` seconds, or null
starts   rows {net, threads, cold, warm, torch}: seconds to the end of the first training step
scaling  rows {batch, threads, median, reference}: seconds of a training step of CaffeNet, and
         of the one it took turns with: batch 64 on all threads
layers   rows {net, batch, threads, layers}: see ``netdef.events.LayerTime``
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

#: What tells one row of a section from another.
KEYS = {
    "races": ("what", "net", "batch", "threads"),
    "starts": ("net", "threads"),
    "scaling": ("batch", "threads"),
    "layers": ("net", "batch", "threads"),
}

#: A machine is another one if any of this differs.
SAME = ("processor", "cores", "features")

Row = dict[str, Any]


class RecordError(Exception):
    """A record that cannot be read, or is of another machine."""


class Record:
    """The measurements of one machine."""

    def __init__(self, machine: Row) -> None:
        self.values: Row = {"machine": machine, "date": "", "peak": {}}
        self.values.update({section: [] for section in KEYS})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Record:
        """The record of a file. Raises RecordError."""
        record = cls({})
        try:
            record.values.update(json.loads(Path(path).read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise RecordError(f"cannot read {os.fspath(path)}: {error}") from error
        return record

    def grow(self, machine: Row) -> None:
        """Let measurements of ``machine`` be added. Raises RecordError where it is another one."""
        for name in SAME:
            if self.values["machine"].get(name) != machine[name]:
                raise RecordError(
                    f"it holds measurements of another machine: {name} was "
                    f"{self.values['machine'].get(name)}, and is {machine[name]}"
                )
        self.values["machine"] = machine

    def put(self, section: str, row: Row) -> None:
        """Add a row, or put it in the place of one that measured the same before."""
        self.values["date"] = datetime.date.today().isoformat()
        rows = self.values[section]
        key = [row[name] for name in KEYS[section]]
        for i, old in enumerate(rows):
            if [old[name] for name in KEYS[section]] == key:
                rows[i] = row
                return
        rows.append(row)

    def rows(self, section: str, **wanted: Any) -> list[Row]:
        """The rows of a section whose fields are as ``wanted``."""
        return [
            row
            for row in self.values[section]
            if all(row[name] == value for name, value in wanted.items())
        ]

    def peak(self, threads: int) -> float | None:
        value: float | None = self.values["peak"].get(str(threads))
        return value

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which appears whole."""
        temporary = Path(f"{os.fspath(path)}.tmp")
        temporary.write_text(json.dumps(self.values, indent=1) + "\n", "utf-8")
        temporary.replace(path)
