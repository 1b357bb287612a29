"""ContinuationIndicator: 0 in the first step of each sequence, 1 in all others."""

from __future__ import annotations

from netdef.blob import Blob, Shape, shape_text
from netdef.layer import Layer, register
from netdef.layers.common.arrays import check_counts


@register("ContinuationIndicator", config="continuation_indicator_param")
class ContinuationIndicator(Layer):
    """Makes the second bottom of LSTM and RNN for a batch of whole sequences.

        cont[t, n] = 0 where t = 0, 1 elsewhere

        bottom  x     optional: [T, N, ...], whose values do not matter
        top     cont  [T, N], ``time_step`` steps of ``batch_size`` sequences, or those of x

    Example::

        layer {
          name: "indicator"
          type: "ContinuationIndicator"
          top: "cont"
          continuation_indicator_param {
            time_step: 26
            batch_size: 64
          }
        }

    Source: warpctc-caffe.
    """

    bottoms = (0, 1)
    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        stated = [name for name in ("time_step", "batch_size") if self.config.HasField(name)]
        if stated or not bottoms:
            check_counts(self, "continuation_indicator_param", "time_step", "batch_size")
            return [(self.config.time_step, self.config.batch_size)]
        (x,) = bottoms
        if len(x) < 2:
            raise self.error(
                f"needs a bottom of at least 2 axes (T steps, N sequences), but it is "
                f"{shape_text(x)}",
                "bottom",
                0,
            )
        return [x[:2]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        top[0].data.fill(1)
        top[0].data[:1] = 0

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for blob in bottom:
            if blob.diff is not None:
                blob.diff.fill(0)
