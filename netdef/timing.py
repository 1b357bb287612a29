"""How long each layer of a net takes, forward and backward, as ``caffe time`` measures it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from netdef import cost
from netdef.cost import Cost
from netdef.events import (
    Event,
    IterationTimed,
    LayerTime,
    Pass,
    TimingFinished,
    TimingStarted,
    WarmedUp,
)
from netdef.net import Net
from netdef.plan import Plan
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Document


def time_file(
    document: Document[pb.NetParameter],
    weights: Sequence[str] = (),
    *,
    iterations: int,
    phase: int = pb.TRAIN,
    level: int = 0,
    stages: Sequence[str] = (),
    emit: Callable[[Event], None],
) -> TimingFinished:
    """Build the net of ``document`` in ``phase`` and time it; see ``time_net``.

    Raises NetdefError: the net, its data or the weights are wrong.
    """
    emit(TimingStarted())
    state = pb.NetState()
    state.MergeFrom(document.message.state)
    state.MergeFrom(pb.NetState(phase=pb.Phase.Name(phase), level=level, stage=stages))
    net = Net.from_message(document.message, state, document.positions, emit=emit)
    try:
        for path in weights:
            net.copy_from(path)
        return time_net(net, iterations, emit)
    finally:
        net.close()


def time_net(net: Net, iterations: int, emit: Callable[[Event], None]) -> TimingFinished:
    """Run every layer forward, then backward, ``iterations`` times, and tell the means.

    One pass before them is not counted: it compiles kernels and touches memory. Parameters are not
    updated. What a backward pass leaves out, such as layers before the first that learns, takes no
    time in it.
    """
    program = net.program
    loss = program.forward()
    program.backward()
    emit(WarmedUp(loss, iterations))
    count = len(program.steps)
    forward, backward = [0.0] * count, [0.0] * count
    clock = time.perf_counter
    begun = before = clock()
    for iteration in range(iterations):
        started = before
        for i in range(count):
            program.forward(i, i)
            now = clock()
            forward[i] += now - before
            before = now
        for i in reversed(range(count)):
            program.backward(i, i)
            now = clock()
            backward[i] += now - before
            before = now
        emit(IterationTimed(iteration, before - started))
        before = clock()
    total = before - begun
    plan = net.plan
    result = TimingFinished(
        iterations,
        [
            LayerTime(
                layer.name,
                layer.type,
                _pass(forward[i] / iterations, cost.forward(plan, layer)),
                _pass(backward[i] / iterations, cost.backward(plan, layer)),
            )
            for i, layer in enumerate(plan.layers)
        ],
        sum(forward) / iterations,
        sum(backward) / iterations,
        total,
        _batch_size(plan),
    )
    emit(result)
    return result


def _pass(seconds: float, work: Cost) -> Pass:
    return Pass(seconds, work.flops, work.bytes)


def _batch_size(plan: Plan) -> int:
    first = plan.layers[0]
    return first.top_shapes[0][0] if first.top_shapes and first.top_shapes[0] else 0
