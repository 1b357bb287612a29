"""Scale: y = x * scale + bias, both repeated over the axes they do not have."""

from __future__ import annotations

from collections.abc import Iterator

from netdef.blob import Array, Blob, Shape
from netdef.kernels.channels import NONE, add_dots, add_sums, affine, scale
from netdef.layer import Layer, Param, register
from netdef.layers.common.arrays import Kept
from netdef.layers.common.axes import aligned, axis_of, learned_axes
from netdef.proto import netdef_pb2 as pb


@register("Scale", config="scale_param")
class Scale(Layer):
    """Multiplies its bottom by an array, learned or a second bottom, repeated over the other axes.

        y[i, j, k] = x[i, j, k] * s[j] + b[j]  with the axes of s as j; b only with ``bias_term``

        bottom  x  any shape
                s  optional: axes of x, from ``axis`` on
        top     y  shape of x; may be x itself
        params  scale [``num_axes`` axes of x, from ``axis`` on], unless it is a second bottom;
                bias [shape of the scale] with ``bias_term``

    A single value (``num_axes: 0``, or a second bottom that is a scalar) applies everywhere.

    Example::

        layer {
          name: "scale1"
          type: "Scale"
          bottom: "conv1"  # 64x20x24x24
          top: "conv1"
          scale_param {
            bias_term: true
          }
        }

    Source: Caffe 1.0.
    """

    bottoms = (1, 2)
    in_place = True
    backward_reads = ("bottom",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        if self.config.bias_term:
            axis_of(self, x, self.config.axis, "scale_param", "axis")
        aligned(self, x, self._scale_shape(*bottoms), "scale_param")
        return [x]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c, shape = self.config, self._scale_shape(*bottoms)
        if len(bottoms) == 1:
            one = pb.FillerParameter(type="constant", value=1)
            yield Param("scale", shape, c.filler if c.HasField("filler") else one)
        if c.bias_term:
            yield Param("bias", shape, c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._scale = bottom[1] if len(bottom) == 2 else self.blobs[0]
        self._view = aligned(self, bottom[0].shape, self._scale.shape, "scale_param")
        self._kept = Kept(bottom[0], top[0], self._moves_scale(bottom))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._kept.keep()
        x, y = (blob.data.reshape(self._view) for blob in (bottom[0], top[0]))
        affine(x, NONE, self.factor, self.bias, False, y)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        dy = top[0].diff.reshape(self._view)
        moves_bias = self.config.bias_term and self.learn[-1]
        bias_diff = self.blobs[-1].flat_diff if moves_bias else None
        if self._moves_scale(bottom):
            if len(bottom) == 2:
                bottom[1].diff.fill(0)
            x = self._kept.flat.reshape(self._view)
            add_dots(dy, x, bias_diff, self._scale.flat_diff)
        elif bias_diff is not None:
            add_sums(dy, bias_diff)
        if bottom[0].diff is not None:
            scale(dy, self._scale.flat, bottom[0].diff.reshape(self._view))

    @property
    def factor(self) -> Array:
        """What it multiplies by, as one axis."""
        return self._scale.flat

    @property
    def bias(self) -> Array:
        """What it then adds, as one axis; NONE without ``bias_term``."""
        return self.blobs[-1].flat if self.config.bias_term else NONE

    def _scale_shape(self, x: Shape, *second: Shape) -> Shape:
        return second[0] if second else learned_axes(self, x, "scale_param")

    def _moves_scale(self, bottom: list[Blob]) -> bool:
        """Whether anybody needs the gradient of the scale."""
        return bottom[1].diff is not None if len(bottom) == 2 else self.learn[0]
