"""Nesterov: v' = momentum v + rate g;  w -= (1 + momentum) v' - momentum v."""

from __future__ import annotations

from typing import Any

from netdef.jit import kernel, prange
from netdef.kernels.fma import fma
from netdef.solvers.rule import Rule, Update, gradient, rule


@rule("Nesterov")
class Nesterov(Rule):
    """Nesterov's accelerated gradient: momentum whose gradient is taken where the step will lead.

        v' = momentum v + rate g
        w' = w - ((1 + momentum) v' - momentum v)

        fields   momentum  share of the last step that the next one keeps
        history  v

    The weights kept are those looked ahead, ``momentum v`` beyond the point that moves; so each
    update steps back by ``momentum v``, on by ``v'``, and ahead by ``momentum v'``. Without
    momentum it is SGD.

    Example::

        net: "models/lenet/train_val.prototxt"
        type: "Nesterov"
        base_lr: 0.01
        lr_policy: "fixed"
        momentum: 0.9
        weight_decay: 0.0005
        max_iter: 10000

    Source: Nesterov, "A method of solving a convex programming problem with convergence rate
    O(1/k^2)", Soviet Mathematics Doklady, 1983; Sutskever, Martens, Dahl & Hinton, "On the
    importance of initialization and momentum in deep learning", ICML 2013.
    """

    def update(self, given: Update) -> None:
        momentum = self.value("momentum")
        ahead = self.dtype(1) + momentum
        _nesterov(
            given.weight,
            given.gradient,
            given.history[0],
            self.dtype(given.rate),
            momentum,
            ahead,
            given.decay,
        )


@kernel
def _nesterov(w: Any, dw: Any, v: Any, rate: Any, momentum: Any, ahead: Any, decay: Any) -> None:
    for i in prange(w.size):
        back = -momentum * v[i]
        v[i] = fma(rate, gradient(w[i], dw[i], decay), momentum * v[i])
        step = fma(ahead, v[i], back)
        dw[i] = step
        w[i] -= step
