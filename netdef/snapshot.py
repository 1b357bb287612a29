"""Writing .caffemodel and .solverstate files, and reading the latter back.

Both are Caffe's own files, field by field and in Caffe's order. What a bit-exact resume needs
beyond them (seed, cursors of the data) sits in ``SolverState`` fields from 20000 up, which Caffe
skips; in the HDF5 form, under names that Caffe does not ask for.

A snapshot is a pair: the model is written first, then the state that names it, each under its final
name only when it is whole. A kill at any moment leaves the pair before it as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from netdef import hdf5
from netdef.blob import Array
from netdef.errors import Location, OutputError, WeightsError
from netdef.files import atomic_write, probe_folder
from netdef.proto import netdef_pb2 as pb
from netdef.weights import read_blob, reading_hdf5, repeated, wrong_kind
from netdef.wire import LENGTH, Field, Wire

PathLike: TypeAlias = str | os.PathLike[str]
Part: TypeAlias = bytes | memoryview
M = TypeVar("M", pb.LayerParameter, pb.SolverState)
P = TypeVar("P", hdf5.Dataset, hdf5.Group)


def snapshot_names(prefix: str, iteration: int, as_hdf5: bool = False) -> tuple[str, str]:
    """The paths of the model and of the state at an iteration."""
    stem, suffix = f"{prefix}_iter_{iteration}", ".h5" if as_hdf5 else ""
    return f"{stem}.caffemodel{suffix}", f"{stem}.solverstate{suffix}"


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


def write_model_hdf5(
    path: PathLike,
    net: pb.NetParameter,
    params: Mapping[int, Sequence[Array]],
    diffs: Mapping[int, Sequence[Array]] | None = None,
) -> None:
    """Write the parameters of a net as a .caffemodel.h5; arguments as those of ``write_model``.

    As in Caffe: a group for each layer, those without parameters too; a parameter that layers share
    stands in the first of them, its gradient in all.

    Raises:
        OutputError: the file cannot be written, or not with these layer names.
    """
    problem = hdf5_problem(net, params)
    if problem:
        raise OutputError(f"cannot write {os.fspath(path)}: {problem}")
    with hdf5.created(path) as root:
        kept = repeated(array for arrays in params.values() for array in arrays)
        groups = [(root.create_group("data"), params, kept)]
        if diffs is not None:
            groups.append((root.create_group("diff"), diffs, set()))
        for group, arrays, left_out in groups:
            for index, layer in enumerate(net.layer):
                own = group.require_group(layer.name)
                for number, values in enumerate(arrays.get(index, ())):
                    if id(values) not in left_out:
                        hdf5.put(own, str(number), values)


def hdf5_problem(net: pb.NetParameter, params: Mapping[int, Sequence[Array]]) -> str:
    """Why HDF5 cannot hold layers of these names; empty where it can.

    The name of a layer is that of a group, and a name with slashes is a group in a group.
    """
    blobs = {
        f"{layer.name}/{number}": layer.name
        for index, layer in enumerate(net.layer)
        for number in range(len(params.get(index, ())))
    }
    names: set[str] = set()
    for layer in net.layer:
        parts = layer.name.split("/")
        if "\0" in layer.name or {"", "."} & {*parts}:
            return f'HDF5 cannot hold a layer called "{layer.name}"'
        if layer.name in names:
            return f'HDF5 cannot hold two layers called "{layer.name}"'
        names.add(layer.name)
        for end in range(2, len(parts) + 1):
            owner = blobs.get("/".join(parts[:end]))
            if owner is not None:
                return f'in HDF5 layer "{layer.name}" would stand where layer "{owner}" has a blob'
    return ""


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


def write_state_hdf5(path: PathLike, state: State) -> None:
    """Write a .solverstate.h5.

    Raises:
        OutputError: the file cannot be written.
    """

    def put(group: Any, name: str, *values: int, type: str = "<i8") -> None:
        hdf5.put(group, name, np.array(values, type))

    with hdf5.created(path) as root:
        put(root, "iter", state.iteration, type="<i4")
        hdf5.put_text(root, "learned_net", os.fsencode(state.learned_net))
        put(root, "current_step", state.current_step, type="<i4")
        history = root.create_group("history")
        for index, values in enumerate(state.history):
            hdf5.put(history, str(index), values)
        if state.random_seed is not None:
            put(root, "random_seed", state.random_seed)
        if state.forward_passes is not None:
            put(root, "forward_passes", state.forward_passes)
        for index, cursor in enumerate(state.cursors):
            group = root.create_group(f"cursors/{index}")
            put(group, "net", cursor.net)
            hdf5.put_text(group, "layer", cursor.layer.encode())
            put(group, "records", cursor.records)


def read_state(path: PathLike) -> State:
    """Read a .solverstate, of Caffe or of netdef, in either form.

    Raises:
        WeightsError: the file is missing, is something else, or is damaged.
    """
    wire = Wire.open(path)
    if hdf5.is_hdf5(wire.content):
        return _hdf5_state(wire)
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
        if not _is_int(found.get(number, 0)):
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


def _is_int(value: int) -> bool:
    """Whether Caffe, which counts in an int, could have counted so far."""
    return 0 <= value < 1 << 31


def _hdf5_state(wire: Wire) -> State:
    with reading_hdf5(wire) as root:
        names = root.names()
        if "iter" not in names:
            if "data" in names:
                hint = "pass it with --weights"
                raise wire.error("E402", "is a .caffemodel, not a .solverstate", hint)
            reason = 'is an HDF5 file without "iter", so it is not a .solverstate'
            raise wire.error("E402", reason)
        found = {
            name: dataset.integer()
            for name in ("iter", "current_step", "random_seed", "forward_passes")
            if (dataset := root.dataset(name)) is not None
        }
        for name in ("iter", "current_step"):
            if not _is_int(found.get(name, 0)):
                raise hdf5.HDF5Error(f"it is {found[name]}", f"/{name}")
        learned_net = root.dataset("learned_net")
        return State(
            iteration=found["iter"],
            learned_net="" if learned_net is None else os.fsdecode(learned_net.text()),
            history=[
                part.array(wire.content) for part in _hdf5_list(root, "history", hdf5.Dataset)
            ],
            current_step=found.get("current_step", 0),
            random_seed=found.get("random_seed"),
            forward_passes=found.get("forward_passes"),
            cursors=[
                Cursor(
                    _count(part.require("net")),
                    part.require("layer").text().decode("utf-8", "backslashreplace"),
                    _count(part.require("records")),
                )
                for part in _hdf5_list(root, "cursors", hdf5.Group)
            ],
        )


def _hdf5_list(root: hdf5.Group, name: str, kind: type[P]) -> list[P]:
    """The parts of a group that are called 0, 1, ...; none where there is no such group."""
    group = root.group(name)
    found: list[P] = []
    for index in range(len(group.names()) if group is not None else 0):
        part = group.get(str(index)) if group is not None else None
        if not isinstance(part, kind):
            raise hdf5.HDF5Error(
                f"there is no {kind.__name__.lower()} of this name", f"/{name}/{index}"
            )
        found.append(part)
    return found


def _count(dataset: hdf5.Dataset) -> int:
    value = dataset.integer()
    if value < 0:
        raise hdf5.HDF5Error(f"it is {value}", dataset.where)
    return value


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
    places = " or ".join(f'"{place}"' for place in dict.fromkeys([state.learned_net, sibling]))
    raise WeightsError(
        f"the weights that belong to {path} are missing: there is no {places}",
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
    *,
    as_hdf5: bool = False,
) -> tuple[str, str]:
    """Write a model and then the state that names it; the paths of the two.

    ``before`` is called with the path and "model" or "state" before each file is written.

    Raises:
        OutputError: one of them cannot be written.
    """
    model_path, state_path = snapshot_names(prefix, state.iteration, as_hdf5)
    before(model_path, "model")
    (write_model_hdf5 if as_hdf5 else write_model)(model_path, net, params, diffs)
    before(state_path, "state")
    state = replace(state, learned_net=model_path)
    (write_state_hdf5 if as_hdf5 else write_state)(state_path, state)
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
