"""What groups ask of the layers they are made of."""

from __future__ import annotations

from collections.abc import Sequence

from netdef.plan import LayerPlan
from netdef.proto import netdef_pb2 as pb


def rectifies(layer: LayerPlan) -> bool:
    """Whether a layer is y = max(x, 0)."""
    return layer.type == "ReLU" and layer.layer.config.negative_slope == 0


def is_changed(behind: Sequence[LayerPlan]) -> bool:
    """Whether the first of these layers works in place on what the one before it made.

    Of Caffe's ReLU in place that changes the gradient, which goes by the sign of what is there in
    the end; but Dropout lets no gradient through where it changes the sign.
    """
    return bool(behind) and any(behind[0].in_place) and behind[0].type != "Dropout"


def scales_channels(layer: LayerPlan) -> bool:
    """Whether a layer is a Scale that learns a factor, and maybe a bias, for each channel."""
    if layer.type != "Scale" or len(layer.bottoms) != 1:
        return False
    (x,) = layer.bottom_shapes
    factor = next(iter(layer.layer.params(x))).shape
    return len(x) > 1 and layer.layer.config.axis % len(x) == 1 and factor == x[1:2]


def adds_two(layer: LayerPlan) -> bool:
    """Whether a layer is an Eltwise that adds two blobs, and not in place."""
    config = layer.layer.config
    return (
        layer.type == "Eltwise"
        and len(layer.bottoms) == 2
        and config.operation == pb.EltwiseParameter.SUM
        and not any(layer.in_place)
    )
