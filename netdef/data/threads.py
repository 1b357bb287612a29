"""Threads that bring data, and their end.

They are daemons, so that no mistake can keep a process alive; yet one that is inside of OpenCV when
the interpreter falls would take the process down with it. So each is ended before that.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Any

#: When the interpreter ends, it waits at most this long for a thread.
EXIT_SECONDS = 10.0

#: How to ask each thread that may still run to end.
_running: weakref.WeakKeyDictionary[threading.Thread, Callable[[], None]] = (
    weakref.WeakKeyDictionary()
)


def start(
    target: Callable[..., None], *arguments: Any, name: str, stop: Callable[[], None]
) -> threading.Thread:
    """A thread that runs ``target(*arguments)``; it should end soon after ``stop()`` was called.

    Raises RuntimeError where the system starts no more.
    """
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    _running[thread] = stop
    return thread


@atexit.register
def _end_all() -> None:
    """End the threads while the interpreter stands."""
    # None of them lives in the child of a fork.
    threads = [(thread, stop) for thread, stop in _running.items() if thread.is_alive()]
    for _, stop in threads:
        stop()
    for thread, _ in threads:
        thread.join(EXIT_SECONDS)
