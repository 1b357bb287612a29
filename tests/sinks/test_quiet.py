from __future__ import annotations

import io

from netdef import events
from netdef.events import Output
from netdef.sinks.quiet import Quiet


def printed(*happened: events.Event) -> str:
    stream = io.StringIO()
    sink = Quiet(stream)
    for event in happened:
        sink(event)
    sink.close()
    return stream.getvalue()


def test_warnings_and_the_end() -> None:
    test = events.TestFinished(10, 0, [Output("accuracy", [0.5])])
    text = printed(
        events.Note("seed 7"),
        events.SolveStarted("n", "fixed", 0, 10),
        events.Warned("labels start at 1"),
        events.IterationDone(9, 0.25, True, 1.0, 10, 10),
        events.SolveFinished(10, 0.125),
        test,
        events.OptimizationDone(),
    )
    assert text == (
        "warning: labels start at 1\ndone after 10 iterations: loss 0.125; test accuracy 0.5\n"
    )


def test_layers_that_do_not_fit_are_told_once() -> None:
    loaded = events.WeightsLoaded("w", ["a"], ["b"], ["c"], ["blob 0 is odd"])
    assert printed(loaded, loaded) == "warning: w: blob 0 is odd; it stays as it was\n"
    assert printed(events.WeightsLoaded("w", ["a"], ["b"], ["c"])) == ""


def test_stopped_early_tells_the_last_loss() -> None:
    text = printed(
        events.IterationDone(3, 0.25, False),
        events.SolveFinished(4, early=True),
        events.OptimizationDone(early=True),
    )
    assert text == "stopped after 4 iterations: loss 0.25\n"
