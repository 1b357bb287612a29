"""Weights: .caffemodel in all generations and all forms of numbers, and .caffemodel.h5."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.mutations import Random, spoil, spoil_bytes, spoil_message, varint
from netdef.blob import Array
from netdef.proto import netdef_pb2 as pb
from netdef.weights import copy_weights, numbered, read_weights, statistics

COUNT = 9_000

GOLDEN = Path(__file__).parents[3] / "tests" / "golden" / "solvers"

VALUES = np.array([1.5, -2, 3e-8, 4, 5, 6], np.float32)


@functools.cache
def originals() -> Sequence[bytes]:
    files = ("sgd_fixed.caffemodel", "adam.caffemodel.h5")
    return [*((GOLDEN / file).read_bytes() for file in files), _old(), _older(), _forms()]


def _old() -> bytes:
    net = pb.NetParameter(name="old")
    layer = net.layers.add(name="cv", type=pb.V1LayerParameter.CONVOLUTION, top=["cv"])
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=VALUES, diff=VALUES)
    layer.blobs.add(num=1, channels=1, height=1, width=6, data=VALUES)
    net.layers.add(name="relu", type=pb.V1LayerParameter.RELU, bottom=["cv"], top=["cv"])
    return net.SerializeToString()


def _older() -> bytes:
    net = pb.NetParameter(name="older")
    layer = net.layers.add(bottom=["data"], top=["fc"]).layer
    layer.name, layer.type, layer.num_output = "fc", "innerproduct", 2
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=VALUES)
    return net.SerializeToString()


def _forms() -> bytes:
    """A layer with a blob of each form: packed, not packed, float64, and three of NVIDIA's."""
    shape = _record(7, _record(1, bytes([2, 3])))
    blobs = [
        _record(5, VALUES.tobytes()) + _record(6, VALUES.tobytes()),
        b"".join(b"\x2d" + value.tobytes() for value in VALUES),
        _record(8, VALUES.astype("<f8").tobytes()) + _record(9, VALUES.astype("<f8").tobytes()),
    ]
    for number, dtype in enumerate(("<f8", "<f4", "<f2")):
        raw = VALUES.astype(dtype).tobytes()
        types = b"\x50" + varint(number) + b"\x58" + varint(number)
        blobs.append(types + _record(12, raw) + _record(13, raw))
    layer = b"".join(_record(7, shape + blob) for blob in blobs)
    return _record(100, _record(1, b"forms") + _record(2, b"Parameter") + layer)


def _record(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def mutant(random: Random) -> bytes:
    content = originals()[int(random.integers(len(originals())))]
    hdf5 = content.startswith(b"\x89HDF")
    return spoil(random, content, [spoil_bytes] if hdf5 else [spoil_message, spoil_bytes])


def read(content: bytes, folder: Path) -> None:
    """As ``netdef weights`` and ``--weights`` with ``--skip-mismatch`` read a file."""
    path = folder / "m.caffemodel"
    path.write_bytes(content)
    layers = read_weights(path)
    for layer in layers:
        for _, blob in numbered(layer):
            statistics(blob.data)
    report = copy_weights(layers, _parameters(), path=path, skip_mismatch=True)
    for mismatch in report.mismatched:
        str(mismatch)


@functools.cache
def _parameters() -> dict[str, list[Array]]:
    """What a net has that takes all the originals."""
    shapes: dict[str, list[Any]] = {
        "cv": [(2, 3), (6,)],
        "fc": [(2, 3)],
        "forms": [(2, 3)] * 6,
        "ip": [(3, 10), (3,)],
    }
    return {name: [np.zeros(shape, np.float32) for shape in own] for name, own in shapes.items()}
