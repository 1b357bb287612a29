"""The process that reads mutants: ``python -m fuzzing.child`` does what its parent asks.

It may die: before each mutant it notes which one it is. What it finds it prints, an object a line.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from netdef.errors import NetdefError

#: A mutant may take so many seconds of the processor, and so many bytes.
MOST_SECONDS = 1.0
MOST_BYTES = 1 << 30

#: After so many seconds of the processor a mutant is given up.
PATIENCE = 10.0

#: The status that asks the parent for another process, for the mutants that are left.
GO_ON = 3

#: What a message may have, in characters: errors are for reading.
LONGEST_MESSAGE = 4000


def find(name: str) -> Any:
    return import_module(f"fuzzing.targets.{name}")


def mutant(target: Any, seed: int, index: int) -> bytes:
    content: bytes = target.mutant(np.random.default_rng([seed, index]))
    return content


def run(name: str, seed: int, first: int, stop: int, note: int) -> None:
    target = find(name)
    with tempfile.TemporaryDirectory(prefix="netdef-fuzz-") as folder:
        for content in target.originals():
            target.read(content, Path(folder))  # compiles what has to be compiled, too
        tell(kind="ready")
        # More address space than memory: threads and libraries reserve some.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = status("VmSize") + 2 * MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = status("VmRSS")
        for index in range(first, stop):
            os.pwrite(note, index.to_bytes(8, "little"), 0)
            content = mutant(target, seed, index)
            signal.setitimer(signal.ITIMER_PROF, PATIENCE)
            began = time.process_time()
            result = attempt(target, content, Path(folder))
            seconds = time.process_time() - began
            signal.setitimer(signal.ITIMER_PROF, 0)
            if seconds > MOST_SECONDS:
                result = {"kind": "slow", "text": f"took {seconds:.1f} s"}
            if (rise := peak() - before) > MOST_BYTES:
                result = {"kind": "large", "text": f"memory rose by {rise >> 20} MiB"}
            tell(index=index, seconds=seconds, **result)
            if result["kind"] == "large":
                sys.exit(GO_ON)  # the peak says nothing of those that follow
        tell(kind="done", peak=peak() - before)


def attempt(target: Any, content: bytes, folder: Path) -> dict[str, str]:
    try:
        target.read(content, folder)
    except NetdefError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            return {"kind": "wordy", "text": str(error)}
        return {"kind": "refused"}
    except Exception:
        return {"kind": "traceback", "text": traceback.format_exc()}
    return {"kind": "read"}


def peak() -> int:
    # What getrusage says may be the peak of the process that started this one.
    return status("VmHWM")


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    run(name, *map(int, numbers))
