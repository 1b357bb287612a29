"""The loop that measures the peak: nothing but fused multiply-adds on data in the nearest cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import kernel, prange
from netdef.kernels.microkernel import ROWS, columns_of, multiply_tile

#: Steps over k: both panels, a few ten KiB, stay in the first-level cache.
DEPTH = 96


def tiles(threads: int) -> tuple[Any, Any, Any]:
    """A packed panel of a, one of b and a tile of c for each thread, which do not share lines."""
    width = columns_of(4)
    a = np.full((threads, DEPTH * ROWS), 0.5, np.float32)
    b = np.full((threads, DEPTH * width), 0.5, np.float32)
    return a, b, np.zeros((threads, ROWS * width), np.float32)


@kernel
def run(a: Any, b: Any, c: Any, repeats: Any) -> None:
    """Compute the tile of every thread ``repeats`` times."""
    width = c.shape[1] // ROWS
    for thread in prange(c.shape[0]):
        for _ in range(repeats):
            multiply_tile(
                c[thread, 0],
                DEPTH,
                a[thread].ctypes.data,
                b[thread].ctypes.data,
                c[thread].ctypes.data,
                width,
                0,
            )
