"""``fma(a, b, c)``: a * b + c with one rounding. ``product(a, b)``: a * b with one of its own.

The compiler may fuse either product of ``a * b + c * d``, or none, and each choice rounds
differently. Where a kernel has to round as Caffe's BLAS does, it says which.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic  # type: ignore[untyped-decorator]
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once; all three of one float type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [kind] * 3),
            f"llvm.fma.f{signature.return_type.bitwidth}",
        )
        return builder.call(function, args)

    return a(a, a, a), codegen


@intrinsic  # type: ignore[untyped-decorator]
def product(typingctx: Any, a: Any, b: Any) -> Any:
    """a * b, rounded before anything is added to it; both of one float type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # Numba lets every product without flags be fused. This flag means nothing to a product.
        return builder.fmul(*args, flags=("arcp",))

    return a(a, a), codegen
