"""AdaDelta: u = g sqrt((E[u^2] + delta) / (E[g^2] + delta));  w -= rate u."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import kernel, prange
from netdef.kernels.fma import fma, product
from netdef.solvers.rule import Rule, Update, gradient, rule


@rule("AdaDelta")
class AdaDelta(Rule):
    """Steps as long as the last ones were: a rule that needs no learning rate.

        h' = momentum h + (1 - momentum) g^2
        u  = g sqrt((s + delta) / (h' + delta))
        s' = momentum s + (1 - momentum) u^2
        w' = w - rate u

        fields   momentum  share of both means that the next ones keep, 0.95 in the paper
                 delta     where the first steps start from; 1e-6 in the paper
        history  h, then s

    Both means start from 0, so the first steps are about ``sqrt(delta)``: with the default of 1e-8,
    meant for other rules, training starts very slowly. The paper has no rate; ``base_lr: 1`` is its
    rule, and Caffe's lr_policy and lr_mult scale it.

    Example::

        net: "models/lenet/train_val.prototxt"
        type: "AdaDelta"
        base_lr: 1.0
        lr_policy: "fixed"
        momentum: 0.95
        delta: 1e-6
        weight_decay: 0.0005
        max_iter: 10000

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701, 2012.
    """

    histories = 2

    def check(self) -> None:
        self.check_share("momentum")
        self.check_delta()

    def update(self, given: Update) -> None:
        keep, delta = self.value("momentum"), self.value("delta")
        take = self.dtype(1) - keep
        h, s = given.history
        _ada_delta(
            given.weight,
            given.gradient,
            h,
            s,
            self.dtype(given.rate),
            keep,
            take,
            delta,
            given.decay,
        )


@kernel
def _ada_delta(
    w: Any, dw: Any, h: Any, s: Any, rate: Any, keep: Any, take: Any, delta: Any, decay: Any
) -> None:
    for i in prange(w.size):
        g = gradient(w[i], dw[i], decay)
        h[i] = fma(take, g * g, keep * h[i])
        u = g * np.sqrt((s[i] + delta) / (h[i] + delta))
        s[i] = fma(take, u * u, keep * s[i])
        step = product(rate, u)
        dw[i] = step
        w[i] -= step
