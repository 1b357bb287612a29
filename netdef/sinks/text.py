"""Numbers and output lines as Caffe prints them, and short forms for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from netdef.errors import name_some
from netdef.events import (
    EvaluationFinished,
    LayerTime,
    Output,
    Pass,
    SolveFinished,
    TestFinished,
    TimingFinished,
    WeightsLoaded,
)

#: Between the columns of a table.
SEPARATOR = "  "


def number(value: float) -> str:
    """``value`` as a C++ stream prints it: 6 significant digits, 0.01, 1e-05, 5, nan, -nan, inf."""
    if math.isnan(value):
        return "-nan" if math.copysign(1, value) < 0 else "nan"
    return f"{value:g}"


def output_lines(outputs: Iterable[Output]) -> Iterator[str]:
    """``#0: loss = 2.3 (* 1 = 2.3 loss)``: one line for each value of each output, counted through.

    The bracket says what a loss adds to the total; other outputs have none.
    """
    count = 0
    for output in outputs:
        for value in output.values:
            line = f"#{count}: {output.name} = {number(value)}"
            if output.loss_weight:
                share = _product(output.loss_weight, value)
                line += f" (* {number(output.loss_weight)} = {number(share)} loss)"
            yield line
            count += 1


def _product(a: float, b: float) -> float:
    # In float32, as the net computes: at 6 digits a float64 product can round the other way.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.float32(a) * np.float32(b))


def scores(test: TestFinished, most: int = 4) -> str:
    """``accuracy 0.9271, loss 0.236666``: the first values of a test's outputs."""
    values = [
        f"{output.name} {number(value)}" for output in test.outputs for value in output.values
    ]
    if len(values) > most:
        values[most:] = [f"{len(values) - most} more"]
    if test.loss is not None:
        values.append(f"total loss {number(test.loss)}")
    return ", ".join(values)


def summary(end: SolveFinished, loss: float | None, tests: Mapping[int, TestFinished]) -> str:
    """How a run ended: ``done after 200 iterations: loss 0.133073; test accuracy 0.9271``.

    Of ``tests``, the last result of each test net, those from the end of the run are told.
    """
    told = [] if loss is None else [f"loss {number(loss)}"]
    for index, test in sorted(tests.items()):
        if test.iteration == end.iteration and test.outputs:
            told.append(f"test{f' #{index}' if len(tests) > 1 else ''} {scores(test)}")
    head = "stopped" if end.early else "done"
    return f"{head} after {end.iteration} iterations" + (f": {'; '.join(told)}" if told else "")


def evaluation_lines(result: EvaluationFinished) -> Iterator[str]:
    """``accuracy = 0.9914``: a line for each value, and the net's loss where it is another."""
    losses = [output for output in result.outputs if output.loss_weight]
    for text in output_lines(result.outputs):
        yield text.partition(": ")[2].partition(" (*")[0]
    if len(losses) > 1 or any(output.loss_weight != 1 for output in losses):
        yield f"loss in all = {number(result.loss)}"


def layer_table(layers: Iterable[LayerTime]) -> Iterator[str]:
    """A table with a line for each layer: its time forward and backward, rates, and share."""
    timed = list(layers)
    whole = sum(layer.forward.seconds + layer.backward.seconds for layer in timed)
    names = ("forward ms", "GFLOP/s", "GB/s", "backward ms", "GFLOP/s", "GB/s", "share")
    rows = [("layer", "type", *names)]
    for layer in timed:
        seconds = layer.forward.seconds + layer.backward.seconds
        share = f"{100 * seconds / whole:.1f} %" if whole else "-"
        cells = (*_pass_cells(layer.forward), *_pass_cells(layer.backward))
        rows.append((layer.name, layer.type, *cells, share))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        values = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield SEPARATOR.join([*texts, *values])


def weights_table(loaded: WeightsLoaded) -> Iterator[str]:
    """What became of the layers of a file and of a net: a line for each fate that any of them met.

    ::

        weights from vgg16.caffemodel
          copied             14  conv1_1, conv1_2, conv2_1, conv2_2, conv3_1, 9 more
          not in the net      1  fc8
          not in the file     1  fc8_style
          do not fit          1  blob 0 of layer "fc7" is 20x4096 in the net but 40x4096 in the file
    """
    fates = [("copied", len(loaded.copied), name_some(loaded.copied))]
    if loaded.unused:
        fates.append(("not in the net", len(loaded.unused), name_some(loaded.unused)))
    if loaded.missing:
        fates.append(("not in the file", len(loaded.missing), name_some(loaded.missing)))
    if loaded.mismatched:
        first, *others = loaded.mismatched
        fates.append(("do not fit", len(loaded.mismatched), first))
        fates += [("", 0, mismatch) for mismatch in others]
    yield f"weights from {loaded.path}"
    for fate, count, told in fates:
        yield f"  {fate:<15}  {count or '':>4}  {told}".rstrip()


def _pass_cells(one: Pass) -> tuple[str, str, str]:
    """Milliseconds, GFLOP/s and GB/s; a dash for what a layer does not do."""
    rates = [
        f"{n / one.seconds / 1e9:.1f}" if n and one.seconds else "-" for n in (one.flops, one.bytes)
    ]
    return f"{1e3 * one.seconds:.3f}", rates[0], rates[1]


def timing_lines(result: TimingFinished) -> Iterator[str]:
    """The table of layers, and a line about whole passes."""
    yield from layer_table(result.layers)
    mean = result.total / result.iterations
    line = (
        f"forward {number(1e3 * result.forward)} ms, backward {number(1e3 * result.backward)} ms, "
        f"together {number(1e3 * mean)} ms; mean of {result.iterations} iterations"
    )
    if result.batch_size and mean:
        line += f", {number(result.batch_size / mean)} records/s"
    yield line
