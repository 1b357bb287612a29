"""Sums over rows and columns, the gradients of biases among them.

Caffe computes them as matrix-vector products with a vector of ones. The order in which a product
adds decides its last bit, and over a few hundred iterations the last bit decides which of two
nearly equal values a max pooling picks. So these sums add in the order of OpenBLAS's kernels for
AVX2, which Caffe's published numbers come from. Those orders are also the fast ones: several lanes
instead of one chain.
"""

from __future__ import annotations

from typing import Any

from netdef.jit import inline, kernel, prange


@kernel
def add_channel_sums(x: Any, total: Any) -> None:
    """total[c] += sum over p of x[n, c, p], for one n after the other."""
    for c in prange(x.shape[1]):
        value = total[c]
        for n in range(x.shape[0]):
            value += _line_sum(x, n, c)
        total[c] = value


@inline
def _line_sum(x: Any, n: Any, c: Any) -> Any:
    """The sum of x[n, c]: eight lanes over a whole number of fours, then what is left."""
    count = x.shape[2]
    fours = count - count % 4
    zero = x.dtype.type(0)
    s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    p = 0
    if fours % 8:
        s0, s1, s2, s3 = x[n, c, 0], x[n, c, 1], x[n, c, 2], x[n, c, 3]
        p = 4
    while p < fours:
        s0 += x[n, c, p]
        s1 += x[n, c, p + 1]
        s2 += x[n, c, p + 2]
        s3 += x[n, c, p + 3]
        s4 += x[n, c, p + 4]
        s5 += x[n, c, p + 5]
        s6 += x[n, c, p + 6]
        s7 += x[n, c, p + 7]
        p += 8
    lanes = ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))
    rest = zero
    for q in range(fours, count):
        rest += x[n, c, q]
    return lanes + rest


@kernel
def add_column_sums(x: Any, total: Any) -> None:
    """total[j] += sum over i of x[i, j], rows in groups of eight and the rest in groups of four."""
    rows = x.shape[0]
    eights = rows - rows % 8
    for j in prange(total.size):
        value = x.dtype.type(0)
        i = 0
        while i < rows:
            group = 8 if i < eights else min(4, rows - i)
            even = x.dtype.type(0)
            odd = x.dtype.type(0)
            for k in range(0, group, 2):
                even += x[i + k, j]
                if k + 1 < group:
                    odd += x[i + k + 1, j]
            value += even + odd
            i += group
        total[j] += value
