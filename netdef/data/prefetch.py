"""One thread that stays a few batches ahead of whoever uses them."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

B = TypeVar("B")

#: A waiting consumer looks this often whether the thread still lives: it does not survive a fork.
CHECK_SECONDS = 1.0
#: When the interpreter ends, it waits at most this long for a thread.
EXIT_SECONDS = 10.0


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
        self._ring: _Ring[B] = _Ring(depth)
        self._thread = threading.Thread(
            target=_produce, args=(self._ring, make, fill), name=name, daemon=True
        )
        # The thread knows the ring only; so this object can be collected, and then the thread ends.
        self._stop = weakref.finalize(self, self._ring.stop)
        _running[self._thread] = self._ring
        self._thread.start()

    def take(self) -> B:
        """The next batch, to be given back by ``release``.

        Waits for it. Raises what ``fill`` raised, once the batches before that are taken, and
        RuntimeError where there is no thread that could fill it.
        """
        ring = self._ring
        with ring.changed:
            while not ring.filled:
                if ring.failure is not None:
                    raise ring.failure
                if ring.stopped:
                    raise RuntimeError("the prefetch thread was stopped")
                if not ring.changed.wait(CHECK_SECONDS) and not self._thread.is_alive():
                    raise RuntimeError("the prefetch thread is gone: it does not survive a fork")
            return ring.filled.popleft()

    def release(self, batch: B) -> None:
        """Let the thread fill this batch again."""
        with self._ring.changed:
            self._ring.free.append(batch)
            self._ring.changed.notify_all()

    def close(self) -> None:
        """End the thread and wait until it is gone. Doing so twice is fine."""
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join()


class _Ring(Generic[B]):
    """What the thread and its user share, guarded by ``changed``."""

    def __init__(self, depth: int) -> None:
        self.to_make = depth
        self.free: deque[B] = deque()
        self.filled: deque[B] = deque()
        self.failure: BaseException | None = None
        self.stopped = False
        # Its lock is reentrant, so a garbage collection that happens under it may call stop().
        self.changed = threading.Condition()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


#: Every thread that may still run.
_running: weakref.WeakKeyDictionary[threading.Thread, _Ring[Any]] = weakref.WeakKeyDictionary()


@atexit.register
def _end_all() -> None:
    """End the threads while the interpreter stands.

    One that is inside of OpenCV when it falls would take the process down with it.
    """
    for thread, ring in list(_running.items()):
        if thread.is_alive():
            ring.stop()
            thread.join(EXIT_SECONDS)


def _produce(
    ring: _Ring[B], make: Callable[[], B], fill: Callable[[B, Callable[[], bool]], None]
) -> None:
    try:
        while True:
            with ring.changed:
                while not (ring.free or ring.to_make or ring.stopped):
                    ring.changed.wait()
                if ring.stopped:
                    return
                if ring.free:
                    batch = ring.free.popleft()
                else:
                    ring.to_make -= 1
                    batch = make()
            fill(batch, lambda: ring.stopped)
            with ring.changed:
                if ring.stopped:
                    return
                ring.filled.append(batch)
                ring.changed.notify_all()
    except BaseException as failure:
        with ring.changed:
            ring.failure = failure
            ring.changed.notify_all()
