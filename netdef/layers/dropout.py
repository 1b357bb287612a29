"""Dropout: in training, y = x * mask / (1 - dropout_ratio); in testing, y = x."""

from __future__ import annotations

import math

import numpy as np

from netdef import rng
from netdef.blob import Array, Blob, Shape
from netdef.kernels.elementwise import multiply, scale_into
from netdef.layer import Layer, Work, register
from netdef.proto import netdef_pb2 as pb


@register("Dropout", config="dropout_param")
class Dropout(Layer):
    """Sets a random fraction ``dropout_ratio`` of its values to 0, and scales up the rest.

        y = x * mask / (1 - dropout_ratio)  in training
        y = x                               in testing

        bottom  x  any shape
        top     y  shape of x; may be x itself

    The mask is 0 or 1, drawn anew for each value in each pass; it is a function of the seed, the
    layer's name, the iteration and the index. A ``dropout_ratio`` of 0 keeps everything.

    ``scale_train: false`` keeps the mean the other way: y = x * mask in training, and
    y = x * (1 - dropout_ratio) in testing. ``sample_weights_test`` drops values in testing, too:
    the spread of several passes then says how sure a net is.

    Example::

        layer {
          name: "drop6"
          type: "Dropout"
          bottom: "fc6"  # 64x4096
          top: "fc6"
          dropout_param {
            dropout_ratio: 0.5
          }
        }

    Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout: a simple way to
    prevent neural networks from overfitting", JMLR 15, 2014.
    """

    in_place = True
    backward_reads = ()

    @property
    def view(self) -> bool:
        return not self._drops and bool(self.config.scale_train)

    @property
    def _drops(self) -> bool:
        return self.phase == pb.TRAIN or bool(self.config.sample_weights_test)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        ratio = self.config.dropout_ratio
        if not 0 <= ratio < 1:
            raise self.error(
                f"dropout_ratio is {ratio:g}, but must be at least 0 and below 1",
                self.config_field or "",
                "dropout_ratio",
            )
        return [bottoms[0]]

    def work(self, *bottoms: Shape) -> list[Work]:
        return [Work((math.prod(bottoms[0]) if self._drops else 0,))]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        (self._mask,) = self.work_arrays

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        if self._drops:
            ratio, scales = self.config.dropout_ratio, self.config.scale_train
            threshold = np.uint64(ratio * 2.0**32)
            scale = self.dtype(1 / (1 - ratio) if scales else 1)
            rng.keep_mask(self.key, self.iteration, threshold, scale, self._mask)
            self.mask(bottom[0].flat, top[0].flat)
        else:
            self._pass_on(bottom[0].flat, top[0].flat)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if bottom[0].diff is None:
            return
        if self._drops:
            self.mask(top[0].flat_diff, bottom[0].flat_diff)
        else:
            self._pass_on(top[0].flat_diff, bottom[0].flat_diff)

    def _pass_on(self, x: Array, y: Array) -> None:
        """What a pass that drops nothing does, forward and backward."""
        if not self.config.scale_train:
            scale_into(x, self.dtype(1 - self.config.dropout_ratio), y)
        elif not np.may_share_memory(x, y):
            np.copyto(y, x)

    def mask(self, x: Array, y: Array) -> None:
        """y = x times the mask, both flat; ``y`` may be ``x``"""
        multiply(x, self._mask, y)
