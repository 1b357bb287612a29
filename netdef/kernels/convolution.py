"""Convolution and its two gradients: which algorithm computes which geometry.

    forward           Winograd's filtering for windows of 3 x 3 and 5 x 5 that move by one; for
                      other large windows, images read in place; else implicit GEMM
    weight gradient   Winograd's, too; else images read in place
    data gradient     Winograd's or implicit GEMM with turned weights; with strides, GEMM and
                      scattering
    depthwise         tap by tap, without a matrix product

Each is a file beside this one. All share the tables of ``geometry``: images are neither padded nor
unrolled. Every job owns what it writes, and what it sums it sums in one fixed order, so results do
not depend on the number of threads.
"""

from __future__ import annotations

from netdef.blob import Array
from netdef.kernels import (
    data_gradient,
    depthwise,
    direct,
    implicit_gemm,
    weight_gradient,
    winograd,
)
from netdef.kernels.geometry import Geometry, flipped, geometry
from netdef.kernels.im2col import col2im, im2col

__all__ = [
    "Geometry",
    "backward_data",
    "backward_weights",
    "col2im",
    "forward",
    "geometry",
    "im2col",
]

#: The product with turned weights meets positions that exist only in the padding; with scattering
#: every product counts. It is taken where it multiplies at most so many times as much.
WASTE = 1.5


def forward(
    g: Geometry,
    x: Array,
    weight: Array,
    bias: Array,
    y: Array,
    scale: Array | None = None,
    addend: Array | None = None,
    rectify: bool = False,
) -> None:
    """y = convolution of x with weight; then, as far as given: times scale, plus bias, plus addend,
    or 0 where that is negative.

    x [N, C, ...], weight [M, C / groups, ...], bias [M] or [0], y [N, M, ...], scale [M], addend
    like y; all of one float type.
    """
    nothing = implicit_gemm.NOTHING[x.dtype]
    epilogue = implicit_gemm.Epilogue(
        nothing if scale is None else scale,
        bias,
        nothing if addend is None else addend.reshape(-1),
        rectify,
    )
    flat_x, flat_weight, flat_y = x.reshape(-1), weight.reshape(-1), y.reshape(-1)
    if depthwise.suits(g):
        depthwise.multiply(g, flat_x, flat_weight, flat_y, epilogue)
    elif winograd.suits(g, len(x), x.itemsize):
        winograd.multiply(g, flat_x, flat_weight, flat_y, epilogue, turned=False)
    elif direct.suits(g, len(x)):
        direct.multiply(g, flat_x, flat_weight, flat_y, epilogue)
    else:
        implicit_gemm.multiply(g, flat_x, flat_weight, flat_y, epilogue)


def backward_weights(g: Geometry, x: Array, dy: Array, dweight: Array) -> None:
    """dweight += the gradient with respect to the weights, of a batch x and its output gradient dy.

    But for Winograd's filtering, images are added one after the other, as Caffe does: rounding then
    agrees with Caffe's.
    """
    flat_x, flat_dy, flat_dweight = x.reshape(-1), dy.reshape(-1), dweight.reshape(-1)
    if depthwise.suits(g):
        depthwise.add_weights(g, flat_x, flat_dy, flat_dweight)
    elif winograd.suits(g, len(x), x.itemsize):
        winograd.add_weights(g, flat_x, flat_dy, flat_dweight)
    else:
        weight_gradient.add(g, flat_x, flat_dy, flat_dweight)


def backward_data(g: Geometry, weight: Array, dy: Array, dx: Array) -> None:
    """dx = the gradient with respect to the input, from the output gradient dy."""
    flat_weight, flat_dy, flat_dx = weight.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    if depthwise.suits(g):
        depthwise.multiply_back(g, flat_weight, flat_dy, flat_dx)
        return
    if g.pointwise:
        implicit_gemm.multiply_transposed(g, flat_dy, flat_weight, flat_dx)
        return
    turned = flipped(g)
    if turned is not None and winograd.suits(turned, len(dx), dx.itemsize):
        epilogue = implicit_gemm.no_epilogue(dx)
        winograd.multiply(turned, flat_dy, flat_weight, flat_dx, epilogue, turned=True)
    elif turned is not None and g.extents.plane <= WASTE * g.extents.positions:
        implicit_gemm.multiply_turned(turned, flat_dy, flat_weight, flat_dx)
    else:
        data_gradient.scatter(g, flat_weight, flat_dy, flat_dx)
