"""What the commands that run a net share: options, threads, sinks, signals."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
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

#: Flags of Caffe's logging library that say where the log goes: it goes to stderr in any case.
LOG_FLAG = re.compile("--?(also|color)?logtostderr(=.*)?")

#: What makes the cursor visible, which a progress line hides.
SHOW_CURSOR = b"\x1b[?25h\r\n"


class Command(click.Command):
    """A command that takes the flags of Caffe's own command line, as gflags reads them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = [arg for arg in args if not LOG_FLAG.fullmatch(arg)]
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            # Of "-modle" click has read "-m", and says that this does not exist.
            given = next((a for a in args if a.startswith(error.option_name)), error.option_name)
            if error.option_name.startswith("--") or len(given) <= 2:
                raise
            given = given.partition("=")[0]
            known = [name for param in self.get_params(ctx) for name in param.opts]
            close = get_close_matches(given, known, n=1)
            raise click.NoSuchOption(given, possibilities=close, ctx=ctx) from None


def caffe_option(name: str, **settings: Any) -> Callable[[F], F]:
    """An option in both spellings: ``--name`` and Caffe's ``-name``."""
    dashed = name.replace("_", "-")
    spellings = dict.fromkeys((f"--{dashed}", f"--{name}", f"-{name}"))
    return click.option(*spellings, name.replace("-", "_"), **settings)


def lenient_option(function: F) -> F:
    """``--lenient``, of the commands that read a net."""
    return click.option(
        "--lenient",
        is_flag=True,
        help="Warn of what netdef does not know or compute, in place of refusing it.",
    )(function)


def run_options(function: F) -> F:
    """What every command takes that runs a net."""
    options = (
        caffe_option(
            "threads",
            type=click.IntRange(1),
            envvar="NETDEF_NUM_THREADS",
            show_envvar=True,
            help="Threads to compute with: all cores.",
        ),
        caffe_option("level", type=int, default=0, help="Level of the net's state."),
        caffe_option("stage", default="", help="Stages of the net's state, comma-separated."),
        caffe_option("gpu", default="", hidden=True, help="Accepted, and ignored: CPU only."),
        lenient_option,
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


def split_list(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def say(text: str, newline: bool = True) -> None:
    """Print to standard output, escaping characters that it cannot show.

    Raises OutputError where it cannot be written to, as on a full disk.
    """
    from netdef.errors import OutputError

    try:
        try:
            click.echo(text, nl=newline)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding
            click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=newline)
    except BrokenPipeError:
        raise  # click ends the command: whoever read the output has gone
    except OSError as error:
        with suppress(OSError, ValueError):
            # What is still buffered must not fail again when the interpreter ends.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


@contextmanager
def running(
    threads: int | None, gpu: str, log_format: str, lenient: bool = False
) -> Iterator[Listener]:
    """Set the threads, open the sink that ``log_format`` names, and tell it of compilation.

    Texts are read as ``lenient`` says while it lasts.
    """
    from netdef import events, jit, prototxt, sinks

    if threads is not None:
        jit.set_num_threads(threads)
    sink = sinks.choose(log_format, sys.stderr)
    stop_listening = jit.on_compile(lambda name: sink(events.KernelCompiled(name)))
    try:
        if gpu:
            sink(events.Note(f"-gpu {gpu} is ignored: netdef computes on the CPU"))
        with prototxt.lenient(lenient):
            yield sink
    finally:
        stop_listening()
        sink.close()


class Signals:
    """Turns SIGINT and SIGHUP into actions for the solver, as Caffe's flags say.

    A second SIGINT, while what the first asked for is not yet done, ends the process at once.
    """

    def __init__(self, sigint_effect: str, sighup_effect: str) -> None:
        self._effects = {signal.SIGINT: sigint_effect}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup_effect
        self._pending: list[int] = []

    @contextmanager
    def caught(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._take) for number in self._effects}
        try:
            yield
        finally:
            for number, handler in previous.items():
                # Whoever pressed Ctrl-C may do so again while the process ends: Python's own
                # handler would show where it was.
                if signal.getsignal(number) is not signal.SIG_DFL:
                    signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._effects[signal.Signals(number)] == "none":
            return
        self._pending.append(number)
        if number == signal.SIGINT:
            # A handler of ours would wait for the kernel that runs; the default one ends it. The
            # progress line cannot tidy up then, so the terminal gets its cursor back now.
            signal.signal(number, signal.SIG_DFL)
            with suppress(OSError):
                if os.isatty(2):
                    os.write(2, SHOW_CURSOR)

    def action(self) -> Action:
        """What the signals since the last call ask for."""
        from netdef.solver import Action

        if not self._pending:
            return Action.NONE
        number = signal.Signals(self._pending.pop(0))
        if self._effects[number] == "stop":
            return Action.STOP
        # It will have been done: the next one is a first one again.
        signal.signal(number, self._take)
        return Action.SNAPSHOT
