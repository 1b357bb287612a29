"""Threads that share out the images of a batch: of all it takes to bring one, decoding is most."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from netdef.data import threads
from netdef.jit import num_threads

#: The environment variable that says how many threads share the images of a batch.
VARIABLE = "NETDEF_DATA_THREADS"


def default_threads() -> int:
    """As many as there are cores that kernels leave free; or all, where they leave none.

    All, because what decoding takes from the net should be the same on every core: a single thread
    would hold up one of them, and at the end of each kernel the others would wait for that one.
    The cores are those that this process may use. ``NETDEF_DATA_THREADS`` says otherwise.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    free = cores - num_threads()
    return free if free > 0 else cores


class Workers:
    """``count`` threads: the caller's own, and others that start when they are first needed.

    They end when this object is closed or no longer used.
    """

    def __init__(self, count: int, name: str = "worker") -> None:
        self.count = count
        self._name = name
        self._work = _Work()
        self._others: list[threading.Thread] = []
        # The threads know their work only; so this object can be collected, and then they end.
        self._stop = weakref.finalize(self, self._work.stop)

    def run(self, task: Callable[[int], None], count: int, stopped: Callable[[], bool]) -> None:
        """Call ``task(0)`` to ``task(count - 1)``, and return when every call has ended.

        They begin in this order, until one fails or ``stopped()``. Raises what the first in order
        of those that failed has raised. It does not depend on the number of threads which one that
        is: all calls before it have begun before it, and are waited for.
        """
        self._start(min(self.count, count) - 1)
        work = self._work
        with work.lock:
            work.task, work.next, work.end, work.stopped_by = task, 0, count, stopped
            work.failures = {}
            work.begun.notify(count - 1)
        work.take_part()
        with work.lock:
            while work.active:
                work.ended.wait()
            # Nothing keeps what the task refers to.
            work.task = work.stopped_by = None
            failures, work.failures = work.failures, {}
        if failures:
            raise failures[min(failures)]

    def close(self) -> None:
        """End the threads and wait until they are gone. Doing so twice is fine."""
        self._stop()
        for thread in self._others:
            thread.join()

    def _start(self, wanted: int) -> None:
        """Have ``wanted`` other threads, or as many as the system grants."""
        with suppress(RuntimeError):
            while len(self._others) < wanted:
                name = f"{self._name} {len(self._others) + 1}"
                self._others.append(
                    threads.start(_serve, self._work, name=name, stop=self._work.stop)
                )


class _Work:
    """What the threads share, guarded by ``lock``: calls ``next`` to ``end - 1`` are to be made."""

    def __init__(self) -> None:
        # Reentrant, so a garbage collection that happens under it may call stop().
        self.lock = threading.RLock()
        self.begun = threading.Condition(self.lock)
        self.ended = threading.Condition(self.lock)
        self.task: Callable[[int], None] | None = None
        self.stopped_by: Callable[[], bool] | None = None
        self.next = 0
        self.end = 0
        #: Calls that are being made.
        self.active = 0
        #: What calls have raised.
        self.failures: dict[int, BaseException] = {}
        self.stopped = False
        self._process = os.getpid()

    def stop(self) -> None:
        if os.getpid() != self._process:
            # In the child of a fork there are no threads, and the lock may be held for ever.
            return
        with self.lock:
            self.stopped = True
            self.end = self.next
            self.begun.notify_all()

    def take_part(self) -> None:
        """Make calls until none is left to begin."""
        while True:
            with self.lock:
                task = self.task
                if task is None or self.stopped_by is None or self.next >= self.end:
                    return
                if self.stopped_by():
                    self.end = self.next
                    return
                number = self.next
                self.next += 1
                self.active += 1
            failure: BaseException | None = None
            try:
                task(number)
            except BaseException as error:
                failure = error
            with self.lock:
                self.active -= 1
                if failure is not None:
                    self.failures[number] = failure
                    self.end = self.next
                if not self.active:
                    self.ended.notify_all()


def _serve(work: _Work) -> None:
    """What the other threads do."""
    while True:
        with work.lock:
            while work.next >= work.end and not work.stopped:
                work.begun.wait()
            if work.stopped:
                return
        work.take_part()
