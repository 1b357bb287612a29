"""Reading the options of layers, for those who write a net down in another language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netdef.plan import LayerPlan

#: What a window's option is where nothing is said.
DEFAULTS = {"kernel_size": 1, "stride": 1, "pad": 0, "dilation": 1}


def must(layer: LayerPlan, held: bool, what: str) -> None:
    """Raise NotImplementedError where a layer asks for more than its counterpart can do."""
    if not held:
        raise NotImplementedError(f'layer "{layer.name}": {what} has no counterpart')


def pair(p: Any, name: str) -> tuple[int, int]:
    """An option of a window, (height, width): one value for both axes, or each by itself."""
    each = name.partition("_")[0]
    if hasattr(p, f"{each}_h") and (p.HasField(f"{each}_h") or p.HasField(f"{each}_w")):
        return getattr(p, f"{each}_h"), getattr(p, f"{each}_w")
    value = getattr(p, name)
    values = [value] if isinstance(value, int) else list(value) or [DEFAULTS[name]]
    height, width = values * 2 if len(values) == 1 else values
    return height, width


def scale_behind(layers: Sequence[LayerPlan], number: int) -> LayerPlan | None:
    """The Scale that follows the BatchNorm at ``number``: others do both in one operator."""
    following = layers[number + 1 : number + 2]
    top = layers[number].tops[0]
    if following and following[0].type == "Scale" and following[0].bottoms == (top,):
        p = following[0].layer.config
        must(following[0], p.axis == 1 and p.num_axes == 1 and p.bias_term, "its options")
        return following[0]
    return None
