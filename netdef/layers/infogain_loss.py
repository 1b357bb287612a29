"""InfogainLoss: -sum_k H[label, k] log softmax(x)[k], averaged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.data.binaryproto import read_blob
from netdef.data.source import RecordError
from netdef.errors import DataError
from netdef.jit import kernel, prange
from netdef.layer import register
from netdef.layers.common.axes import around
from netdef.layers.common.loss import SoftmaxLoss, bounded

#: Where the layer names the file of H.
SOURCE = ("infogain_loss_param", "source")


@register("InfogainLoss", config="infogain_loss_param")
class InfogainLoss(SoftmaxLoss):
    """Cross entropy of the softmax of its scores, in which a matrix weighs every kind of mistake.

        p    = softmax(x) along axis
        loss = sum over the predictions and all classes k of
               -H[label, k] log max(p[k], 1e-20) / normalizer

        bottom  x      any shape; scores along ``axis``
                label  one class for each prediction, any shape of that count
                H      in place of ``source``: any shape of classes x classes values
        top     loss   scalar
                prob   optional: p, shape of x

    With the identity as H it is SoftmaxWithLoss. ``loss_param`` is read as there, but for the
    deprecated ``normalize``, which is refused. H has no gradient. A fraction of a label is cut off.

    Example::

        layer {
          name: "loss"
          type: "InfogainLoss"
          bottom: "score"  # 64x10
          bottom: "label"  # 64
          bottom: "H"      # 10x10
          top: "loss"
        }

    Deviations: ``source`` beside a third bottom is refused; Caffe reads the bottom alone.

    Source: Caffe 1.0.
    """

    bottoms = (2, 3)
    no_gradient = frozenset({1, 2})
    backward_reads: tuple[str, ...] = ("bottom",)  # H, where that is one

    #: H of the file, in the shape it has there, once it is read.
    _read: Array | None = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        tops = super().shapes(*bottoms)
        if self.message.loss_param.HasField("normalize"):
            raise self.error(
                "normalize is deprecated, and this layer does not read it",
                "loss_param",
                "normalize",
                hint="say normalization: VALID for true, BATCH_SIZE for false",
            )
        given = self.config.HasField("source")
        if len(bottoms) == 2 and not given:
            raise self.error(
                "the matrix H is missing: name its file, infogain_loss_param.source, or give it "
                "as third bottom"
            )
        if len(bottoms) == 3:
            if given:
                raise self.error("H is given twice, by source and as third bottom", *SOURCE)
            self._check_matrix(bottoms[0], bottoms[2], "the third bottom", "bottom", 2)
        return tops

    def _check_matrix(self, x: Shape, matrix: Shape, name: str, *path: str | int) -> None:
        _, classes, _ = around(x, *self.class_axes(x))
        if math.prod(matrix) != classes * classes:
            raise self.error(
                f"H needs {classes}x{classes} values for the {classes} classes of the bottom "
                f"{shape_text(x)}, but {name} is {shape_text(matrix)}",
                *path,
            )

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        super().setup(bottom, top)
        matrix = bottom[2].data if len(bottom) == 3 else self._from_file(bottom[0].shape)
        self._matrix = matrix.reshape(self._view[1], self._view[1])

    def _from_file(self, x: Shape) -> Array:
        source = self.config.source
        if self._read is None:
            try:
                matrix = read_blob(source, "matrix H", SOURCE)
            except RecordError as error:
                text, hint = error.text, error.hint
                raise self.error(text, *error.field, hint=hint, kind=DataError) from None
            with np.errstate(over="ignore"):
                self._read = matrix.astype(self.dtype)
        self._check_matrix(x, self._read.shape, f'the one in "{source}"', *SOURCE)
        return self._read

    def losses(self, x: Array, labels: Array, losses: Array) -> None:
        _losses(x, labels, self._matrix, losses)

    def slopes(self, x: Array, labels: Array, scale: Any, dx: Array) -> None:
        _slopes(x, labels, self._matrix, scale, dx)


@kernel
def _losses(prob: Any, labels: Any, matrix: Any, losses: Any) -> None:
    inner = prob.shape[2]
    for job in prange(labels.size):
        total = 0.0
        if labels[job] >= 0:
            for c in range(prob.shape[1]):
                p = prob[job // inner, c, job % inner]
                total -= np.float64(matrix[labels[job], c]) * np.log(np.float64(bounded(p)))
        losses[job] = total


@kernel
def _slopes(prob: Any, labels: Any, matrix: Any, scale: Any, dx: Any) -> None:
    classes, inner = prob.shape[1], prob.shape[2]
    for job in prange(labels.size):
        i = job // inner
        j = job % inner
        label = labels[job]
        weight = 0.0
        if label >= 0:
            for c in range(classes):
                weight += matrix[label, c]
        for c in range(classes):
            if label >= 0:
                slope = prob[i, c, j] * dx.dtype.type(weight) - matrix[label, c]
                dx[i, c, j] = slope * scale
            else:
                dx[i, c, j] = dx.dtype.type(0)
