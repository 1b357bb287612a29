"""Convolution: y[m] = sum over c of x[c] * w[m, c] + b[m], over any number of spatial axes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.kernels import convolution as kernels
from netdef.kernels.sums import add_channel_sums
from netdef.layer import MOST_VALUES, Layer, Param, register
from netdef.layers.common import axis_of


@register("Convolution", config="convolution_param")
class Convolution(Layer):
    """Slides ``num_output`` filters over its bottoms.

    bottom  x...  [N..., C, spatial axes...]; ``axis`` is C (1), axes before it are a batch;
                  all of one shape, convolved with the same filters
    top     y...  [N..., num_output, (size + 2 pad - dilation (kernel - 1) - 1) / stride + 1 ...],
                  rounded down
    params  weight [num_output, C / group, kernel...]; bias [num_output]

    With ``group`` g, the i-th of g parts of the outputs sees only the i-th part of the channels.
    It is a cross-correlation, as in every framework: filters are not flipped.
    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998; groups:
    Krizhevsky, Sutskever & Hinton 2012; dilation: Yu & Koltun 2016.
    """

    bottoms = (1, None)
    tops = (1, None)
    same_number = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, c = bottoms[0], self.config
        for i, other in enumerate(bottoms):
            if other != x:
                raise self.error(
                    f"all bottoms must have one shape, but they are {shape_text(x)} and "
                    f"{shape_text(other)}",
                    "bottom",
                    i,
                )
        axis = axis_of(self, x, c.axis, "convolution_param", "axis")
        channels, image = x[axis], x[axis + 1 :]
        if not image:
            raise self.error(f"the bottom {shape_text(x)} has no axes after the channels")
        if channels == 0:
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        if c.num_output == 0:
            raise self.error("num_output must be at least 1", "convolution_param", "num_output")
        if c.group == 0:
            raise self.error("group must be at least 1", "convolution_param", "group")
        for what, count in (("channels of the bottom", channels), ("num_output", c.num_output)):
            if count % c.group:
                raise self.error(
                    f"{count} {what} cannot be divided into {c.group} equal groups",
                    "convolution_param",
                    "group",
                )
        window, stride, pad, dilation = self._extents(len(image))
        output = []
        for i, size in enumerate(image):
            if size == 0:
                raise self.error(
                    f"spatial axis {i} of the bottom {shape_text(x)} has no values", "bottom", 0
                )
            extent = dilation[i] * (window[i] - 1) + 1
            room = size + 2 * pad[i]
            if extent > room:
                raise self.error(
                    f"the kernel spans {extent} but spatial axis {i} of the bottom "
                    f"{shape_text(x)} has {size} + 2 * {pad[i]} = {room}",
                    "convolution_param",
                    "kernel_size",
                )
            output.append((room - extent) // stride[i] + 1)
        padded = [size + 2 * p for size, p in zip(image, pad, strict=True)]
        if channels * math.prod(padded) > MOST_VALUES:
            raise self.error(
                f"a padded image would be {shape_text((channels, *padded))}: "
                "more than 2^31 - 1 values",
                "convolution_param",
                "pad",
            )
        return [(*x[:axis], c.num_output, *output)] * len(bottoms)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        x, c = bottoms[0], self.config
        axis = c.axis % len(x)
        window = self._extents(len(x) - axis - 1)[0]
        yield Param("weight", (c.num_output, x[axis] // c.group, *window), c.weight_filler)
        if c.bias_term:
            yield Param("bias", (c.num_output,), c.bias_filler)

    def _extents(self, axes: int) -> tuple[list[int], list[int], list[int], list[int]]:
        """(kernel, stride, pad, dilation), each per spatial axis."""
        window = self._per_axis("kernel_size", ("kernel_h", "kernel_w"), axes, None, 1)
        stride = self._per_axis("stride", ("stride_h", "stride_w"), axes, 1, 1)
        pad = self._per_axis("pad", ("pad_h", "pad_w"), axes, 0, 0)
        dilation = self._per_axis("dilation", None, axes, 1, 1)
        return window, stride, pad, dilation

    def _per_axis(
        self,
        name: str,
        pair: tuple[str, str] | None,
        axes: int,
        default: int | None,
        least: int,
    ) -> list[int]:
        """A setting per spatial axis, from the repeated field or from its _h and _w forms."""
        c, given = self.config, list(getattr(self.config, name))
        path = ("convolution_param", name)
        if pair and any(c.HasField(p) for p in pair):
            named = " and ".join(pair)
            if given:
                raise self.error(f"give {name}, or {named}, not both", "convolution_param", pair[0])
            if axes != 2:
                raise self.error(
                    f"{named} are for 2 spatial axes, but the bottom has {axes}",
                    "convolution_param",
                    pair[0],
                )
            if default is None and not all(c.HasField(p) for p in pair):
                raise self.error(f"give both {named}", "convolution_param")
            given = [getattr(c, p) if default is None or c.HasField(p) else default for p in pair]
            path = ("convolution_param", pair[0])
        if not given:
            if default is None:
                raise self.error(f"{name} is missing", "convolution_param")
            given = [default]
        if len(given) not in (1, axes):
            raise self.error(
                f"{name} has {len(given)} values for {axes} spatial axes: give 1 or {axes}",
                *path,
                0,
            )
        if any(n < least for n in given):
            raise self.error(f"{name} must be at least {least}", *path)
        return given if len(given) == axes else given * axes

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, c = bottom[0].shape, self.config
        axis = c.axis % len(x)
        self._axis = axis
        self._geometry = kernels.geometry(
            x[axis],
            c.num_output,
            c.group,
            x[axis + 1 :],
            top[0].shape[axis + 1 :],
            *self._extents(len(x) - axis - 1),
        )
        self._no_bias = np.empty(0, self.dtype)

    def _images(self, values: Array) -> Array:
        """The batch axes as one."""
        shape = values.shape
        images: Array = values.reshape(math.prod(shape[: self._axis]), *shape[self._axis :])
        return images

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        weight = self.blobs[0].data
        bias = self.blobs[1].flat if self.config.bias_term else self._no_bias
        for x, y in zip(bottom, top, strict=True):
            kernels.forward(
                self._geometry, self._images(x.data), weight, bias, self._images(y.data)
            )

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        weight = self.blobs[0]
        for x, y in zip(bottom, top, strict=True):
            dy = self._images(y.diff)
            if self.config.bias_term and self.learn[1]:
                planes = dy.reshape(*dy.shape[:2], math.prod(dy.shape[2:]))
                add_channel_sums(planes, self.blobs[1].flat_diff)
            if self.learn[0]:
                kernels.backward_weights(self._geometry, self._images(x.data), dy, weight.diff)
            if x.diff is not None:
                kernels.backward_data(self._geometry, weight.data, dy, self._images(x.diff))
