"""The log as Caffe 1.0 prints it, which a decade of scripts can parse.

A line is ``I1120 16:54:46.885938 31696 solver.cpp:239] text``: severity, month and day, time,
thread, the place in Caffe's sources that prints it. There are always four words before the text.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from netdef import events
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import to_text
from netdef.sinks.stream import Stream
from netdef.sinks.text import layer_table, number, output_lines, weights_table

if TYPE_CHECKING:
    from netdef.plan import LayerPlan, Plan

#: Where a line comes from that Caffe does not print.
OURS = "netdef:0"

#: Where Caffe prints which rule left a layer out, by how the sentence begins.
RULES = {
    "The NetState phase": "net.cpp:296",
    "The NetState level": "net.cpp:306",
    "The NetState did not contain": "net.cpp:332",
    "The NetState contained": "net.cpp:347",
}

#: Where Caffe says which net it trains.
TRAIN_NETS = {
    "train_net_param": "solver.cpp:88",
    "train_net": "solver.cpp:92",
    "net_param": "solver.cpp:97",
    "net": "solver.cpp:102",
}


class Line(NamedTuple):
    """A message and where Caffe prints it from. It may run over several lines of the log."""

    origin: str
    text: str
    severity: str = "I"


class CaffeLog:
    """Prints events to ``stream`` as Caffe's log; lines that Caffe lacks come from ``netdef:0``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = Stream(stream)
        # Prefetch threads have something to say, too.
        self._lock = threading.Lock()
        self._compiling = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.KernelCompiled):
            if self._compiling:
                return
            self._compiling = True
        text = "".join(_stamped(line) for line in lines(event))
        if text:
            with self._lock:
                self._stream.write(text)
                self._stream.flush()

    def close(self) -> None:
        with self._lock:
            self._stream.flush()


def _stamped(line: Line) -> str:
    now = time.time()
    when = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    microseconds = int(now % 1 * 1e6)
    thread = threading.get_native_id()
    end = "" if line.text.endswith("\n") else "\n"
    return f"{line.severity}{when}.{microseconds:06d} {thread:5d} {line.origin}] {line.text}{end}"


def lines(event: events.Event) -> Iterator[Line]:
    """The messages Caffe's log has for ``event``, in order; none for an event it does not print."""
    match event:
        case events.Note(text):
            yield Line(OURS, text)
        case events.Warned(text):
            yield Line(OURS, text, "W")
        case events.SolverStarted(parameters, device):
            yield Line("caffe.cpp:197", f"Use {device}.")
            text = to_text(parameters)
            yield Line("solver.cpp:45", f"Initializing solver from parameters: \n{text}")
        case events.NetBuilding(role, source, index):
            yield _building(role, source, index)
        case events.NetBuilt(plan, parameters, dropped):
            yield from _built(plan, parameters, dropped)
        case events.SolverReady():
            yield Line("solver.cpp:57", "Solver scaffolding done.")
        case events.WeightsLoaded():
            yield Line("solver.cpp:72", f"Finetuning from {event.path}")
            yield from _ignored(event.ignored)
            if event.missing or event.mismatched:
                # What Caffe does not tell; where all is well, the log is Caffe's.
                yield from (Line(OURS, text) for text in weights_table(event))
        case events.Resumed():
            yield Line("caffe.cpp:235", f"Resuming from {event.path}")
            yield from _ignored(event.ignored)
            if not event.path.endswith(".h5"):
                yield Line("sgd_solver.cpp:329", "SGDSolver: restoring history")
        case events.SolveStarted():
            yield Line("caffe.cpp:239", "Starting Optimization")
            yield Line("solver.cpp:289", f"Solving {event.net}")
            yield Line("solver.cpp:290", f"Learning Rate Policy: {event.lr_policy}")
        case events.EvaluationStarted(batches):
            yield Line("caffe.cpp:281", f"Running for {batches} iterations.")
        case events.TestBatch(batch, _, outputs) if outputs:
            for output in outputs:
                for value in output.values:
                    yield Line("caffe.cpp:304", f"Batch {batch}, {output.name} = {number(value)}")
        case events.EvaluationFinished(outputs, loss):
            yield Line("caffe.cpp:309", f"Loss: {number(loss)}")
            for text in output_lines(outputs):
                yield Line("caffe.cpp:321", text.partition(": ")[2])
        case events.TimingStarted(device):
            yield Line("caffe.cpp:352", f"Use {device}.")
        case events.WarmedUp(loss, iterations):
            yield Line("caffe.cpp:360", "Performing Forward")
            yield Line("caffe.cpp:365", f"Initial loss: {number(loss)}")
            yield Line("caffe.cpp:366", "Performing Backward")
            yield Line("caffe.cpp:374", "*** Benchmark begins ***")
            yield Line("caffe.cpp:375", f"Testing for {iterations} iterations.")
        case events.IterationTimed(iteration, seconds):
            time = number(1e3 * seconds)
            yield Line(
                "caffe.cpp:403", f"Iteration: {iteration + 1} forward-backward time: {time} ms."
            )
        case events.TimingFinished():
            yield from _timed(event)
        case events.TestStarted():
            yield Line(
                "solver.cpp:347", f"Iteration {event.iteration}, Testing net (#{event.index})"
            )
        case events.TestFinished(interrupted=True):
            yield Line("solver.cpp:396", "Test interrupted.")
        case events.TestFinished():
            if event.loss is not None:
                yield Line("solver.cpp:401", f"Test loss: {number(event.loss)}")
            for text in output_lines(event.outputs):
                yield Line("solver.cpp:414", f"    Test net output {text}")
        case events.DataWrapped():
            yield Line("data_layer.cpp:73", "Restarting data prefetching from start.")
        case events.KernelCompiled():
            yield Line(OURS, "Compiling kernels (first run only)")
        case events.IterationDone(display=True):
            yield from _displayed(event)
        case events.RateSet(iteration, rate):
            yield Line("sgd_solver.cpp:112", f"Iteration {iteration}, lr = {number(rate)}")
        case events.StepReached(iteration, step):
            yield Line(
                "sgd_solver.cpp:50", f"MultiStep Status: Iteration {iteration}, step = {step}"
            )
        case events.GradientsClipped(norm, limit, factor):
            yield Line(
                "sgd_solver.cpp:99",
                f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > "
                f"{number(limit)}) by scale factor {number(factor)}",
            )
        case events.DebugLine(text, origin):
            yield Line(origin, text)
        case events.SnapshotWriting(path, kind, format):
            yield _writing(path, kind, format)
        case events.SolveFinished(early=True):
            yield Line("solver.cpp:311", "Optimization stopped early.")
        case events.SolveFinished(iteration, loss) if loss is not None:
            yield Line("solver.cpp:327", f"Iteration {iteration}, loss = {number(loss)}")
        case events.OptimizationDone(early):
            if not early:
                yield Line("solver.cpp:332", "Optimization Done.")
            yield Line("caffe.cpp:250", "Optimization Done.")


def _building(role: str, source: str, index: int) -> Line:
    if role == "test":
        return Line("solver.cpp:190", f"Creating test net (#{index}) specified by {source}")
    field, _, path = source.partition(" file: ")
    origin = TRAIN_NETS.get(field, "solver.cpp:102")
    if path:
        return Line(origin, f"Creating training net from {source}")
    return Line(origin, f"Creating training net specified in {source}.")


def _displayed(event: events.IterationDone) -> Iterator[Line]:
    rate = event.iterations / (event.seconds or 1)
    yield Line(
        "solver.cpp:239",
        f"Iteration {event.iteration} ({number(rate)} iter/s, {number(event.seconds)}s/"
        f"{event.display_every} iters), loss = {number(event.loss)}",
    )
    for text in output_lines(event.outputs):
        yield Line("solver.cpp:258", f"    Train net output {text}")


def _timed(event: events.TimingFinished) -> Iterator[Line]:
    yield Line("caffe.cpp:406", "Average time per layer: ")
    for layer in event.layers:
        for origin, direction, seconds in (
            ("caffe.cpp:409", "forward", layer.forward.seconds),
            ("caffe.cpp:412", "backward", layer.backward.seconds),
        ):
            yield Line(origin, f"{layer.name:>10}\t{direction}: {number(1e3 * seconds)} ms.")
    mean = event.total / event.iterations
    for origin, what, seconds in (
        ("caffe.cpp:417", "Average Forward pass", event.forward),
        ("caffe.cpp:419", "Average Backward pass", event.backward),
        ("caffe.cpp:421", "Average Forward-Backward", mean),
        ("caffe.cpp:423", "Total Time", event.total),
    ):
        yield Line(origin, f"{what}: {number(1e3 * seconds)} ms.")
    yield Line("caffe.cpp:424", "*** Benchmark ends ***")
    # What Caffe does not tell.
    for text in layer_table(event.layers):
        yield Line(OURS, text)


def _writing(path: str, kind: str, format: str) -> Line:
    hdf5 = format == "HDF5"
    if kind == "model":
        return Line(
            "solver.cpp:474" if hdf5 else "solver.cpp:464", f"Snapshotting to {format} file {path}"
        )
    return Line(
        "sgd_solver.cpp:293" if hdf5 else "sgd_solver.cpp:284",
        f"Snapshotting solver state to {format} file {path}",
    )


def _ignored(layers: Sequence[str]) -> Iterator[Line]:
    for name in layers:
        yield Line("net.cpp:746", f"Ignoring source layer {name}")


def _built(plan: Plan, parameters: pb.NetParameter, dropped: Sequence[str]) -> Iterator[Line]:
    for rule in dropped:
        origin = next((at for start, at in RULES.items() if rule.startswith(start)), "net.cpp:296")
        yield Line(origin, rule)
    yield Line("net.cpp:53", f"Initializing net from parameters: \n{to_text(parameters)}")
    messages = {message.name: message for message in parameters.layer}
    values = 0
    for layer in plan.layers:
        message = messages.get(layer.name, pb.LayerParameter())
        yield from _created(layer, message)
        values += sum(math.prod(shape) for shape in layer.top_shapes)
        # Caffe counts an in-place top again, and so does everyone who reads its logs.
        yield Line("net.cpp:139", f"Memory required for data: {4 * values}")
        yield from _shared(plan, layer)
    for layer in reversed(plan.layers):
        if layer.needs_backward:
            yield Line("net.cpp:200", f"{layer.name} needs backward computation.")
        else:
            yield Line("net.cpp:202", f"{layer.name} does not need backward computation.")
    for name in plan.outputs:
        yield Line("net.cpp:244", f"This network produces output {name}")
    yield Line("net.cpp:257", "Network initialization done.")


def _created(layer: LayerPlan, message: pb.LayerParameter) -> Iterator[Line]:
    """Everything Caffe prints while it sets up one layer, but for the memory."""
    created = Line("layer_factory.hpp:77", f"Creating layer {layer.name}")
    yield created
    if layer.type == "Data":
        kind = "lmdb" if message.data_param.backend == pb.DataParameter.LMDB else "leveldb"
        origin = "db_lmdb.cpp:35" if kind == "lmdb" else "db_leveldb.cpp:18"
        yield Line(origin, f"Opened {kind} {message.data_param.source}")
    yield Line("net.cpp:86", f"Creating Layer {layer.name}")
    for name in layer.bottoms:
        yield Line("net.cpp:408", f"{layer.name} <- {name}")
    for name, in_place in zip(layer.tops, layer.in_place, strict=True):
        if in_place:
            yield Line("net.cpp:369", f"{layer.name} -> {name} (in-place)")
        else:
            yield Line("net.cpp:382", f"{layer.name} -> {name}")
    if layer.type == "Data":
        size = ",".join(str(dim) for dim in layer.top_shapes[0])
        yield Line("data_layer.cpp:45", f"output data size: {size}")
    if _has_inner_layer(layer.type, message):
        yield created
    yield Line("net.cpp:124", f"Setting up {layer.name}")
    for shape, weight in zip(layer.top_shapes, layer.loss_weights, strict=True):
        dims = "".join(f"{dim} " for dim in shape)
        yield Line("net.cpp:131", f"Top shape: {dims}({math.prod(shape)})")
        if weight:
            yield Line("net.cpp:134", f"    with loss weight {number(weight)}")


def _has_inner_layer(type: str, message: pb.LayerParameter) -> bool:
    """Whether Caffe creates a second layer, of the same name, to do a part of the work."""
    return type in ("SoftmaxWithLoss", "InfogainLoss") or (
        type == "Scale" and message.scale_param.bias_term
    )


def _shared(plan: Plan, layer: LayerPlan) -> Iterator[Line]:
    for index in layer.params:
        owner = plan.params[plan.params[index].owner]
        if owner is not plan.params[index]:
            yield Line(
                "net.cpp:467",
                f"Sharing parameters '{owner.name}' owned by layer '{owner.layer}', "
                f"param index {owner.index}",
            )
