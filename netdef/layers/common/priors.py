"""Detectors that start from prior boxes: what their layers ask of their bottoms.

DetectionOutput and MultiBoxLoss get, for each image, ``loc``: four numbers for each prior and class
of locations, and ``conf``: a score for each prior and class; and ``priors``, [1, 2, 4 P], as
PriorBox makes them.
"""

from __future__ import annotations

import math

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.errors import DataError
from netdef.kernels.boxes import CORNER
from netdef.layer import Layer


class Priors(Layer):
    """A layer whose first three bottoms are loc, conf and priors.

    Its message has the fields ``num_classes``, ``share_location``, ``background_label_id`` and
    ``code_type``.
    """

    def check_predictions(self, loc: Shape, conf: Shape, priors: Shape) -> int:
        """The number of priors. Raises unless the bottoms, which come first, fit together."""
        field, c = self.config_field or "", self.config
        if c.num_classes < 1:
            given = f"is {c.num_classes}, but must be at least 1"
            raise self.error(
                f"num_classes {given if c.HasField('num_classes') else 'is missing'}",
                field,
                "num_classes",
            )
        if len(priors) < 3 or priors[:2] != (1, 2) or priors[2] % 4 or math.prod(priors[3:]) != 1:
            raise self.error(
                "the third bottom holds priors, (1, 2, 4 P) as PriorBox makes them, but it is "
                f"{shape_text(priors)}",
                "bottom",
                2,
            )
        count = priors[2] // 4
        for i, (what, shape, each) in enumerate(
            [("four numbers", loc, 4 * self.locations), ("one score", conf, c.num_classes)]
        ):
            if not shape or math.prod(shape[1:]) != count * each:
                classes = "" if i == 0 and c.share_location else f" and {c.num_classes} classes"
                raise self.error(
                    f"needs {what} for each of {count} priors{classes}, {count * each} per image, "
                    f"but bottom {i} is {shape_text(shape)}",
                    "bottom",
                    i,
                )
        if loc[0] != conf[0]:
            raise self.error(
                f"bottom 0 has {loc[0]} images, but bottom 1 has {conf[0]}: {shape_text(loc)} and "
                f"{shape_text(conf)}",
                "bottom",
                1,
            )
        return count

    @property
    def locations(self) -> int:
        """For how many classes there is a location of their own: one for all, if they share it."""
        return 1 if self.config.share_location else self.config.num_classes

    def read_priors(self, priors: Blob) -> Array:
        """The priors as [2, P, 4]: boxes and variances. Raises where a box has no extent."""
        boxes: Array = priors.data.reshape(2, -1, 4)
        if self.config.code_type != CORNER:
            widths = boxes[0, :, 2:] - boxes[0, :, :2]
            strange = ~(widths > 0).all(axis=1)
            if strange.any():
                index = int(np.argmax(strange))
                box = ", ".join(f"{value:g}" for value in boxes[0, index])
                raise self.error(
                    f"prior {index} (counted from 0) has no width or no height: {box}",
                    "bottom",
                    2,
                    kind=DataError,
                )
        return boxes
