"""The contract of an update rule, and the registry of their names.

A rule is one file beside this one: a class that updates one parameter in one pass over its memory.
It gets the gradient as backward left it; scaling and weight decay happen on the way
(``gradient``)::

    g = scale * dw + l2 * w + l1 * sign(w)

where ``scale`` is 1 / iter_size, times the factor of clip_gradients.

The docstring of a rule is its reference page, in Markdown: one sentence; an indented block with the
formula, in which a prime marks what is new; one with the lines ``fields`` (of the solver, beside
those of every rule) and ``history`` (what is kept for each parameter, and saved); remarks;
``Example::`` with a solver; ``Source:``.
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


class Update(NamedTuple):
    """What one update of one parameter is made from.

    All arrays are flat; ``rate`` is the learning rate of this parameter at this ``iteration``.
    """

    weight: Array
    gradient: Array
    history: Sequence[Array]
    rate: float
    decay: Decay
    iteration: int


class Rule:
    """Base class. ``histories``: how many arrays a rule keeps for each parameter, of its shape."""

    type: ClassVar[str]
    histories: ClassVar[int] = 1

    def __init__(
        self, solver: pb.SolverParameter, dtype: Any, positions: Positions | None = None
    ) -> None:
        self.solver = solver
        self.dtype = dtype
        self._positions = positions
        self.check()

    def check(self) -> None:
        """Raise ``self.error(...)`` where the solver's fields make no sense for this rule."""

    def update(self, given: Update) -> None:
        """Change weight and history in place; leave in the gradient what was subtracted."""
        raise NotImplementedError

    def value(self, field: str) -> Any:
        """A field of the solver as a scalar of the net's type."""
        return self.dtype(getattr(self.solver, field))

    def error(self, text: str, field: str, hint: str = "") -> SolverError:
        """An exception that names this rule and points at a field of the solver."""
        return SolverError(
            f'solver type "{self.type}": {text}',
            code="E221",
            location=self._positions.at(field) if self._positions is not None else None,
            hint=hint,
        )

    def refuse_momentum(self) -> None:
        """Raise where momentum is given to a rule that has none."""
        if self.solver.momentum != 0:
            raise self.error(
                f"Momentum cannot be used with {self.type}, but momentum is "
                f"{self.solver.momentum:g}",
                "momentum",
                hint="leave momentum out",
            )

    def check_share(self, field: str) -> None:
        """Raise unless a field is the share of an average that the next one keeps."""
        value = getattr(self.solver, field)
        if not 0 <= value < 1:
            raise self.error(f"{field} should lie between 0 and 1, but is {value:g}", field)

    def check_delta(self) -> None:
        """Raise where delta, which keeps a divisor above 0, would take it below."""
        if not self.solver.delta >= 0:
            raise self.error(f"delta cannot be {self.solver.delta:g}", "delta", hint="such as 1e-8")


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
    """The update rule a solver names. Raises SolverError for an unknown one, or wrong fields."""
    return find(solver, positions)(solver, dtype, positions)


def find(solver: pb.SolverParameter, positions: Positions | None = None) -> type[Rule]:
    """The class of the update rule a solver names. Raises SolverError for an unknown one."""
    known = rules()
    if solver.type not in known:
        raise SolverError(
            f'unknown solver type "{solver.type}"',
            code="E220",
            location=positions.at("type") if positions is not None else None,
            hint=did_you_mean(solver.type, known) or f"known types: {', '.join(known)}",
        )
    return known[solver.type]


@inline
def gradient(w: Any, dw: Any, decay: Any) -> Any:
    """One element of the gradient, scaled and with weight decay."""
    value = fma(decay.l2, w, decay.scale * dw)
    if w > 0:
        value += decay.l1
    elif w < 0:
        value -= decay.l1
    return value
