"""LSTMUnit: c = cont sigmoid(f) c_prev + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c)."""

from __future__ import annotations

from netdef.blob import Blob, Shape, shape_text
from netdef.kernels.recurrent import lstm_unit, lstm_unit_backward
from netdef.layer import Layer, register
from netdef.layers.common.arrays import scratch


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of LSTM without its weights, for nets that unroll it themselves.

        c = cont sigmoid(f) c_prev + sigmoid(i) tanh(g)
        h = sigmoid(o) tanh(c)

        bottom  c_prev  [1, N, D]
                gates   [1, N, 4 D]: i, f, o and g before their activations
                cont    [1, N]: 0 where a sequence begins, 1 where it goes on
        top     c       [1, N, D]
                h       [1, N, D]

    Where ``cont`` is 0, ``c_prev`` does not count, be it NaN. ``cont`` has no gradient: where it
    comes from a layer that learns, ``propagate_down`` must be false for it.

    Example::

        layer {
          name: "unit1"
          type: "LSTMUnit"
          bottom: "c0"      # 1x3x4
          bottom: "gates1"  # 1x3x16
          bottom: "cont1"   # 1x3
          top: "c1"
          top: "h1"
        }

    Deviations: where ``cont`` is neither 0 nor 1, Caffe on the CPU computes the gradient of f as if
    ``cont`` were inside its sigmoid; this is the true one, which Caffe computes on a GPU. Where
    ``cont`` is 0, a NaN of ``c_prev`` stays one in Caffe.

    Source: Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; Donahue
    et al., "Long-term recurrent convolutional networks for visual recognition and description",
    CVPR 2015.
    """

    bottoms = 3
    tops = 2
    no_gradient = frozenset({2})
    backward_reads = ("bottom",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        c_prev, gates, cont = bottoms
        if len(c_prev) != 3 or c_prev[0] != 1:
            raise self.error(
                f"c_prev must be 1xNxD, the cells of one step, but is {shape_text(c_prev)}",
                "bottom",
                0,
            )
        _, count, size = c_prev
        for i, (name, given, wanted) in enumerate(
            [("gates", gates, (1, count, 4 * size)), ("cont", cont, (1, count))], start=1
        ):
            if given != wanted:
                raise self.error(
                    f"{name} must be {shape_text(wanted)} for a c_prev of {shape_text(c_prev)}, "
                    f"but is {shape_text(given)}",
                    "bottom",
                    i,
                )
        return [c_prev, c_prev]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        c_prev, gates, _ = bottom
        self._opened = scratch(gates.shape[1:], self.dtype)
        # Where one of the two needs no gradient, it is computed all the same, and goes here.
        self._spare = [
            scratch(blob.shape if blob.diff is None else (1, 0, 0), self.dtype)
            for blob in (c_prev, gates)
        ]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        c_prev, gates, cont = (blob.data[0] for blob in bottom)
        lstm_unit(c_prev, gates, cont, self._opened, top[0].data[0], top[1].data[0])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        dc_prev, dgates = (
            (spare if blob.diff is None else blob.diff)[0]
            for blob, spare in zip(bottom[:2], self._spare, strict=True)
        )
        lstm_unit_backward(
            bottom[0].data[0],
            self._opened,
            bottom[2].data[0],
            top[0].diff[0],
            top[1].diff[0],
            dgates,
            dc_prev,
        )
