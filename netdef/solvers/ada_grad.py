"""AdaGrad: h' = h + g^2;  w -= rate g / (sqrt(h') + delta)."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import kernel, prange
from netdef.kernels.fma import product
from netdef.solvers.rule import Rule, Update, gradient, rule


@rule("AdaGrad")
class AdaGrad(Rule):
    """A rate for each weight that falls as its squared gradients add up.

        h' = h + g^2
        w' = w - rate g / (sqrt(h') + delta)

        fields   delta  keeps the division finite
        history  h

    Weights that rarely have a gradient keep a large rate: it was made for sparse inputs. The first
    step is about ``rate`` for every weight, whatever its gradient. As in Caffe, momentum is
    refused.

    Example::

        net: "models/lenet/train_val.prototxt"
        type: "AdaGrad"
        base_lr: 0.01
        lr_policy: "fixed"
        weight_decay: 0.0005
        max_iter: 10000

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 2011.
    """

    def check(self) -> None:
        self.refuse_momentum()
        self.check_delta()

    def update(self, given: Update) -> None:
        _ada_grad(
            given.weight,
            given.gradient,
            given.history[0],
            self.dtype(given.rate),
            self.value("delta"),
            given.decay,
        )


@kernel
def _ada_grad(w: Any, dw: Any, h: Any, rate: Any, delta: Any, decay: Any) -> None:
    for i in prange(w.size):
        g = gradient(w[i], dw[i], decay)
        h[i] += product(g, g)
        step = product(rate, g / (np.sqrt(h[i]) + delta))
        dw[i] = step
        w[i] -= step
