"""SPP: pooling into 1, 4, 16, ... bins, whatever the size of the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.layer import Layer, register
from netdef.layers.common.arrays import as_rows, check_counts, scratch
from netdef.layers.common.windows import Pool, check_images
from netdef.proto import netdef_pb2 as pb


@register("SPP", config="spp_param")
class SPP(Layer):
    """Spatial pyramid pooling: the same number of values from images of any size.

        level l pools into 2^l x 2^l bins: kernel = stride = size / 2^l, rounded up
                                           pad = (2^l kernel - size) / 2, rounded up

        bottom  x  [N, C, H, W]
        top     y  [N, C (4^pyramid_height - 1) / 3]: level after level, each [C, 2^l, 2^l];
                   with a single level [N, C, 1, 1]

    Levels pool as Pooling does. An image that cannot be divided into so many bins, because some
    would see only padding, is refused, as in Caffe; STOCHASTIC needs levels without padding.

    Example::

        layer {
          name: "spp"
          type: "SPP"
          bottom: "conv5"  # 16x256x13x13
          top: "spp"
          spp_param {
            pyramid_height: 3
          }
        }

    Deviations: in phase TEST, STOCHASTIC gives each bin's mean weighted by value, as Pooling does;
    Caffe goes on drawing there.

    Source: He, Zhang, Ren & Sun, "Spatial pyramid pooling in deep convolutional networks for visual
    recognition", ECCV 2014.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_images(self, x)
        check_counts(self, "spp_param", "pyramid_height")
        height = self.config.pyramid_height
        for level in range(height):
            self._check(x, level)
        if height == 1:
            return [(*x[:2], 1, 1)]
        return [(x[0], sum(x[1] * 4**level for level in range(height)))]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        shapes = [(*x[:2], 2**level, 2**level) for level in range(self.config.pyramid_height)]
        self._pools = [
            Pool(self, self.config.pool, _window(x, shape[2]), x, shape, stream)
            for stream, shape in enumerate(shapes)
        ]
        self._levels = [scratch(shape, self.dtype) for shape in shapes]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for pool, level, part in zip(
            self._pools, self._levels, self._parts(top[0].data), strict=True
        ):
            pool.forward(bottom[0].data, level)
            np.copyto(part, level.reshape(part.shape))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        x = bottom[0]
        if x.diff is None:
            return
        parts = self._parts(top[0].diff)
        for i, (pool, level, part) in enumerate(zip(self._pools, self._levels, parts, strict=True)):
            np.copyto(level.reshape(part.shape), part)
            pool.backward(x.data, level, x.diff, add=i > 0)

    def _parts(self, values: Array) -> Iterator[Array]:
        """Of a top: what belongs to each level, [N, C 4^level]."""
        begin = 0
        for level in self._levels:
            end = begin + as_rows(level, 1).shape[1]
            yield as_rows(values, 1)[:, begin:end]
            begin = end

    def _check(self, x: Shape, level: int) -> None:
        """Raise where an image cannot be divided into the bins of this level."""
        bins = 2**level
        kernel, _, pad = _window(x, bins)
        for size, k, p in zip(x[2:], kernel, pad, strict=True):
            if p >= k:
                raise self.error(
                    f"the bottom {shape_text(x)} cannot be pooled into {bins} x {bins} bins: "
                    f"{size} pixels need a kernel of {k} and pad {p}, so a bin would see only "
                    "padding",
                    "spp_param",
                    "pyramid_height",
                    hint=f"at most {level} levels fit",
                )
        if self.config.pool == pb.SPPParameter.STOCHASTIC and any(pad):
            raise self.error(
                f"STOCHASTIC pooling goes without padding, but to pool {shape_text(x)} into {bins} "
                f"x {bins} bins takes pad {pad[0]} and {pad[1]}",
                "spp_param",
                "pool",
            )


def _window(x: Shape, bins: int) -> tuple[list[int], list[int], list[int]]:
    """(kernel, stride, pad), each for height and width, that cover an image with so many bins."""
    kernel = [-(-size // bins) for size in x[2:]]
    pad = [(k * bins - size + 1) // 2 for size, k in zip(x[2:], kernel, strict=True)]
    return kernel, kernel, pad
