"""The contract of an update rule, and the registry of their names.

A rule is one file beside this one: a class that updates one parameter in one pass over its memory.
It gets the gradient as backward left it; scaling and weight decay happen on the way
(``gradient``)::

    g = scale * dw + l2 * w + l1 * sign(w)

where ``scale`` is 1 / iter_size, times the factor of clip_gradients.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple, TypeVar

from netdef.blob import Array
from netdef.errors import SolverError, did_you_mean
from netdef.jit import inline
from netdef.kernels.fma import fma
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Positions


class Decay(NamedTuple):
    """What happens to a gradient before the rule uses it, as scalars of the net's type."""

    scale: Any
    l2: Any
    l1: Any


class Rule:
    """Base class. ``histories``: how many arrays a rule keeps for each parameter, of its shape."""

    type: ClassVar[str]
    histories: ClassVar[int] = 1

    def __init__(self, solver: pb.SolverParameter, dtype: Any) -> None:
        self.solver = solver
        self.dtype = dtype

    def update(
        self,
        weight: Array,
        gradient: Array,
        history: Sequence[Array],
        rate: float,
        decay: Decay,
        iteration: int,
    ) -> None:
        """Change ``weight`` and ``history`` in place; leave in ``gradient`` what was subtracted.

        All arrays are flat; ``rate`` is the learning rate of this parameter at this ``iteration``.
        """
        raise NotImplementedError


R = TypeVar("R", bound=type[Rule])

_registry: dict[str, type[Rule]] = {}


def rule(name: str) -> Callable[[R], R]:
    """Make a class the update rule that solvers call ``name``."""

    def add(found: R) -> R:
        other = _registry.get(name)
        if other is not None and other.__module__ != found.__module__:
            raise RuntimeError(
                f'update rule "{name}" is registered by {other.__module__} and {found.__module__}'
            )
        found.type = name
        _registry[name] = found
        return found

    return add


@cache
def _discover() -> None:
    import netdef.solvers

    for module in pkgutil.iter_modules(netdef.solvers.__path__):
        importlib.import_module(f"netdef.solvers.{module.name}")


def rules() -> dict[str, type[Rule]]:
    """Every update rule by its name."""
    _discover()
    return dict(sorted(_registry.items()))


def create(solver: pb.SolverParameter, dtype: Any, positions: Positions | None = None) -> Rule:
    """The update rule a solver names. Raises SolverError for an unknown one."""
    _discover()
    if solver.type not in _registry:
        known = ", ".join(sorted(_registry))
        raise SolverError(
            f'unknown solver type "{solver.type}"',
            code="E220",
            location=positions.at("type") if positions is not None else None,
            hint=did_you_mean(solver.type, _registry) or f"known types: {known}",
        )
    return _registry[solver.type](solver, dtype)


@inline
def gradient(w: Any, dw: Any, decay: Any) -> Any:
    """One element of the gradient, scaled and with weight decay."""
    value = fma(decay.l2, w, decay.scale * dw)
    if w > 0:
        value += decay.l1
    elif w < 0:
        value -= decay.l1
    return value
