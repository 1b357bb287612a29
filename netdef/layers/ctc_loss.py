"""CtcLoss: -log p(labels | scores), summed over all alignments of labels and steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.jit import inline, kernel, prange
from netdef.layer import Work, register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.labels import read_labels
from netdef.layers.common.loss import Loss


@register("CtcLoss", config="ctc_loss_param")
class CtcLoss(Loss):
    """Connectionist temporal classification: learns to read a sequence whose letters have no place.

        p    = sum over paths that spell the labels of the product of softmax(x[t])[path[t]]
        loss = sum of -log p / N

        bottom  x      [T, N, C], scores of C classes, one of them the blank, in each of T steps
                label  [N, L], or any shape with N first: classes, the blank as padding
        top     loss   scalar

    A path has one class for each step; it spells what is left of it when repeats are taken as one
    and then blanks are dropped. ``blank_label`` may stand anywhere in a label and is left out.
    ``alphabet_size`` and ``time_step`` need not be given; if they are, they are C and T. Labels
    that are too long for T steps have no path; as in warp-ctc they count 0 and have no gradient.

    Example::

        layer {
          name: "loss"
          type: "CtcLoss"
          bottom: "fc1"    # 26x64x37
          bottom: "label"  # 64x10
          top: "loss"
          ctc_loss_param {
            blank_label: 36
            alphabet_size: 37
            time_step: 26
          }
        }

    Deviations: the gradient is that of the loss; the forks do not divide it by N, so there it is
    that of ``loss_weight: N``. ``normalize`` is not read.

    Source: Graves, Fernández, Gomez & Schmidhuber, "Connectionist temporal classification:
    labelling unsegmented sequence data with recurrent neural networks", ICML 2006; warpctc-caffe.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label = bottoms
        c = self.config
        if len(x) != 3 or 0 in x[::2]:
            raise self.error(
                f"needs a bottom of 3 axes (T steps, N sequences, C classes), but it is "
                f"{shape_text(x)}",
                "bottom",
                0,
            )
        for name, size, what in (("time_step", x[0], "steps"), ("alphabet_size", x[2], "classes")):
            if c.HasField(name) and getattr(c, name) != size:
                raise self.error(
                    f"{name} is {getattr(c, name)}, but the bottom {shape_text(x)} has {size} "
                    f"{what}",
                    "ctc_loss_param",
                    name,
                )
        if not 0 <= c.blank_label < x[2]:
            raise self.error(
                f"blank_label is {c.blank_label}, which is not one of the {x[2]} classes 0 to "
                f"{x[2] - 1}",
                "ctc_loss_param",
                "blank_label",
            )
        if not label or label[0] != x[1]:
            raise self.error(
                f"needs labels for each of the {x[1]} sequences of {shape_text(x)}, but they are "
                f"{shape_text(label)}",
                "bottom",
                1,
            )
        return [()]

    def work(self, *bottoms: Shape) -> list[Work]:
        return [Work(bottoms[0])]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        steps, count, _ = bottom[0].shape
        most = math.prod(bottom[1].shape[1:])
        states = 2 * most + 1
        (self._slopes,) = self.work_arrays
        self._labels = scratch((count, most), np.int32)
        self._lengths = scratch((count,), np.int64)
        self._losses = scratch((count,), np.float64)
        self._norms = scratch((count, steps), np.float64)
        self._alpha = scratch((count, steps, states), np.float64)
        self._beta = scratch((count, 2, states), np.float64)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        x, label = bottom
        read_labels(self, label, x.shape[2], None, self._labels.reshape(-1))
        _strip(self._labels, self.config.blank_label, self._lengths)
        _align(
            x.data,
            self._labels,
            self._lengths,
            self.config.blank_label,
            self._norms,
            self._alpha,
            self._beta,
            self._losses,
            self._slopes,
        )
        return float(self._losses.sum()), max(1, x.shape[1])

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        np.multiply(self._slopes, self.dtype(scale), out=bottom[0].diff)


@kernel
def _strip(labels: Any, blank: Any, lengths: Any) -> None:
    """Bring what is no blank to the front of each row; ``lengths`` says how much that is."""
    for n in prange(labels.shape[0]):
        length = 0
        for i in range(labels.shape[1]):
            if labels[n, i] != blank:
                labels[n, length] = labels[n, i]
                length += 1
        lengths[n] = length


@inline
def _plus(a: Any, b: Any) -> Any:
    """log(e^a + e^b)"""
    high = max(a, b)
    if high == -np.inf:
        return high
    return high + np.log1p(np.exp(min(a, b) - high))


@kernel
def _align(
    x: Any,
    labels: Any,
    lengths: Any,
    blank: Any,
    norms: Any,
    alpha: Any,
    beta: Any,
    losses: Any,
    slopes: Any,
) -> None:
    """The loss of each sequence and its gradient, by the forward-backward algorithm on logarithms.

    State s of a sequence of length L is label s // 2 where s is odd and else a blank, s < 2 L + 1.
    alpha[t, s] is the probability of all beginnings that are in s at step t, beta that of all ends
    that follow.
    """
    steps, classes = x.shape[0], x.shape[2]
    none = -np.inf
    for n in prange(x.shape[1]):
        states = 2 * lengths[n] + 1
        label = labels[n]
        for t in range(steps):
            high = np.float64(x[t, n, 0])
            for k in range(1, classes):
                high = max(high, np.float64(x[t, n, k]))
            total = 0.0
            for k in range(classes):
                total += np.exp(np.float64(x[t, n, k]) - high)
            norms[n, t] = high + np.log(total)
        for t in range(steps):
            for s in range(states):
                k = label[s // 2] if s % 2 == 1 else blank
                if t == 0:
                    reach = 0.0 if s < 2 else none
                else:
                    reach = alpha[n, t - 1, s]
                    if s > 0:
                        reach = _plus(reach, alpha[n, t - 1, s - 1])
                    if s > 2 and s % 2 == 1 and k != label[s // 2 - 1]:
                        reach = _plus(reach, alpha[n, t - 1, s - 2])
                alpha[n, t, s] = reach + np.float64(x[t, n, k]) - norms[n, t]
        found = alpha[n, steps - 1, states - 1]
        if states > 1:
            found = _plus(found, alpha[n, steps - 1, states - 2])
        possible = found != none
        losses[n] = -found if possible else 0.0
        for t in range(steps - 1, -1, -1):
            for k in range(classes):
                p = np.exp(np.float64(x[t, n, k]) - norms[n, t])
                slopes[t, n, k] = p if possible else 0.0
            if not possible:
                continue
            for s in range(states):
                if t == steps - 1:
                    rest = 0.0 if s >= states - 2 else none
                else:
                    rest = none
                    for to in range(s, min(s + 3, states)):
                        k = label[to // 2] if to % 2 == 1 else blank
                        # A label is passed over only if it differs from the one before.
                        if to == s + 2 and (s % 2 == 0 or k == label[s // 2]):
                            continue
                        step = beta[n, (t + 1) % 2, to] + np.float64(x[t + 1, n, k])
                        rest = _plus(rest, step - norms[n, t + 1])
                beta[n, t % 2, s] = rest
                k = label[s // 2] if s % 2 == 1 else blank
                slopes[t, n, k] -= np.exp(alpha[n, t, s] + rest - found)
