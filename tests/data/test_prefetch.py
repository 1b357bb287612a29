"""The prefetch thread: order, depth, errors that are not lost, and an end that always comes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from netdef.data.prefetch import Prefetch

Stopped = Callable[[], bool]

#: Nothing here takes a second; whatever takes this long hangs.
HANG = 20.0


class Counter:
    """Fills batches 0, 1, 2, ...; ``batches`` counts how many were made."""

    def __init__(self, fail_at: int = -1, error: BaseException | None = None) -> None:
        self.batches = 0
        self.next = 0
        self.fail_at = fail_at
        self.error = error
        self.threads: set[threading.Thread] = set()

    def make(self) -> list[int]:
        self.batches += 1
        return [-1]

    def fill(self, batch: list[int], stopped: Stopped) -> None:
        self.threads.add(threading.current_thread())
        if self.next == self.fail_at and self.error is not None:
            raise self.error
        batch[0] = self.next
        self.next += 1


def ended(thread: threading.Thread) -> bool:
    thread.join(HANG)
    return not thread.is_alive()


def test_batches_come_in_order_from_one_thread() -> None:
    counter = Counter()
    prefetch = Prefetch(counter.make, counter.fill, depth=3)
    for i in range(500):
        batch = prefetch.take()
        assert batch == [i]
        prefetch.release(batch)
    prefetch.close()
    assert counter.batches <= 3
    assert len(counter.threads) == 1


def test_no_more_than_depth_batches() -> None:
    counter = Counter()
    prefetch = Prefetch(counter.make, counter.fill, depth=2)
    first, second = prefetch.take(), prefetch.take()
    # Both are taken, so there is none to fill.
    assert (first, second) == ([0], [1])
    assert counter.batches == 2
    assert counter.next == 2
    prefetch.release(first)
    assert prefetch.take() == [2]
    prefetch.close()
    assert counter.batches == 2


def test_an_error_comes_after_the_batches_before_it_and_stays() -> None:
    error = ValueError("record 3")
    counter = Counter(fail_at=3, error=error)
    prefetch = Prefetch(counter.make, counter.fill, depth=2)
    for i in range(3):
        batch = prefetch.take()
        assert batch == [i]
        prefetch.release(batch)
    for _ in range(2):
        with pytest.raises(ValueError, match="record 3") as caught:
            prefetch.take()
        assert caught.value is error
    prefetch.close()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 9])
def test_no_batch_is_missed_whatever_was_released(depth: int) -> None:
    """The thread is woken for several batches at a time, but never waited for while it sleeps."""
    counter = Counter()
    prefetch = Prefetch(counter.make, counter.fill, depth)
    held: list[list[int]] = []
    for i in range(100):
        batch = prefetch.take()
        assert batch == [i]
        held.append(batch)
        # One, two, ... of them are held before any is released; then one goes after another.
        if len(held) == min(depth, 1 + i // 10):
            prefetch.release(held.pop(0))
    prefetch.close()
    assert counter.batches <= depth


def test_waiting_is_counted() -> None:
    """The thread fills the second batch only when somebody waits for it."""
    consumer = threading.get_ident()

    def waits() -> bool:
        frame = sys._current_frames()[consumer]
        return frame.f_code.co_name == "_wait"

    def fill(batch: list[int], stopped: Stopped) -> None:
        if batch != [-1]:
            while not waits():
                pass
        batch[0] = 0
        filled.set()

    filled = threading.Event()
    prefetch = Prefetch(lambda: [-1], fill, depth=1)
    assert filled.wait(HANG)
    while prefetch._ring.filled.empty():
        pass
    prefetch.release(prefetch.take())
    assert prefetch.waited == 0
    prefetch.take()
    assert prefetch.waited > 0
    prefetch.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_no_kind_of_error_is_lost(error: BaseException) -> None:
    counter = Counter(fail_at=0, error=error)
    prefetch = Prefetch(counter.make, counter.fill, depth=1)
    with pytest.raises(type(error)):
        prefetch.take()
    prefetch.close()


def test_an_error_while_making_a_batch() -> None:
    def make() -> list[int]:
        raise MemoryError("too much")

    prefetch = Prefetch(make, Counter().fill, depth=1)
    with pytest.raises(MemoryError):
        prefetch.take()
    prefetch.close()


def test_close_ends_the_thread_whatever_it_does() -> None:
    waiting = threading.Event()

    def fill_until_stopped(batch: list[int], stopped: Stopped) -> None:
        waiting.set()
        while not stopped():
            pass

    idle = Counter()
    busy = Prefetch(Counter().make, fill_until_stopped, depth=1)
    full = Prefetch(idle.make, idle.fill, depth=2)
    failed = Counter(fail_at=0, error=ValueError())
    broken = Prefetch(failed.make, failed.fill, depth=1)
    assert waiting.wait(HANG)
    for prefetch in (busy, full, broken):
        closing = threading.Thread(target=prefetch.close)
        closing.start()
        assert ended(closing)
        prefetch.close()


def test_take_after_close_raises() -> None:
    counter = Counter()
    prefetch = Prefetch(counter.make, counter.fill, depth=1)
    prefetch.take()
    prefetch.close()
    with pytest.raises(RuntimeError, match="the prefetch thread was stopped"):
        prefetch.take()


def test_the_thread_ends_when_nobody_wants_its_batches() -> None:
    counter = Counter()
    prefetch = Prefetch(counter.make, counter.fill, depth=1)
    prefetch.take()
    [thread] = counter.threads
    assert thread.daemon
    gone = weakref.ref(prefetch)
    del prefetch
    gc.collect()
    assert gone() is None
    assert ended(thread)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_instead_of_hanging() -> None:
    counter = Counter()
    prefetch = Prefetch(counter.make, counter.fill, depth=1)
    prefetch.take()
    child = os.fork()
    if child == 0:
        signal.alarm(int(HANG))
        try:
            prefetch.take()
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    prefetch.close()
