"""Measuring engines against each other: in turns, and by the median."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from yardstick.engines import Job
from yardstick.workers import warm_worker

#: How often everybody gets a turn, unless there is no time for it.
ROUNDS = 5

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """What one engine took for a job: seconds of every step; bytes of memory at its peak, less what
    its imports took."""

    job: Job
    seconds: list[float]
    memory: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Race:
    """The results in the order of the jobs, and the share of the machine that others used.

    A thread that waits for another one spins, so one that has to share its core may take ten times
    as long: with ``others`` above a few percent, no result means much.
    """

    results: list[Result]
    others: float


def race(jobs: Sequence[Job], seconds: float, iterations: int | None = None) -> Race:
    """Let all ``jobs`` run in turns, each for about ``seconds`` in all.

    ``iterations``: end after so many steps of each, if that is sooner. The first turn is not
    counted: libraries choose their algorithms in it.
    """
    taken: list[list[float]] = [[] for _ in jobs]
    peaks = [0] * len(jobs)
    with ExitStack() as stack:
        workers = [stack.enter_context(warm_worker(job)) for job in jobs]
        for worker in workers:
            worker.turn(seconds / ROUNDS / 2)
        load = _Load([os.getpid(), *(worker.pid for worker in workers)])
        while any(sum(one) < seconds and len(one) != iterations for one in taken):
            for i, worker in enumerate(workers):
                left = None if iterations is None else iterations - len(taken[i])
                if sum(taken[i]) < seconds and left != 0:
                    turn = worker.turn(seconds / ROUNDS, left)
                    taken[i] += turn.seconds
                    peaks[i] = turn.peak_bytes
        results = [
            Result(worker.job, taken[i], peaks[i] - worker.started.imported_bytes)
            for i, worker in enumerate(workers)
        ]
        return Race(results, load.others())


class _Load:
    """How much of the machine is used by other processes than ``own``, from now on."""

    def __init__(self, own: Sequence[int]) -> None:
        self._own = own
        self._begun = time.perf_counter()
        self._before = self._foreign_ticks()

    def others(self) -> float:
        """Their share of all cores since then, between 0 and 1."""
        whole = (time.perf_counter() - self._begun) * TICKS * (os.cpu_count() or 1)
        return min(max((self._foreign_ticks() - self._before) / whole, 0.0), 1.0)

    def _foreign_ticks(self) -> int:
        first, *_ = Path("/proc/stat").read_text("utf-8").splitlines()
        user, nice, system, _idle, _waiting, *other = map(int, first.split()[1:9])
        return user + nice + system + sum(other) - sum(map(_ticks, self._own))


def _ticks(process: int) -> int:
    """The processor time a process has used."""
    # Fields 14 and 15; the name in field 2 may hold anything, so count from behind it.
    fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
