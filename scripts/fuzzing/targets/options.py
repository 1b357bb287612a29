"""Well-formed nets and solvers with odd options, as text: layers of every type, V0, V1 and V2."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzzing.mutations import EDGES, Random
from fuzzing.targets import prototxt as damaged
from netdef import prototxt
from netdef.layer import layer_types
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt_fields import PRIVATE, Field, message_type
from netdef.upgrade import V0_TYPES

COUNT = 20_000

#: Shapes of the blobs that the layers are given, the likely ones several times.
SHAPES = [[2, 3, 8, 8]] * 4 + [
    [2, 4, 5, 7],
    [4, 1],
    [2],
    [],
    [1, 1, 3, 8],
    [1, 2, 32],
    [0, 3, 4, 4],
]
FLOATS = [0, 1, -1, 0.5, 2.5, 3, 16, 1e-30, 1e30, float("nan"), float("inf")]
TEXTS = [
    "",
    "x",
    "y0",
    "constant",
    "xavier",
    "gaussian",
    "msra",
    "bilinear",
    "fixed",
    "step",
    "Adam",
]

#: Messages within messages, as deep as options go.
DEEPEST = 3


@functools.cache
def originals() -> Sequence[bytes]:
    net = pb.NetParameter()
    _add_input(net, 0, [2, 3, 8, 8])
    net.layer.add(name="relu", type="ReLU", bottom=["x0"], top=["y0"])
    return [prototxt.to_text(net).encode()]


def mutant(random: Random) -> bytes:
    if random.random() < 0.1:
        solver = pb.SolverParameter(net="net.prototxt", base_lr=0.1, lr_policy="fixed")
        _fill(random, solver)
        return prototxt.to_text(solver).encode()
    net = pb.NetParameter()
    inputs = int(random.integers(5))
    for number in range(inputs):
        _add_input(net, number, _one(random, SHAPES))
    bottoms = [f"x{number}" for number in range(inputs)]
    for number in range(int(random.integers(1, 4))):
        tops = [f"y{number}{suffix}" for suffix in "abc"[: int(random.integers(4))]]
        _add_layer(random, net, bottoms, tops)
        bottoms = (tops + bottoms)[: int(random.integers(1, 4))]
    if random.random() < 0.1:
        _fill(random, net)
    return prototxt.to_text(net).encode()


def _one(random: Random, choices: Sequence[Any]) -> Any:
    return choices[int(random.integers(len(choices)))]


def _add_input(net: pb.NetParameter, number: int, shape: list[int]) -> None:
    layer = net.layer.add(name=f"in{number}", type="Input", top=[f"x{number}"])
    layer.input_param.shape.add(dim=shape)


def _add_layer(random: Random, net: pb.NetParameter, bottoms: list[str], tops: list[str]) -> None:
    """A layer with some of the options of its type, or, now and then, of any."""
    ends: Any = {"bottom": bottoms, "top": tops}
    kind = random.random()
    if kind < 0.05:
        old = net.layers.add(**ends).layer
        old.type = _one(random, [*V0_TYPES, "padding"])
        _fill(random, old)
    elif kind < 0.15:
        _fill(
            random,
            net.layers.add(type=_one(random, pb.V1LayerParameter.LayerType.values()), **ends),
        )
    else:
        name = _one(random, [name for name in layer_types() if name != "Python"])
        layer = net.layer.add(name=f"l{len(net.layer)}", type=name, **ends)
        described = layer_types()[name]
        own = (described.config_field,) if described.config_field else ()
        for field in (*own, *described.also_reads):
            _fill(random, getattr(layer, field))
        if random.random() < 0.1:
            _fill(random, layer)


def _fill(random: Random, message: Any, depth: int = 0) -> None:
    """Give a few of its fields values, likely ones and odd ones."""
    message.SetInParent()
    known = message_type(message.DESCRIPTOR).fields
    names = [f.name for f in message.DESCRIPTOR.fields if f.number not in PRIVATE]
    count = min(len(names), int(_one(random, [0, 1, 2, 3, 4, 6])))
    for name in random.choice(names, count, replace=False):
        field = known[name]
        number = int(random.integers(1, 4)) if field.repeated else 1
        for _ in range(number):
            if field.submessage is None:
                _set(message, field, _value(random, field))
            elif depth < DEEPEST:
                inner = getattr(message, name)
                _fill(random, inner.add() if field.repeated else inner, depth + 1)


def _set(message: Any, field: Field, value: Any) -> None:
    if field.repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _value(random: Random, field: Field) -> Any:
    match field.kind:
        case "enum":
            return _one(random, list(field.values.values()))
        case "bool":
            return bool(random.integers(2))
        case "float":
            return _one(random, FLOATS)
        case "string":
            return _one(random, TEXTS)
        case "bytes":
            return random.bytes(3)
    value = int(random.integers(9)) if random.random() < 0.8 else _one(random, EDGES)
    value -= int(random.integers(3)) if random.random() < 0.1 else 0
    return max(field.low, min(field.high, value))


def read(content: bytes, folder: Path) -> None:
    damaged.read(content, folder)
