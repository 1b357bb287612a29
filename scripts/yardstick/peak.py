"""The loop that measures the peak: nothing but fused multiply-adds on data in the nearest cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import kernel, prange
from netdef.kernels.microkernel import ROWS, columns_of, multiply_tile

#: Steps over k: both panels, a few ten KiB, stay in the first-level cache.
DEPTH = 96


def tiles(threads: int) -> tuple[Any, Any, Any]:
    """For each thread, which do not share cache lines: a of [DEPTH, ROWS], b of [DEPTH, columns],
    and c of [ROWS, columns]."""
    width = columns_of(4)
    a = np.full((threads, DEPTH, ROWS), 0.5, np.float32)
    b = np.full((threads, DEPTH, width), 0.5, np.float32)
    return a, b, np.zeros((threads, ROWS, width), np.float32)


@kernel
def run(a: Any, b: Any, c: Any, repeats: Any) -> None:
    """Compute c = a^T b of every thread ``repeats`` times."""
    width = c.shape[2]
    for thread in prange(c.shape[0]):
        for _ in range(repeats):
            multiply_tile(
                c[thread, 0, 0],
                DEPTH,
                a[thread].ctypes.data,
                1,
                ROWS,
                b[thread].ctypes.data,
                width,
                c[thread].ctypes.data,
                width,
                ROWS,
                width,
                0,
            )
