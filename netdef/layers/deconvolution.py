"""Deconvolution: the transpose of Convolution, which makes images larger."""

from __future__ import annotations

from typing import Any

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import kernel, prange
from netdef.kernels import convolution as kernels
from netdef.layer import register
from netdef.layers.common.windows import FilterBank, T


@register("Deconvolution", config="convolution_param")
class Deconvolution(FilterBank):
    """Adds up learned filters, placed ``stride`` apart and scaled by the bottom.

        y[m, q] = sum over c, p, k with q = stride p + dilation k - pad of w[c, m, k] x[c, p] + b[m]

        bottom  x...  [N..., C, spatial axes...], all of one shape
        top     y...  [N..., num_output, stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad, ...]
        params  weight [C, num_output / group, kernel...]; bias [num_output]

    Its forward pass is the gradient of Convolution with respect to the bottom, and the other way
    round. Options mean what they mean there: ``stride`` is the factor by which it enlarges, and
    ``pad`` cuts off its top what Convolution would have added to its bottom.

    To enlarge by a factor f with bilinear interpolation: kernel_size 2 f - f % 2, stride f, pad
    (f - 1) / 2 rounded up, num_output and group C, bias_term false, weight_filler "bilinear", and
    lr_mult 0 if it is not to learn.

    Example::

        layer {
          name: "upscore"
          type: "Deconvolution"
          bottom: "score"  # 1x21x16x16
          top: "upscore"
          param {
            lr_mult: 0
          }
          convolution_param {
            num_output: 21
            group: 21
            kernel_size: 4
            stride: 2
            pad: 1
            bias_term: false
            weight_filler {
              type: "bilinear"
            }
          }
        }

    Source: Zeiler, Krishnan, Taylor & Fergus, "Deconvolutional networks", CVPR 2010; Long,
    Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015.
    """

    def ends(self, x: T, y: T) -> tuple[T, T]:
        return y, x

    def reach(self, x: Shape, axis: int) -> list[int]:
        sizes = []
        for i, w in enumerate(self.windows(len(x) - axis - 1)):
            size = x[axis + 1 + i]
            whole = w.stride * (size - 1) + w.extent
            if whole <= 2 * w.pad:
                raise self.error(
                    f"nothing is left of spatial axis {i}: the bottom {shape_text(x)} makes "
                    f"{w.stride} * ({size} - 1) + {w.extent} = {whole}, and pad {w.pad} cuts off "
                    f"{2 * w.pad}",
                    *self.place("pad", i),
                )
            sizes.append(whole - 2 * w.pad)
        return sizes

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for x, y in zip(bottom, top, strict=True):
            images = self.images(y.data)
            kernels.backward_data(self._geometry, self.blobs[0].data, self.images(x.data), images)
            if self.config.bias_term:
                _add_bias(self.blobs[1].flat, images)

    def data_gradient(self, dy: Array, dx: Array) -> None:
        kernels.forward(self._geometry, dy, self.blobs[0].data, self._no_bias, dx)


@kernel
def _add_bias(bias: Any, y: Any) -> None:
    for job in prange(y.shape[0] * y.shape[1]):
        n = job // y.shape[1]
        m = job % y.shape[1]
        for p in range(y.shape[2]):
            y[n, m, p] += bias[m]
