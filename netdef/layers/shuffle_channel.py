"""ShuffleChannel: the channels of several groups, taken in turn."""

from __future__ import annotations

import math

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.layer import Layer, register
from netdef.layers.common.arrays import check_counts


@register("ShuffleChannel", config="shuffle_channel_param")
class ShuffleChannel(Layer):
    """Mixes the channels of groups: the first of each, then the second of each, and so on.

        y[n, j group + i] = x[n, i C / group + j]

        bottom  x  [N, C, ...], C a multiple of ``group``
        top     y  shape of x

    Between convolutions with groups it lets what one group found reach all groups of the next.

    Example::

        layer {
          name: "shuffle2"
          type: "ShuffleChannel"
          bottom: "conv2"  # 32x240x28x28
          top: "shuffle2"
          shuffle_channel_param {
            group: 3
          }
        }

    Source: Zhang, Zhou, Lin & Sun, "ShuffleNet: an extremely efficient convolutional neural network
    for mobile devices", CVPR 2018.
    """

    backward_reads = ()

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_counts(self, "shuffle_channel_param", "group")
        if len(x) < 2:
            raise self.error(
                f"needs a bottom of at least 2 axes (N, C, ...), but it is {shape_text(x)}",
                "bottom",
                0,
            )
        if x[1] % self.config.group:
            raise self.error(
                f"{x[1]} channels of the bottom cannot be divided into {self.config.group} equal "
                "groups",
                "shuffle_channel_param",
                "group",
            )
        return [x]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = self._in_groups(bottom[0].data), self._in_turn(top[0].data)
        np.copyto(y, x.swapaxes(1, 2))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            dy, dx = self._in_turn(top[0].diff), self._in_groups(bottom[0].diff)
            np.copyto(dx, dy.swapaxes(1, 2))

    def _in_groups(self, values: Array) -> Array:
        """[N, group, channels of a group, pixels]"""
        n, c, *rest = values.shape
        group = self.config.group
        grouped: Array = values.reshape(n, group, c // group, math.prod(rest))
        return grouped

    def _in_turn(self, values: Array) -> Array:
        """[N, channels of a group, group, pixels]"""
        n, c, *rest = values.shape
        group = self.config.group
        shuffled: Array = values.reshape(n, c // group, group, math.prod(rest))
        return shuffled
