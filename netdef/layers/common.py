"""What several layers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from netdef import rng
from netdef.blob import Array, Blob, Shape, shape_text
from netdef.data.batches import Batch, Reader
from netdef.data.prefetch import Prefetch
from netdef.data.source import RecordError
from netdef.errors import DataError, NetdefError
from netdef.events import DataWrapped, Warned
from netdef.jit import alone, inline, kernel, prange
from netdef.kernels import convolution, pooling
from netdef.kernels.elementwise import add
from netdef.kernels.gemm import Packed, gemm
from netdef.kernels.recurrent import add_to_steps, carry, fill_rows, sum_steps
from netdef.kernels.softmax import softmax
from netdef.kernels.sums import add_channel_sums, add_column_sums
from netdef.layer import MOST_VALUES, Arity, Layer, Param
from netdef.proto import netdef_pb2 as pb


class Neuron(Layer):
    """A layer that maps each value by itself: one bottom, one top of its shape, in place if asked.

    A subclass gives ``map`` and ``chain``, mostly one kernel each.
    """

    in_place = True
    #: Whether the gradient is computed from x; working in place, forward then keeps a copy of it.
    reads_bottom = False

    _kept: Array | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [bottoms[0]]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        needed = self.reads_bottom and (bottom[0].diff is not None or any(self.learn))
        keep = needed and top[0].data is bottom[0].data
        self._kept = scratch((bottom[0].count,), self.dtype) if keep else None

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._kept is not None:
            np.copyto(self._kept, bottom[0].flat)
        self.map(bottom[0].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        self.chain(self.before(bottom), top[0].flat, top[0].flat_diff, bottom[0].flat_diff)

    def before(self, bottom: list[Blob]) -> Array:
        """x as it was before forward, flat; kept where y overwrote it and the layer reads it."""
        return bottom[0].flat if self._kept is None else self._kept

    def map(self, x: Array, y: Array) -> None:
        """y = f(x), on flat arrays; ``y`` may be ``x``."""
        raise NotImplementedError

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy f'(x), on flat arrays; ``dx`` may be ``dy``, and unless the layer
        ``reads_bottom``, ``x`` may be ``y``."""
        raise NotImplementedError


class View(Layer):
    """A layer whose top holds the values of its bottom, in their order, under another shape."""

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].flat, bottom[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is not None:
            np.copyto(bottom[0].flat_diff, top[0].flat_diff)


#: Products of one step of a recurrent layer, fewer than which are not worth a second thread.
FEW = 1 << 18


class Recurrent(Layer):
    """A layer that goes through sequences step by step: what it is given, kept and learned.

    What does not depend on the last step, the products with x and with x_static, is computed for
    all steps at once, and so are all gradients of parameters. A subclass gives ``step`` and
    ``step_backward``, and says what its top is in ``output`` and ``output_backward``.
    """

    no_gradient = frozenset({1})
    #: How many values a step computes for each unit: rows of a weight.
    gates: ClassVar[int] = 1
    #: What Caffe calls the sum they are computed from, in the names of parameters.
    letter: ClassVar[str] = "h"
    #: What goes on from step to step; the first is what W_h is multiplied by.
    states: ClassVar[tuple[str, ...]] = ("h",)

    #: The states, each [T + 1, N, D]; row t is that before step t.
    values: Array
    #: Their gradients, each [N, D], of the step that backward has come to.
    gradients: Array
    #: For each step the sums that it computes from, and then what it keeps: [T, N, gates * D].
    steps: Array
    #: The gradients of those sums.
    d_steps: Array

    def __init__(self, message: pb.LayerParameter, *more: Any) -> None:
        super().__init__(message, *more)
        self._exposed = len(self.states) if self.config.expose_hidden else 0
        self._has_static = len(message.bottom) > 2 + self._exposed
        self.bottoms = 2 + self._exposed, 3 + self._exposed
        self.tops = 1 + self._exposed
        self.values = np.zeros((len(self.states), 1, 0, 0))

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, cont = bottoms[:2]
        size = self.config.num_output
        if size == 0:
            raise self.error("num_output must be at least 1", "recurrent_param", "num_output")
        if len(x) < 3:
            raise self.error(
                f"needs a bottom of at least 3 axes (T steps, N sequences, values), but it is "
                f"{shape_text(x)}",
                "bottom",
                0,
            )
        steps, count = x[:2]
        if steps == 0:
            raise self.error(f"the bottom {shape_text(x)} has no steps", "bottom", 0)
        self._check_values(x[2:], x, 0)
        if cont != (steps, count):
            raise self.error(
                f"cont must be {steps}x{count} (T x N) for an x of {shape_text(x)}, but is "
                f"{shape_text(cont)}",
                "bottom",
                1,
                hint="one value for each step of each sequence: 0 where it begins, else 1",
            )
        if self._has_static:
            self._check_static(bottoms[2], count)
        state = (1, count, size)
        for name, i in zip(self.states, self._initial, strict=False):
            if bottoms[i] != state:
                raise self.error(
                    f"{name}0 must be {shape_text(state)} (1, N, num_output), but is "
                    f"{shape_text(bottoms[i])}",
                    "bottom",
                    i,
                )
        if steps * count * self.gates * size > MOST_VALUES:
            raise self.error(
                f"its gates would be {steps}x{count}x{self.gates * size}: more than 2^31 - 1 values"
            )
        return [(steps, count, size), *[state] * self._exposed]

    def _check_static(self, static: Shape, count: int) -> None:
        if len(static) < 2 or static[0] != count:
            raise self.error(
                f"x_static must be {count}x... (N, values), but is {shape_text(static)}",
                "bottom",
                2,
                hint="" if self._exposed else "initial states need  expose_hidden: true",
            )
        self._check_values(static[1:], static, 2)

    def _check_values(self, values: Shape, given: Shape, bottom: int) -> None:
        if math.prod(values) == 0:
            raise self.error(
                f"the bottom {shape_text(given)} has no values to multiply", "bottom", bottom
            )

    @property
    def _initial(self) -> range:
        """The bottoms with the initial states."""
        first = 3 if self._has_static else 2
        return range(first, first + self._exposed)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c = self.config
        rows, letter = self.gates * c.num_output, self.letter
        yield Param(f"W_x{letter}", (rows, math.prod(bottoms[0][2:])), c.weight_filler)
        yield Param(f"b_{letter}", (rows,), c.bias_filler)
        if self._has_static:
            shape = (rows, math.prod(bottoms[2][1:]))
            yield Param(f"W_x{letter}_static", shape, c.weight_filler)
        yield Param(f"W_h{letter}", (rows, c.num_output), c.weight_filler)

    @property
    def _hidden(self) -> int:
        """The index of W_h."""
        return 3 if self._has_static else 2

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        steps, count, size = top[0].shape
        rows = self.gates * size
        self.steps = scratch((steps, count, rows), self.dtype)
        self.d_steps = scratch((steps, count, rows), self.dtype)
        self.gradients = scratch((len(self.states), count, size), self.dtype)
        # What of h reaches each step: cont[t] h[t - 1].
        self._carried = scratch((steps, count, size), self.dtype)
        # The weight that every step is multiplied by, and for backward its transpose.
        self._weight = Packed(size, rows, self.dtype)
        self._transpose = Packed(rows, size, self.dtype)
        self._static = scratch((count if self._has_static else 0, rows), self.dtype)
        values = np.zeros((len(self.states), steps + 1, count, size), self.dtype)
        if self.values.shape[2:] == (count, size):
            values[:, -1] = self.values[:, -1]
        self.values = values

    def reset(self) -> None:
        """Let the next forward pass begin from a state of zeros."""
        self.values.fill(0)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, cont, steps = bottom[0].data, bottom[1].data, self.steps
        weight, bias = self.blobs[:2]
        fill_rows(bias.flat, _rows(steps))
        gemm(_rows(x), weight.data, _rows(steps), transpose_b=True, accumulate=True)
        if self._has_static:
            static = bottom[2].data
            gemm(_lines(static), self.blobs[2].data, self._static, transpose_b=True)
            add_to_steps(self._static, steps)

        self.values[:, 0] = self.values[:, -1]
        for value, i in zip(self.values, self._initial, strict=False):
            np.copyto(value[0], bottom[i].data[0])
        with alone(self._is_small):
            self._weight.pack(self.blobs[self._hidden].data, transpose_b=True)
            for t in range(len(steps)):
                carry(self.values[0][t], cont[t], self._carried[t])
                self._weight.multiply(self._carried[t], steps[t], accumulate=True)
                self.step(t, cont[t])
        self.output(top[0])
        for value, blob in zip(self.values, top[1:], strict=False):
            np.copyto(blob.data[0], value[-1])

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        cont, hidden = bottom[1].data, self.blobs[self._hidden]
        dy = self.output_backward(top[0])
        # The next batch may go on from the last state, but sends no gradient back to it.
        self.gradients.fill(0)
        for gradient, blob in zip(self.gradients, top[1:], strict=False):
            np.copyto(gradient, blob.diff[0])
        dh = self.gradients[0]
        with alone(self._is_small):
            self._transpose.pack(hidden.data)
            for t in reversed(range(len(self.steps))):
                add(dy[t].reshape(-1), dh.reshape(-1))
                self.step_backward(t, cont[t])
                self._transpose.multiply(self.d_steps[t], dh)
                carry(dh, cont[t], dh)
        for gradient, i in zip(self.gradients, self._initial, strict=False):
            if bottom[i].diff is not None:
                np.copyto(bottom[i].diff[0], gradient)

        x, d_steps = bottom[0], _rows(self.d_steps)
        if self.learn[0]:
            gemm(d_steps, _rows(x.data), self.blobs[0].diff, transpose_a=True, accumulate=True)
        if self.learn[1]:
            add_column_sums(d_steps, self.blobs[1].flat_diff)
        if self.learn[self._hidden]:
            gemm(d_steps, _rows(self._carried), hidden.diff, transpose_a=True, accumulate=True)
        if x.diff is not None:
            gemm(d_steps, self.blobs[0].data, _rows(x.diff))
        if self._has_static:
            self._backward_static(bottom[2])

    @property
    def _is_small(self) -> bool:
        _, count, rows = self.steps.shape
        return bool(count * rows * rows // self.gates < FEW)

    def _backward_static(self, static: Blob) -> None:
        sum_steps(self.d_steps, self._static)
        weight = self.blobs[2]
        if self.learn[2]:
            gemm(self._static, _lines(static.data), weight.diff, transpose_a=True, accumulate=True)
        if static.diff is not None:
            gemm(self._static, weight.data, _lines(static.diff))

    def step(self, t: int, cont: Array) -> None:
        """From ``steps[t]`` and ``values[:, t]`` compute ``values[:, t + 1]``."""
        raise NotImplementedError

    def step_backward(self, t: int, cont: Array) -> None:
        """Compute ``d_steps[t]`` from ``gradients``, which are with respect to the states after
        step t; those of all states but the first are then to be with respect to those before."""
        raise NotImplementedError

    def output(self, top: Blob) -> None:
        """Compute the first top: h itself, unless overridden."""
        np.copyto(top.data, self.values[0][1:])

    def output_backward(self, top: Blob) -> Array:
        """The gradient that the first top sends to h, [T, N, D]."""
        gradient: Array = top.diff
        return gradient


def _lines(values: Array) -> Array:
    """[N, ...] as [N, values]."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _rows(values: Array) -> Array:
    """[T, N, ...] as [T * N, values]."""
    steps, count = values.shape[:2]
    return values.reshape(steps * count, math.prod(values.shape[2:]))


class Loss(Layer):
    """A layer whose first top is one number: a sum over the batch, divided by a normalizer.

    Bottom 1 is what is wanted of bottom 0, and has no gradient. A subclass gives ``measure`` and
    ``chain``.
    """

    bottoms: Arity = 2
    no_gradient = frozenset({1})
    loss = True

    _normalizer = 1.0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        total, self._normalizer = self.measure(bottom)
        set_scalar(top[0], total / self._normalizer)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        scale = top[0].diff.item() / self._normalizer
        for index, blob in enumerate(bottom):
            if blob.diff is not None:
                self.chain(bottom, index, scale)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        """The sum, and what it is divided by."""
        raise NotImplementedError

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        """bottom[index].diff = scale * the gradient of the sum."""
        raise NotImplementedError


class LabelLoss(Loss):
    """The sum of the losses of predictions: each has a score for every class, and one label.

    All axes but the first hold the scores of a prediction; the sum is divided by the batch. A
    subclass gives ``losses`` and ``slopes``, mostly one kernel each; both see the scores as
    [outer, classes, inner] and for each prediction its class, or IGNORED.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        x, label, *_ = bottoms
        check_batch(self, x)
        check_labels(self, x, label, *self.class_axes(x))
        return [()]

    def class_axes(self, x: Shape) -> tuple[int, int]:
        """The first axis of the scores, and the one after the last."""
        return 1, len(x)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x = bottom[0].shape
        self._view = outer, _, inner = around(x, *self.class_axes(x))
        self._labels = scratch((outer * inner,), np.int32)
        self._losses = scratch((outer * inner,), np.float64)

    def scores(self, bottom: list[Blob]) -> Array:
        """What ``losses`` and ``slopes`` are given as scores."""
        return bottom[0].data.reshape(self._view)

    def measure(self, bottom: list[Blob]) -> tuple[float, float]:
        outer, classes, inner = self._view
        loss_param = self.message.loss_param if "loss_param" in self.also_reads else None
        valid = read_labels(self, bottom[1], classes, loss_param, self._labels)
        self.losses(self.scores(bottom), self._labels, self._losses)
        batch = pb.LossParameter.BATCH_SIZE
        mode = batch if loss_param is None else normalization(loss_param)
        return float(self._losses.sum()), normalizer(mode, outer, inner, valid)

    def chain(self, bottom: list[Blob], index: int, scale: float) -> None:
        dx = bottom[0].diff.reshape(self._view)
        self.slopes(self.scores(bottom), self._labels, self.dtype(scale), dx)

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        """losses[i] = the loss of prediction i, float64; 0 where it is IGNORED."""
        raise NotImplementedError

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        """dx = scale * the gradient of the losses; 0 where a prediction is IGNORED."""
        raise NotImplementedError


class SoftmaxLoss(LabelLoss):
    """A loss of probabilities, the softmax of scores along ``axis``, that obeys ``loss_param``.

    ``losses`` and ``slopes`` are given the probabilities; ``dx`` is the gradient of what the
    softmax is taken of. A second top gets the probabilities too.
    """

    tops = (1, 2)
    also_reads = ("loss_param",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [*super().shapes(*bottoms), bottoms[0]][: len(self.message.top)]

    def class_axes(self, x: Shape) -> tuple[int, int]:
        axis = axis_of(self, x, self.config.axis, self.config_field or "", "axis")
        return axis, axis + 1

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        self._prob = scratch(self._view, self.dtype)

    def scores(self, bottom: list[Blob]) -> Array:
        return self._prob

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        softmax(bottom[0].data.reshape(self._view), self._prob)
        super().forward(bottom, top)
        if len(top) == 2:
            np.copyto(top[1].flat, self._prob.reshape(-1))


class RecordLayer(Layer):
    """A layer that brings batches of labelled images, which a thread of its own fills ahead.

    A subclass gives ``open``. What a batch holds depends on the seed and on how many records came
    before, so ``seek`` continues a run exactly.
    """

    bottoms = 0
    tops: Arity = 2
    dynamic = True
    source = True
    also_reads = ("transform_param",)
    #: Whether the end of the records is an event; Caffe logs it for Data alone.
    tells_ends = False

    _records = 0
    _size: int | None = None
    _warned = False
    _reader: Reader | None = None
    _prefetch: Prefetch[Batch] | None = None
    _next: Batch | None = None

    def open(self) -> Reader:
        """What fills the batches. Raises ``RecordError``, which is then given its place."""
        raise NotImplementedError

    def doubt(self) -> str:
        """Something the user should be told at the first batch; nothing unless overridden."""
        return ""

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        if self.config.batch_size < 1:
            raise self.error("batch_size must be at least 1", self._field, "batch_size")
        if self._depth < 1:
            raise self.error("prefetch must be at least 1", "data_param", "prefetch")
        try:
            reader = self.open()
            try:
                self._size = reader.size
                shape = reader.shape()
            finally:
                reader.close()
        except RecordError as error:
            raise self._located(error) from None
        return self._tops((self.config.batch_size, *shape))

    @property
    def size(self) -> int:
        """How many records there are. Raises NetError where they are drawn without end."""
        if self._size is None:
            try:
                reader = self.open()
            except RecordError as error:
                raise self._located(error) from None
            self._size = reader.size
            reader.close()
        if self._size is None:
            raise self.error("draws its records without end", hint="give --iterations")
        return self._size

    @property
    def records(self) -> int:
        """How many records were delivered so far."""
        return self._records

    def seek(self, records: int) -> None:
        """Continue as if ``records`` records had been delivered."""
        self.close()
        self._records = records

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        if self._next is None:
            self._next = self._take()
        return self._tops(self._next.data.shape)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._next is None:
            self._next = self._take()
        batch = self._next
        top[0].data[...] = batch.data
        if len(top) > 1:
            top[1].data[...] = batch.labels
        # What the batch has to tell is read before the thread may fill it again.
        ends, doubt = batch.ends, batch.doubt or self.doubt()
        self._next = None
        if self._prefetch is not None:
            self._prefetch.release(batch)
        self._records += len(batch.labels)
        for _ in range(ends if self.tells_ends else 0):
            self.emit(DataWrapped(self.name))
        if doubt and not self._warned:
            self._warned = True
            self.emit(Warned(f'layer "{self.name}" ({self.type}): {doubt}'))

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass

    def close(self) -> None:
        """End the thread. The next batch asked for starts it again, where it was."""
        if self._prefetch is not None:
            self._prefetch.close()
        if self._reader is not None:
            self._reader.close()
        self._prefetch = self._reader = self._next = None

    @property
    def _field(self) -> str:
        return self.config_field or ""

    @property
    def _depth(self) -> int:
        """Batches filled ahead. In Caffe, too, data_param says so for every such layer."""
        return self.message.data_param.prefetch

    def _tops(self, data: Shape) -> list[Shape]:
        return [data, data[:1]][: max(1, len(self.message.top))]

    def _take(self) -> Batch:
        """The next batch, from the thread; which starts here."""
        try:
            if self._prefetch is None:
                self._reader = reader = self.open()
                reader.start(self.key, self._records)
                self._prefetch = Prefetch(
                    reader.make, reader.fill, self._depth, f"{self.name} ({self.type})"
                )
            return self._prefetch.take()
        except RecordError as error:
            raise self._located(error) from error
        except MemoryError as error:
            raise self.error(
                f"there is no memory for {self._depth} batches ahead: {error}",
                self._field,
                "batch_size",
                hint="lower batch_size, or prefetch in data_param",
                kind=DataError,
            ) from error

    def _located(self, error: RecordError) -> NetdefError:
        shared = error.field[:1] == ("transform_param",)
        path = error.field if shared else (self._field, *error.field)
        return self.error(error.text, *path, hint=error.hint, kind=DataError)


def axis_of(layer: Layer, shape: Shape, axis: int, *path: str | int) -> int:
    """``axis`` counted from the front; a negative one counts from the back, as in Caffe."""
    if not -len(shape) <= axis < len(shape):
        raise layer.error(
            f"axis is {axis}, but the bottom is {shape_text(shape)} ({len(shape)} axes)", *path
        )
    return axis % len(shape)


def around(shape: Shape, axis: int, end: int | None = None) -> tuple[int, int, int]:
    """(outer, length, inner): the product before ``axis``, its length, the product after it.

    With ``end`` the length is that of all axes from ``axis`` to the one before ``end``.
    """
    end = axis + 1 if end is None else end
    return math.prod(shape[:axis]), math.prod(shape[axis:end]), math.prod(shape[end:])


def check_batch(layer: Layer, x: Shape) -> None:
    """Raise where the first bottom has no axis that could be the batch."""
    if not x:
        raise layer.error("needs a bottom with a batch axis, but it is a scalar", "bottom", 0)


def check_same_items(layer: Layer, a: Shape, b: Shape) -> None:
    """Raise where two bottoms cannot be compared item by item and value by value."""
    if not a or not b or a[0] != b[0] or math.prod(a) != math.prod(b):
        raise layer.error(
            "both bottoms must have the same batch and the same number of values, but they are "
            f"{shape_text(a)} and {shape_text(b)}",
            "bottom",
            1,
        )


def check_classes(layer: Layer, scores: Shape, axis: int, end: int | None = None) -> None:
    """Raise where there are no scores to choose from."""
    if around(scores, axis, end)[1] == 0:
        raise layer.error(
            f"the bottom {shape_text(scores)} has no classes on {_axes(axis, end)}", "bottom", 0
        )


def check_labels(
    layer: Layer, scores: Shape, labels: Shape, axis: int, end: int | None = None
) -> None:
    """Raise where there is not one label for each prediction, or no class to predict."""
    check_classes(layer, scores, axis, end)
    outer, classes, inner = around(scores, axis, end)
    if math.prod(labels) != outer * inner:
        wanted = shape_text(scores[:axis] + scores[axis + 1 if end is None else end :])
        raise layer.error(
            f"Number of labels must match number of predictions: {shape_text(scores)} with "
            f"{classes} classes on {_axes(axis, end)} makes {outer * inner} predictions, but the "
            f"labels are {shape_text(labels)}",
            "bottom",
            1,
            hint=f"the labels should be {wanted}",
        )


def _axes(axis: int, end: int | None) -> str:
    return f"axis {axis}" if end is None or end <= axis + 1 else f"axes {axis} to {end - 1}"


#: What ``read_label`` gives for a label to be left out, and for one that is no class.
IGNORED, INVALID = -1, -2


@inline
def read_label(value: Any, classes: Any, ignore: Any, has_ignore: Any) -> Any:
    """The class a float label names, IGNORED, or INVALID; fractions are cut off, as in Caffe."""
    if not (value > -2147483648.0 and value < 2147483648.0):
        return INVALID
    label = np.int64(value)
    if has_ignore and label == ignore:
        return IGNORED
    if label < 0 or label >= classes:
        return INVALID
    return label


@inline
def is_ignored(value: Any, ignore: Any, has_ignore: Any) -> Any:
    """Whether a float is to be left out; a fraction is cut off, as in Caffe."""
    return has_ignore and np.trunc(value) == ignore


def ignored_label(config: Any) -> tuple[Any, bool]:
    """(label, whether it is to be ignored), as kernels take it; ``config`` may be None."""
    if config is None:
        return np.int64(0), False
    return np.int64(config.ignore_label), config.HasField("ignore_label")


def read_labels(layer: Layer, label: Blob, classes: int, config: Any, out: Array) -> int:
    """Write into ``out`` the class each label names, or IGNORED; gives how many are not ignored.

    ``config`` is the message with the field ``ignore_label``, None where the layer has none.
    Raises for the first label that is no class.
    """
    _read_labels(label.flat, np.int64(classes), *ignored_label(config), out)
    if out.min(initial=0) == INVALID:
        raise bad_label(layer, label, int(np.argmin(out)), classes, config is not None)
    return int(np.count_nonzero(out >= 0))


@kernel
def _read_labels(labels: Any, classes: Any, ignore: Any, has_ignore: Any, out: Any) -> None:
    for i in prange(labels.size):
        out[i] = read_label(labels[i], classes, ignore, has_ignore)


def bad_label(
    layer: Layer, label: Blob, index: int, classes: int, may_ignore: bool = True
) -> Exception:
    """The error for label number ``index`` of a batch."""
    value = float(label.flat[index])
    hint = "set ignore_label for values that mean no class" if may_ignore else ""
    return layer.error(
        f"label {value:g} (number {index} of the batch, counted from 0) is not one of the "
        f"{classes} classes 0 to {classes - 1}",
        "bottom",
        1,
        hint="labels count from 0" if value == classes else hint,
        kind=DataError,
    )


def normalization(
    loss: pb.LossParameter,
    default: pb.LossParameter.NormalizationMode = pb.LossParameter.VALID,
) -> pb.LossParameter.NormalizationMode:
    """The mode of a loss: ``normalization``, else the older ``normalize``, else the default."""
    if loss.HasField("normalization"):
        return loss.normalization
    if loss.HasField("normalize"):
        return pb.LossParameter.VALID if loss.normalize else pb.LossParameter.BATCH_SIZE
    return default


def normalizer(
    mode: pb.LossParameter.NormalizationMode, outer: int, inner: int, valid: int
) -> float:
    """What a summed loss is divided by; at least 1, so that a batch without valid labels is 0."""
    count = {
        pb.LossParameter.FULL: outer * inner,
        pb.LossParameter.VALID: valid,
        pb.LossParameter.BATCH_SIZE: outer,
        pb.LossParameter.NONE: 1,
    }[mode]
    return float(max(1, count))


@inline
def bounded(p: Any) -> Any:
    """A probability, but at least 1e-20, which Caffe takes logarithms of; a NaN stays one."""
    least = type(p)(1e-20)
    return least if p < least else p


def set_scalar(top: Blob, value: float) -> None:
    """Give a scalar top its value; one beyond its type becomes infinite, as in Caffe."""
    with np.errstate(over="ignore"):
        top.data[...] = value


def scratch(shape: Shape, dtype: Any) -> Array:
    """Memory that a layer keeps between forward and backward."""
    return np.empty(shape, dtype)


def log_base(layer: Layer, *path: str | int) -> float:
    """The natural logarithm of the layer's ``base``, where -1 stands for e."""
    base = layer.config.base
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.error(f"base is {base:g}, but must be above 0, or -1 for e", *path)
    return math.log(base)


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
        top: Shape,
        stream: int = 0,
    ) -> None:
        """``window`` has kernel, stride and pad, each for height and width; ``top`` is the shape
        that is pooled to; ``stream`` tells apart the random numbers of several in one layer."""
        self._layer = layer
        self._method = method
        self._window = np.array(window, np.int64)
        self._stream = np.uint64(stream)
        self._draws = method == pb.PoolingParameter.STOCHASTIC and layer.phase == pb.TRAIN
        self._chooses = self._draws or method == pb.PoolingParameter.MAX
        #: Where in its channel stands what was chosen from each window.
        self.mask = scratch(top if self._chooses else (0, 0, 0, 0), np.int32)
        self._unit = scratch(top if self._draws else (0, 0, 0, 0), np.float64)

    def forward(self, x: Array, y: Array) -> None:
        """y = x pooled, both [N, C, H, W]."""
        x, y, mask = _planes(x), _planes(y), _planes(self.mask)
        if self._method == pb.PoolingParameter.MAX:
            pooling.maximum(x, self._window, y, mask)
        elif self._method == pb.PoolingParameter.AVE:
            pooling.mean(x, self._window, y)
        elif self._draws:
            key = self._layer.key ^ self._stream
            rng.uniform(key, self._layer.iteration, self._unit.reshape(-1))
            pooling.draw(x, self._window, _planes(self._unit), y, mask)
        else:
            pooling.expectation(x, self._window, y)

    def backward(self, x: Array, dy: Array, dx: Array, add: bool = False) -> None:
        """dx = the gradient of x from that of y; with ``add`` dx gains it."""
        x, dy, dx = _planes(x), _planes(dy), _planes(dx)
        if self._chooses:
            pooling.route(dy, _planes(self.mask), add, dx.reshape(len(dx), math.prod(dx.shape[1:])))
        elif self._method == pb.PoolingParameter.AVE:
            pooling.spread(dy, self._window, add, dx)
        else:
            pooling.expectation_backward(x, self._window, dy, add, dx)


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
                raise self.error(f"{name} must be at least {least}", *self.place(name, i))
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

    def check_padded(self, source: Shape, target: Shape) -> None:
        """Raise where an image of ``source``, padded for this convolution, is no blob."""
        padded = (source[0], *convolution.padded_image(*self._sizes(source, target)))
        if math.prod(padded) > MOST_VALUES:
            raise self.error(
                f"a padded image would be {shape_text(padded)}: more than 2^31 - 1 values",
                *self.place("pad", 0),
            )

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

    bottoms = (1, None)
    tops = (1, None)
    same_number = True

    def ends(self, x: T, y: T) -> tuple[T, T]:
        """(source, target) of the convolution, from what belongs to bottom and top."""
        raise NotImplementedError

    def reach(self, x: Shape, axis: int) -> list[int]:
        """The spatial axes of the top."""
        raise NotImplementedError

    def data_gradient(self, dy: Array, dx: Array) -> None:
        """dx = the gradient of one bottom, from that of its top."""
        raise NotImplementedError

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
        axis = self.channel_axis(x)
        if c.num_output == 0:
            raise self.error("num_output must be at least 1", "convolution_param", "num_output")
        if c.group == 0:
            raise self.error("group must be at least 1", "convolution_param", "group")
        for what, count in (("channels of the bottom", x[axis]), ("num_output", c.num_output)):
            if count % c.group:
                raise self.error(
                    f"{count} {what} cannot be divided into {c.group} equal groups",
                    "convolution_param",
                    "group",
                )
        y = (c.num_output, *self.reach(x, axis))
        self.check_padded(*self.ends(x[axis:], y))
        return [(*x[:axis], *y)] * len(bottoms)

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        x, c = bottoms[0], self.config
        axis = c.axis % len(x)
        source, target = self.ends(x[axis], c.num_output)
        kernel = [w.kernel for w in self.windows(len(x) - axis - 1)]
        yield Param("weight", (target, source // c.group, *kernel), c.weight_filler)
        if c.bias_term:
            yield Param("bias", (c.num_output,), c.bias_filler)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        x, y = bottom[0].shape, top[0].shape
        axis = self.config.axis % len(x)
        self._geometry = self.geometry(*self.ends(x[axis:], y[axis:]), self.config.group)
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


class Kept:
    """The values of a bottom as ``backward`` needs them, also where the top overwrites them."""

    def __init__(self, bottom: Blob, top: Blob, wanted: bool) -> None:
        """Made in setup; ``wanted`` says whether backward will ask for the values."""
        self._bottom = bottom
        overwritten = wanted and top.data is bottom.data
        self._copy = scratch((bottom.count,), bottom.data.dtype) if overwritten else None

    def keep(self) -> None:
        """To be called by forward before it writes the top."""
        if self._copy is not None:
            np.copyto(self._copy, self._bottom.flat)

    @property
    def flat(self) -> Array:
        """The values that the bottom had in forward, as one axis."""
        return self._bottom.flat if self._copy is None else self._copy


def learned_axes(layer: Layer, x: Shape, *path: str) -> Shape:
    """``num_axes`` axes of the bottom from ``axis`` on: what a Scale or a Bias learns.

    ``path`` leads to the message that holds both fields.
    """
    axis = axis_of(layer, x, layer.config.axis, *path, "axis")
    count = layer.config.num_axes
    if count < -1:
        raise layer.error(
            f"num_axes is {count}, but must be at least 0, or -1 for all axes from axis on",
            *path,
            "num_axes",
        )
    if axis + count > len(x):
        raise layer.error(
            f"num_axes is {count} from axis {axis} on, but the bottom is {shape_text(x)} "
            f"({len(x)} axes)",
            *path,
            "num_axes",
        )
    return x[axis:] if count == -1 else x[axis : axis + count]


def aligned(layer: Layer, x: Shape, other: Shape, *path: str) -> tuple[int, int, int]:
    """(outer, values, inner) of the bottom where ``other`` lines up with it from ``axis`` on."""
    if not other:  # a single value lines up with any axis
        return 1, 1, math.prod(x)
    axis = axis_of(layer, x, layer.config.axis, *path, "axis")
    end = axis + len(other)
    if x[axis:end] != other:
        raise layer.error(
            f"its second bottom is {shape_text(other)}, but from axis {axis} on the first, "
            f"{shape_text(x)}, is {shape_text(x[axis:end])}",
            "bottom",
            1,
        )
    return math.prod(x[:axis]), math.prod(other), math.prod(x[end:])


def axis_or_dim(layer: Layer, shape: Shape, config: str, older: str) -> int:
    """The axis that a layer's ``axis`` names, or the older field, which counts from the front."""
    if layer.config.HasField(older):
        if layer.config.HasField("axis"):
            raise layer.error(f"give axis or {older}, not both", config, older)
        return axis_of(layer, shape, getattr(layer.config, older), config, older)
    return axis_of(layer, shape, layer.config.axis, config, "axis")


def as_rows(values: Array, axis: int) -> Array:
    """An array as a matrix: the axes before ``axis`` are its rows."""
    rows, columns = math.prod(values.shape[:axis]), math.prod(values.shape[axis:])
    return values.reshape(rows, columns)


def shape_of(layer: Layer, given: pb.BlobShape, *path: str | int) -> Shape:
    """The shape that a layer's message states; ``path`` leads to it."""
    for i, n in enumerate(given.dim):
        if n < 0:
            raise layer.error(f"a dimension cannot be negative: {n}", *path, "dim", i)
    return tuple(given.dim)


def shapes_of_tops(layer: Layer, config: str) -> list[Shape]:
    """What the field ``shape`` of a layer without bottoms states: one for all tops, or for each."""
    stated = [
        shape_of(layer, shape, config, "shape", i) for i, shape in enumerate(layer.config.shape)
    ]
    tops = len(layer.message.top)
    if len(stated) not in (1, tops):
        raise layer.error(
            f"has {tops} tops but {len(stated)} shapes",
            config,
            hint="give one shape for all tops, or one for each",
        )
    return stated if len(stated) == tops else stated * tops
