"""DetectionEvaluate: which detections are right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.events import Warned
from netdef.jit import kernel, prange
from netdef.kernels.boxes import overlap
from netdef.layer import Layer, register
from netdef.layers.common.truth import check_truth, read_truth


@register("DetectionEvaluate", config="detection_evaluate_param")
class DetectionEvaluate(Layer):
    """Compares detections with what there is to be found: what a precision is computed from.

        bottom  found  [1, 1, K, 7]: image, class, score, x1, y1, x2, y2, as DetectionOutput gives;
                       a row of class -1 is none
                truth  [1, 1, G, 8]: image, class, instance, x1, y1, x2, y2, difficult of each
                       object; a row of image -1 is none
        top     y      [1, 1, C + D, 5]: for each of C classes but ``background_label_id`` -1,
                       class, how many objects it has, -1, -1; then for each detection image, class,
                       score, whether it is right, whether it is wrong

    Detections follow by image, class and falling score. One is right where the object of its class
    that it overlaps most (intersection over union) is overlapped by at least ``overlap_threshold``
    and no detection before was right about it. With ``evaluate_difficult_gt: false`` difficult
    objects do not count: what finds one is neither right nor wrong. There is no gradient.

    Deviations: ``name_size_file`` is not read, so boxes are compared as parts of the image and not
    in pixels of the original; the layer warns of it.

    Example::

        layer {
          name: "detection_eval"
          type: "DetectionEvaluate"
          bottom: "detection_out"  # 1x1x200x7
          bottom: "label"          # 1x1x75x8
          top: "detection_eval"
          detection_evaluate_param {
            num_classes: 21
            evaluate_difficult_gt: false
          }
        }

    Source: Everingham et al., "The PASCAL visual object classes (VOC) challenge", IJCV 2010; Liu et
    al., "SSD: single shot multibox detector", ECCV 2016.
    """

    bottoms = 2
    no_gradient = frozenset({0, 1})
    backward_reads = ()
    dynamic = True

    _warned = False

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        found, truth = bottoms
        c, field = self.config, "detection_evaluate_param"
        if c.num_classes < 1:
            given = f"is {c.num_classes}, but must be at least 1"
            raise self.error(
                f"num_classes {given if c.HasField('num_classes') else 'is missing'}",
                field,
                "num_classes",
            )
        if not c.overlap_threshold > 0:
            raise self.error(
                f"overlap_threshold is {c.overlap_threshold:g}, but must be above 0",
                field,
                "overlap_threshold",
            )
        if not found or found[-1] != 7:
            raise self.error(
                "bottom 0 has 7 numbers for each detection (image, class, score, x1, y1, x2, y2), "
                f"but it is {shape_text(found)}",
                "bottom",
                0,
            )
        check_truth(self, truth, 1)
        return [(1, 1, len(self._classes) + math.prod(found[:-1]), 5)]

    @property
    def _classes(self) -> list[int]:
        c = self.config
        return [label for label in range(c.num_classes) if label != c.background_label_id]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self.config.HasField("name_size_file") and not self._warned:
            text = "name_size_file is not read, boxes are compared as parts of the image"
            self.emit(Warned(f'layer "{self.name}": {text}'))
            self._warned = True

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        found, truth = bottom
        self._rows = self._evaluate(self._read_found(found), truth)
        return [(1, 1, *self._rows.shape)]

    def _read_found(self, found: Blob) -> Array:
        """The detections, by image, class and falling score."""
        c = self.config
        rows: Array = found.data.reshape(-1, 7)
        rows = rows[(rows[:, 1] != -1) & (rows[:, 0] != -1)]
        label = np.trunc(rows[:, 1])
        wrong = ~np.isfinite(rows).all(axis=1)
        wrong |= ~((label >= 0) & (label < c.num_classes) & (label != c.background_label_id))
        if wrong.any():
            given = ", ".join(f"{value:g}" for value in rows[int(np.argmax(wrong))])
            raise self.error(
                f"a detection is not of a class that can be found: {given}",
                "bottom",
                0,
                kind=DataError,
            )
        order: Array = np.lexsort((-rows[:, 2], label, np.trunc(rows[:, 0])))
        return rows[order]

    def _evaluate(self, found: Array, truth: Blob) -> Array:
        """The rows of the top."""
        c, classes = self.config, self._classes
        objects = read_truth(self, truth, 1, math.inf, c.num_classes, c.background_label_id)
        counted = objects.rows[:, 7] == 0
        if c.evaluate_difficult_gt:
            counted[:] = True
        # Images and classes as one number: objects of one stand together, and so do detections.
        key = objects.images * c.num_classes + objects.labels
        order = np.argsort(key, kind="stable")
        numbers = np.trunc(found[:, :2]).astype(np.int64)
        found_key = numbers[:, 0] * c.num_classes + numbers[:, 1]
        groups, starts = np.unique(found_key, return_index=True)
        rows = np.zeros((len(classes) + len(found), 5), self.dtype)
        rows[: len(classes)] = -1
        rows[: len(classes), 1] = classes
        per_class = np.bincount(objects.labels[counted], minlength=c.num_classes)
        rows[: len(classes), 2] = per_class[classes]
        verdicts = rows[len(classes) :]
        verdicts[:, :2], verdicts[:, 2] = numbers, found[:, 2]
        _judge(
            np.ascontiguousarray(found[:, 3:]),
            np.append(starts, len(found)),
            np.ascontiguousarray(objects.rows[order][:, 3:7]),
            counted[order],
            np.searchsorted(key[order], groups, "left"),
            np.searchsorted(key[order], groups, "right"),
            float(c.overlap_threshold),
            np.zeros(len(order), np.bool_),
            verdicts,
        )
        return rows

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data[0, 0], self._rows)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@kernel
def _judge(
    boxes: Any,
    starts: Any,
    objects: Any,
    counted: Any,
    begins: Any,
    ends: Any,
    threshold: Any,
    taken: Any,
    verdicts: Any,
) -> None:
    """verdicts[d, 3:] = (right, wrong); each job has the detections of one class in one image."""
    for group in prange(begins.size):
        for d in range(starts[group], starts[group + 1]):
            most = -1.0
            best = -1
            for g in range(begins[group], ends[group]):
                shared = overlap(boxes[d], objects[g], 0.0)
                if shared > most:
                    most = shared
                    best = g
            if best < 0 or most < threshold:
                verdicts[d, 4] = 1
            elif counted[best]:
                verdicts[d, 4 if taken[best] else 3] = 1
                taken[best] = True
