"""SGD with momentum: v' = momentum v + rate g;  w -= v'."""

from __future__ import annotations

from typing import Any

from netdef.jit import kernel, prange
from netdef.kernels.fma import fma
from netdef.solvers.rule import Rule, Update, gradient, rule


@rule("SGD")
class SGD(Rule):
    """Stochastic gradient descent with momentum.

        v' = momentum v + rate g
        w' = w - v'

        fields   momentum  share of the last step that the next one keeps
        history  v

    The learning rate multiplies the gradient before it enters the velocity, so a change of rate
    does not rescale what has gathered.

    Example::

        net: "models/lenet/train_val.prototxt"
        type: "SGD"
        base_lr: 0.01
        lr_policy: "fixed"
        momentum: 0.9
        weight_decay: 0.0005
        max_iter: 10000

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
    Computational Mathematics and Mathematical Physics, 1964; Bottou, "Stochastic gradient descent
    tricks", 2012.
    """

    def update(self, given: Update) -> None:
        momentum = self.value("momentum")
        _sgd(
            given.weight,
            given.gradient,
            given.history[0],
            self.dtype(given.rate),
            momentum,
            given.decay,
        )


@kernel
def _sgd(w: Any, dw: Any, v: Any, rate: Any, momentum: Any, decay: Any) -> None:
    for i in prange(w.size):
        v[i] = fma(rate, gradient(w[i], dw[i], decay), momentum * v[i])
        dw[i] = v[i]
        w[i] -= v[i]
