"""What the commands that run a net share: options, threads, sinks, signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from netdef.events import Listener
    from netdef.solver import Action

F = TypeVar("F", bound=Callable[..., Any])

#: What ``--sigint_effect`` and ``--sighup_effect`` take, as in Caffe.
EFFECTS = ("stop", "snapshot", "none")

LOG_FORMATS = ("auto", "caffe", "json", "quiet")


def caffe_option(name: str, **settings: Any) -> Callable[[F], F]:
    """An option in both spellings: ``--name`` and Caffe's ``-name``."""
    dashed = name.replace("_", "-")
    spellings = dict.fromkeys((f"--{dashed}", f"--{name}", f"-{name}"))
    return click.option(*spellings, name.replace("-", "_"), **settings)


def run_options(function: F) -> F:
    """What every command takes that runs a net."""
    options = (
        caffe_option("threads", type=click.IntRange(1), help="Threads to compute with: all cores."),
        caffe_option("level", type=int, default=0, help="Level of the net's state."),
        caffe_option("stage", default="", help="Stages of the net's state, comma-separated."),
        caffe_option("gpu", default="", hidden=True, help="Accepted, and ignored: CPU only."),
        click.option("--logtostderr", "-logtostderr", is_flag=True, hidden=True),
        click.option("--alsologtostderr", "-alsologtostderr", is_flag=True, hidden=True),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            default="auto",
            show_default=True,
            help="Caffe's log, JSON lines, or little; auto shows progress on a terminal.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def split_stages(stage: str) -> list[str]:
    return [part.strip() for part in stage.split(",") if part.strip()]


@contextmanager
def running(threads: int | None, gpu: str, log_format: str) -> Iterator[Listener]:
    """Set the threads, open the sink that ``log_format`` names, and tell it of compilation."""
    from netdef import events, jit, sinks

    if threads is not None:
        jit.set_num_threads(threads)
    sink = sinks.choose(log_format, sys.stderr)
    stop_listening = jit.on_compile(lambda name: sink(events.KernelCompiled(name)))
    try:
        if gpu:
            sink(events.Note(f"-gpu {gpu} is ignored: netdef computes on the CPU"))
        yield sink
    finally:
        stop_listening()
        sink.close()


class Signals:
    """Turns SIGINT and SIGHUP into actions for the solver, as Caffe's flags say.

    A second SIGINT, while the first is not yet done, ends the process at once.
    """

    def __init__(self, sigint_effect: str, sighup_effect: str) -> None:
        self._effects = {signal.SIGINT: sigint_effect}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup_effect
        self._pending: list[str] = []
        self._interrupted = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._take) for number in self._effects}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                # Now means now: not after what a library may be doing.
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._interrupted = True
        effect = self._effects[signal.Signals(number)]
        if effect != "none":
            self._pending.append(effect)

    def action(self) -> Action:
        """What the signals since the last call ask for."""
        from netdef.solver import Action

        if not self._pending:
            return Action.NONE
        effect = self._pending.pop(0)
        if effect == "snapshot":
            # It will have been done: the next Ctrl-C is a first one again.
            self._interrupted = False
            return Action.SNAPSHOT
        return Action.STOP
