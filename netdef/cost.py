"""What a layer has to do at least: floating-point operations, and bytes read and written.

Divided by the time a layer took, these say how near it came to what the machine can do. Both are
functions of the plan and of how its memory is arranged, so they can be had for a net that was never
allocated.

Operations are those of matrix products, where a multiplication and an addition count as two and
padding counts as if it were there, as is usual; a kernel that saves multiplications (Winograd) can
thus seem faster than the machine. Every other layer counts none: its time goes into moving data.

Bytes count each array that the layer reads or writes once, although a kernel may go over it more
than once. A gradient that others have begun, or that sums over passes, is read and written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netdef.memory import Ends
from netdef.plan import LayerPlan, Plan
from netdef.proto import netdef_pb2 as pb

#: Layers whose gradient is a function of their top's gradient alone.
LINEAR = {
    "Add",
    "Concat",
    "Crop",
    "CropCenter",
    "Eltwise",
    "Flatten",
    "Interp",
    "Reorg",
    "Reshape",
    "Reverse",
    "ShuffleChannel",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
}

#: Layers that keep a mark for each value of their top: dropped or not, which was the largest.
MASKED = {"Dropout", "Pooling"}


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and bytes read or written."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


def forward(plan: Plan, layer: LayerPlan, ends: Ends, itemsize: int = 4) -> Cost:
    """The cost of a forward pass of ``layer`` with elements of ``itemsize`` bytes."""
    if ends.free_forward or layer.type == "Input":
        return Cost()
    values = _sizes(layer.bottom_shapes) + _sizes(layer.top_shapes) + _params(plan, layer)
    return Cost(_flops(plan, layer), values * itemsize)


def backward(plan: Plan, layer: LayerPlan, ends: Ends, itemsize: int = 4) -> Cost:
    """The cost of a backward pass of ``layer``; none where training leaves it out."""
    if ends.free_backward or not layer.needs_backward:
        return Cost()
    values = _sizes(layer.top_shapes) + _kept(layer)
    products = 0
    for shape, wanted, addend in zip(
        layer.bottom_shapes, layer.propagate, ends.addend, strict=True
    ):
        if wanted:
            values += math.prod(shape) * (1 if addend is None else 2)
    if any(layer.propagate):
        values += _params(plan, layer)
        products += 1
    if any(layer.learn):
        values += 2 * _params(plan, layer)
        products += 1
    return Cost(products * _flops(plan, layer), values * itemsize)


def together(
    plan: Plan, of: Callable[..., Cost], layers: Sequence[tuple[LayerPlan, Ends]], itemsize: int = 4
) -> Cost:
    """The cost, by ``of``, of layers that run as one: what passes between them is not in memory."""
    total = sum((of(plan, layer, ends, itemsize) for layer, ends in layers), Cost())
    between = sum(_sizes(layer.top_shapes) for layer, _ in layers[:-1])
    return Cost(total.flops, max(0, total.bytes - 2 * between * itemsize))


def _flops(plan: Plan, layer: LayerPlan) -> int:
    """Operations of the matrix products of a forward pass; each gradient has as many."""
    return sum(
        2 * math.prod(plan.params[number].shape) * _uses(layer, param.name)
        for number, param in zip(
            layer.params, layer.layer.params(*layer.bottom_shapes), strict=True
        )
        if param.name == "weight" or param.name.startswith("W_")
    )


def _uses(layer: LayerPlan, weight: str) -> int:
    """How often a forward pass multiplies each element of a weight."""
    if layer.type in ("ConvolutionDepthwise", "DepthwiseConvolution"):
        # Once for each pixel of the top.
        axis = layer.layer.config.axis
        return sum(math.prod(shape) // shape[axis] for shape in layer.top_shapes)
    if layer.type in ("Convolution", "InnerProduct", "Lstm"):
        # Once for each pixel of the top, or each row, or each step of each sequence.
        return _sizes(layer.top_shapes) // int(layer.layer.config.num_output)
    if layer.type == "Deconvolution":
        # Once for each pixel of the bottom.
        axis = layer.layer.config.axis
        return sum(math.prod(shape) // shape[axis] for shape in layer.bottom_shapes)
    if layer.type in ("LSTM", "RNN"):
        steps, streams = layer.bottom_shapes[0][:2]
        return streams if weight.endswith("_static") else steps * streams
    return 0


def _kept(layer: LayerPlan) -> int:
    """How many values of the forward pass the gradient is computed from."""
    config = layer.layer.config
    if layer.type == "Eltwise" and config.operation != pb.EltwiseParameter.SUM:
        return _sizes(layer.bottom_shapes)
    if layer.type == "Pooling" and config.pool == pb.PoolingParameter.AVE:
        return 0
    if layer.type in MASKED:
        return _sizes(layer.top_shapes)
    return 0 if layer.type in LINEAR else _sizes(layer.bottom_shapes)


def _params(plan: Plan, layer: LayerPlan) -> int:
    return sum(math.prod(plan.params[number].shape) for number in layer.params)


def _sizes(shapes: tuple[tuple[int, ...], ...]) -> int:
    return sum(map(math.prod, shapes))
