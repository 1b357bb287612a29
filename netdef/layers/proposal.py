"""Proposal: regions where objects may be, from the predictions of a region proposal network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.layer import Layer, register
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.rpn import Limits, Proposals, make_anchors
from netdef.layers.common.windows import check_images

#: Fields that forks have beside or instead of PVANET's, and what they are called there.
OTHER_NAMES = {
    "anchor_base_size": "base_size",
    "max_rois": "post_nms_topn",
    "iou_threshold": "nms_thresh",
}


@register("Proposal", config="proposal_param")
class Proposal(Layer):
    """Moves anchors to where objects may be, and keeps the best of those that overlap.

        bottom  scores  [N, 2 A, H, W]: of background for each of A anchors, then of object
                deltas  [N, 4 A, H, W]: dx, dy, log of width, log of height, for each anchor
                info    [1 or N, 3 or more]: height and width of the image, and its scale, one for
                        both or one for each
        top     rois    [R, 5]: image, x1, y1, x2, y2
                score   optional: [R]

    An anchor for each ``ratio`` (height by width) and each ``scale``, times ``base_size``, stands
    at each position, ``feat_stride`` pixels apart. A box is moved, scaled and cut off at the edge
    of the image; one that is narrower or lower than ``min_size``, times the scale of the image,
    scores 0. The ``pre_nms_topn`` best are taken, and of these each unless it overlaps one before
    by more than ``nms_thresh`` (intersection over union), at most ``post_nms_topn`` in each image.
    Equal scores keep their order: rows, columns, anchors. A box that is not finite is never
    proposed, nor one whose score is NaN. There is no gradient.

    This is the layer of PVANET; ``max_rois``, ``iou_threshold`` and ``anchor_base_size`` are what
    other forks call ``post_nms_topn``, ``nms_thresh`` and ``base_size``.

    Deviations: where ``info`` has a row for each image, it is read; PVANET reads the first.

    Example::

        layer {
          name: "proposal"
          type: "Proposal"
          bottom: "rpn_cls_prob_reshape"  # 1x18x38x50
          bottom: "rpn_bbox_pred"         # 1x36x38x50
          bottom: "im_info"               # 1x3
          top: "rois"
          proposal_param {
            feat_stride: 16
            pre_nms_topn: 6000
            post_nms_topn: 300
          }
        }

    Source: Ren, He, Girshick & Sun, "Faster R-CNN: towards real-time object detection with region
    proposal networks", NIPS 2015; Hong et al., "PVANet: lightweight deep neural networks for
    real-time object detection", 2016.
    """

    bottoms = 3
    tops = (1, 2)
    no_gradient = frozenset({0, 1, 2})
    backward_reads = ()
    dynamic = True

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        self._check_fields()
        check_predictions(self, len(self._anchors()), *bottoms)
        most = bottoms[0][0] * self._value("post_nms_topn")
        return [(most, 5), (most,)][: len(self.message.top)]

    def _value(self, name: str) -> Any:
        """A setting, under this name or that of another fork."""
        c = self.config
        for other, meant in OTHER_NAMES.items():
            if meant == name and c.HasField(other):
                return getattr(c, other)
        return getattr(c, name)

    def _check_fields(self) -> None:
        c, field = self.config, "proposal_param"
        for other, meant in OTHER_NAMES.items():
            if c.HasField(other) and c.HasField(meant):
                raise self.error(f"give {meant} or {other}, not both", field, other)
        refuse_fields(
            self,
            field,
            "other forks",
            "anchor_scale",
            "anchor_ratio",
            "output_actual_rois_num",
        )
        for name in ("feat_stride", "base_size", "pre_nms_topn", "post_nms_topn"):
            if not 0 < self._value(name) < 2**31:
                raise self.error(
                    f"{name} is {self._value(name):g}, but must be above 0", field, name
                )
        for name in ("ratio", "scale"):
            for i, value in enumerate(getattr(c, name)):
                if not 0 < value < math.inf:
                    raise self.error(f"{name} is {value:g}, but must be above 0", field, name, i)
        if not self._value("nms_thresh") >= 0:
            raise self.error(
                f"nms_thresh is {self._value('nms_thresh'):g}, but must be at least 0",
                field,
                "nms_thresh",
            )

    def _anchors(self) -> Array:
        c = self.config
        ratios, scales = list(c.ratio) or [0.5, 1, 2], list(c.scale) or [8, 16, 32]
        return make_anchors(self._value("base_size"), ratios, scales, _half_up)

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        value = self._value
        limits = Limits(
            int(value("pre_nms_topn")),
            int(value("post_nms_topn")),
            float(value("nms_thresh")),
            float(value("min_size")),
        )
        self._proposals = Proposals(
            self._anchors(), float(value("feat_stride")), limits, removes=False
        )

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        scores, deltas, info = (blob.data for blob in bottom)
        check_info(self, info)
        self._found = self._proposals.find(scores, deltas, info.reshape(len(info), -1))
        return [values.shape for values in self._found[: len(self.message.top)]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for y, found in zip(top, self._found, strict=False):
            np.copyto(y.data, found)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass


def _half_up(value: Any) -> Any:
    """The nearest whole number of a positive one, halves upwards."""
    return np.floor(value + 0.5)


def check_predictions(
    layer: Layer, anchors: int, scores: Shape, deltas: Shape, info: Shape
) -> None:
    """Raise unless the bottoms are predictions for so many anchors, and what images they see."""
    check_images(layer, scores)
    for i, (shape, each) in enumerate([(scores, 2), (deltas, 4)]):
        wanted = (scores[0], each * anchors, *scores[2:])
        if shape != wanted:
            raise layer.error(
                f"{anchors} anchors need {each} channels each, {shape_text(wanted)}, but bottom "
                f"{i} is {shape_text(shape)}",
                "bottom",
                i,
            )
    if not info or info[0] not in (1, scores[0]) or math.prod(info[1:]) < 3:
        raise layer.error(
            "the third bottom has at least 3 numbers (height, width, scale) for all images, or for "
            f"each of {scores[0]}, but it is {shape_text(info)}",
            "bottom",
            2,
        )


def check_info(layer: Layer, info: Array) -> None:
    """Raise where an image has no size."""
    sizes = info.reshape(len(info), -1)[:, :2]
    strange = ~((sizes > 0) & np.isfinite(sizes)).all(axis=1)
    if strange.any():
        index = int(np.argmax(strange))
        height, width = (float(value) for value in sizes[index])
        raise layer.error(
            f"image {index} (counted from 0) is said to be {height:g} x {width:g} pixels",
            "bottom",
            2,
            kind=DataError,
        )
