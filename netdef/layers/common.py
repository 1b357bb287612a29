"""What several layers share: neurons, records, axes, labels, the normalisation of losses."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.data.batches import Batch, Reader
from netdef.data.prefetch import Prefetch
from netdef.data.source import RecordError
from netdef.errors import DataError, NetdefError
from netdef.events import DataWrapped, Warned
from netdef.jit import inline
from netdef.layer import Arity, Layer
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
        overwritten = top[0].data is bottom[0].data and bottom[0].diff is not None
        keep = self.reads_bottom and overwritten
        self._kept = scratch((bottom[0].count,), self.dtype) if keep else None

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._kept is not None:
            np.copyto(self._kept, bottom[0].flat)
        self.map(bottom[0].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        x = bottom[0].flat if self._kept is None else self._kept
        self.chain(x, top[0].flat, top[0].flat_diff, bottom[0].flat_diff)

    def map(self, x: Array, y: Array) -> None:
        """y = f(x), on flat arrays; ``y`` may be ``x``."""
        raise NotImplementedError

    def chain(self, x: Array, y: Array, dy: Array, dx: Array) -> None:
        """dx = dy f'(x), on flat arrays; ``dx`` may be ``dy``, and unless the layer
        ``reads_bottom``, ``x`` may be ``y``."""
        raise NotImplementedError


class RecordLayer(Layer):
    """A layer that brings batches of labelled images, which a thread of its own fills ahead.

    A subclass gives ``open``. What a batch holds depends on the seed and on how many records came
    before, so ``seek`` continues a run exactly.
    """

    bottoms = 0
    tops: ClassVar[Arity] = 2
    dynamic = True
    source = True
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


def around(shape: Shape, axis: int) -> tuple[int, int, int]:
    """(outer, length, inner): the product before ``axis``, its length, the product after it."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def check_classes(layer: Layer, scores: Shape, axis: int) -> None:
    """Raise where there are no scores to choose from."""
    if scores[axis] == 0:
        raise layer.error(
            f"the bottom {shape_text(scores)} has no classes on axis {axis}", "bottom", 0
        )


def check_labels(layer: Layer, scores: Shape, labels: Shape, axis: int) -> None:
    """Raise where there is not one label for each prediction, or no class to predict."""
    check_classes(layer, scores, axis)
    outer, classes, inner = around(scores, axis)
    if math.prod(labels) != outer * inner:
        wanted = shape_text(scores[:axis] + scores[axis + 1 :])
        raise layer.error(
            f"Number of labels must match number of predictions: {shape_text(scores)} with "
            f"{classes} classes on axis {axis} makes {outer * inner} predictions, but the labels "
            f"are {shape_text(labels)}",
            "bottom",
            1,
            hint=f"the labels should be {wanted}",
        )


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


def bad_label(layer: Layer, label: Blob, index: int, classes: int) -> Exception:
    """The error for label number ``index`` of a batch."""
    value = float(label.flat[index])
    return layer.error(
        f"label {value:g} (number {index} of the batch, counted from 0) is not one of the "
        f"{classes} classes 0 to {classes - 1}",
        "bottom",
        1,
        hint="labels count from 0"
        if value == classes
        else "set ignore_label for values that mean no class",
        kind=DataError,
    )


def normalization(loss: pb.LossParameter) -> pb.LossParameter.NormalizationMode:
    """The mode of a loss: ``normalization``, else the older ``normalize``."""
    if not loss.HasField("normalization") and loss.HasField("normalize"):
        return pb.LossParameter.VALID if loss.normalize else pb.LossParameter.BATCH_SIZE
    return loss.normalization


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


def set_scalar(top: Blob, value: float) -> None:
    """Give a scalar top its value; one beyond its type becomes infinite, as in Caffe."""
    with np.errstate(over="ignore"):
        top.data[...] = value


def scratch(shape: Shape, dtype: Any) -> Array:
    """Memory that a layer keeps between forward and backward."""
    return np.empty(shape, dtype)
