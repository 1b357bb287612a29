"""DepthwiseConvolution, ConvolutionDepthwise: every channel is convolved by itself."""

from __future__ import annotations

from netdef.blob import Shape
from netdef.layer import register
from netdef.layers.common.windows import check_images
from netdef.layers.convolution import Convolution


@register("DepthwiseConvolution", config="convolution_param")
class DepthwiseConvolution(Convolution):
    """A Convolution with as many groups as channels: no filter sees more than one of them.

        y[m, p] = sum over k of w[m, k] x[m / multiplier, stride p + dilation k - pad] + b[m]

        bottom  x...  [N..., C, spatial axes...], all of one shape
        top     y...  [N..., num_output, (size + 2 pad - dilation (kernel - 1) - 1) / stride + 1,
                      ...], rounded down
        params  weight [num_output, 1, kernel...]; bias [num_output]

    ``num_output`` is a multiple of C, mostly C itself: that is the multiplier. ``group`` may be
    left out; if it is given, it is C. Convolution with that ``group`` gives the same, as fast: the
    type is one of its names in the forks of Caffe.

    Example::

        layer {
          name: "conv2_1/dw"
          type: "DepthwiseConvolution"
          bottom: "conv1"  # 64x32x112x112
          top: "conv2_1/dw"
          convolution_param {
            num_output: 32
            kernel_size: 3
            pad: 1
            group: 32
            bias_term: false
            weight_filler {
              type: "msra"
            }
          }
        }

    Deviations: without ``group`` the fork allocates weights for an ordinary convolution.

    Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
    applications", arXiv, 2017.
    """

    def groups(self, channels: int) -> int:
        c = self.config
        if c.HasField("group") and c.group != channels:
            raise self.error(
                f"group is {c.group}, but a depthwise convolution has one for each of the "
                f"{channels} channels of its bottom",
                "convolution_param",
                "group",
                hint='type: "Convolution" takes any group',
            )
        return channels


@register("ConvolutionDepthwise", config="convolution_param")
class ConvolutionDepthwise(Convolution):
    """A convolution of images that gives every channel one filter of its own.

        y[c, p] = sum over k of w[c, k] x[c, stride p + dilation k - pad] + b[c]

        bottom  x  [N, C, H, W]
        top     y  [N, C, (H + 2 pad - dilation (kernel - 1) - 1) / stride + 1, ...], rounded down
        params  weight [C, 1, kernel, kernel]; bias [C]

    The number of channels says how many filters there are: ``num_output`` and ``group`` are not
    read, as in the fork of Caffe that this type comes from. Convolution with both of them C gives
    the same, as fast.

    Example::

        layer {
          name: "conv2_dw"
          type: "ConvolutionDepthwise"
          bottom: "conv1"  # 64x24x56x56
          top: "conv2_dw"
          convolution_param {
            kernel_size: 3
            pad: 1
            stride: 2
            bias_term: false
            weight_filler {
              type: "msra"
            }
          }
        }

    Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
    applications", arXiv, 2017; BVLC/caffe pull request 5665.
    """

    bottoms = 1
    tops = 1

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_images(self, x)
        if self.config.axis % 4 != 1:
            raise self.error(
                f"axis is {self.config.axis}, but channels are axis 1", "convolution_param", "axis"
            )
        return super().shapes(x)

    def outputs(self, channels: int) -> int:
        return channels

    def groups(self, channels: int) -> int:
        return channels
