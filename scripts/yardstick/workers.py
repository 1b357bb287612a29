"""A process for each engine, which takes turns with the others.

Each engine runs in a process of its own: every library brings its own OpenMP, each with its own
idea of how long a waiting thread spins, and its own memory. In one process netdef's setting would
hold for PyTorch too, and no peak of memory could be told from the other. A worker whose turn it is
not waits for a message on a pipe; its compute threads go to sleep within milliseconds, which the
turns of others, a fraction of a second each, hardly notice. So A B C A B C alternate on the same
cores, and a machine that slows down slows all of them down.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from yardstick import engines
from yardstick.engines import ENGINES, Job

T = TypeVar("T")

# A worker begins with an empty interpreter, not with what is loaded here.
_context = multiprocessing.get_context("spawn")


class WorkerError(Exception):
    """A worker did not come up, or ended before its time."""


@dataclass(frozen=True)
class Started:
    """How a worker came up.

    ``seconds``: from the start of Python to the end of the first step, the import of the library
    included. ``compiled``: how many kernels netdef had to compile. ``imported_bytes``: resident
    memory after the import.
    """

    seconds: float
    compiled: int
    imported_bytes: int


@dataclass(frozen=True)
class Turn:
    """The seconds each step took, and the peak of resident memory (bytes) since the import."""

    seconds: list[float]
    peak_bytes: int


class Worker:
    """An engine at work on ``job``, in a process of its own."""

    def __init__(self, job: Job) -> None:
        """Start it, build its net and take the first step. Raises WorkerError."""
        self.job = job
        begun = time.perf_counter()
        self._pipe, far_end = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(far_end, job), daemon=True)
        self._process.start()
        far_end.close()
        compiled, imported_bytes = self._receive()
        self.started = Started(time.perf_counter() - begun, compiled, imported_bytes)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def turn(self, seconds: float, at_most: int | None = None) -> Turn:
        """Take steps for about ``seconds``, one at least, and ``at_most`` so many."""
        self._pipe.send((seconds, at_most))
        done: Turn = self._receive()
        return done

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise WorkerError(
                f"{self.job.engine} ended with status {self._process.exitcode} "
                f"({self.job.what} {self.job.net})"
            ) from None


def warm_worker(job: Job) -> Worker:
    """A worker that has compiled nothing: compiling takes memory of its own, and leaves it behind.

    Where kernels were not in the cache yet, they are after the first start.
    """
    worker = Worker(job)
    if worker.started.compiled:
        worker.close()
        worker = Worker(job)
    return worker


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """What ``function``, which stands at module level, returns in a process of its own."""
    with ProcessPoolExecutor(1, _context) as pool:
        return pool.submit(function, *arguments).result()


def _serve(pipe: Connection, job: Job) -> None:
    make = ENGINES[job.engine].engine(job)
    imported_bytes = _resident("VmRSS")
    _forget_peak()
    step = make()
    step()
    pipe.send((len(engines.compiled), imported_bytes))
    while True:
        try:
            seconds, at_most = pipe.recv()
        except EOFError:
            return
        taken: list[float] = []
        before = time.perf_counter()
        end = before + seconds
        while not taken or (before < end and len(taken) != at_most):
            step()
            now = time.perf_counter()
            taken.append(now - before)
            before = now
        pipe.send(Turn(taken, _resident("VmHWM")))


def _forget_peak() -> None:
    """Let the peak of resident memory begin anew: importing takes more than it leaves behind."""
    # Not every system lets a process do that.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "utf-8")


def _resident(what: str) -> int:
    """Bytes of resident memory: "VmRSS" now, "VmHWM" at the peak."""
    fields = Path("/proc/self/status").read_text("utf-8").partition(f"{what}:")[2].split()
    return int(fields[0]) * 1024
