"""Pooling: the maximum, the mean or one drawn value of each window."""

from __future__ import annotations

from netdef.blob import Blob, Shape, shape_text
from netdef.layer import Layer, register
from netdef.layers.common.windows import Pool, check_images
from netdef.proto import netdef_pb2 as pb


@register("Pooling", config="pooling_param")
class Pooling(Layer):
    """Takes the maximum, the mean or one drawn value of each window of each channel.

        MAX         y = max of x
        AVE         y = sum of x / pixels of the window
        STOCHASTIC  TRAIN: y = one x, drawn with probability x / sum of x
                    TEST: y = sum of x^2 / sum of x, its mean

        bottom  x     [N, C, H, W]
        top     y     [N, C, (H + 2 pad - kernel) / stride + 1, ...], rounded up; FLOOR rounds down
                mask  optional, only for MAX: where each maximum is, H and W counted as one axis

    As in Caffe: where there is any padding, a last window that would begin beyond the image is left
    out; MAX looks only at what is inside the image, takes the first of equal values and passes over
    NaN; AVE divides by the part of its window that is inside the padded image, counting padding as
    0. ``global_pooling`` takes one window over the whole image. Without padding, a stride beyond
    the kernel can put the last window outside: its maximum is then the lowest float32, with index
    -1 and no gradient.

    STOCHASTIC is for values that are not negative, as behind ReLU, and goes without padding. Where
    all values of a window are 0 it gives 0. What is drawn is a function of the seed, the layer's
    name, the iteration and the index.

    Example::

        layer {
          name: "pool1"
          type: "Pooling"
          bottom: "conv1"  # 64x20x24x24
          top: "pool1"
          pooling_param {
            pool: MAX
            kernel_size: 2
            stride: 2
          }
        }

    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE, 1998; STOCHASTIC: Zeiler & Fergus, "Stochastic pooling
    for regularization of deep convolutional neural networks", ICLR 2013.
    """

    tops = (1, 2)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        check_images(self, x)
        if len(self.message.top) == 2 and self.config.pool != pb.PoolingParameter.MAX:
            raise self.error("only MAX pooling has a second top, the mask", "top", 1)
        window, stride, pad = self._window(x)
        output = []
        for i, (size, k, s, p) in enumerate(zip(x[2:], window, stride, pad, strict=True)):
            count = pooled(size, k, s, p, any(pad), self._rounds_up)
            # Rounding up leaves one window to a kernel that is too wide by less than the stride.
            if count < 1:
                raise self.error(
                    f"the kernel is {k} wide, but the bottom {shape_text(x)} has only "
                    f"{size} + 2 * {p} = {size + 2 * p}",
                    *self._place("kernel_size", i),
                )
            output.append(count)
        return [(*x[:2], *output)] * len(self.message.top)

    @property
    def _rounds_up(self) -> bool:
        return bool(self.config.round_mode == pb.PoolingParameter.CEIL)

    def _window(self, x: Shape) -> tuple[list[int], list[int], list[int]]:
        """(kernel, stride, pad), each for height and width."""
        c = self.config
        pad = self._pair("pad", 0)
        stride = self._pair("stride", 1)
        if c.global_pooling:
            for name in ("kernel_size", "kernel_h", "kernel_w"):
                if c.HasField(name):
                    raise self.error(
                        f"global_pooling takes the whole image: no {name}", "pooling_param", name
                    )
            if pad != [0, 0] or stride != [1, 1]:
                raise self.error("global_pooling goes with pad 0 and stride 1", "pooling_param")
            return [x[2], x[3]], stride, pad
        window = self._pair("kernel_size", None)
        for i, (k, s, p) in enumerate(zip(window, stride, pad, strict=True)):
            for name, given in (("kernel_size", k), ("stride", s)):
                if given < 1:
                    place = self._place(name, i)
                    raise self.error(f"{place[1]} is {given}, but must be at least 1", *place)
            if p and c.pool == pb.PoolingParameter.STOCHASTIC:
                raise self.error(
                    "only MAX and AVE pooling have padding, STOCHASTIC has none",
                    *self._place("pad", i),
                )
            if p >= k:
                raise self.error(
                    f"pad {p} must be less than the kernel, {k}: a window would see only padding",
                    *self._place("pad", i),
                )
        return window, stride, pad

    def _place(self, name: str, axis: int) -> tuple[str, str]:
        """The path of a setting for height or width."""
        single = self.config.HasField(name)
        return "pooling_param", name if single else f"{name.removesuffix('_size')}_{'hw'[axis]}"

    def _pair(self, name: str, default: int | None) -> list[int]:
        """A setting for height and width, from one field or from its _h and _w forms."""
        c, stem = self.config, name.removesuffix("_size")
        pair = [f"{stem}_h", f"{stem}_w"]
        given = [c.HasField(field) for field in pair]
        if c.HasField(name) and any(given):
            raise self.error(
                f"give {name}, or {' and '.join(pair)}, not both", "pooling_param", name
            )
        if any(given) and not all(given):
            raise self.error(f"give both {' and '.join(pair)}", "pooling_param")
        if all(given):
            return [getattr(c, field) for field in pair]
        if not c.HasField(name) and default is None:
            raise self.error(
                f"{name} is missing", "pooling_param", hint="or say global_pooling: true"
            )
        return [getattr(c, name)] * 2

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        window = self._window(bottom[0].shape)
        self._pool = Pool(self, self.config.pool, window, bottom[0].shape, top[0].shape)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        self._pool.forward(bottom[0].data, top[0].data)
        if len(top) == 2:
            self._pool.places(top[1].data)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            self._pool.backward(bottom[0].data, top[0].diff, bottom[0].diff)


def pooled(size: int, kernel: int, stride: int, pad: int, clip: bool, up: bool) -> int:
    """The number of windows along an axis; ``clip`` where any axis of the layer is padded."""
    room = size + 2 * pad - kernel
    count = (-(-room // stride) if up else room // stride) + 1
    return count - 1 if clip and (count - 1) * stride >= size + pad else count
