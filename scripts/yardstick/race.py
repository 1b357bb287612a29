"""Measuring engines against each other: in turns, and by the median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from yardstick.engines import Job
from yardstick.workers import warm_worker

#: How often everybody gets a turn, unless there is no time for it.
ROUNDS = 5


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


def race(jobs: Sequence[Job], seconds: float, iterations: int | None = None) -> list[Result]:
    """Let all ``jobs`` run in turns, each for about ``seconds`` in all; in the order of ``jobs``.

    ``iterations``: end after so many steps of each, if that is sooner. The first turn is not
    counted: libraries choose their algorithms in it.
    """
    taken: list[list[float]] = [[] for _ in jobs]
    peaks = [0] * len(jobs)
    with ExitStack() as stack:
        workers = [stack.enter_context(warm_worker(job)) for job in jobs]
        for worker in workers:
            worker.turn(seconds / ROUNDS / 2)
        while any(sum(one) < seconds and len(one) != iterations for one in taken):
            for i, worker in enumerate(workers):
                left = None if iterations is None else iterations - len(taken[i])
                if sum(taken[i]) < seconds and left != 0:
                    turn = worker.turn(seconds / ROUNDS, left)
                    taken[i] += turn.seconds
                    peaks[i] = turn.peak_bytes
        return [
            Result(worker.job, taken[i], peaks[i] - worker.started.imported_bytes)
            for i, worker in enumerate(workers)
        ]
