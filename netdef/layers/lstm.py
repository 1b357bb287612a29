"""LSTM: c = cont sigmoid(f) c_prev + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c), step by step."""

from __future__ import annotations

from netdef.blob import Array
from netdef.kernels.recurrent import lstm_unit, lstm_unit_backward
from netdef.layer import register
from netdef.layers.common.recurrent import Recurrent


@register("LSTM", config="recurrent_param")
class LSTM(Recurrent):
    """Long short-term memory: a recurrent layer whose gates decide what its cells keep.

        i, f, o, g = W_xc x[t] + b_c + W_xc_static x_static + W_hc (cont[t] h[t-1])
        c[t] = cont[t] sigmoid(f) c[t-1] + sigmoid(i) tanh(g)
        h[t] = sigmoid(o) tanh(c[t])

        bottom  x         [T, N, ...]: T steps of N sequences side by side
                cont      [T, N]: 0 where a sequence begins, 1 where it goes on
                x_static  optional, [N, ...]: added to every step
                h0, c0    with ``expose_hidden``, [1, N, D]: the state before the first step
        top     h         [T, N, D], where D is ``num_output``
                hT, cT    with ``expose_hidden``, [1, N, D]: the state after the last step
        params  W_xc [4 D, values of x in a step]; b_c [4 D];
                with x_static W_xc_static [4 D, values of x_static]; W_hc [4 D, D]

    Time comes first, not the batch. Where ``cont`` is 0 a sequence begins: nothing of what came
    before counts, be it NaN. A batch may hold the ends and beginnings of many sequences.
    ``cont`` has no gradient: where it comes from a layer that learns, ``propagate_down`` must be
    false for it.

    As in Caffe, a forward pass goes on from the state that the last one of this net left, zero at
    first, unless ``expose_hidden`` brings the state: so sequences may be longer than a batch, in
    which row n goes on where row n of the batch before ended, and gradients end at the batch. Where
    each batch stands for itself, the first row of ``cont`` is 0. Train and test nets each have a
    state of their own. Another N and ``net.layer_dict["lstm1"].reset()`` set it to zero. Snapshots
    do not hold it: training that is resumed begins from zero.

    Fillers treat all gates alike. For cells that remember from the start, set the biases of f:
    ``net.params["lstm1"][1].data[D : 2 * D] = 1``. ``debug_info`` has no effect: there is no net
    inside the layer.

    Example::

        layer {
          name: "lstm1"
          type: "LSTM"
          bottom: "words"  # 20x16x50
          bottom: "cont"   # 20x16
          top: "lstm1"
          recurrent_param {
            num_output: 100
            weight_filler {
              type: "uniform"
              min: -0.08
              max: 0.08
            }
            bias_filler {
              type: "constant"
              value: 0
            }
          }
        }

    Deviations: with ``expose_hidden``, gradients flow from hT and cT back to h0 and c0; Caffe cuts
    them off there without a word. ``propagate_down: false`` cuts off those of h0 and c0. A NaN does
    not outlive a ``cont`` of 0, and a reshaped net may take another number of steps.

    Source: Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; Donahue
    et al., "Long-term recurrent convolutional networks for visual recognition and description",
    CVPR 2015.
    """

    gates = 4
    letter = "c"
    states = ("h", "c")

    def step(self, t: int, cont: Array) -> None:
        (h, c), gates = self.values, self.steps[t]
        lstm_unit(c[t], gates, cont, gates, c[t + 1], h[t + 1])

    def step_backward(self, t: int, cont: Array) -> None:
        dh, dc = self.gradients
        c = self.values[1]
        lstm_unit_backward(c[t], self.steps[t], cont, dc, dh, self.d_steps[t], dc)
