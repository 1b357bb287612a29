"""Threshold: y = 1 where x > threshold, 0 elsewhere."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.neuron import Neuron


@register("Threshold", config="threshold_param")
class Threshold(Neuron):
    """Tells which values exceed a limit.

        y = 1  where x > threshold
        y = 0  elsewhere

        bottom  x  any shape
        top     y  shape of x; may be x itself

    It has no gradient, so nothing can learn through it: where a layer before it learns, give it
    ``propagate_down: false``.

    Example::

        layer {
          name: "mask"
          type: "Threshold"
          bottom: "prob"  # 64x10
          top: "mask"
          threshold_param {
            threshold: 0.5
          }
        }

    Source: Caffe 1.0.
    """

    no_gradient = frozenset({0})

    def map(self, x: Array, y: Array) -> None:
        _map(x, self.dtype(self.config.threshold), y)


@kernel
def _map(x: Any, threshold: Any, y: Any) -> None:
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for i in prange(x.size):
        y[i] = one if x[i] > threshold else zero
