"""RMSProp: h' = rms_decay h + (1 - rms_decay) g^2;  w -= rate g / (sqrt(h') + delta)."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import kernel, prange
from netdef.kernels.fma import fma, product
from netdef.solvers.rule import Rule, Update, gradient, rule


@rule("RMSProp")
class RMSProp(Rule):
    """The gradient over the root of a running mean of its square.

        h' = rms_decay h + (1 - rms_decay) g^2
        w' = w - rate g / (sqrt(h') + delta)

        fields   rms_decay  share of the mean that the next one keeps, in [0, 1)
                 delta      keeps the division finite
        history  h

    The mean starts from 0, uncorrected, so the first steps are up to ``1 / sqrt(1 - rms_decay)``
    times ``rate``: 10 times with the default. As in Caffe, momentum is refused.

    Example::

        net: "models/lenet/train_val.prototxt"
        type: "RMSProp"
        base_lr: 0.001
        lr_policy: "fixed"
        rms_decay: 0.98
        weight_decay: 0.0005
        max_iter: 10000

    Source: Tieleman & Hinton, "RMSProp: divide the gradient by a running average of its recent
    magnitude", Coursera, Neural Networks for Machine Learning, lecture 6.5, 2012.
    """

    def check(self) -> None:
        self.refuse_momentum()
        self.check_share("rms_decay")
        self.check_delta()

    def update(self, given: Update) -> None:
        keep, delta = self.value("rms_decay"), self.value("delta")
        take = self.dtype(1) - keep
        _rms_prop(
            given.weight,
            given.gradient,
            given.history[0],
            self.dtype(given.rate),
            keep,
            take,
            delta,
            given.decay,
        )


@kernel
def _rms_prop(
    w: Any, dw: Any, h: Any, rate: Any, keep: Any, take: Any, delta: Any, decay: Any
) -> None:
    for i in prange(w.size):
        g = gradient(w[i], dw[i], decay)
        h[i] = fma(take, g * g, keep * h[i])
        step = product(rate, g / (np.sqrt(h[i]) + delta))
        dw[i] = step
        w[i] -= step
