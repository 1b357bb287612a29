"""Testing a saved net: the mean of its outputs over a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netdef.blob import Array
from netdef.errors import NetError
from netdef.events import EvaluationFinished, EvaluationStarted, Event, Output, TestBatch
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Document


def evaluate(
    document: Document[pb.NetParameter],
    weights: Sequence[str],
    *,
    iterations: int | None = None,
    state: pb.NetState | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    skip_mismatch: bool = False,
    emit: Callable[[Event], None],
) -> list[Output]:
    """Run the net in phase TEST and return the mean of each of its outputs.

    ``state``, ``level`` and ``stages`` are added to the state the net gives itself, ``state`` being
    a solver's ``test_state``. ``iterations``: how many batches; without it every record of the data
    layer is taken once, the last batch being smaller where the batch size does not divide their
    number.
    Raises NetdefError: the net, its data or the weights are wrong; or, without ``iterations``, the
    net has no data layer, or cannot take a smaller batch at the end.
    """
    whole = pb.NetState()
    whole.MergeFrom(document.message.state)
    if state is not None:
        whole.MergeFrom(state)
    whole.phase = pb.TEST
    if level:
        whole.level = level
    whole.stage.extend(stages)
    net = Net.from_message(document.message, whole, document.positions, keep=(), emit=emit)
    try:
        for path in weights:
            net.copy_from(path, skip_mismatch)
        batches, rest, records = _amount(net, iterations)
        # Made before the run, which may take hours: a net that cannot take fewer records says so.
        last = _smaller(net, document, whole, rest) if rest else None
        emit(EvaluationStarted(batches + (rest > 0), records))
        totals = _Totals(net, batches + (rest > 0), emit)
        for _ in range(batches):
            totals.add(net, 1.0)
        if last is not None:
            last.program.sources[0].seek(net.program.sources[0].records)
            for mine, theirs in zip(last.layers, net.layers, strict=True):
                mine.follow(theirs)
            try:
                totals.add(last, rest / _batch_size(net))
            finally:
                last.close()
        outputs = totals.means()
        emit(EvaluationFinished(outputs, totals.loss / totals.weight))
        return outputs
    finally:
        net.close()


class _Totals:
    """Sums of outputs over batches; a batch of fewer records weighs less."""

    def __init__(self, net: Net, batches: int, emit: Callable[[Event], None]) -> None:
        self.names = net.outputs
        self.loss_weights = net.blob_loss_weights
        self.sums: list[Array] = []
        self.loss = 0.0
        self.weight = 0.0
        self.batches = batches
        self.count = 0
        self.emit = emit

    def add(self, net: Net, weight: float) -> None:
        self.loss += weight * net.program.forward()
        values = [net.program.blobs[name].flat.astype(np.float64) for name in self.names]
        if not self.sums:
            self.sums = [np.zeros_like(v) for v in values]
        outputs = []
        for name, total, value in zip(self.names, self.sums, values, strict=True):
            total += weight * value
            outputs.append(Output(name, value.tolist(), self.loss_weights[name]))
        self.weight += weight
        self.emit(TestBatch(self.count, self.batches, outputs))
        self.count += 1

    def means(self) -> list[Output]:
        return [
            Output(name, (total / self.weight).tolist(), self.loss_weights[name])
            for name, total in zip(self.names, self.sums, strict=True)
        ]


def _amount(net: Net, iterations: int | None) -> tuple[int, int, int]:
    """(whole batches, records of a last smaller one, records in all)."""
    if iterations is not None:
        return iterations, 0, 0
    sources = net.program.sources
    if not sources:
        raise NetError(
            "the net has no data layer that knows its number of records", hint="give --iterations"
        )
    records = int(sources[0].size)
    amounts = [divmod(int(source.size), int(source.config.batch_size)) for source in sources]
    batches, rest = amounts[0]
    if len(sources) > 1 and (rest or len(set(amounts)) > 1):
        told = ", ".join(
            f'"{s.name}" has {int(s.size)} records in batches of {s.config.batch_size}'
            for s in sources
        )
        raise NetError(f"its data layers do not end together: {told}", hint="give --iterations")
    return batches, rest, records


def _batch_size(net: Net) -> int:
    return int(net.program.sources[0].config.batch_size)


def _smaller(net: Net, document: Document[pb.NetParameter], state: pb.NetState, rest: int) -> Net:
    """The same net with a batch of ``rest``: the records that are left over at the end."""
    message = pb.NetParameter()
    message.CopyFrom(net.plan.net)
    source: Any = net.program.sources[0]
    for layer in message.layer:
        if layer.name == source.name:
            getattr(layer, source.config_field).batch_size = rest
    try:
        small = Net.from_message(
            message, state, document.positions, share=net, seed=net.program.seed, keep=()
        )
        for name in net.outputs:
            ours, theirs = small.program.blobs[name].count, net.program.blobs[name].count
            if ours != theirs:
                raise NetError(
                    f'output "{name}" has {theirs} values in each batch and {ours} in the last: '
                    "there is no mean over them"
                )
    except NetError as error:
        first = error.diagnostics[0]
        raise NetError(
            f"{source.size} records are no whole number of batches of {_batch_size(net)}, and the "
            f"net cannot take the last {rest} alone: {first.message}",
            location=first.location,
            hint="give --iterations, or a batch_size that divides the number of records",
        ) from error
    return small
