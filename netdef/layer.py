"""The contract of a layer, and the registry of layer types.

A layer is one file in ``netdef/layers``. It says what it takes and gives as pure functions of
shapes, and computes on blobs that the program hands it::

    shapes(*bottoms) -> tops      pure: shapes in, shapes out
    params(*bottoms) -> [Param]   pure: name, shape and filler of each parameter
    work(*bottoms) -> [Work]      pure: shape and type of each array kept from forward for backward
    setup(bottom, top)            the blobs stand: prepare workspace for these shapes
    forward(bottom, top)          read bottom.data and self.blobs, write top.data
    backward(top, bottom)         read top.diff, write bottom.diff, add to self.blobs[i].diff

What the program guarantees to ``backward``:

- a bottom that needs no gradient has ``diff is None``; it must not be touched
- ``bottom[i].diff`` holds rubbish and is to be overwritten, not added to
- parameter gradients are added to, because ``iter_size`` and shared parameters sum them; but of
  those in ``writes_gradients`` it is written where ``self.adds[i]`` is false; ``self.learn[i]`` is
  false where parameter ``i`` needs none
- a layer with ``in_place`` may get the same blob as bottom and top: ``top.data`` may overwrite
  ``bottom.data``, ``bottom.diff`` may overwrite ``top.diff``
- where ``backward_reads`` names them, ``bottom.data`` holds what it held in forward, and
  ``top.data`` too, unless a later layer worked on it in place: as in Caffe, it then holds what that
  made of it; what is not named may be in use for something else

Arrays that a layer keeps from forward for backward, such as a mask, it can ask for in ``work``: the
program then reuses their memory, too. ``self.work_arrays`` holds them, in that order, when
``setup`` is called.

A layer whose top shapes depend on data has ``dynamic``: before each forward pass the program asks
``next_shapes(bottom)`` and, where the answer changed, plans again what follows.

The docstring of a layer is its reference page (``netdef layers TYPE``, docs/layers), in Markdown:
one sentence; an indented block with the formula; one with the lines ``bottom``, ``top`` and
``params``; remarks; ``Example::`` with a layer in prototxt whose bottoms have their shapes in a
comment; ``Deviations:`` from Caffe, if any; ``Source:``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from netdef import rng
from netdef.blob import Array, Blob, Shape
from netdef.errors import Location, NetdefError, NetError, did_you_mean
from netdef.events import Event
from netdef.forks import LAYERS
from netdef.proto import netdef_pb2 as pb

#: Values a blob can have: Caffe counts them in an int.
MOST_VALUES = 2**31 - 1

#: How many blobs a layer takes or gives: exactly n, or (least, most) where ``None`` is no limit.
Arity = int | tuple[int, int | None]

#: Finds the place of an element inside the layer's text: ``locate("pooling_param", "stride")``.
Locate = Callable[..., Location | None]


class Param(NamedTuple):
    """A parameter of a layer: its name within the layer, its shape, what it starts from.

    ``filler`` may be the values themselves.
    ``learns`` is false for what the layer itself keeps up to date in ``forward``, such as running
    means: it has no gradient, and its ``lr_mult`` is 0. A net that says otherwise is refused,
    unless the parameter ``overrules`` it, as layers of some forks do.
    """

    name: str
    shape: Shape
    filler: pb.FillerParameter | Array
    learns: bool = True
    overrules: bool = False


class Work(NamedTuple):
    """An array that a layer writes in forward and reads in backward; None is the net's type."""

    shape: Shape
    dtype: Any = None


def _nowhere(*path: str | int) -> Location | None:
    return None


def _ignore(event: Event) -> None:
    pass


class Layer:
    """Base class: see the module's text for the contract.

    What a layer says of itself, in its class or, where options decide, ``__init__`` or a property:

    ``bottoms``, ``tops``  how many blobs
    ``same_number``        as many tops as bottoms
    ``in_place``           a top may be the bottom of the same index
    ``no_gradient``        bottoms that have none, such as labels
    ``backward_reads``     which values backward reads: ``"bottom"``, ``"top"``, both or none
    ``view``               each top holds the values of the bottom in their order, and its gradient
                           is that of the bottom, or one of those that add up to it: where it can,
                           the program lets them use one memory and does not call the layer
    ``plain_sum``          the gradient of each bottom is that of the top: where it can, the program
                           lets them use one memory, and does not call ``backward``
    ``writes_gradients``   parameters whose gradient it can write as well as add to
    ``loss``               the first top is a loss of weight 1 unless the net says otherwise, and
                           the net need not name it
    ``dynamic``            top shapes depend on data
    ``source``             brings records: see ``DataLayer``
    ``also_reads``         messages of ``LayerParameter`` it reads beside its own
    """

    type: ClassVar[str]
    config_field: ClassVar[str | None] = None
    bottoms: Arity = 1
    tops: Arity = 1
    same_number: ClassVar[bool] = False
    in_place: ClassVar[bool] = False
    no_gradient: frozenset[int] = frozenset()
    writes_gradients: ClassVar[frozenset[int]] = frozenset()
    loss: ClassVar[bool] = False
    dynamic: ClassVar[bool] = False
    source: ClassVar[bool] = False
    also_reads: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, message: pb.LayerParameter, phase: int = pb.TRAIN, locate: Locate = _nowhere
    ) -> None:
        self.message = message
        self.name = message.name
        self.phase = phase
        self.config: Any = getattr(message, self.config_field) if self.config_field else None
        self.locate = locate
        # Set by the program when it binds the layer.
        self.blobs: list[Blob] = []
        self.learn: Sequence[bool] = ()
        self.adds: list[bool] = []
        self.work_arrays: list[Array] = []
        self.dtype: Any = np.float32
        self.key = np.uint64(0)
        self.iteration = np.uint64(0)
        self.emit: Callable[[Event], None] = _ignore

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        """The shapes of the tops. Raises ``self.error(...)`` where the bottoms do not fit."""
        raise NotImplementedError

    def params(self, *bottoms: Shape) -> Iterable[Param]:
        """The parameters this layer learns; none unless overridden."""
        return ()

    @property
    def backward_reads(self) -> Collection[str]:
        return ("bottom", "top")

    @property
    def view(self) -> bool:
        return False

    @property
    def plain_sum(self) -> bool:
        return False

    def work(self, *bottoms: Shape) -> Iterable[Work]:
        """The arrays it keeps from forward for backward; none unless overridden."""
        return ()

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Prepare workspace; called when blobs are bound and again when a shape changed."""

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Compute ``top[i].data``."""
        raise NotImplementedError

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        """Compute ``bottom[i].diff`` where it is not None, and add to the parameters' gradients."""
        raise NotImplementedError

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        """Only of ``dynamic`` layers: the shapes the tops take in the forward that follows.

        What was computed to find them may be kept for that ``forward``, which is called next.
        """
        raise NotImplementedError

    def follow(self, other: Layer) -> None:
        """Go on where ``other`` has got to: the same layer, in a net of another batch size.

        Data layers do it by ``seek``; only layers that write have more to do here.
        """

    def close(self) -> None:
        """Give back what is not memory: threads, files."""

    def error(
        self,
        text: str,
        *path: str | int,
        hint: str = "",
        kind: Callable[..., NetdefError] = NetError,
    ) -> NetdefError:
        """An exception that names this layer and points at ``path`` inside it."""
        message = f'layer "{self.name}" ({self.type}): {text}'
        return kind(message, location=self.locate(*path), hint=hint)

    def located(self, error: NetdefError, *path: str | int) -> NetdefError:
        """The first mistake that ``error`` tells of, as ``self.error`` tells it."""
        first = error.diagnostics[0]
        return self.error(first.message, *path, hint=first.hint, kind=type(error))

    def draw_key(self, seed: int) -> Any:
        """The key of this layer's random stream in the run with this seed."""
        return rng.key(seed, f"{pb.Phase.Name(self.phase)}/{self.name}")


L = TypeVar("L", bound=type[Layer])

_registry: dict[str, type[Layer]] = {}


def register(type_name: str, config: str | None = None) -> Callable[[L], L]:
    """Make a class the layer of this type; ``config`` names its message in ``LayerParameter``."""

    def add(layer: L) -> L:
        other = _registry.get(type_name)
        if other is not None and other.__module__ != layer.__module__:
            raise RuntimeError(
                f'layer type "{type_name}" is registered by both {other.__module__} '
                f"and {layer.__module__}"
            )
        layer.type = type_name
        layer.config_field = config
        _registry[type_name] = layer
        return layer

    return add


@cache
def _discover() -> None:
    """Import every file of ``netdef/layers``: a layer exists by standing there."""
    import netdef.layers

    for module in pkgutil.iter_modules(netdef.layers.__path__):
        importlib.import_module(f"netdef.layers.{module.name}")


def layer_types() -> dict[str, type[Layer]]:
    """Every registered layer class by its type name."""
    _discover()
    return dict(sorted(_registry.items()))


def create(message: pb.LayerParameter, phase: int = pb.TRAIN, locate: Locate = _nowhere) -> Layer:
    """The layer a message describes. An unknown type is an error, never skipped."""
    known = layer_types()
    if message.type not in known:
        given = f'unknown layer type "{message.type}"' if message.type else "no type is given"
        if message.type in LAYERS:
            given = f"{message.type} comes from {LAYERS[message.type]}; netdef does not compute it"
        raise NetError(
            f'layer "{message.name}": {given}',
            code="E101",
            location=locate("type"),
            hint=did_you_mean(message.type, known) or f"known types: {', '.join(known)}",
        )
    return known[message.type](message, phase, locate)


def layer_type_list() -> list[str]:
    """The names of all layer types, in alphabetical order."""
    return list(layer_types())
