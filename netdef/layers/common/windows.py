"""Windows over images: the options and geometry of pooling and of convolution."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from netdef import rng
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.jit import workspace
from netdef.kernels import convolution, pooling
from netdef.kernels.sums import add_channel_sums
from netdef.layer import Arity, Layer, Param, Work
from netdef.layers.common.arrays import check_counts
from netdef.layers.common.axes import around, axis_of, check_same_shapes
from netdef.proto import netdef_pb2 as pb


def check_images(layer: Layer, x: Shape) -> None:
    """Raise unless a bottom is a batch of images, [N, C, H, W] with at least one pixel."""
    if len(x) != 4:
        raise layer.error(
            f"needs a bottom of 4 axes (N, C, H, W), but it is {shape_text(x)}", "bottom", 0
        )
    if 0 in x[2:]:
        raise layer.error(f"the bottom {shape_text(x)} has an empty image", "bottom", 0)


class Pool:
    """Pools the images of a layer by one method and window, and keeps what the gradient needs."""

    def __init__(
        self,
        layer: Layer,
        method: int,
        window: Sequence[Sequence[int]],
        bottom: Shape,
        top: Shape,
        chosen: Array,
        stream: int = 0,
    ) -> None:
        """``window`` has kernel, stride and pad, each for height and width; images of the shape
        ``bottom`` are pooled to the shape ``top``; ``chosen`` is what ``choices`` says; ``stream``
        tells apart the random numbers of several in one layer."""
        self._layer = layer
        self._method = method
        self._top = top
        self._window = np.array(window, np.int64)
        self._windows = pooling.Windows(self._window, bottom[2:], top[2:], layer.dtype)
        self._stream = np.uint64(stream)
        self._draws = _draws(layer, method)
        self._chooses = self._draws or method == pb.PoolingParameter.MAX
        #: What was chosen from each window.
        self._chosen = chosen

    @staticmethod
    def choices(
        layer: Layer, method: int, window: Sequence[Sequence[int]], bottom: Shape, top: Shape
    ) -> Work:
        """What is kept for the gradient, of images that are pooled from ``bottom`` to ``top``."""
        if not _draws(layer, method) and method != pb.PoolingParameter.MAX:
            return Work((0, 0, 0, 0), np.int32)
        return Work(top, pooling.choice_type(np.array(window, np.int64), bottom[2:]))

    @staticmethod
    def reads(layer: Layer, method: int) -> Collection[str]:
        """What the gradient reads beside that: see ``backward_reads``."""
        expects = method == pb.PoolingParameter.STOCHASTIC and not _draws(layer, method)
        return ("bottom",) if expects else ()

    def forward(self, x: Array, y: Array) -> None:
        """y = x pooled, both [N, C, H, W]."""
        self._check(x, y)
        x, y, chosen = _planes(x), _planes(y), _planes(self._chosen)
        if self._method == pb.PoolingParameter.MAX:
            pooling.maximum(self._windows, x, y, chosen)
        elif self._method == pb.PoolingParameter.AVE:
            pooling.mean(self._windows, x, y)
        elif self._draws:
            key = self._layer.key ^ self._stream
            unit = workspace(y.size, np.float64)[: y.size]
            rng.uniform(key, self._layer.iteration, unit)
            pooling.draw(x, self._window, unit.reshape(y.shape), y, chosen)
        else:
            pooling.expectation(x, self._window, y)

    def backward(self, x: Array, dy: Array, dx: Array, add: bool = False) -> None:
        """dx = the gradient of x from that of y; with ``add`` dx gains it."""
        self._check(x, dy)
        x, dy, dx = _planes(x), _planes(dy), _planes(dx)
        if self._chooses:
            pooling.route(self._windows, dy, _planes(self._chosen), add, dx)
        elif self._method == pb.PoolingParameter.AVE:
            pooling.spread(self._windows, dy, add, dx)
        else:
            pooling.expectation_backward(x, self._window, dy, add, dx)

    def _check(self, x: Array, y: Array) -> None:
        # For other shapes kernels would read and write where nothing is.
        assert (x.shape[2:], y.shape) == (self._windows.image, self._top)

    def places(self, y: Array) -> None:
        """y = where in its image stands what was chosen from each window."""
        pooling.places(self._windows, _planes(self._chosen), _planes(y))


def _draws(layer: Layer, method: int) -> bool:
    return method == pb.PoolingParameter.STOCHASTIC and layer.phase == pb.TRAIN


def _planes(values: Array) -> Array:
    """[N, C, H, W] as [N * C, H, W]."""
    n, c, h, w = values.shape
    planes: Array = values.reshape(n * c, h, w)
    return planes


class Window(NamedTuple):
    """How a window slides along one spatial axis."""

    kernel: int
    stride: int
    pad: int
    dilation: int

    @property
    def extent(self) -> int:
        """From its first tap to its last."""
        return self.dilation * (self.kernel - 1) + 1


class Sliding(Layer):
    """A layer that slides a window over the axes behind the channels: ``convolution_param``."""

    def channel_axis(self, x: Shape) -> int:
        """The axis of the channels, of which there must be one."""
        axis = axis_of(self, x, self.config.axis, "convolution_param", "axis")
        if x[axis] == 0:
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        for i, size in enumerate(x[axis + 1 :]):
            if size == 0:
                raise self.error(
                    f"spatial axis {i} of the bottom {shape_text(x)} has no values", "bottom", 0
                )
        return axis

    def windows(self, axes: int) -> list[Window]:
        """The window along each of so many spatial axes."""
        kernel = self._per_axis("kernel_size", "kernel", axes, None, 1)
        stride = self._per_axis("stride", "stride", axes, 1, 1)
        pad = self._per_axis("pad", "pad", axes, 0, 0)
        dilation = self._per_axis("dilation", None, axes, 1, 1)
        return [Window(*axis) for axis in zip(kernel, stride, pad, dilation, strict=True)]

    def _per_axis(
        self, name: str, stem: str | None, axes: int, default: int | None, least: int
    ) -> list[int]:
        """A setting per spatial axis, from the repeated field or from its _h and _w forms."""
        c, given = self.config, list(getattr(self.config, name))
        path = ("convolution_param", name)
        pair = [f"{stem}_h", f"{stem}_w"] if stem else []
        if any(c.HasField(p) for p in pair):
            named = " and ".join(pair)
            path = ("convolution_param", pair[0])
            if given:
                raise self.error(f"give {name}, or {named}, not both", *path)
            if axes != 2:
                raise self.error(
                    f"{named} are for 2 spatial axes, but the bottom has {axes}", *path
                )
            if default is None and not all(c.HasField(p) for p in pair):
                raise self.error(f"give both {named}", "convolution_param")
            given = [getattr(c, p) if default is None or c.HasField(p) else default for p in pair]
        if not given and axes:
            if default is None:
                raise self.error(f"{name} is missing", "convolution_param")
            given = [default]
        if len(given) not in (1, axes):
            raise self.error(
                f"{name} has {len(given)} values for {axes} spatial axes: "
                "give one for all, or one for each",
                *path,
                0,
            )
        for i, n in enumerate(given):
            if n < least:
                place = self.place(name, i)
                raise self.error(f"{place[1]} is {n}, but must be at least {least}", *place)
        return given if len(given) == axes else given * axes

    def place(self, name: str, axis: int) -> tuple[str | int, ...]:
        """The path of a setting for this spatial axis."""
        given = len(getattr(self.config, name))
        if given:
            return "convolution_param", name, min(axis, given - 1)
        return "convolution_param", f"{name.removesuffix('_size')}_{'w' if axis else 'h'}"

    def slide(self, x: Shape, axis: int) -> list[int]:
        """At how many places the window stands along each spatial axis, as Caffe counts them."""
        counts = []
        for i, w in enumerate(self.windows(len(x) - axis - 1)):
            size = x[axis + 1 + i]
            room = size + 2 * w.pad
            # Caffe's division rounds towards 0: a window that is too wide by less than the stride
            # stands once, and sees zeros beyond the padding.
            if w.extent - room >= w.stride:
                raise self.error(
                    f"the kernel spans {w.extent} but spatial axis {i} of the bottom "
                    f"{shape_text(x)} has {size} + 2 * {w.pad} = {room}",
                    *self.place("kernel_size", i),
                )
            counts.append(max(0, room - w.extent) // w.stride + 1)
        return counts

    def geometry(self, source: Shape, target: Shape, groups: int = 1) -> convolution.Geometry:
        """The geometry of a convolution of one image to another, [C, spatial axes...] each."""
        return convolution.geometry(source[0], target[0], groups, *self._sizes(source, target))

    def _sizes(self, source: Shape, target: Shape) -> list[tuple[int, ...]]:
        """Image, output, kernel, stride, pad and dilation, each per spatial axis."""
        windows = self.windows(len(source) - 1)
        axes = [(*sizes, *w) for *sizes, w in zip(source[1:], target[1:], windows, strict=True)]
        # Without spatial axes an image is one pixel.
        return list(zip(*(axes or [(1, 1, *Window(1, 1, 0, 1))]), strict=True))

    def images(self, values: Array) -> Array:
        """[N..., C, spatial axes...] as [N, C, P]."""
        axis = self.config.axis % values.ndim
        images: Array = values.reshape(around(values.shape, axis))
        return images


T = TypeVar("T")


class FilterBank(Sliding):
    """Convolution or its transpose: ``num_output`` learned filters for each of its bottoms.

    Both are a convolution of one blob to another: ``ends`` says which of bottom and top is which.
    """

    bottoms: Arity = (1, None)
    tops: Arity = (1, None)
    same_number = True
    backward_reads = ("bottom",)

    def ends(self, x: T, y: T) -> tuple[T, T]:
        """(source, target) of the convolution, from what belongs to bottom and top."""
        raise NotImplementedError

    def reach(self, x: Shape, axis: int) -> list[int]:
        """The spatial axes of the top."""
        raise NotImplementedError

    def data_gradient(self, dy: Array, dx: Array) -> None:
        """dx = the gradient of one bottom, from that of its top."""
        raise NotImplementedError

    def outputs(self, channels: int) -> int:
        """How many channels the top has, for a bottom of so many; raises where that cannot be."""
        check_counts(self, "convolution_param", "num_output")
        return int(self.config.num_output)

    def groups(self, channels: int) -> int:
        """In how many groups they are; raises where that cannot be."""
        check_counts(self, "convolution_param", "group")
        return int(self.config.group)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x = bottoms[0]
        check_same_shapes(self, bottoms)
        axis = self.channel_axis(x)
        outputs, groups = self.outputs(x[axis]), self.groups(x[axis])
        for what, count in (("channels of the bottom", x[axis]), ("num_output", outputs)):
            if count % groups:
                raise self.error(
                    f"{count} {what} cannot be divided into {groups} equal groups",
                    "convolution_param",
                    "group",
                )
        y = (outputs, *self.reach(x, axis))
        return [(*x[:axis], *y)] * len(bottoms)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        x, c = bottoms[0], self.config
        axis = c.axis % len(x)
        outputs = self.outputs(x[axis])
        source, target = self.ends(x[axis], outputs)
        kernel = [w.kernel for w in self.windows(len(x) - axis - 1)]
        yield Param("weight", (target, source // self.groups(x[axis]), *kernel), c.weight_filler)
        if c.bias_term:
            yield Param("bias", (outputs,), c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = bottom[0].shape, top[0].shape
        axis = self.config.axis % len(x)
        groups = self.groups(x[axis])
        self._geometry = self.geometry(*self.ends(x[axis:], y[axis:]), groups)
        self._no_bias = np.empty(0, self.dtype)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for x, y in zip(bottom, top, strict=True):
            dy = self.images(y.diff)
            if self.config.bias_term and self.learn[1]:
                add_channel_sums(dy, self.blobs[1].flat_diff)
            if self.learn[0]:
                source, target = self.ends(self.images(x.data), dy)
                convolution.backward_weights(self._geometry, source, target, self.blobs[0].diff)
            if x.diff is not None:
                self.data_gradient(dy, self.images(x.diff))
