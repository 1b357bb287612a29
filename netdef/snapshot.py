"""Writing .caffemodel and .solverstate files, and reading the latter back.

Both are Caffe's own files, field by field and in Caffe's order. What a bit-exact resume needs
beyond them (seed, cursors of the data) sits in ``SolverState`` fields from 20000 up, which Caffe
skips.

A snapshot is a pair: the model is written first, then the state that names it, each under its final
name only when it is whole. A kill at any moment leaves the pair before it as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np

from netdef.blob import Array
from netdef.errors import Location, WeightsError
from netdef.files import atomic_write, probe_folder
from netdef.proto import netdef_pb2 as pb
from netdef.weights import LENGTH, Field, Wire, read_blob, wrong_kind

PathLike: TypeAlias = str | os.PathLike[str]
Part: TypeAlias = bytes | memoryview
M = TypeVar("M", pb.LayerParameter, pb.SolverState)


def snapshot_names(prefix: str, iteration: int) -> tuple[str, str]:
    """The paths of the model and of the state at an iteration."""
    stem = f"{prefix}_iter_{iteration}"
    return f"{stem}.caffemodel", f"{stem}.solverstate"


def probe(prefix: str, *, location: Location | None = None) -> None:
    """Check that snapshots can be written under ``prefix``, so that a run fails at its start.

    Raises:
        OutputError: the folder is missing or not writable; ``location`` is where the prefix is.
    """
    probe_folder(f"{prefix}_iter_N.caffemodel", location=location)


# --- the model ------------------------------------------------------------------------------------


def write_model(
    path: PathLike,
    net: pb.NetParameter,
    params: Mapping[int, Sequence[Array]],
    diffs: Mapping[int, Sequence[Array]] | None = None,
) -> None:
    """Write a net with its parameters as a .caffemodel.

    As in Caffe the file holds the name of the net and its layers, nothing else of it. A layer
    without ``phase`` gets the one of ``net.state`` where there is one. The arrays go to the file
    as they are, layer by layer, without a second copy in memory.

    Args:
        net: V2 layers; the blobs they hold themselves are left out.
        params: for the index of a layer in ``net.layer`` its float32 or float64 arrays.
        diffs: their gradients, for ``snapshot_diff``.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        if net.HasField("name"):
            file.write(_record(1, net.name.encode()))
        for index, layer in enumerate(net.layer):
            blobs = params.get(index, ())
            gradients = diffs.get(index, ()) if diffs else (None,) * len(blobs)
            own = pb.LayerParameter()
            own.CopyFrom(layer)
            own.ClearField("origin")
            if net.HasField("state") and not own.HasField("phase"):
                own.phase = net.state.phase
            before, after = _around(own, 7)
            parts: list[Part] = [before]
            for data, diff in zip(blobs, gradients, strict=True):
                parts += _blob(7, data, diff)
            parts.append(after)
            file.write(_head(100, _size(parts)))
            file.writelines(parts)


# --- the state ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cursor:
    """How many records a data layer has read: ``net`` 0 trains, 1 and on are the test nets."""

    net: int
    layer: str
    records: int


@dataclass(frozen=True, eq=False)
class State:
    """What a solver needs beside the weights to go on as if it had never stopped.

    ``history`` are the arrays of the update rule. Read from a file they are read-only and perhaps
    unaligned, and those of an old file have four axes: copy them, and compare sizes rather than
    shapes. Files of Caffe have no seed, no number of forward passes and no cursors.
    """

    iteration: int
    learned_net: str = ""
    history: Sequence[Array] = ()
    current_step: int = 0
    random_seed: int | None = None
    forward_passes: int | None = None
    cursors: Sequence[Cursor] = ()


def write_state(path: PathLike, state: State) -> None:
    """Write a .solverstate.

    Raises:
        OutputError: the file cannot be written.
    """
    message = pb.SolverState(
        iter=state.iteration,
        current_step=state.current_step,
        random_seed=state.random_seed,
        forward_passes=state.forward_passes,
        cursor=[
            pb.DataCursor(net=cursor.net, layer=cursor.layer, records=cursor.records)
            for cursor in state.cursors
        ],
    )
    before, after = _around(message, 3)
    with atomic_write(path) as file:
        # A path is bytes: not every one is UTF-8, as protobuf would have it.
        file.writelines([before, _record(2, os.fsencode(state.learned_net))])
        for values in state.history:
            file.writelines(_blob(3, values, None))
        file.write(after)


def read_state(path: PathLike) -> State:
    """Read a .solverstate, of Caffe or of netdef.

    Raises:
        WeightsError: the file is missing, is something else, or is damaged.
    """
    wire = Wire.open(path)
    try:
        state = _state(wire)
        if state is None:
            raise wire.error("E402", "holds no iteration, so it is not a .solverstate")
    except WeightsError as error:
        raise wrong_kind(wire, "a .solverstate") or error from None
    return state


def _state(wire: Wire) -> State | None:
    found: dict[int, int] = {}
    learned_net = ""
    history: list[Array] = []
    cursors: list[Cursor] = []
    for field in wire.fields():
        if field.number in (1, 4, 20000, 20001):
            found[field.number] = wire.integer(field)
        elif field.number == 2:
            learned_net = os.fsdecode(wire.short_bytes(field))
        elif field.number == 3:
            wire.where = f"history {len(history)}"
            blob = read_blob(wire, field, 0)
            wire.where = ""
            history.append(blob.data.reshape(blob.shape))
        elif field.number == 20002:
            cursors.append(_cursor(wire, field))
        elif field.number == 100:
            return None  # a .caffemodel whose net has no name
    if 1 not in found:
        return None
    for number, name in {1: "iteration", 4: "step"}.items():
        if not 0 <= found.get(number, 0) < 1 << 31:
            raise wire.damaged(0, f"its {name} is {found[number]}")
    return State(
        iteration=found[1],
        learned_net=learned_net,
        history=history,
        current_step=found.get(4, 0),
        random_seed=found.get(20000),
        forward_passes=found.get(20001),
        cursors=cursors,
    )


def _cursor(wire: Wire, message: Field) -> Cursor:
    net = records = 0
    layer = ""
    for field in wire.message(message):
        if field.number == 1:
            net = wire.integer(field)
        elif field.number == 2:
            layer = wire.text(field)
        elif field.number == 3:
            records = wire.integer(field)
    if net < 0 or records < 0:
        raise wire.damaged(message.at, f'net {net} has read {records} records in layer "{layer}"')
    return Cursor(net, layer, records)


def find_learned_net(state: State, path: PathLike) -> str:
    """The .caffemodel that belongs to a state read from ``path``.

    It is where the state says, or, when the files were moved, beside the state under its old name.

    Raises:
        WeightsError: it is in neither place.
    """
    path = os.fspath(path)
    if not state.learned_net:
        raise WeightsError(f"{path} does not name the .caffemodel it belongs to", code="E406")
    if os.path.isfile(state.learned_net):
        return state.learned_net
    # The path may come from a machine where folders are separated by backslashes.
    name = re.split(r"[/\\]", state.learned_net)[-1]
    sibling = os.path.join(os.path.dirname(path), name)
    if os.path.isfile(sibling):
        return sibling
    raise WeightsError(
        f"the weights that belong to {path} are missing: "
        f'neither "{state.learned_net}" nor "{sibling}" is there',
        hint="put the .caffemodel of the same iteration beside the .solverstate",
        code="E406",
    )


def write_snapshot(
    prefix: str,
    net: pb.NetParameter,
    params: Mapping[int, Sequence[Array]],
    state: State,
    diffs: Mapping[int, Sequence[Array]] | None = None,
    before: Callable[[str, str], None] = lambda path, kind: None,
) -> tuple[str, str]:
    """Write a model and then the state that names it; the paths of the two.

    ``before`` is called with the path and "model" or "state" before each file is written.

    Raises:
        OutputError: one of them cannot be written.
    """
    model_path, state_path = snapshot_names(prefix, state.iteration)
    before(model_path, "model")
    write_model(model_path, net, params, diffs)
    before(state_path, "state")
    write_state(state_path, replace(state, learned_net=model_path))
    return model_path, state_path


# --- the wire format ------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _head(number: int, size: int) -> bytes:
    """What stands before a text, message or packed field of ``size`` bytes."""
    return _varint(number << 3 | LENGTH) + _varint(size)


def _record(number: int, body: bytes) -> bytes:
    return _head(number, len(body)) + body


def _size(parts: Sequence[Part]) -> int:
    return sum(len(part) for part in parts)


def _blob(number: int, data: Array, diff: Array | None) -> list[Part]:
    """A BlobProto as field ``number``, in parts; the numbers are views of the arrays."""
    double = data.dtype == np.float64
    dims = b"".join(map(_varint, data.shape))
    shape = _record(7, _record(1, dims) if dims else b"")
    values = _packed(8 if double else 5, data, "<f8" if double else "<f4")
    if diff is not None:
        values += _packed(9 if double else 6, diff, "<f8" if double else "<f4")
    parts = [shape, *values] if double else [*values, shape]
    return [_head(number, _size(parts)), *parts]


def _packed(number: int, values: Array, dtype: str) -> list[Part]:
    if values.size == 0:
        return []
    little_endian = np.ascontiguousarray(values).astype(dtype, casting="equiv", copy=False)
    view = little_endian.reshape(-1).view(np.uint8).data
    return [_head(number, len(view)), view]


def _around(message: M, number: int) -> tuple[bytes, bytes]:
    """``message`` serialised without field ``number``: what comes before it, and what after."""
    before, after = type(message)(), type(message)()
    for part, is_outside in ((before, number.__le__), (after, number.__ge__)):
        part.CopyFrom(message)
        part.DiscardUnknownFields()
        for present, _ in message.ListFields():
            if is_outside(present.number):
                part.ClearField(present.name)
    return before.SerializeToString(), after.SerializeToString()
