"""Runs mutants in a process of their own, and goes on behind those that kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.child import GO_ON

SCRIPTS = Path(__file__).parent.parent

#: Ways to end that are as it should be.
GOOD = ("read", "refused")


@dataclass
class Failure:
    """A mutant that must not have done what it did."""

    index: int
    kind: str
    text: str = ""


@dataclass
class Outcome:
    """What became of the mutants of a target; ``seconds`` is the longest that any took."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0


def fuzz(
    name: str,
    seed: int,
    count: int,
    first: int = 0,
    progress: Callable[[int], None] = lambda index: None,
) -> Outcome:
    """Read mutants ``first`` to ``first + count`` of a target."""
    outcome = Outcome()
    stop = first + count
    with tempfile.TemporaryFile() as note:
        while first < stop:
            first = _run(name, seed, first, stop, note.fileno(), outcome, progress)
    return outcome


def _run(
    name: str,
    seed: int,
    first: int,
    stop: int,
    note: int,
    outcome: Outcome,
    progress: Callable[[int], None],
) -> int:
    """One process; returns the first mutant that it left unread."""
    words = [sys.executable, "-m", "fuzzing.child", name, *map(str, (seed, first, stop, note))]
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            pass_fds=[note],
            env={**os.environ, "PYTHONPATH": path},
        ) as child,
    ):
        assert child.stdout is not None
        ready = False
        for line in child.stdout:
            said = json.loads(line)
            kind = said["kind"]
            if kind == "ready":
                ready = True
            elif kind == "done":
                outcome.peak = max(outcome.peak, said["peak"])
            else:
                outcome.counts[kind] += 1
                outcome.seconds = max(outcome.seconds, said["seconds"])
                if kind not in GOOD:
                    outcome.failures.append(Failure(said["index"], kind, said["text"]))
                progress(said["index"])
        status = child.wait()
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace")
    if status == 0:
        return stop
    if not ready:
        raise RuntimeError(f"the target {name} does not read its own originals:\n{text}")
    died = int.from_bytes(os.pread(note, 8, 0), "little")
    if status == GO_ON:
        return died + 1
    kind = "hang" if status == -signal.SIGPROF else "crash"
    cause = signal.Signals(-status).name if status < 0 else f"status {status}"
    outcome.counts[kind] += 1
    outcome.failures.append(Failure(died, kind, f"{cause}\n{text}"))
    return died + 1
