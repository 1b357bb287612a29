"""Parameter: y = a blob that is learned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netdef.blob import Blob, Shape
from netdef.kernels.elementwise import add
from netdef.layer import Layer, Param, register
from netdef.layers.common.axes import shape_of
from netdef.proto import netdef_pb2 as pb


@register("Parameter", config="parameter_param")
class Parameter(Layer):
    """Gives a parameter of its own as a blob, for other layers to compute with.

        bottom  none
        top     y      parameter_param.shape
        params  value  parameter_param.shape

    It starts at 0: other values come from weights that are loaded, or from a parameter shared by
    name.

    Example::

        layer {
          name: "anchor"
          type: "Parameter"
          top: "anchor"
          parameter_param {
            shape {
              dim: 10
              dim: 2
            }
          }
        }

    Source: Caffe 1.0.
    """

    bottoms = 0

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return [shape_of(self, self.config.shape, "parameter_param", "shape")]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        yield Param("value", tuple(self.config.shape.dim), pb.FillerParameter())

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        np.copyto(top[0].data, self.blobs[0].data)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        if self.learn[0]:
            add(top[0].flat_diff, self.blobs[0].flat_diff)
