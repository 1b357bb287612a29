"""Measuring engines against each other: in turns, and by the median."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from yardstick.engines import Job
from yardstick.workers import Started, Worker

#: How often everybody gets a turn, unless there is no time for it.
ROUNDS = 5


@dataclass(frozen=True)
class Result:
    """What one engine took for a job: the seconds of every step, and how it came up."""

    job: Job
    seconds: list[float]
    started: Started

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)


def race(jobs: Sequence[Job], seconds: float, iterations: int | None = None) -> list[Result]:
    """Let all ``jobs`` run in turns, each for about ``seconds`` in all; in the order of ``jobs``.

    ``iterations``: end after so many steps of each, if that is sooner. The first turn is not
    counted: libraries choose their algorithms in it.
    """
    taken: list[list[float]] = [[] for _ in jobs]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(job)) for job in jobs]
        for worker in workers:
            worker.turn(seconds / ROUNDS / 2)
        while any(sum(one) < seconds and len(one) != iterations for one in taken):
            for worker, one in zip(workers, taken, strict=True):
                left = None if iterations is None else iterations - len(one)
                if sum(one) < seconds and left != 0:
                    one += worker.turn(seconds / ROUNDS, left).seconds
        return [
            Result(worker.job, one, worker.started)
            for worker, one in zip(workers, taken, strict=True)
        ]


def tell(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)
