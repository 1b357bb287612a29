"""SGD with momentum: v' = momentum v + rate g;  w -= v'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.kernels.fma import fma
from netdef.solvers.rule import Decay, Rule, gradient, rule


@rule("SGD")
class SGD(Rule):
    """Stochastic gradient descent with momentum.

    The learning rate multiplies the gradient before it enters the velocity, so a change of rate
    does not rescale what has gathered. Source: Polyak 1964; Bottou, "Stochastic gradient descent
    tricks", 2012.
    """

    def update(
        self,
        weight: Array,
        gradient: Array,
        history: Sequence[Array],
        rate: float,
        decay: Decay,
        iteration: int,
    ) -> None:
        momentum = self.dtype(self.solver.momentum)
        _sgd(weight, gradient, history[0], self.dtype(rate), momentum, decay)


@kernel
def _sgd(w: Any, dw: Any, v: Any, rate: Any, momentum: Any, decay: Any) -> None:
    for i in prange(w.size):
        v[i] = fma(rate, gradient(w[i], dw[i], decay), momentum * v[i])
        dw[i] = v[i]
        w[i] -= v[i]
