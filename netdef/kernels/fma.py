"""``fma(a, b, c)``: a * b + c with one rounding.

The compiler may fuse either product of ``a * b + c * d``, and each choice rounds differently. Where
a kernel has to round as Caffe's BLAS does, it says which.
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
