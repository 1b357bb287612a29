"""Adam: the mean of g over the root of the mean of g^2, both corrected for their start from 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.jit import kernel, prange
from netdef.kernels.fma import fma, product
from netdef.solvers.rule import Rule, Update, gradient, rule


@rule("Adam")
class Adam(Rule):
    """The running mean of the gradient over the root of that of its square.

        m' = momentum m + (1 - momentum) g
        v' = momentum2 v + (1 - momentum2) g^2
        w' = w - rate sqrt(1 - momentum2^t) / (1 - momentum^t) m' / (sqrt(v') + delta)

        fields   momentum   share of m that the next one keeps, 0.9 in the paper
                 momentum2  the same of v, 0.999 in the paper
                 delta      keeps the division finite
        history  m, then v

    ``t`` counts updates from 1. As in Caffe, momentum is 0 unless it is given; delta is added to
    the uncorrected root, the second form in the paper; and weight_decay enters the gradient, so it
    is not the decoupled decay of AdamW.

    Example::

        net: "models/lenet/train_val.prototxt"
        type: "Adam"
        base_lr: 0.001
        lr_policy: "fixed"
        momentum: 0.9
        momentum2: 0.999
        weight_decay: 0.0005
        max_iter: 10000

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    histories = 2

    def check(self) -> None:
        self.check_share("momentum")
        self.check_share("momentum2")
        self.check_delta()

    def update(self, given: Update) -> None:
        keep1, keep2 = self.value("momentum"), self.value("momentum2")
        take1, take2 = self.dtype(1) - keep1, self.dtype(1) - keep2
        # Caffe computes the correction in double, from the shares as the net has them.
        t = given.iteration + 1
        correction = math.sqrt(1 - float(keep2) ** t) / (1 - float(keep1) ** t)
        scale = self.dtype(given.rate) * self.dtype(correction)
        delta = self.value("delta")
        m, v = given.history
        _adam(
            given.weight,
            given.gradient,
            m,
            v,
            scale,
            keep1,
            take1,
            keep2,
            take2,
            delta,
            given.decay,
        )


@kernel
def _adam(
    w: Any,
    dw: Any,
    m: Any,
    v: Any,
    scale: Any,
    keep1: Any,
    take1: Any,
    keep2: Any,
    take2: Any,
    delta: Any,
    decay: Any,
) -> None:
    for i in prange(w.size):
        g = gradient(w[i], dw[i], decay)
        m[i] = fma(take1, g, keep1 * m[i])
        v[i] = fma(take2, g * g, keep2 * v[i])
        step = product(scale, m[i] / (np.sqrt(v[i]) + delta))
        dw[i] = step
        w[i] -= step
