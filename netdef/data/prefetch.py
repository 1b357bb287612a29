"""One thread that stays a few batches ahead of whoever uses them."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from netdef.data import threads

B = TypeVar("B")


class Prefetch(Generic[B]):
    """Batches filled in order by a thread of their own, at most ``depth`` of them in memory.

    ``make()`` gives an empty batch, ``fill(batch, stopped)`` fills it on the thread and should
    return early once ``stopped()``. The thread starts at once. It ends when this object is closed
    or no longer used, as long as neither function refers to it.
    """

    def __init__(
        self,
        make: Callable[[], B],
        fill: Callable[[B, Callable[[], bool]], None],
        depth: int,
        name: str = "prefetch",
    ) -> None:
        #: Seconds that ``take`` waited so far, all calls together.
        self.waited = 0.0
        self._process = os.getpid()
        self._failure: BaseException | None = None
        #: Batches that were released, until there are enough of them to wake the thread.
        self._released: list[B] = []
        self._enough = max(1, depth // 2)
        self._ring: _Ring[B] = _Ring(depth)
        # The thread knows the ring only; so this object can be collected, and then the thread ends.
        self._stop = weakref.finalize(self, self._ring.stop)
        self._thread = threads.start(
            _produce, self._ring, make, fill, name=name, stop=self._ring.stop
        )

    def take(self) -> B:
        """The next batch, to be given back by ``release``.

        Waits for it. Raises what ``fill`` raised, once the batches before that are taken, and
        RuntimeError where there is no thread that could fill it.
        """
        if self._process != os.getpid():
            raise RuntimeError("the prefetch thread is gone: it does not survive a fork")
        if self._failure is not None:
            raise self._failure
        if self._ring.stopped:
            raise RuntimeError("the prefetch thread was stopped")
        try:
            batch = self._ring.filled.get_nowait()
        except queue.Empty:
            self._give_back()
            batch = self._wait()
        if isinstance(batch, _Failure):
            self._failure = batch.error
            raise batch.error
        return batch

    def release(self, batch: B) -> None:
        """Let the thread fill this batch again.

        It is woken when half of the batches are free, or when none is left to take: a thread that
        wakes finds other data in the caches, which costs it more than filling a small batch.
        """
        self._released.append(batch)
        if len(self._released) >= self._enough:
            self._give_back()

    def close(self) -> None:
        """End the thread and wait until it is gone. Doing so twice is fine."""
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _give_back(self) -> None:
        for batch in self._released:
            self._ring.free.put(batch)
        self._released.clear()

    def _wait(self) -> B | _Failure:
        # Never without end: the thread leaves a failure where it leaves no batch.
        started = time.perf_counter()
        try:
            return self._ring.filled.get()
        finally:
            self.waited += time.perf_counter() - started


class _Failure(NamedTuple):
    """Stands where a batch would, had it been filled."""

    error: BaseException


class _Unmade:
    """Stands for a batch that there is room for, but that is not made yet."""


class _Ring(Generic[B]):
    """What the thread and its user share: ``depth`` places, each in one of the queues or in use.

    A ``SimpleQueue`` may be put to from within a garbage collection.
    """

    def __init__(self, depth: int) -> None:
        self.free: SimpleQueue[B | _Unmade] = SimpleQueue()
        self.filled: SimpleQueue[B | _Failure] = SimpleQueue()
        self.stopped = False
        for _ in range(depth):
            self.free.put(_Unmade())

    def stop(self) -> None:
        self.stopped = True
        # Whoever waits must look.
        self.free.put(_Unmade())
        self.filled.put(_Failure(RuntimeError("the prefetch thread was stopped")))


def _produce(
    ring: _Ring[B], make: Callable[[], B], fill: Callable[[B, Callable[[], bool]], None]
) -> None:
    try:
        while True:
            batch = ring.free.get()
            if ring.stopped:
                return
            if isinstance(batch, _Unmade):
                batch = make()
            fill(batch, lambda: ring.stopped)
            if ring.stopped:
                return
            ring.filled.put(batch)
    except BaseException as failure:
        ring.filled.put(_Failure(failure))
