"""Input: blobs that the user fills."""

from __future__ import annotations

from netdef.blob import Blob, Shape
from netdef.layer import Layer, register


@register("Input", config="input_param")
class Input(Layer):
    """Brings blobs into the net; what they hold is set from outside.

    bottom  none
    top     x0, x1, ...  as ``shape`` says: one shape for all tops, or one for each
    """

    bottoms = 0
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        given = [tuple(shape.dim) for shape in self.config.shape]
        tops = len(self.message.top)
        if len(given) not in (1, tops):
            raise self.error(
                f"has {tops} tops but {len(given)} shapes",
                "input_param",
                hint="give one shape for all tops, or one for each",
            )
        for i, shape in enumerate(given):
            if any(n < 0 for n in shape):
                raise self.error(
                    f"a dimension cannot be negative: {shape}", "input_param", "shape", i
                )
        return given if len(given) == tops else given * tops

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        pass

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        pass
