"""Reading .caffemodel files, from Caffe and its forks, without copying what they hold.

They come in two forms: serialised messages, of which most of this file is about, and HDF5, told
apart by how they begin.

A .caffemodel is a serialised ``NetParameter``. The forks of Caffe gave the same field numbers to
different things, so parsing one with the full schema misreads it silently. This reader knows the
few fields all of them share (the name, type and blobs of each layer, in the three generations of
the format) and steps over the rest.

The file is mapped into memory and its numbers are seen through numpy: the work in Python depends on
the number of layers, not of weights, and no file can make it allocate more than its own size.

Source: the field numbers, ``proto/netdef.proto`` and those of the forks' own schemas.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netdef import hdf5
from netdef.blob import Array, Shape, shape_text
from netdef.errors import Diagnostic, Location, WeightsError, name_some
from netdef.proto import netdef_pb2 as pb
from netdef.wire import LENGTH, MOST_FIELDS, VARINT, Field, Wire, cut_short, give_back, signed

#: The most axes a blob may have, as in Caffe.
MOST_AXES = 32

#: Numbers copied at a time. What they were copied from is then given back to the system: beside the
#: parameters, loading takes no memory.
PIECE = 1 << 19


@dataclass(frozen=True, eq=False)
class Weight:
    """One blob of a file.

    ``data`` has one axis and is a read-only view into the file: it may be unaligned or strided, so
    copy it before giving it to compiled code. ``diff`` is the gradient saved with it, if any.
    ``legacy`` says that ``shape`` is the num, channels, height and width of an old file, which has
    four axes whatever the blob had.
    """

    shape: Shape
    data: Array
    diff: Array | None = None
    legacy: bool = False

    def fits(self, shape: Shape) -> bool:
        """Whether a parameter of this ``shape`` can take the data.

        The shapes must be equal; of a legacy shape the last axes count and the others must be 1.
        """
        if self.legacy:
            return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + shape
        return self.shape == shape


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """A layer of a file: V1 layers have their types in capitals (``INNER_PRODUCT``).

    HDF5 files hold no types, and of a blob that layers share, only the first layer has it there:
    ``indices`` says which blobs of the layer ``blobs`` are, where some may be left out.
    """

    name: str
    type: str
    blobs: Sequence[Weight]
    indices: Sequence[int] | None = None


def read_weights(path: str | os.PathLike[str]) -> list[LayerWeights]:
    """All layers of the .caffemodel at ``path``, in the order of the file, those without blobs too.

    Raises:
        WeightsError: the file is missing, is something else, or is damaged.
    """
    wire = Wire.open(path)
    if hdf5.is_hdf5(wire.content):
        return _hdf5_layers(wire)
    try:
        layers = list(_layers(wire))
        if not layers:
            raise wire.error("E402", "holds no layers, so it is not a .caffemodel")
    except WeightsError as error:
        raise wrong_kind(wire, "a .caffemodel") or error from None
    return layers


@dataclass(frozen=True)
class Mismatch:
    """A layer of the file that does not fit the layer of the same name in the net.

    ``blob`` is the first that differs and ``source`` and ``target`` are its shapes, legacy shapes
    as written; where the number of blobs differs, ``blob`` is None and these are the numbers.
    """

    layer: str
    blob: int | None
    source: Shape
    target: Shape

    def __str__(self) -> str:
        if self.blob is None:
            source, target = self.source[0], self.target[0]
            return f'layer "{self.layer}" has {target} blobs in the net but {source} in the file'
        return (
            f'blob {self.blob} of layer "{self.layer}" is {shape_text(self.target)} in the net '
            f"but {shape_text(self.source)} in the file"
        )


@dataclass(frozen=True)
class CopyReport:
    """What :func:`copy_weights` did: names of layers, in the order of the file or of the net.

    copied      have their weights from the file
    ignored     are in the file but not in the net, those without weights too, as Caffe logs them
    unused      those of ``ignored`` that have weights
    missing     have weights in the net but are not in the file; they stay as they were
    mismatched  were left out because they do not fit (only with ``skip_mismatch``)
    """

    copied: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()

    def why_nothing(self, targets: Iterable[str]) -> str:
        """Why nothing was copied into layers of these names, where nothing was."""
        if self.mismatched:
            return "no layer fits"
        if not self.unused:
            return "no layer of the file has weights that this net could take"
        theirs, ours = name_some(self.unused), name_some(targets)
        return (
            f"no layer of this net has its name in the file, which has weights of {theirs}; "
            f"the net wants {ours}"
        )


def match_weights(
    layers: Sequence[LayerWeights], targets: Mapping[str, Sequence[Array]]
) -> CopyReport:
    """What :func:`copy_weights` with ``skip_mismatch`` would do, without doing it.

    Only the shapes of ``targets`` count, and which of them are the same memory.
    """
    return _matched(layers, targets)[0]


def copy_weights(
    layers: Sequence[LayerWeights],
    targets: Mapping[str, Sequence[Array]],
    *,
    path: str | os.PathLike[str],
    locate: Callable[[str], Location | None] = lambda layer: None,
    skip_mismatch: bool = False,
) -> CopyReport:
    """Copy weights into a net, layer by layer, matched by name.

    ``targets`` are the parameter arrays of each layer of the net, contiguous; they are written in
    place and numbers converted to their type. Everything is checked before anything is copied.
    Where the file names a layer twice the last one stays, as in Caffe.

    Args:
        layers: what :func:`read_weights` gave.
        path: the file they are from, for messages.
        locate: where the net defines a layer, for messages.
        skip_mismatch: leave layers that do not fit as they are, instead of raising.

    Raises:
        WeightsError: layers that do not fit, all of them at once.
    """
    report, fitting = _matched(layers, targets)
    if report.mismatched and not skip_mismatch:
        raise WeightsError(
            diagnostics=[
                Diagnostic(
                    "E405" if mismatch.blob is None else "E404",
                    f"{os.fspath(path)}: {mismatch}",
                    locate(mismatch.layer),
                    "rename the layer to learn it from scratch, or pass --skip-mismatch",
                )
                for mismatch in report.mismatched
            ]
        )
    for layer in fitting:
        for index, weight in numbered(layer):
            if cut_short(weight.data):
                text = f"{os.fspath(path)} was cut short by another program while it was being read"
                raise WeightsError(text, code="E401")
            _copy(weight.data, targets[layer.name][index])
    return report


def _matched(
    layers: Sequence[LayerWeights], targets: Mapping[str, Sequence[Array]]
) -> tuple[CopyReport, list[LayerWeights]]:
    """The report, and the layers of the file that are to be copied."""
    repeats = repeated(array for arrays in targets.values() for array in arrays)
    fitting: list[LayerWeights] = []
    mismatched: list[Mismatch] = []
    for layer in layers:
        if layer.name in targets:
            mismatch = _mismatch(layer, targets[layer.name], repeats)
            if mismatch is None:
                fitting.append(layer)
            else:
                mismatched.append(mismatch)
    ignored = [layer for layer in layers if layer.name not in targets]
    named = {layer.name for layer in layers}
    report = CopyReport(
        copied=tuple(dict.fromkeys(layer.name for layer in fitting if layer.blobs)),
        ignored=tuple(layer.name for layer in ignored),
        unused=tuple(layer.name for layer in ignored if layer.blobs),
        missing=tuple(name for name, blobs in targets.items() if len(blobs) and name not in named),
        mismatched=tuple(mismatched),
    )
    return report, fitting


def _copy(values: Array, target: Array) -> None:
    """Copy numbers in one axis into an array of any shape that is contiguous, as parameters are."""
    flat = target.view()
    flat.shape = (target.size,)  # unlike reshape, it never copies
    # A float64 beyond the range of float32 becomes infinite, as the cast in Caffe makes it.
    with np.errstate(over="ignore"):
        for start in range(0, values.size, PIECE):
            piece = values[start : start + PIECE]
            flat[start : start + PIECE] = piece
            give_back(piece)


def repeated(arrays: Iterable[Array]) -> set[int]:
    """The ids of those arrays that are the memory of an earlier one: parameters that are shared."""
    seen: set[int] = set()
    found: set[int] = set()
    for array in arrays:
        address = array.__array_interface__["data"][0]
        if address in seen and array.size:
            found.add(id(array))
        seen.add(address)
    return found


def numbered(layer: LayerWeights) -> Iterator[tuple[int, Weight]]:
    """The blobs of a layer, each with its place in the layer."""
    indices = range(len(layer.blobs)) if layer.indices is None else layer.indices
    return zip(indices, layer.blobs, strict=True)


def _mismatch(
    layer: LayerWeights, targets: Sequence[Array], repeats: Container[int]
) -> Mismatch | None:
    found = dict(numbered(layer))
    missing = [target for index, target in enumerate(targets) if index not in found]
    # What an HDF5 file leaves out may be shared; what a message leaves out may not.
    excused = layer.indices is not None and all(id(target) in repeats for target in missing)
    if max(found, default=-1) >= len(targets) or (missing and not excused):
        return Mismatch(layer.name, None, (len(layer.blobs),), (len(targets),))
    for index, weight in found.items():
        if not weight.fits(targets[index].shape):
            return Mismatch(layer.name, index, weight.shape, targets[index].shape)
    return None


# --- what the numbers are like --------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """What some numbers are like. All but the counts are of those that are finite, else NaN."""

    minimum: float
    maximum: float
    mean: float
    std: float
    zeros: int
    nans: int
    infinities: int


def statistics(values: Array) -> Statistics:
    """What ``values`` of one axis are like, in one pass and in little memory."""
    minimum, maximum = math.inf, -math.inf
    count = zeros = nans = infinities = 0
    mean = squares = np.float64(0)
    for start in range(0, values.size, PIECE):
        view = values[start : start + PIECE]
        piece = view.astype(np.float64)
        give_back(view)
        finite = piece[np.isfinite(piece)]
        nans += int(np.isnan(piece).sum())
        infinities += int(np.isinf(piece).sum())
        if not finite.size:
            continue
        zeros += finite.size - int(np.count_nonzero(finite))
        minimum, maximum = min(minimum, float(finite.min())), max(maximum, float(finite.max()))
        # Means and squares of distances of two sets, put together (Chan, Golub & LeVeque, 1979).
        with np.errstate(over="ignore", invalid="ignore"):
            own = finite.mean()
            squares += np.square(finite - own).sum()
            squares += (own - mean) ** 2 * count * finite.size / (count + finite.size)
            mean += (own - mean) * finite.size / (count + finite.size)
        count += finite.size
    if not count:
        return Statistics(math.nan, math.nan, math.nan, math.nan, 0, nans, infinities)
    std = math.sqrt(squares / count)
    return Statistics(minimum, maximum, float(mean), std, zeros, nans, infinities)


# --- the messages of Caffe ------------------------------------------------------------------------


def _layers(wire: Wire) -> Iterator[LayerWeights]:
    index = 0
    for field in wire.fields():
        if field.number == 1:
            wire.expect(field, LENGTH)
        elif field.number in (2, 100):
            wire.where = f"layer {index}"
            index += 1
            yield _layer(wire, field) if field.number == 100 else _old_layer(wire, field)
            wire.where = ""


def _layer(wire: Wire, message: Field) -> LayerWeights:
    """A LayerParameter, or the V0LayerParameter in the layer of an old file; they share numbers."""
    wire.costly(message)
    name = type = ""
    blobs: list[Weight] = []
    number_of_blobs = 7 if message.number == 100 else 50
    for field in wire.message(message):
        if field.number == 1:
            name = wire.text(field)
            wire.where = f'layer "{name}"'
        elif field.number == 2:
            type = wire.text(field)
        elif field.number == number_of_blobs:
            blobs.append(read_blob(wire, field, len(blobs)))
    return LayerWeights(name, type, blobs)


def _old_layer(wire: Wire, message: Field) -> LayerWeights:
    """A V1LayerParameter, perhaps with a V0LayerParameter inside."""
    wire.costly(message)
    name = type = ""
    blobs: list[Weight] = []
    for field in wire.message(message):
        if field.number == 1:
            inner = _layer(wire, field)
            name, type = inner.name, inner.type
            blobs.extend(inner.blobs)
        elif field.number == 4:
            name = wire.text(field)
            wire.where = f'layer "{name}"'
        elif field.number == 5:
            type = _v1_type(wire.integer(field))
        elif field.number == 6:
            blobs.append(read_blob(wire, field, len(blobs)))
    return LayerWeights(name, type, blobs)


def _v1_type(number: int) -> str:
    known = pb.V1LayerParameter.LayerType.DESCRIPTOR.values_by_number
    return known[number].name if number in known else f"V1 type {number}"


#: The legacy dimensions of BlobProto, by field number.
_LEGACY = {1: "num", 2: "channels", 3: "height", 4: "width"}

#: The floats of BlobProto: their field numbers and their types in the file.
_DATA, _DIFF, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 8, 9
_FLOATS = {_DATA: "<f4", _DIFF: "<f4", _DOUBLE_DATA: "<f8", _DOUBLE_DIFF: "<f8"}

#: How NVIDIA's Caffe stores a blob since 0.16: the number of a type, and bytes.
_RAW_DATA_TYPE, _RAW_DIFF_TYPE, _RAW_DATA, _RAW_DIFF = 10, 11, 12, 13
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2", 3: "<i4", 4: "<u4"}


def read_blob(wire: Wire, message: Field, index: int) -> Weight:
    """The BlobProto that ``message`` holds; ``index`` is its place in its layer, for messages."""
    wire.costly(message)
    dims: list[int] | None = None
    legacy: dict[int, int] = {}
    floats: dict[int, list[Array]] = {number: [] for number in _FLOATS}
    raw: dict[int, Field] = {}
    for field in wire.message(message):
        if field.number in _FLOATS:
            floats[field.number].append(wire.numbers(field, _FLOATS[field.number]))
        elif field.number == 7:
            dims = [] if dims is None else dims
            _read_dims(wire, field, dims)
        elif field.number in _LEGACY:
            legacy[field.number] = wire.integer(field)
        elif _RAW_DATA_TYPE <= field.number <= _RAW_DIFF:
            # Other forks use these numbers too: their meaning is checked where it is needed.
            raw[field.number] = field

    data = _joined(floats[_DOUBLE_DATA] or floats[_DATA])
    diff = _joined(floats[_DOUBLE_DIFF] or floats[_DIFF])
    if data is None and _RAW_DATA in raw and raw[_RAW_DATA].type == LENGTH:
        data = _raw(wire, raw, _RAW_DATA_TYPE, _RAW_DATA, message)
        if _RAW_DIFF in raw:
            diff = _raw(wire, raw, _RAW_DIFF_TYPE, _RAW_DIFF, message)
    if data is None:
        data = np.empty(0, np.float32)

    if legacy:
        shape = tuple(legacy.get(number, 0) for number in _LEGACY)
    elif dims is None and data.size == 0:
        shape = (0,)  # a blob that was never given a shape
    else:
        shape = tuple(dims or ())
    if min(shape, default=0) < 0:
        raise wire.damaged(message.at, f"blob {index} has the shape {list(shape)}")
    if math.prod(shape) != data.size:
        unknown = "a fork of Caffe may have stored them in a way that netdef does not know"
        raise wire.damaged(
            message.at,
            f"blob {index} is {shape_text(shape)}, which takes {_numbers(math.prod(shape))}, "
            f"but it has {data.size}",
            "" if data.size else unknown,
        )
    if diff is not None and diff.size != data.size:
        raise wire.damaged(
            message.at, f"blob {index} has {data.size} numbers but {diff.size} gradients"
        )
    return Weight(shape, data, diff, bool(legacy))


def _numbers(count: int) -> str:
    if count >= 1 << 63:
        return "more numbers than any file holds"
    return f"{count} number{'' if count == 1 else 's'}"


def _read_dims(wire: Wire, shape: Field, dims: list[int]) -> None:
    """Append the dimensions of a BlobShape to ``dims``: a message given twice is merged."""
    for field in wire.message(shape):
        if field.number != 1:
            continue
        if field.type == VARINT:
            dims.append(signed(field.value))
        else:
            wire.expect(field, LENGTH)
            at = field.start
            while at < field.end and len(dims) <= MOST_AXES:
                value, at = wire.varint(at, field.end)
                dims.append(signed(value))
        if len(dims) > MOST_AXES:
            raise wire.damaged(field.at, f"a blob has more than {MOST_AXES} axes")


def _joined(chunks: list[Array]) -> Array | None:
    """The chunks of a repeated field as one array; None where there are no numbers."""
    chunks = [chunk for chunk in chunks if chunk.size]
    if len(chunks) > 1:
        return np.concatenate(chunks)
    return chunks[0] if chunks else None


def _raw(wire: Wire, raw: dict[int, Field], type: int, values: int, message: Field) -> Array:
    number = wire.integer(raw[type]) if type in raw else 0
    if number not in _RAW_TYPES:
        known = f"where types are 0 to {max(_RAW_TYPES)}"
        raise wire.damaged(message.at, f"a blob has numbers of type {number}, {known}")
    wire.expect(raw[values], LENGTH)
    return wire.numbers(raw[values], _RAW_TYPES[number])


# --- the HDF5 form --------------------------------------------------------------------------------


def _hdf5_layers(wire: Wire) -> list[LayerWeights]:
    """Group /data: for each layer a group of its name, and in it the blobs by number."""
    with reading_hdf5(wire) as root:
        data = root.group("data")
        if data is None:
            if root.get("iter") is not None:
                hint = "pass it with --snapshot"
                raise wire.error("E402", "is a .solverstate, not a .caffemodel", hint)
            reason = 'is an HDF5 file without a group "data", so it is not a .caffemodel'
            raise wire.error("E402", reason)
        found: list[LayerWeights] = []
        seen: set[int] = set()
        # A name with slashes is a group in a group.
        waiting = [("", data, root.group("diff"))]
        while waiting:
            name, group, diffs = waiting.pop()
            if group.address in seen:
                raise hdf5.HDF5Error("it is the group of another layer, too", group.where)
            seen.add(group.address)
            inner = []
            blobs: dict[int, Weight] = {}
            for key, child in group.children():
                if isinstance(child, hdf5.Group):
                    other = diffs.group(key) if diffs is not None else None
                    inner.append((f"{name}/{key}" if name else key, child, other))
                else:
                    diff = diffs.dataset(key) if diffs is not None else None
                    blobs[_blob_number(key, child)] = _hdf5_blob(wire, child, diff)
            waiting += reversed(inner)
            if name and (blobs or not inner):
                indices = sorted(blobs)
                found.append(LayerWeights(name, "", [blobs[i] for i in indices], indices))
    if not found:
        raise wire.error("E402", "holds no layers, so it is not a .caffemodel")
    return found


@contextlib.contextmanager
def reading_hdf5(wire: Wire) -> Iterator[hdf5.Group]:
    """The root of an HDF5 file, whose mistakes become errors of ``wire``."""
    try:
        with hdf5.opened(wire.path) as root:
            yield root
    except hdf5.HDF5Error as error:
        where = f" at {error.where}" if error.where else ""
        hint = "the file may be cut short; compare its size with the original"
        raise wire.error(
            "E403",
            f"cannot be read{where}: {error.text}",
            hint if "cut off" in error.text else "",
        ) from error


def _blob_number(name: str, dataset: hdf5.Dataset) -> int:
    if not name.isdecimal() or str(int(name)) != name or int(name) >= MOST_FIELDS:
        raise hdf5.HDF5Error("the blobs of a layer are called 0, 1, ...", dataset.where)
    return int(name)


def _hdf5_blob(wire: Wire, data: hdf5.Dataset, diff: hdf5.Dataset | None) -> Weight:
    values = data.array(wire.content)
    gradient = diff.array(wire.content) if diff is not None else None
    if gradient is not None and gradient.size != values.size:
        raise hdf5.HDF5Error(
            f"there are {gradient.size} gradients for {values.size} numbers", data.where
        )
    flat = gradient.reshape(-1) if gradient is not None else None
    return Weight(data.shape, values.reshape(-1), flat)


# --- files that are something else ----------------------------------------------------------------

_SIGNATURES = {
    b"\x1f\x8b": ("is compressed with gzip", "unpack it first"),
    b"PK\x03\x04": ("is a zip archive", "unpack it first; PyTorch's files look like this too"),
    b"version https://git-lfs": (
        "is a Git LFS pointer, not the file it stands for",
        "fetch the file with `git lfs pull`",
    ),
}


def wrong_kind(wire: Wire, wanted: str) -> WeightsError | None:
    """The error that says what the file is, if it is known to be something else than ``wanted``."""
    head = bytes(wire.content[:512])
    for signature, (what, hint) in _SIGNATURES.items():
        if head.startswith(signature):
            return wire.error("E402", f"{what}, not {wanted}", hint)
    if b"<html" in head.lower():
        hint = "the download went wrong; fetch the file again"
        return wire.error("E402", f"is a web page, not {wanted}", hint)
    if not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return wire.error("E402", f"is text, not {wanted}", "is it a prototxt?")

    seen: set[tuple[int, int]] = set()
    whole = Wire(wire.path, wire.content)
    try:
        for field in whole.fields():
            seen.add((field.number, field.type))
            if len(seen) > 16 or MOST_FIELDS - whole.fields_left > 10_000:
                break
    except WeightsError:
        pass  # what was seen up to the damage has to do
    if (1, VARINT) in seen and ((2, LENGTH) in seen or (3, LENGTH) in seen):
        what, hint = "a .solverstate", "pass it with --snapshot"
    elif (1, LENGTH) in seen and ((100, LENGTH) in seen or (2, LENGTH) in seen):
        what, hint = "a .caffemodel", "pass it with --weights"
    elif (1, VARINT) in seen and (2, VARINT) in seen:
        what, hint = "a single blob (a mean image?)", ""
    else:
        return None
    return None if what == wanted else wire.error("E402", f"is {what}, not {wanted}", hint)
