"""Input: blobs that the user fills."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.layer import Layer, register
from netdef.layers.common.axes import shapes_of_tops


@register("Input", config="input_param")
class Input(Layer):
    """Brings blobs into the net; what they hold is set from outside.

        bottom  none
        top     x0, x1, ...  as ``shape`` says: one shape for all tops, or one for each

    The user may reshape the blobs between passes; all layers behind them follow.

    Example::

        layer {
          name: "data"
          type: "Input"
          top: "data"
          input_param {
            shape {
              dim: 1
              dim: 3
              dim: 32
              dim: 32
            }
          }
        }

    Deviations: a shape must be given. Caffe also takes an Input without, whose blobs have no axes
    until they are reshaped, so that hardly any layer can be built on them.

    Source: Caffe 1.0.
    """

    bottoms = 0
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return shapes_of_tops(self, "input_param")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        pass

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass
