"""Groups of layers that run as one: who may be grouped, and the registry of what can run them.

What moves most data in a net are layers that do little with it. BatchNorm, Scale and ReLU, one
after the other, read and write their blob three times; as one step they do it once. And what a
convolution has just computed is still in a register when ReLU wants it.

A file in ``netdef/fused`` holds a :class:`Fused`: ``match`` says how many layers of a chain it runs
as one, and ``forward`` and ``backward`` compute on the bottoms and the top of the whole group, with
the parameters of its layers. ``groups`` finds them in a plan. A chain is a row of layers each of
which is the only reader of the one before, and what passes between them is not to be seen: either a
layer in place goes on with it, or nobody keeps it. A pass over a part of the net that cuts a group
runs its layers one by one.

The results are those of the layers within rounding.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, TypeVar

from netdef.blob import Array, Blob, Shape
from netdef.layer import Layer, Work
from netdef.plan import LayerPlan, Plan


class Fused:
    """Layers that run as one: base class.

    ``bottom`` holds the bottoms of all layers, in order, but for what passes between them; ``top``
    the one top of the last. Gradients are those of a :class:`Layer`: ``bottom[i].diff`` is
    overwritten if it is not None, and may be ``top[0].diff``; ``self.layers[k].blobs[i].diff`` is
    added to where ``self.layers[k].learn[i]``.
    """

    #: Whether it can run backward; else it is used where nothing does.
    has_backward: ClassVar[bool] = True
    #: Whether backward leaves something else in ``top[0].diff``.
    changes_gradient: ClassVar[bool] = False

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self.work_arrays: list[Array] = []

    @classmethod
    def match(cls, chain: Sequence[LayerPlan]) -> int:
        """How many layers from the first on this can run as one; less than 2 is none.

        What stands behind them in ``chain`` may be looked at.
        """
        raise NotImplementedError

    @property
    def backward_reads(self) -> Collection[str]:
        """As of a Layer: which of the values of ``bottom`` and ``top`` backward reads."""
        return ("bottom", "top")

    def work(self, *bottoms: Shape) -> Iterable[Work]:
        """As of a Layer: arrays kept from forward for backward; ``self.work_arrays`` has them."""
        return ()

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Prepare for these blobs; the layers have been set up before."""

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        raise NotImplementedError

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Group:
    """Layers ``first`` to ``stop - 1`` of a plan, which ``fused`` runs as one.

    ``bottoms`` has (layer, index) of each of its bottoms.
    """

    first: int
    stop: int
    fused: Fused
    bottoms: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """Its layers, as tables name them."""
        return "+".join(layer.name for layer in self.fused.layers)

    @property
    def type(self) -> str:
        return "+".join(layer.type for layer in self.fused.layers)

    def work(self, plan: Plan) -> list[Work]:
        """What it keeps from forward for backward, for the present shapes."""
        return list(self.fused.work(*(plan.layers[i].bottom_shapes[k] for i, k in self.bottoms)))


F = TypeVar("F", bound=type[Fused])

_registry: list[type[Fused]] = []


def fuses(kind: F) -> F:
    """Make a class one that runs groups."""
    _registry.append(kind)
    return kind


@cache
def _discover() -> None:
    import netdef.fused

    for module in pkgutil.iter_modules(netdef.fused.__path__):
        importlib.import_module(f"netdef.fused.{module.name}")


def groups(
    plan: Plan, *, keep: Collection[str] | None = None, backward: bool = True
) -> tuple[Group, ...]:
    """The groups of a plan, in order.

    ``keep``: the blobs that are looked at after a pass; by default all. ``backward``: whether there
    may be backward passes.
    """
    _discover()
    last = {name: i for i, layer in enumerate(plan.layers) for name in layer.tops}
    found: list[Group] = []
    at = 0
    while at < len(plan.layers):
        chain = _chain(plan, at, last, keep)
        group = _group(plan, at, chain, backward) if len(chain) > 1 else None
        if group is not None:
            found.append(group)
        at = group.stop if group is not None else at + 1
    return tuple(found)


def _chain(
    plan: Plan, first: int, last: dict[str, int], keep: Collection[str] | None
) -> list[LayerPlan]:
    """The layers from ``first`` on, as far as each alone reads what the one before it makes."""
    chain = [plan.layers[first]]
    for i in range(first + 1, len(plan.layers)):
        before, layer = plan.layers[i - 1], plan.layers[i]
        if len(before.tops) != 1 or layer.bottoms.count(before.tops[0]) != 1:
            break
        # After splits each top has one reader, so this layer is it.
        (name,) = before.tops
        seen = last[name] == i - 1 and (keep is None or name in keep)
        if seen or any(before.loss_weights) or before.layer.dynamic or layer.layer.dynamic:
            break
        chain.append(layer)
    return chain


def _group(plan: Plan, first: int, chain: Sequence[LayerPlan], backward: bool) -> Group | None:
    for kind in _registry:
        count = kind.match(chain)
        members = chain[:count]
        if count < 2 or len(members[-1].tops) != 1 or any(members[-1].loss_weights):
            continue
        runs = backward and any(layer.needs_backward for layer in members)
        if runs and not (kind.has_backward and _passes_on(members)):
            continue
        bottoms = tuple(
            (first + m, k)
            for m, layer in enumerate(members)
            for k, name in enumerate(layer.bottoms)
            if m == 0 or name != members[m - 1].tops[0]
        )
        fused = kind([layer.layer for layer in members])
        return Group(first, first + count, fused, bottoms)
    return None


def _passes_on(members: Sequence[LayerPlan]) -> bool:
    """Whether gradients go from the top of the last layer to the bottoms of the first."""
    return all(layer.needs_backward for layer in members) and all(
        layer.propagate[layer.bottoms.index(before.tops[0])] for before, layer in pairwise(members)
    )
