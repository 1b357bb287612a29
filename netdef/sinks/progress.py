"""A progress line for terminals, under the lines that stay: tests, snapshots, notes, warnings."""

from __future__ import annotations

import atexit
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import IO, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from netdef import events
from netdef.sinks.stream import Stream
from netdef.sinks.text import (
    evaluation_lines,
    number,
    scores,
    summary,
    timing_lines,
    weights_table,
)

#: Redraws a second. Events only leave numbers behind; drawing them is another thread's work.
REDRAWS = 8

#: Speed is measured over this many seconds.
SPEED_WINDOW = 5.0

NARROWEST_BAR, WIDEST_BAR = 8, 24
SEPARATOR = "  "


class Progress:
    """Shows on a terminal where training is, its loss, the last test, the speed, the time left.

    From the first event to ``close`` the last line of the terminal is redrawn in place. ``close``
    removes it, also after an exception, and leaves what was printed above it.
    """

    def __init__(self, stream: TextIO) -> None:
        file = cast("IO[str]", Stream(stream))
        self._console = Console(file=file, highlight=False, soft_wrap=True)
        self._line = _Line()
        self._live = Live(
            self._line,
            console=self._console,
            refresh_per_second=REDRAWS,
            transient=True,
            # What others print must not break the line; a redirected stdout is not ours to touch.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )
        self._weights = ""
        self._tests: dict[int, events.TestFinished] = {}
        self._test_nets = 1
        self._end: events.SolveFinished | None = None
        self._closed = False

    def __call__(self, event: events.Event) -> None:
        line = self._line
        if isinstance(event, events.IterationDone):  # by far the most frequent
            line.iterated(event)
            return
        if not self._live.is_started and not self._closed:
            self._live.start()
            atexit.register(self.close)
        match event:
            case events.NetBuilding(role, source, index):
                number_of = f" #{index}" if role == "test" else ""
                line.status = f"building {role} net{number_of} from {source}"
                if role == "test":
                    self._test_nets = index + 1
            case events.KernelCompiled(name):
                line.status = f"compiling kernels (first run only): {name}"
            case events.SolveStarted():
                line.start(event)
            case events.TestStarted() | events.EvaluationStarted():
                line.test(event)
            case events.TestBatch(batch):
                line.batch = batch + 1
            case events.TestFinished():
                line.trained()
                if not event.interrupted:
                    self._tests[event.index] = event
                    line.score = scores(event).partition(",")[0]
            case events.WarmedUp(_, iterations):
                line.time(iterations)
            case events.IterationTimed(iteration):
                line.batch = iteration + 1
            case events.SnapshotWriting(path):
                line.status = f"writing {path}"
            case events.SolveFinished():
                self._end = event
        for text, style in self._permanent(event):
            self._console.print(Text(text, style))
        if isinstance(event, events.OptimizationDone):
            self.close()

    def close(self) -> None:
        """Remove the progress line and show the cursor again."""
        self._closed = True
        atexit.unregister(self.close)
        self._live.stop()

    def _permanent(self, event: events.Event) -> Iterator[tuple[str, str]]:
        """The lines that stay on the screen, with their styles."""
        match event:
            case events.Note(text):
                yield text, ""
            case events.Warned(text):
                yield f"warning: {text}", "yellow"
            case events.WeightsLoaded() if event.path != self._weights:
                # Every net loads them; one table will do.
                self._weights = event.path
                yield from ((text, "") for text in weights_table(event))
            case events.Resumed():
                yield f"resuming at iteration {event.iteration} from {event.path}", ""
            case events.SolveStarted():
                yield f"training {event.net or 'net'} to iteration {event.max_iter}", "bold"
            case events.TimingFinished():
                yield from ((text, "") for text in timing_lines(event))
            case events.EvaluationFinished():
                yield from ((text, "green") for text in evaluation_lines(event))
            case events.TestFinished(interrupted=True):
                yield f"iteration {event.iteration}: test interrupted", ""
            case events.TestFinished():
                which = f" #{event.index}" if self._test_nets > 1 else ""
                yield f"iteration {event.iteration}: test{which} {scores(event)}", "green"
            case events.StepReached(iteration, step):
                yield f"iteration {iteration}: learning rate, step {step}", ""
            case events.DebugLine(text):
                yield text, "dim"
            case events.SnapshotWritten():
                self._line.status = ""
                yield f"iteration {event.iteration}: snapshot {event.model}", "cyan"
            case events.OptimizationDone() if self._end is not None:
                loss = self._end.loss if self._end.loss is not None else self._line.loss
                text = summary(self._end, loss, self._tests)
                yield f"{text} (in {_duration(self._line.elapsed())})", "bold"


def _duration(seconds: float) -> str:
    """``1:02:03``, or ``5d 4h`` from a day on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minute:02d}:{second:02d}"


class _Line:
    """The progress line: numbers that events leave, drawn when rich asks."""

    def __init__(self) -> None:
        self.status = "starting"
        self.score = ""
        self.loss: float | None = None
        self.batch = 0
        self._batches = 0
        self._iteration = 0
        self._max_iter = 0
        self._batch_size = 0
        self._testing = False
        #: What is counted while something other than training goes on.
        self._label, self._unit = "test ", "batches"
        self._began = time.monotonic()
        #: When and where the first iteration ended: compiling before it would spoil the forecast.
        self._first: tuple[float, int] | None = None
        self._speed = _Speed()
        self._spinner = Spinner("dots")

    def start(self, event: events.SolveStarted) -> None:
        self._iteration = event.iteration
        self._max_iter = event.max_iter
        self._batch_size = event.batch_size
        self._began = time.monotonic()
        self.status = ""

    def iterated(self, event: events.IterationDone) -> None:
        self.loss = event.loss
        self._iteration = event.iteration + 1
        self.status = ""
        if self._first is None:
            self._first = time.monotonic(), self._iteration

    def test(self, event: events.TestStarted | events.EvaluationStarted) -> None:
        self._testing = True
        self.status = ""
        self.batch = 0
        self._batches = event.batches
        self._speed.pause()

    def time(self, iterations: int) -> None:
        """Passes are timed, so many of them."""
        self._testing = True
        self._label, self._unit = "time ", "iterations"
        self.status = ""
        self._batches = iterations

    def trained(self) -> None:
        """A test has ended."""
        self._testing = False
        self.status = ""
        self._speed.pause()

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        grid = Table.grid(padding=(0, 1))
        if self.status or not (self._max_iter or self._testing):
            grid.add_column(no_wrap=True)
            grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(width - 3, 1))
            grid.add_row(self._spinner, Text(self.status))
            yield grid
            return
        if self._testing:
            label, done, total = self._label, self.batch, self._batches
        else:
            label, done, total = "train", self._iteration, self._max_iter
            self._speed.sample(time.monotonic(), self._iteration)
        room = width - len(label) - 1
        position = f"{done}/{total}" + (f" {self._unit}" if self._testing else "")
        text = self._facts(position, room - NARROWEST_BAR - 1)
        bar = min(room - len(text) - 1, WIDEST_BAR)
        cells: list[Text | ProgressBar] = [Text(label)]
        if bar >= NARROWEST_BAR:
            cells.append(ProgressBar(total=total or None, completed=done, width=bar))
        cells.append(Text(text))
        for _ in cells:
            grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(*cells)
        yield grid

    def _facts(self, position: str, room: int) -> str:
        """As many facts as fit into ``room`` characters, the less telling ones left out first."""
        facts = {
            "position": position,
            "loss": f"loss {number(self.loss)}" if self.loss is not None else "",
            "score": f"test {self.score}" if self.score else "",
            "speed": self._speed_text(),
            "left": self._left(),
        }
        shown = {name: fact for name, fact in facts.items() if fact}
        for name in ("speed", "score", "left", "loss"):
            if len(SEPARATOR.join(shown.values())) <= room:
                break
            shown.pop(name, None)
        return SEPARATOR.join(shown.values())

    def _speed_text(self) -> str:
        rate = self._speed.rate
        if not rate:
            return ""
        if not self._batch_size:
            return f"{rate:.3g} iter/s"
        images = rate * self._batch_size
        return f"{images:,.0f} images/s" if images >= 100 else f"{images:.3g} images/s"

    def _left(self) -> str:
        """What remains at the pace so far, tests included."""
        if self._first is None:
            return ""
        since, at = self._first
        done = self._iteration - at
        if done <= 0 or self._iteration >= self._max_iter:
            return ""
        seconds = (time.monotonic() - since) / done * (self._max_iter - self._iteration)
        return f"{_duration(seconds)} left"


class _Speed:
    """Iterations a second over the last few seconds, test time left out."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now: float, iteration: int) -> None:
        samples = self._samples
        samples.append((now, iteration))
        while len(samples) > 2 and now - samples[0][0] > SPEED_WINDOW:
            samples.popleft()
        then, before = samples[0]
        # A slow net needs longer than the window for an iteration: keep the last speed until then.
        if iteration > before and now > then:
            self.rate = (iteration - before) / (now - then)

    def pause(self) -> None:
        # Another thread may be drawing: it keeps the samples it has begun with.
        self._samples = deque()
