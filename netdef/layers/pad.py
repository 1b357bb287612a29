"""Pad: a margin around the bottom."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.layer import Layer, register


@register("Pad", config="pad_param")
class Pad(Layer):
    """Puts a margin of one value around its bottom.

    y[i] = x[i - before], and ``constant_values`` where that lies outside of x

        bottom  x  any shape
        top     y  [before + size + behind, for each axis]

    ``paddings`` are pairs, one for each axis: how many elements go before it and how many behind.
    It is what netdef makes of a padding that differs from side to side, which Convolution and
    Pooling cannot say.

    Example::

        layer {
          name: "conv1_pad"
          type: "Pad"
          bottom: "data"  # 1x3x224x224
          top: "conv1_pad"
          pad_param {
            paddings: [0, 0, 0, 0, 0, 1, 0, 1]
          }
        }

    Source: Synopsys Caffe; ``tf.pad`` of TensorFlow.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (bottom,) = bottoms
        given = len(self.config.paddings)
        if given != 2 * len(bottom):
            raise self.error(
                f"needs two paddings for each of {len(bottom)} axes, but has {given}",
                "pad_param",
                "paddings",
                max(0, given - 1),
            )
        before, behind = self.config.paddings[::2], self.config.paddings[1::2]
        return [tuple(map(sum, zip(before, bottom, behind, strict=True)))]

    def _inside(self, bottom: Blob) -> tuple[slice, ...]:
        """Where the bottom lies in the top."""
        ends = zip(self.config.paddings[::2], bottom.shape, strict=True)
        return tuple(slice(before, before + size) for before, size in ends)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        top[0].data.fill(self.config.constant_values)
        top[0].data[self._inside(bottom[0])] = bottom[0].data

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            bottom[0].diff[...] = top[0].diff[self._inside(bottom[0])]
