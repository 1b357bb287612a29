"""Convolution: y[m] = sum over c of x[c] * w[m, c] + b[m], over any number of spatial axes."""

from __future__ import annotations

from netdef.blob import Array, Blob, Shape
from netdef.kernels import convolution as kernels
from netdef.layer import register
from netdef.layers.common.windows import FilterBank, T


@register("Convolution", config="convolution_param")
class Convolution(FilterBank):
    """Slides ``num_output`` learned filters over its bottoms.

        y[m, p] = sum over c, k of w[m, c, k] x[c, stride p + dilation k - pad] + b[m]

        bottom  x...  [N..., C, spatial axes...], all of one shape
        top     y...  [N..., num_output, (size + 2 pad - dilation (kernel - 1) - 1) / stride + 1,
                      ...], rounded down
        params  weight [num_output, C / group, kernel...]; bias [num_output]

    ``axis`` is that of C; p and k run over the axes behind it, as many as there are, and those
    before it are a batch. All bottoms meet the same filters. With ``group`` g, the i-th of g parts
    of the outputs sees only the i-th part of the channels. It is a cross-correlation, as in every
    framework: filters are not flipped.

    As in Caffe, a kernel that is wider than the padded bottom by less than the stride stands once,
    and sees zeros behind the padding; and a bottom without spatial axes is a single pixel.

    Kernels of 3 x 3 and 5 x 5 that move by one, between 24 channels or more, are computed by
    Winograd's filtering: values differ from those of the plain sum by some 1e-6 of the largest with
    kernels of 3 x 3, some 5e-6 with 5 x 5, and an infinity or NaN in the bottom makes NaN of all
    outputs of the tiles, of 4 x 4, that see it.

    Example::

        layer {
          name: "conv2"
          type: "Convolution"
          bottom: "norm1"  # 16x96x27x27
          top: "conv2"
          convolution_param {
            num_output: 256
            kernel_size: 5
            pad: 2
            group: 2
            weight_filler {
              type: "msra"
            }
          }
        }

    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE, 1998; groups: Krizhevsky, Sutskever & Hinton, "ImageNet
    classification with deep convolutional neural networks", NIPS 2012; dilation: Yu & Koltun,
    "Multi-scale context aggregation by dilated convolutions", ICLR 2016.
    """

    def ends(self, x: T, y: T) -> tuple[T, T]:
        return x, y

    def reach(self, x: Shape, axis: int) -> list[int]:
        return self.slide(x, axis)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for x, y in zip(bottom, top, strict=True):
            self.convolve(x.data, self.bias, y.data)

    @property
    def bias(self) -> Array:
        """What is added to each output channel, [num_output], or [0] for nothing."""
        return self.blobs[1].flat if self.config.bias_term else self._no_bias

    def convolve(
        self,
        x: Array,
        bias: Array,
        y: Array,
        scale: Array | None = None,
        addend: Array | None = None,
        rectify: bool = False,
    ) -> None:
        """y = the convolution of x; then, as far as given, times ``scale``, plus ``bias``, plus
        ``addend``, and 0 where that is negative."""
        weight, images = self.blobs[0].data, self.images
        more = None if addend is None else images(addend)
        kernels.forward(self._geometry, images(x), weight, bias, images(y), scale, more, rectify)

    def data_gradient(self, dy: Array, dx: Array) -> None:
        kernels.backward_data(self._geometry, self.blobs[0].data, dy, dx)
