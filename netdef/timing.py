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
from netdef.program import FusedStep, Program, Step
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Document


def time_file(
    document: Document[pb.NetParameter],
    weights: Sequence[str] = (),
    *,
    skip_mismatch: bool = False,
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
    # As it is trained or tested: nobody looks at blobs.
    net = Net.from_message(document.message, state, document.positions, keep=(), emit=emit)
    try:
        for path in weights:
            net.copy_from(path, skip_mismatch)
        return time_net(net, iterations, emit)
    finally:
        net.close()


def time_net(net: Net, iterations: int, emit: Callable[[Event], None]) -> TimingFinished:
    """Run ``net`` forward and backward ``iterations`` times, and tell the mean time of each layer.

    One pass before them is not counted: it compiles kernels and touches memory. Parameters are not
    updated. What a pass leaves out takes no time in it: backward, layers before the first that
    learns, and all of a net that only runs forward.
    """
    program = net.program

    def run_backward() -> None:
        if program.memory.backward:
            program.backward()

    loss = program.forward()
    run_backward()
    emit(WarmedUp(loss, iterations))
    watches = [_Watch(run) for run in program.runs]
    clock = time.perf_counter
    forward = backward = 0.0
    try:
        begun = clock()
        for iteration in range(iterations):
            started = clock()
            program.forward()
            turned = clock()
            run_backward()
            ended = clock()
            forward += turned - started
            backward += ended - turned
            emit(IterationTimed(iteration, ended - started))
        total = clock() - begun
    finally:
        for watch in watches:
            watch.remove()
    result = TimingFinished(
        iterations,
        [_layer_time(program, watch, iterations) for watch in watches],
        forward / iterations,
        backward / iterations,
        total,
        _batch_size(net.plan),
    )
    emit(result)
    return result


class _Watch:
    """Adds up the seconds that a layer, or a group of layers that run as one, takes in either
    direction, until removed.

    The passes that are timed are thus those that train, not layers run one by one.
    """

    def __init__(self, run: Step | FusedStep) -> None:
        self.run = run
        self.seconds = {"forward": 0.0, "backward": 0.0}
        for direction in self.seconds:
            setattr(run, direction, self._timed(direction, getattr(run, direction)))

    def _timed(self, direction: str, run: Callable[..., None]) -> Callable[..., None]:
        def timed(*how: bool) -> None:
            begun = time.perf_counter()
            run(*how)
            self.seconds[direction] += time.perf_counter() - begun

        return timed

    def remove(self) -> None:
        for direction in self.seconds:
            delattr(self.run, direction)


def _layer_time(program: Program, watch: _Watch, iterations: int) -> LayerTime:
    plan, run = program.plan, watch.run
    layers = [(step.plan, step.ends) for step in run.steps]
    costs = {
        "forward": cost.together(plan, cost.forward, layers),
        "backward": Cost(),
    }
    if program.memory.backward:
        costs["backward"] = cost.together(plan, cost.backward, layers)
    forward, backward = (
        Pass(watch.seconds[direction] / iterations, work.flops, work.bytes)
        for direction, work in costs.items()
    )
    name = "+".join(step.layer.name for step in run.steps)
    return LayerTime(name, "+".join(step.layer.type for step in run.steps), forward, backward)


def _batch_size(plan: Plan) -> int:
    first = plan.layers[0]
    return first.top_shapes[0][0] if first.top_shapes and first.top_shapes[0] else 0
