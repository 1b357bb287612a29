"""Reshape: the same values under another shape."""

from __future__ import annotations

import math

from netdef.blob import Shape, shape_text
from netdef.layer import register
from netdef.layers.common.arrays import View


@register("Reshape", config="reshape_param")
class Reshape(View):
    """Gives its bottom another shape; the values stay as they are.

        bottom  x  [A..., B..., C...], where B are the ``num_axes`` axes from ``axis`` on
        top     y  [A..., shape..., C...]

    In ``shape``, 0 takes the length of the bottom's axis at this place of B, and -1, at most once,
    what is left of the count. A negative ``axis`` counts from behind the last axis: -1 appends.

    Example::

        layer {
          name: "reshape"
          type: "Reshape"
          bottom: "rpn_cls_score"  # 1x18x14x14
          top: "rpn_cls_score_reshape"
          reshape_param {
            shape {
              dim: 0
              dim: 2
              dim: -1
              dim: 0
            }
          }
        }

    Source: Caffe 1.0.
    """

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        first, end = self._replaced(x)
        lengths = self._lengths(x, first)
        if -1 in lengths:
            lengths[lengths.index(-1)] = self._inferred(x, first, end, lengths)
        top = (*x[:first], *lengths, *x[end:])
        if math.prod(top) != math.prod(x):
            raise self.error(
                f"the bottom {shape_text(x)} has {math.prod(x)} values, but the new shape "
                f"{shape_text(top)} has {math.prod(top)}",
                "reshape_param",
                "shape",
            )
        return [top]

    def _replaced(self, x: Shape) -> tuple[int, int]:
        """The first axis that is replaced, and the first behind it that is not."""
        axis, count = self.config.axis, self.config.num_axes
        first = axis if axis >= 0 else len(x) + 1 + axis
        if not 0 <= first <= len(x):
            raise self.error(
                f"axis is {axis}, but the bottom is {shape_text(x)} ({len(x)} axes)",
                "reshape_param",
                "axis",
            )
        if count < -1:
            raise self.error(
                f"num_axes is {count}, but must be at least 0, or -1 for all",
                "reshape_param",
                "num_axes",
            )
        end = len(x) if count == -1 else first + count
        if end > len(x):
            raise self.error(
                f"num_axes is {count}, but the bottom {shape_text(x)} has only {len(x) - first} "
                f"axes from axis {first} on",
                "reshape_param",
                "num_axes",
            )
        return first, end

    def _lengths(self, x: Shape, first: int) -> list[int]:
        """The new axes, where -1 is still to be inferred."""
        lengths: list[int] = []
        for i, n in enumerate(self.config.shape.dim):
            where = ("reshape_param", "shape", "dim", i)
            if n < -1:
                raise self.error(
                    f"dim is {n}, but must be a length, 0 to take that of the bottom, "
                    "or -1 for what is left",
                    *where,
                )
            if n == -1 and -1 in lengths:
                raise self.error("only one dim can be -1", *where)
            if n == 0 and first + i >= len(x):
                raise self.error(
                    f"dim is 0, to take the length of axis {first + i}, but the bottom is "
                    f"{shape_text(x)} ({len(x)} axes)",
                    *where,
                )
            lengths.append(n or x[first + i])
        return lengths

    def _inferred(self, x: Shape, first: int, end: int, lengths: list[int]) -> int:
        """The length that -1 stands for."""
        # Axes that stay as they are do not count: one of them may be an empty batch.
        dims = self.config.shape.dim
        stay = [i for i, n in enumerate(dims) if n == 0 and first + i < end]
        values = math.prod(x[first + i] for i in range(end - first) if i not in stay)
        given = math.prod(n for i, n in enumerate(lengths) if n != -1 and i not in stay)
        if given == 0 or values % given:
            raise self.error(
                f"cannot infer dim -1 for the bottom {shape_text(x)}: {values} values are not a "
                f"multiple of {given}",
                "reshape_param",
                "shape",
                "dim",
                lengths.index(-1),
            )
        return values // given
