"""The training loop: forward, backward, rate, update, tests, snapshots, in Caffe's order."""

from __future__ import annotations

import enum
import math
import operator
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from netdef import forks, prototxt, rng, schedule
from netdef import snapshot as snapshots
from netdef.blob import Array
from netdef.errors import Diagnostic, Location, PrototxtError, SolverError, WeightsError
from netdef.events import (
    Bus,
    DebugLine,
    Event,
    GradientsClipped,
    IterationDone,
    Listener,
    NetBuilding,
    Note,
    OptimizationDone,
    Output,
    RateSet,
    Resumed,
    SnapshotWriting,
    SnapshotWritten,
    SolveFinished,
    SolverReady,
    SolverStarted,
    SolveStarted,
    StepReached,
    TestBatch,
    TestFinished,
    TestStarted,
    Warned,
)
from netdef.kernels.elementwise import sum_of_squares
from netdef.net import Net
from netdef.parameters import joined, runs, side_by_side
from netdef.program import Learnable
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Document, Positions
from netdef.solvers import rule
from netdef.upgrade import upgrade_solver


class Action(enum.Enum):
    """What a signal asks of a running solver."""

    NONE = 0
    STOP = 1
    SNAPSHOT = 2


def _no_action() -> Action:
    return Action.NONE


class Solver:
    """Trains a net as a solver prototxt says.

    ``net`` is the train net, ``test_nets`` share its parameters, ``iter`` counts updates.
    """

    #: Update rule this class stands for; ``get_solver`` takes whatever the file says.
    rule_type: str | None = None

    def __init__(
        self,
        solver_file: str | os.PathLike[str],
        *,
        weights: Sequence[str] = (),
        stages: Sequence[str] = (),
        level: int | None = None,
        listeners: Sequence[Listener] = (),
        action: Callable[[], Action] = _no_action,
        resuming: bool = False,
        skip_mismatch: bool = False,
        dtype: Any = np.float32,
        keep: Collection[str] | None = None,
    ) -> None:
        """Read the solver, build its nets, load initial weights.

        ``weights``: .caffemodel files, in place of those the solver names. ``stages``, ``level``:
        added to the state of the train net. ``listeners`` get every event. ``action`` is asked
        between iterations what to do. ``resuming``: a snapshot will follow, so initial weights are
        left out. ``skip_mismatch``: leave layers whose weights do not fit as they are. ``dtype``:
        float32, or float64 to see what rounding does. ``keep``: names of the blobs of its nets that
        can be looked at after a pass; by default all (see ``Net.from_message``).
        Raises NetdefError: what is wrong with the solver, its nets, their data or the weights.
        """
        self._bus = Bus(list(listeners))
        self._action = action
        self._skip_mismatch = skip_mismatch
        self._dtype = dtype
        self._keep = keep
        self.path = os.fspath(solver_file)
        document = prototxt.read(self.path, pb.SolverParameter)
        self._positions = document.positions
        self.param = upgrade_solver(document.message, document.positions)
        if self.rule_type is not None and self.param.type != self.rule_type:
            self.param.type = self.rule_type
        self._normalize(weights, stages, level, resuming)
        doubts = self._positions.take_warnings()
        doubts += schedule.check(self.param, self._positions)
        check_definition(self.param, self._positions)
        doubts += self._refuse_unread()
        if self.param.snapshot or self.param.snapshot_after_train:
            snapshots.probe(self.param.snapshot_prefix, location=self._at("snapshot_prefix"))

        self._tell(SolverStarted(self.param))
        for doubt in doubts:
            self._tell(Warned(str(doubt)))
        self.seed = self.param.random_seed
        if self.seed < 0:
            self.seed = rng.fresh_seed()
            self._tell(Note(f"random_seed: {self.seed}  (drawn; put it into the solver to repeat)"))
        self.iter = 0
        self.current_step = 0
        self._losses: list[float] = []
        self._smoothed = 0.0
        self._stopped = False
        self._warned = False
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self.net = self._train_net()
        self.test_nets = self._make_test_nets()
        self._rule = rule.create(self.param, dtype, self._positions)
        if self._saves_hdf5:
            self._check_names()
        self._history = self._make_history()
        self._bound: list[Array] = []
        self._together: list[_Part] = []
        self._tell(SolverReady())

    # -- definition -----------------------------------------------------------------------------

    def _at(self, *path: str | int) -> Location | None:
        return self._positions.at(*path)

    def _error(
        self, text: str, *path: str | int, hint: str = "", code: str = "E200"
    ) -> SolverError:
        return SolverError(text, location=self._at(*path), hint=hint, code=code)

    def _normalize(
        self, weights: Sequence[str], stages: Sequence[str], level: int | None, resuming: bool
    ) -> None:
        """Bring what the command line and Caffe's defaults add into the parameters."""
        param = self.param
        # Caffe's lists are separated by commas, with spaces where people like them.
        given = list(weights) or list(param.weights)
        del param.weights[:]
        if not resuming:
            param.weights.extend(
                part.strip() for entry in given for part in entry.split(",") if part.strip()
            )
        if level is not None:
            param.train_state.level = level
        param.train_state.stage.extend(stages)
        stem = os.path.splitext(self.path)[0]
        if not param.HasField("snapshot_prefix"):
            param.snapshot_prefix = stem
        elif os.path.isdir(param.snapshot_prefix):
            param.snapshot_prefix = os.path.join(param.snapshot_prefix, os.path.basename(stem))
        if param.HasField("solver_mode") and param.solver_mode == pb.SolverParameter.GPU:
            self._tell(Note("solver_mode: GPU  is taken as CPU: netdef computes on the CPU"))
        # Saying CPU keeps the log true where the file leaves Caffe's default, GPU.
        param.solver_mode = pb.SolverParameter.CPU

    def _refuse_unread(self) -> list[Diagnostic]:
        """Warnings of options of forks that nothing here reads; errors unless asked to go on."""
        found = [
            Diagnostic(
                "E132",
                f"{forks.option_name(path)} comes from a fork of Caffe; netdef does not compute it",
                self._at(*path),
                "--lenient trains without it",
            )
            for path in forks.unread_options(self.param)
            # Nets within the solver are built as others are, and say it then.
            if not str(path[0]).endswith("net_param")
        ]
        if found and not prototxt.is_lenient():
            raise SolverError(diagnostics=found)
        return [replace(each, severity="warning", hint="") for each in found]

    # -- nets -----------------------------------------------------------------------------------

    def _train_net(self) -> Net:
        p = self.param
        if p.HasField("train_net_param"):
            net, source, positions = p.train_net_param, "train_net_param", self._positions
        elif p.HasField("train_net"):
            net, positions = self._read_net(p.train_net, "train_net")
            source = f"train_net file: {p.train_net}"
        elif p.HasField("net_param"):
            net, source, positions = p.net_param, "net_param", self._positions
        else:
            net, positions = self._read_net(p.net, "net")
            source = f"net file: {p.net}"
        self._tell(NetBuilding("train", source))
        state = pb.NetState(phase=pb.TRAIN)
        state.MergeFrom(net.state)
        state.MergeFrom(p.train_state)
        built = Net.from_message(
            net,
            state,
            positions,
            seed=self.seed,
            dtype=self._dtype,
            keep=self._keep,
            keep_all=p.debug_info,
            emit=self._tell,
        )
        for path in p.weights:
            built.copy_from(path, self._skip_mismatch)
        return built

    def _read_net(self, path: str, *field: str | int) -> tuple[pb.NetParameter, Positions]:
        document = _net_file(self.path, path, self._at(*field), self._tell)
        return document.message, document.positions

    def _make_test_nets(self) -> list[Net]:
        """Test nets in Caffe's order: test_net_param, test_net, then net_param or net as often as
        test_iter has further entries."""
        p = self.param
        wanted: list[tuple[str, pb.NetParameter, Positions]] = []
        for message in p.test_net_param:
            wanted.append(("test_net_param", message, self._positions))
        for i, path in enumerate(p.test_net):
            wanted.append((f"test_net file: {path}", *self._read_net(path, "test_net", i)))
        own, count = len(wanted), len(p.test_iter)
        generic = p.HasField("net") or p.HasField("net_param")
        if count < own or (count > own and not generic):
            raise self._error(
                f"test_iter has {count} entries for {own} test nets: give one for each",
                "test_iter",
                max(0, count - 1),
            )
        for _ in range(count - own):
            if p.HasField("net_param"):
                wanted.append(("net_param", p.net_param, self._positions))
            else:
                wanted.append((f"net file: {p.net}", *self._read_net(p.net, "net")))
        if p.test_state and len(p.test_state) != len(wanted):
            raise self._error(
                f"there are {len(p.test_state)} test_state for {len(wanted)} test nets: "
                "give none, or one for each",
                "test_state",
                0,
            )
        if wanted and p.test_interval < 1:
            raise self._error(
                "there is a test net, but test_interval is missing",
                *(("test_interval",) if p.HasField("test_interval") else ()),
                hint="say how many iterations lie between tests, such as  test_interval: 500",
            )
        nets = []
        for i, (source, message, positions) in enumerate(wanted):
            self._tell(NetBuilding("test", source, i))
            state = pb.NetState(phase=pb.TEST)
            state.MergeFrom(message.state)
            if p.test_state:
                state.MergeFrom(p.test_state[i])
            state.phase = pb.TEST
            net = Net.from_message(
                message,
                state,
                positions,
                seed=self.seed,
                dtype=self._dtype,
                share=self.net,
                keep=self._keep,
                emit=self._tell,
            )
            for weights in p.weights:
                net.copy_from(weights, self._skip_mismatch)
            nets.append(net)
        return nets

    # -- training -------------------------------------------------------------------------------

    def solve(self, resume_file: str | os.PathLike[str] | None = None) -> None:
        """Train to max_iter, with tests and snapshots on the way, and a last snapshot and test."""
        p = self.param
        if not p.HasField("max_iter"):
            # Scripts that call ``step`` bring solvers without one.
            raise self._error("the solver has no max_iter", hint="such as  max_iter: 10000")
        if resume_file is not None:
            self.restore(resume_file)
        self._tell(
            SolveStarted(self.net.name, p.lr_policy, self.iter, p.max_iter, self._batch_size())
        )
        start = self.iter
        self._stopped = False
        self.step(p.max_iter - self.iter)
        if p.snapshot_after_train and (not p.snapshot or self.iter % p.snapshot):
            self.snapshot()
        if self._stopped:
            self._tell(SolveFinished(self.iter, early=True))
            self._tell(OptimizationDone(early=True))
            return
        loss = None
        if p.display and self.iter % p.display == 0:
            self._smooth(self.net.program.forward(), start)
            loss = self._smoothed
        self._tell(SolveFinished(self.iter, loss))
        if p.test_interval and self.iter % p.test_interval == 0:
            self._test_all()
        self._tell(OptimizationDone())

    def step(self, iterations: int) -> None:
        """Train for so many iterations. Losses are averaged from here on anew, as in Caffe."""
        p, program = self.param, self.net.program
        start, stop = self.iter, self.iter + iterations
        self._losses = []
        self._smoothed = 0.0
        last_shown, shown_at = self.iter, time.perf_counter()
        while self.iter < stop:
            # Callbacks may look at them; else backward begins them anew, which costs less.
            fresh = not self._callbacks
            if not fresh:
                program.clear_param_diffs()
            if (
                p.test_interval
                and self.iter % p.test_interval == 0
                and (self.iter > 0 or p.test_initialization)
            ):
                self._test_all()
                if self._stopped:
                    break
            for on_start, _ in self._callbacks:
                on_start()
            display = bool(p.display) and self.iter % p.display == 0
            program.debug = (display and p.debug_info) or bool(self.net.plan.net.debug_info)
            # A script may have given the inputs other shapes since the last iteration.
            self.net.reshape()
            loss = 0.0
            for number in range(p.iter_size):
                loss += program.forward()
                program.backward(fresh=fresh and number == 0)
            self._smooth(loss / p.iter_size, start)
            if not math.isfinite(loss) and not self._warned:
                self._warned = True
                self._tell(
                    Warned(
                        f"the loss of iteration {self.iter} is {loss:g}: the net has diverged; "
                        f"try a base_lr below {p.base_lr:g}, or clip_gradients"
                    )
                )
            now = time.perf_counter()
            self._tell(
                IterationDone(
                    self.iter,
                    self._smoothed,
                    display,
                    now - shown_at,
                    self.iter - last_shown,
                    p.display,
                    self._outputs(self.net) if display else (),
                )
            )
            if display:
                last_shown, shown_at = self.iter, now
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self._apply_update(display)
            self.iter += 1
            action = self._action()
            if (p.snapshot and self.iter % p.snapshot == 0) or action is Action.SNAPSHOT:
                self.snapshot()
            if action is Action.STOP:
                self._stopped = True
                break

    def add_callback(
        self, on_start: Callable[[], Any], on_gradients_ready: Callable[[], Any]
    ) -> None:
        """Call ``on_start`` before each iteration and ``on_gradients_ready`` before each update."""
        self._callbacks.append((on_start, on_gradients_ready))

    def apply_update(self) -> None:
        """Update the parameters from their present gradients, as at the end of an iteration."""
        self._apply_update(display=False)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return schedule.rate(self.param, self.iter)

    def _smooth(self, loss: float, start: int) -> None:
        """The mean over the last ``average_loss`` iterations, kept up as Caffe does."""
        window = self.param.average_loss
        if len(self._losses) < window:
            self._losses.append(loss)
            size = len(self._losses)
            self._smoothed = (self._smoothed * (size - 1) + loss) / size
        else:
            index = (self.iter - start) % window
            self._smoothed += (loss - self._losses[index]) / window
            self._losses[index] = loss

    def _apply_update(self, display: bool) -> None:
        p, dtype = self.param, self._dtype
        rate = schedule.rate(p, self.iter)
        if p.lr_policy == "step":
            self.current_step = self.iter // p.stepsize
        elif p.lr_policy == "multistep":
            step = schedule.multistep_step(p, self.iter)
            if step != self.current_step:
                self.current_step = step
                self._tell(StepReached(self.iter, step))
        if display:
            self._tell(RateSet(self.iter, rate))
        scale = self._clip() / p.iter_size
        l1 = p.regularization_type == "L1"
        for part in self._parts():
            strength = p.weight_decay * part.decay_mult
            decay = rule.Decay(
                dtype(scale), dtype(0 if l1 else strength), dtype(strength if l1 else 0)
            )
            self._rule.update(
                rule.Update(
                    part.weight,
                    part.gradient,
                    part.history,
                    rate * part.lr_mult,
                    decay,
                    self.iter,
                )
            )
        if self.net.program.debug:
            for learnable in self.net.program.learnable:
                blob = learnable.blob
                self._debug_update(learnable.layer, learnable.name, blob.data, blob.diff)

    def _make_history(self) -> list[list[Array]]:
        """What the rule keeps for each parameter, in the order in which parameters lie."""
        order = _by_rate(self.net.program.learnable)
        history: list[list[Array]] = [[] for _ in order]
        for _ in range(self._rule.histories):
            shapes = [(learnable.blob.count,) for _, learnable in order]
            for (number, _), kept in zip(order, side_by_side(shapes, self._dtype), strict=True):
                history[number].append(kept)
        return history

    def _parts(self) -> list[_Part]:
        """What is updated in one call each; anew where a parameter was given other arrays."""
        learnable = self.net.program.learnable
        present = [array for one in learnable for array in (one.blob.flat, one.blob.flat_diff)]
        if not (len(present) == len(self._bound) and all(map(operator.is_, present, self._bound))):
            self._bound = present
            self._together = _parts(learnable, self._history)
        return self._together

    def _clip(self) -> float:
        """The factor that brings the gradients' norm down to clip_gradients, or 1."""
        limit = self.param.clip_gradients
        if limit < 0:
            return 1.0
        norm = math.sqrt(sum(sum_of_squares(p.blob.flat_diff) for p in self.net.program.learnable))
        if not norm > limit:
            return 1.0
        self._tell(GradientsClipped(norm, limit, limit / norm))
        return limit / norm

    def _debug_update(self, layer: str, name: str, data: Array, diff: Array) -> None:
        self._tell(
            DebugLine(
                f"    [Update] Layer {layer}, param {name} "
                f"data: {np.abs(data).mean():g}; diff: {np.abs(diff).mean():g}",
                "net.cpp:620",
            )
        )

    # -- testing --------------------------------------------------------------------------------

    def _test_all(self) -> None:
        for index in range(len(self.test_nets)):
            if self._stopped:
                return
            self._test(index)

    def _test(self, index: int) -> None:
        net, batches = self.test_nets[index], self.param.test_iter[index]
        self._tell(TestStarted(self.iter, index, batches))
        total: list[Array] = []
        loss = 0.0
        net.reshape()
        for batch in range(batches):
            while (action := self._action()) is not Action.NONE:
                if action is Action.SNAPSHOT:
                    self.snapshot()
                else:
                    self._stopped = True
                    break
            if self._stopped:
                self._tell(TestFinished(self.iter, index, interrupted=True))
                return
            loss += net.program.forward()
            values = [net.program.blobs[name].flat.astype(np.float64) for name in net.outputs]
            total = [a + b for a, b in zip(total, values, strict=True)] if total else values
            self._tell(TestBatch(batch, batches))
        weights = net.blob_loss_weights
        outputs = [
            Output(name, (values / batches).tolist(), weights[name])
            for name, values in zip(net.outputs, total, strict=True)
        ]
        mean = loss / batches if self.param.test_compute_loss else None
        self._tell(TestFinished(self.iter, index, outputs, mean))

    def _outputs(self, net: Net) -> list[Output]:
        weights = net.blob_loss_weights
        return [
            Output(name, net.program.blobs[name].flat.tolist(), weights[name])
            for name in net.outputs
        ]

    def _batch_size(self) -> int:
        """Images in one iteration, for images per second."""
        for layer in self.net.plan.layers:
            if not layer.bottoms and layer.top_shapes and layer.top_shapes[0]:
                return layer.top_shapes[0][0] * self.param.iter_size
        return 0

    # -- snapshots ------------------------------------------------------------------------------

    def snapshot(self) -> str:
        """Write the .caffemodel, then the .solverstate, and return the path of the latter.

        Raises OutputError; what stood there before is still whole then.
        """
        message, params, diffs = self.net.saved()
        as_hdf5 = self._saves_hdf5
        form = "HDF5" if as_hdf5 else "binary proto"
        model, state = snapshots.write_snapshot(
            self.param.snapshot_prefix,
            message,
            params,
            self._state(),
            diffs if self.param.snapshot_diff else None,
            lambda path, kind: self._tell(SnapshotWriting(path, kind, form)),
            as_hdf5=as_hdf5,
        )
        self._tell(SnapshotWritten(model, state, self.iter))
        return state

    @property
    def _saves_hdf5(self) -> bool:
        return self.param.snapshot_format == pb.SolverParameter.HDF5

    def _check_names(self) -> None:
        """Raise where the net has layers that a snapshot in HDF5 could not hold."""
        message, params, _ = self.net.saved()
        problem = snapshots.hdf5_problem(message, params)
        if problem:
            hint = "rename the layer, or say BINARYPROTO"
            raise self._error(problem, "snapshot_format", hint=hint)

    def _state(self) -> snapshots.State:
        shapes = [learnable.blob.shape for learnable in self.net.program.learnable]
        # All first histories, then all second ones: Caffe's order.
        history = [
            self._history[i][k].reshape(shape)
            for k in range(self._rule.histories)
            for i, shape in enumerate(shapes)
        ]
        return snapshots.State(
            self.iter,
            history=history,
            current_step=self.current_step,
            random_seed=self.seed,
            forward_passes=self.net.program.passes,
            cursors=[
                *(
                    snapshots.Cursor(number, layer.name, layer.records)
                    for number, net in enumerate([self.net, *self.test_nets])
                    for layer in net.program.sources
                ),
                # A cursor of no layer counts the forward passes of a test net.
                *(
                    snapshots.Cursor(number, "", net.program.passes)
                    for number, net in enumerate(self.test_nets, 1)
                ),
            ],
        )

    def restore(self, state_file: str | os.PathLike[str]) -> None:
        """Continue from a .solverstate: netdef's bit by bit, Caffe's with data from the start.

        Raises WeightsError for a file that is damaged, of another net, or of another update rule.
        """
        path = os.fspath(state_file)
        state = snapshots.read_state(path)
        flat = [values.reshape(-1) for values in state.history]
        targets = [own[k] for k in range(self._rule.histories) for own in self._history]
        if [values.size for values in flat] != [target.size for target in targets]:
            raise WeightsError(
                f"{path}: its history is of {len(flat)} blobs with {sum(v.size for v in flat)} "
                f'values, but solver type "{self._rule.type}" of this net keeps {len(targets)} '
                f"with {sum(t.size for t in targets)}",
                hint="it was written by another net or another solver type",
                code="E407",
            )
        model = snapshots.find_learned_net(state, path)
        report = self.net.load(model)
        if report.missing:
            raise WeightsError(
                f"{model} is not a snapshot of this net: it has no weights for "
                f"{', '.join(report.missing)}",
                hint="to start from what fits, pass it with --weights",
                code="E407",
            )
        for target, values in zip(targets, flat, strict=True):
            target[...] = values
        self.iter = state.iteration
        self.current_step = state.current_step
        self._resume_data(state)
        self._tell(Resumed(path, self.iter, self._rule.type, report.ignored))

    def _resume_data(self, state: snapshots.State) -> None:
        """Bring random numbers and records to where the snapshot left them."""
        nets = [self.net, *self.test_nets]
        if state.random_seed is not None:
            self.seed = state.random_seed
            for net in nets:
                net.program.set_seed(self.seed)
        if state.forward_passes is not None:
            self.net.program.passes = state.forward_passes
        sources = {
            (number, layer.name): layer
            for number, net in enumerate(nets)
            for layer in net.program.sources
        }
        for cursor in state.cursors:
            if not cursor.layer and 0 < cursor.net < len(nets):
                nets[cursor.net].program.passes = cursor.records
            layer = sources.get((cursor.net, cursor.layer))
            if layer is not None:
                layer.seek(cursor.records)

    # -- housekeeping ---------------------------------------------------------------------------

    def close(self) -> None:
        """Stop prefetch threads and close files."""
        for net in (self.net, *self.test_nets):
            net.close()

    def _tell(self, event: Any) -> None:
        self._bus.emit(event)

    def __repr__(self) -> str:
        return f"<{self.param.type}Solver {Path(self.path).name} at iteration {self.iter}>"


@dataclass(frozen=True)
class _Part:
    """Parameters that lie side by side and learn at one rate, as one flat array each."""

    weight: Array
    gradient: Array
    history: list[Array]
    lr_mult: float
    decay_mult: float


def _by_rate(learnable: Sequence[Learnable]) -> list[tuple[int, Learnable]]:
    """The parameters with their numbers, those that learn at one rate next to each other."""
    return sorted(enumerate(learnable), key=lambda one: (one[1].lr_mult, one[1].decay_mult, one[0]))


def _parts(learnable: Sequence[Learnable], history: Sequence[Sequence[Array]]) -> list[_Part]:
    order = _by_rate(learnable)
    histories = len(history[0]) if history else 0
    columns = [
        [one.blob.data for _, one in order],
        [one.blob.diff for _, one in order],
        *([history[number][k] for number, _ in order] for k in range(histories)),
    ]
    rates = [(one.lr_mult, one.decay_mult) for _, one in order]
    parts = []
    for first, stop in runs(columns, rates):
        weight, gradient, *kept = (joined(column[first:stop]) for column in columns)
        parts.append(_Part(weight, gradient, kept, *rates[first]))
    return parts


def check_definition(p: pb.SolverParameter, positions: Positions) -> None:
    """What is wrong with the fields of a solver, but for those of the learning rate.

    Raises SolverError.
    """

    def error(text: str, *path: str | int, hint: str = "") -> SolverError:
        return SolverError(text, location=positions.at(*path), hint=hint)

    nets = ("net", "net_param", "train_net", "train_net_param")
    named = [name for name in nets if p.HasField(name)]
    if len(named) != 1:
        raise error(
            f"the solver must give one train net, but gives {len(named)}"
            + (f": {', '.join(named)}" if named else ""),
            *named[1:2],
            hint="give one of net, net_param, train_net, train_net_param",
        )
    for name in ("max_iter", "display", "snapshot", "test_interval"):
        if getattr(p, name) < 0:
            raise error(f"{name} cannot be negative", name)
    for name in ("iter_size", "average_loss"):
        if getattr(p, name) < 1:
            raise error(f"{name} must be at least 1", name)
    for field in p.DESCRIPTOR.fields:
        if field.cpp_type != field.CPPTYPE_FLOAT:
            continue
        given = getattr(p, field.name)
        if not all(map(math.isfinite, [given] if isinstance(given, float) else given)):
            raise error(f"{field.name} must be a number, but is {given}", field.name)
    if p.regularization_type not in ("L1", "L2"):
        raise error(
            f'unknown regularization_type "{p.regularization_type}"',
            "regularization_type",
            hint='"L1" or "L2"',
        )
    for i, count in enumerate(p.test_iter):
        if count < 1:
            raise error("test_iter must be at least 1", "test_iter", i)


def _net_file(
    solver_file: str, path: str, named_at: Location | None, tell: Callable[[Event], None]
) -> Document[pb.NetParameter]:
    """A net that a solver names: where Caffe looks for it, else beside the solver."""
    beside = os.path.join(os.path.dirname(solver_file), path)
    here = os.path.exists(path)
    if not here and not os.path.exists(beside):
        raise SolverError(
            f'the net "{path}" does not exist',
            location=named_at,
            hint="the path counts from the folder you are in, or from the solver's own",
        )
    if not here:
        tell(Note(f'net "{path}" is not in this folder; reading {beside}'))
    try:
        return prototxt.read(path if here else beside, pb.NetParameter)
    except PrototxtError as error:
        first = error.diagnostics[0]
        if first.location is not None:
            raise
        # Nothing in that file is to blame, but what names it.
        raise SolverError(first.message, location=named_at, hint=first.hint) from error


def test_net_of(
    solver_file: str | os.PathLike[str], tell: Callable[[Event], None]
) -> tuple[Document[pb.NetParameter], pb.NetState]:
    """The net a solver tests first, and its test_state."""
    path = os.fspath(solver_file)
    document = prototxt.read(path, pb.SolverParameter)
    solver, positions = document.message, document.positions
    state = solver.test_state[0] if solver.test_state else pb.NetState()
    if solver.test_net_param:
        return Document(solver.test_net_param[0], positions), state
    if solver.test_net:
        place = positions.at("test_net", 0)
        return _net_file(path, solver.test_net[0], place, tell), state
    if solver.HasField("net_param"):
        return Document(solver.net_param, positions), state
    if solver.HasField("net"):
        return _net_file(path, solver.net, positions.at("net"), tell), state
    raise SolverError(
        "the solver names no net to test", location=positions.at(), hint="give  net  or  test_net"
    )


# pytest would take the name for a test.
test_net_of.__test__ = False  # type: ignore[attr-defined]


class SGDSolver(Solver):
    """A solver whose update rule is SGD, whatever the file says."""

    rule_type = "SGD"


class NesterovSolver(Solver):
    """A solver whose update rule is Nesterov, whatever the file says."""

    rule_type = "Nesterov"


class AdaGradSolver(Solver):
    """A solver whose update rule is AdaGrad, whatever the file says."""

    rule_type = "AdaGrad"


class RMSPropSolver(Solver):
    """A solver whose update rule is RMSProp, whatever the file says."""

    rule_type = "RMSProp"


class AdaDeltaSolver(Solver):
    """A solver whose update rule is AdaDelta, whatever the file says."""

    rule_type = "AdaDelta"


class AdamSolver(Solver):
    """A solver whose update rule is Adam, whatever the file says."""

    rule_type = "Adam"


def get_solver(solver_file: str | os.PathLike[str]) -> Solver:
    """The solver a prototxt file defines."""
    return Solver(solver_file)
