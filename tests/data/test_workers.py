"""Workers: every call once, the first failure in order, and an end that always comes."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netdef import jit
from netdef.data.workers import VARIABLE, Workers, default_threads

#: Nothing here takes a second; whatever takes this long hangs.
HANG = 20.0


def never() -> bool:
    return False


@contextmanager
def working(count: int) -> Iterator[Workers]:
    workers = Workers(count, "test")
    yield workers
    workers.close()


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("test ")]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_every_call_is_made_once(threads: int, count: int) -> None:
    made: list[int] = []
    with working(threads) as workers:
        for _ in range(3):
            made.clear()
            workers.run(made.append, count, never)
            assert sorted(made) == list(range(count))
        assert len(own_threads()) == max(0, min(threads, count) - 1)
    assert own_threads() == []


def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    meeting = threading.Barrier(3)
    threads = set()

    def task(number: int) -> None:
        threads.add(threading.current_thread())
        meeting.wait(HANG)

    with working(3) as workers:
        workers.run(task, 6, never)
    assert threading.current_thread() in threads
    assert len(threads) == 3


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", [ValueError, MemoryError, KeyboardInterrupt])
def test_the_first_failure_in_order_is_raised(threads: int, kind: type[BaseException]) -> None:
    """With several threads, call 2 fails only after a later one has."""
    later = threading.Event()
    begun = []

    def task(number: int) -> None:
        begun.append(number)
        if number == 2:
            assert threads == 1 or later.wait(HANG)
            raise kind("call 2")
        if number > 2:
            later.set()
            raise kind(f"call {number}")

    with working(threads) as workers:
        for _ in range(2):
            later.clear()
            begun.clear()
            with pytest.raises(kind, match="call 2"):
                workers.run(task, 100, never)
            # Of those behind it no more were begun than threads were free.
            assert sorted(begun) == list(range(len(begun)))
            assert len(begun) <= 2 + threads
        done: list[int] = []
        workers.run(done.append, 5, never)
        assert sorted(done) == list(range(5))


@pytest.mark.parametrize("threads", [1, 3])
def test_no_call_begins_once_it_is_stopped(threads: int) -> None:
    stopped = threading.Event()
    begun = []

    def task(number: int) -> None:
        begun.append(number)
        stopped.set()

    with working(threads) as workers:
        workers.run(task, 1000, stopped.is_set)
    assert 1 <= len(begun) <= threads


def test_closed_workers_leave_the_work_to_the_caller() -> None:
    with working(3) as workers:
        workers.run(lambda number: None, 9, never)
        workers.close()
        workers.close()
        threads = set()
        workers.run(lambda number: threads.add(threading.current_thread()), 9, never)
    assert threads == {threading.current_thread()}


def test_the_threads_end_when_nobody_uses_them() -> None:
    workers = Workers(3, "test")
    workers.run(lambda number: None, 9, never)
    threads = own_threads()
    assert len(threads) == 2
    gone = weakref.ref(workers)
    del workers
    gc.collect()
    assert gone() is None
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()


def test_nothing_keeps_what_the_calls_refer_to() -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    with working(3) as workers:
        workers.run(lambda number, thing=thing: None, 9, never)  # type: ignore[misc]
        del thing
        gc.collect()
        assert gone() is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_closing_in_a_forked_child_does_not_hang() -> None:
    """Not even where another thread was at work, and so held the lock."""
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with workers._work.lock:
            holding.set()
            done.wait(HANG)

    with working(3) as workers:
        workers.run(lambda number: None, 9, never)
        holder = threading.Thread(target=hold)
        holder.start()
        assert holding.wait(HANG)
        child = os.fork()
        if child == 0:
            signal.alarm(int(HANG))
            workers.close()
            os._exit(0)
        done.set()
        holder.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_how_many_threads_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "7")
    assert default_threads() == 7
    cores = len(os.sched_getaffinity(0))
    for nonsense in ("0", "-1", "many", ""):
        monkeypatch.setenv(VARIABLE, nonsense)
        assert 1 <= default_threads() <= cores
    before = jit.num_threads()
    for kernels in range(1, before + 1):
        jit.set_num_threads(kernels)
        assert default_threads() == (cores - kernels if kernels < cores else cores)
    jit.set_num_threads(before)
