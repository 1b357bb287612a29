"""DetectionOutput: what a detector has found, each object once."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.events import Warned
from netdef.jit import kernel, prange
from netdef.kernels.boxes import decode, suppress
from netdef.layer import register
from netdef.layers.common.arrays import scratch
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.priors import Priors

#: Without a confidence_threshold, scores are above the lowest float32.
LOWEST = -3.4028234663852886e38


@register("DetectionOutput", config="detection_output_param")
class DetectionOutput(Priors):
    """Decodes the boxes that a detector predicts, and keeps the best of those that overlap.

        bottom  loc     [N, 4 L P]: where the box of each of P priors is, for each of L classes;
                        L is 1 with ``share_location``
                conf    [N, C P]: a score for each prior and class
                priors  [1, 2, 4 P], as PriorBox makes them
                images  optional: to be shown with ``visualize``, so they are not read
        top     y       [1, 1, K, 7]: image, class, score, x1, y1, x2, y2 of each detection

    For each image and each class but ``background_label_id``: the boxes that score above
    ``confidence_threshold`` are taken, at most ``top_k`` of them, the best first; each is kept
    unless it overlaps one kept before by more than ``nms_threshold`` (intersection over union).
    With ``eta`` below 1, that threshold shrinks by this factor with each box kept until it is 0.5.
    Of all classes of an image the ``keep_top_k`` best are kept. -1 means no limit. Among equal
    scores the first prior, and the first class, comes first.

    Detections are in the order of images, classes, scores. If there are none in the whole batch,
    there is a row for each image, with its number and then -1. A box that is not finite, or whose
    score is NaN, is never detected. There is no gradient.

    Deviations: the files that ``save_output_param`` asks for are not written, and ``visualize``
    shows nothing; the layer warns of it.

    Example::

        layer {
          name: "detection_out"
          type: "DetectionOutput"
          bottom: "mbox_loc"           # 1x34928
          bottom: "mbox_conf_flatten"  # 1x183372
          bottom: "mbox_priorbox"      # 1x2x34928
          top: "detection_out"
          detection_output_param {
            num_classes: 21
            code_type: CENTER_SIZE
            confidence_threshold: 0.01
            keep_top_k: 200
            nms_param {
              nms_threshold: 0.45
              top_k: 400
            }
          }
        }

    Source: Liu et al., "SSD: single shot multibox detector", ECCV 2016.
    """

    # YOLO's layer of this name, which has one, is to be told by its fields.
    bottoms = (1, 4)
    no_gradient = frozenset({0, 1, 2, 3})
    backward_reads = ()
    dynamic = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        field = "detection_output_param"
        yolo = "side", "num_box", "coords", "biases", "label_map_file"
        refuse_fields(self, field, "YOLO's forks", *yolo)
        refuse_fields(self, field, "RefineDet", "objectness_score")
        if len(bottoms) < 3:
            raise self.error(f"takes 3 or 4 bottom blobs, but {len(bottoms)} given")
        self.check_predictions(*bottoms[:3])
        threshold, eta = self._nms("nms_threshold"), self._nms("eta")
        if not threshold >= 0:
            raise self.error(
                f"nms_threshold is {threshold:g}, but must be at least 0",
                *self._nms_place("nms_threshold"),
            )
        if not 0 < eta <= 1:
            raise self.error(
                f"eta is {eta:g}, but must be above 0 and at most 1", *self._nms_place("eta")
            )
        return [(1, 1, 1, 7)]

    def _nms_place(self, name: str) -> tuple[str, ...]:
        """The path of a setting that stands in nms_param, or in older files beside it."""
        if self.config.HasField(name) and not self.config.nms_param.HasField(name):
            return "detection_output_param", name
        return "detection_output_param", "nms_param", name

    def _nms(self, name: str) -> Any:
        message = self.message
        for step in self._nms_place(name):
            message = getattr(message, step)
        return message

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, images, priors = self.config, bottom[0].shape[0], bottom[2].count // 8
        self._boxes = scratch((images, self.locations, priors, 4), self.dtype)
        self._order = scratch((images, c.num_classes, priors), np.int32)
        self._counts = scratch((images, c.num_classes), np.int64)
        for field in ("save_output_param", "visualize"):
            if c.HasField(field) and not self._warned:
                self.emit(Warned(f'layer "{self.name}": {field} is not obeyed, nothing is written'))
                self._warned = True

    _warned = False

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        loc, conf, priors = bottom[:3]
        self._rows = self._detect(loc.data, conf.data, self.read_priors(priors))
        return [(1, 1, len(self._rows), 7)]

    def _detect(self, loc: Array, conf: Array, priors: Array) -> Array:
        """The rows of the top."""
        c, images = self.config, len(loc)
        count = priors.shape[1]
        loc = loc.reshape(images, count, self.locations, 4)
        conf = conf.reshape(images, count, c.num_classes)
        scaled = bool(c.variance_encoded_in_target)
        _decode(loc, priors, int(c.code_type), scaled, self._boxes)
        least = c.confidence_threshold if c.HasField("confidence_threshold") else LOWEST
        given = c.HasField("top_k") or c.nms_param.HasField("top_k")
        looks = int(self._nms("top_k")) if given else -1
        limits = looks if looks >= 0 else count, float(self._nms("nms_threshold"))
        background = int(c.background_label_id)
        rule = float(least), *limits, float(self._nms("eta")), background
        _select(self._boxes, conf, *rule, self._order, self._counts)
        ends = self._counts.cumsum().reshape(self._counts.shape)
        rows = np.empty((ends[-1, -1] if ends.size else 0, 7), self.dtype)
        _gather(self._boxes, conf, self._order, self._counts, ends, rows)
        if c.keep_top_k > -1:
            rows = self._keep_best(rows, ends)
        if not len(rows):
            rows = np.full((images, 7), -1, self.dtype)
            rows[:, 0] = np.arange(images)
        return rows

    def _keep_best(self, rows: Array, ends: Array) -> Array:
        """Of the rows of each image the ``keep_top_k`` of the highest scores, in their order."""
        most = self.config.keep_top_k
        kept = []
        first = 0
        for end in ends[:, -1]:
            mine = rows[first:end]
            if len(mine) > most:
                best = np.argsort(-mine[:, 2], kind="stable")[:most]
                mine = mine[np.sort(best)]
            kept.append(mine)
            first = end
        return np.concatenate(kept) if kept else rows

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, self._rows)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


@kernel
def _decode(loc: Any, priors: Any, code: Any, scaled: Any, boxes: Any) -> None:
    """boxes[n, l, p] = what loc[n, p, l] says about prior p"""
    count = priors.shape[1]
    for job in prange(loc.shape[0] * count):
        n = job // count
        p = job % count
        for k in range(loc.shape[2]):
            decode(code, priors[0, p], priors[1, p], scaled, loc[n, p, k], boxes[n, k, p])


@kernel
def _select(
    boxes: Any,
    conf: Any,
    least: Any,
    looks: Any,
    threshold: Any,
    eta: Any,
    background: Any,
    order: Any,
    counts: Any,
) -> None:
    """What is kept of each image and class: ``counts`` of them, at the end of ``order``."""
    classes = conf.shape[2]
    for job in prange(conf.shape[0] * classes):
        n = job // classes
        c = job % classes
        counts[n, c] = 0
        if c != background:
            mine = boxes[n, c if boxes.shape[1] > 1 else 0]
            scores = conf[n, :, c]
            most = scores.size
            counts[n, c] = suppress(
                mine, scores, least, looks, most, threshold, eta, 0.0, 0.0, order[n, c]
            )


@kernel
def _gather(boxes: Any, conf: Any, order: Any, counts: Any, ends: Any, rows: Any) -> None:
    classes = conf.shape[2]
    for job in prange(conf.shape[0] * classes):
        n = job // classes
        c = job % classes
        first = ends[n, c] - counts[n, c]
        for k in range(counts[n, c]):
            p = order[n, c, conf.shape[1] - 1 - k]
            row = rows[first + k]
            row[0], row[1], row[2] = n, c, conf[n, p, c]
            for e in range(4):
                row[3 + e] = boxes[n, c if boxes.shape[1] > 1 else 0, p, e]
