"""What happens during training, as values. The solver emits them; ``sinks`` turn them into text.

Every event is plain data. Nothing here prints, and nothing that computes knows who listens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netdef.plan import Plan
    from netdef.proto.netdef_pb2 import NetParameter, SolverParameter


@dataclass(frozen=True)
class Output:
    """One output blob of a net: its values, flat, and its loss weight (0 where it is no loss)."""

    name: str
    values: Sequence[float]
    loss_weight: float = 0.0


@dataclass(frozen=True)
class Event:
    """Anything worth telling."""


@dataclass(frozen=True)
class Note(Event):
    """A sentence for the user that Caffe has no line for: a seed drawn, a default replaced."""

    text: str


@dataclass(frozen=True)
class Warned(Event):
    """Something looks wrong, and training goes on."""

    text: str


@dataclass(frozen=True)
class SolverStarted(Event):
    """A solver was read and is about to build its nets. ``device`` names what computes."""

    parameters: SolverParameter
    device: str = "CPU"


@dataclass(frozen=True)
class NetBuilding(Event):
    """A net is about to be built.

    ``role`` is "train" or "test", ``source`` where the net comes from: "net file: lenet.prototxt",
    "train_net file: f", "test_net file: f", "net_param", "train_net_param" or "test_net_param".
    """

    role: str
    source: str
    index: int = 0


@dataclass(frozen=True)
class NetBuilt(Event):
    """A net was built.

    ``dropped`` holds the rules that left layers out, one sentence each, as Caffe words it;
    ``parameters`` is the net after that, before splits, its state included.
    """

    plan: Plan
    parameters: NetParameter
    dropped: Sequence[str] = ()


@dataclass(frozen=True)
class SolverReady(Event):
    """Train and test nets stand."""


@dataclass(frozen=True)
class WeightsLoaded(Event):
    """Parameters were copied from ``path`` into one net, by layer name.

    ``copied`` are layers whose parameters came from the file; ``ignored`` layers of the file that
    the net does not have, ``unused`` those of them that have weights; ``missing`` layers with
    parameters that the file does not have. ``mismatched`` says of each layer that was left out why
    it does not fit.
    """

    path: str
    copied: Sequence[str] = ()
    ignored: Sequence[str] = ()
    missing: Sequence[str] = ()
    mismatched: Sequence[str] = ()
    unused: Sequence[str] = ()


@dataclass(frozen=True)
class Resumed(Event):
    """Training continues from the .solverstate at ``path``.

    ``type`` is the update rule; ``ignored`` are layers of the snapshot's model that the net does
    not have.
    """

    path: str
    iteration: int
    type: str = "SGD"
    ignored: Sequence[str] = ()


@dataclass(frozen=True)
class SolveStarted(Event):
    """The loop begins, at ``iteration`` of ``max_iter``.

    ``batch_size`` counts the records one iteration sees, all its iter_size passes together; 0 where
    that is unknown.
    """

    net: str
    lr_policy: str
    iteration: int
    max_iter: int
    batch_size: int = 0


@dataclass(frozen=True)
class TestStarted(Event):
    """Test net ``index`` is about to be evaluated."""

    __test__ = False
    iteration: int
    index: int
    batches: int = 0


@dataclass(frozen=True)
class TestBatch(Event):
    """One batch of a test is done (``batch`` counts from 0)."""

    __test__ = False
    batch: int
    batches: int
    outputs: Sequence[Output] = ()


@dataclass(frozen=True)
class TestFinished(Event):
    """A test is done: the mean of each output over its batches, and of the loss if asked for."""

    __test__ = False
    iteration: int
    index: int
    outputs: Sequence[Output] = ()
    loss: float | None = None
    interrupted: bool = False


@dataclass(frozen=True)
class EvaluationStarted(Event):
    """``netdef test`` is about to run ``batches`` batches, of ``records`` records in all (0:
    unknown).
    """

    batches: int
    records: int = 0


@dataclass(frozen=True)
class EvaluationFinished(Event):
    """``netdef test`` is done: the mean of each output, and of the loss."""

    outputs: Sequence[Output] = ()
    loss: float = 0.0


@dataclass(frozen=True)
class KernelCompiled(Event):
    """A kernel is being compiled because the cache does not have it: the first run on a machine."""

    name: str


@dataclass(frozen=True)
class DataWrapped(Event):
    """A data layer reached the end of its records and starts again."""

    layer: str


@dataclass(frozen=True)
class IterationDone(Event):
    """Forward and backward of ``iteration`` are done. Emitted for every iteration.

    ``display``: Caffe would print it. ``loss`` is the mean over the last ``average_loss``
    iterations. Where ``display`` is set, ``seconds`` is the time since the last displayed iteration
    (at first: since the loop began), ``iterations`` how many that were, ``display_every`` the
    solver's ``display``, and ``outputs`` the net's outputs.
    """

    iteration: int
    loss: float
    display: bool
    seconds: float = 0.0
    iterations: int = 0
    display_every: int = 0
    outputs: Sequence[Output] = ()


@dataclass(frozen=True)
class RateSet(Event):
    """The learning rate of the update that follows a displayed iteration."""

    iteration: int
    rate: float


@dataclass(frozen=True)
class StepReached(Event):
    """lr_policy multistep: ``iteration`` crossed a stepvalue; ``step`` counts those crossed."""

    iteration: int
    step: int


@dataclass(frozen=True)
class GradientsClipped(Event):
    """The gradients' L2 norm was over clip_gradients, and they were scaled by ``factor``."""

    norm: float
    limit: float
    factor: float


@dataclass(frozen=True)
class DebugLine(Event):
    """One line of debug_info, ready to print. ``origin``: the file:line Caffe prints it from."""

    text: str
    origin: str = "net.cpp:0"


@dataclass(frozen=True)
class SnapshotWriting(Event):
    """A snapshot file is about to be written.

    ``kind`` is "model" or "state", ``format`` "binary proto" or "HDF5".
    """

    path: str
    kind: str
    format: str = "binary proto"


@dataclass(frozen=True)
class SnapshotWritten(Event):
    """Both files of a snapshot are on disk, whole."""

    model: str
    state: str
    iteration: int


@dataclass(frozen=True)
class SolveFinished(Event):
    """The loop has ended, and the last snapshot is written.

    ``early``: by a signal or a callback. ``loss``: of the extra forward pass that Caffe makes when
    display divides the last iteration.
    """

    iteration: int
    loss: float | None = None
    early: bool = False


@dataclass(frozen=True)
class OptimizationDone(Event):
    """Everything is done, the last test included; ``early`` as in SolveFinished."""

    early: bool = False


@dataclass(frozen=True)
class TimingStarted(Event):
    """``netdef time`` is about to build its net. ``device`` names what computes."""

    device: str = "CPU"


@dataclass(frozen=True)
class WarmedUp(Event):
    """The net ran once, forward (with this loss) and backward; ``iterations`` timed ones follow."""

    loss: float
    iterations: int


@dataclass(frozen=True)
class IterationTimed(Event):
    """Forward and backward passes number ``iteration`` (from 0) took so many seconds."""

    iteration: int
    seconds: float


@dataclass(frozen=True)
class Pass:
    """One direction of a layer: mean seconds, and what it has to do (see ``netdef.cost``)."""

    seconds: float
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class LayerTime:
    """What a layer took on average."""

    name: str
    type: str
    forward: Pass
    backward: Pass


@dataclass(frozen=True)
class TimingFinished(Event):
    """The mean of ``iterations`` iterations, layer by layer, and in all.

    ``forward``, ``backward``: mean seconds of a whole pass. ``total``: seconds of all iterations.
    ``batch_size`` counts the records of one pass; 0 where that is unknown.
    """

    iterations: int
    layers: Sequence[LayerTime]
    forward: float
    backward: float
    total: float
    batch_size: int = 0


Listener = Callable[[Event], None]


@dataclass
class Bus:
    """Hands each event to every listener, in order of subscription."""

    listeners: list[Listener] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
