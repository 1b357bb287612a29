"""Sums over rows and over positions, in one order and in the type of what is summed.

The gradients of biases are such sums, and LeNet agrees with Caffe because of their order. Sums in
float64 are in ``channels``.
"""

from __future__ import annotations

from typing import Any

from netdef.blob import Array
from netdef.jit import kernel, num_threads, prange, workspace
from netdef.kernels.blocks import transpose
from netdef.kernels.lanes import LANES, fill, load, store_part

#: Values of each of LANES channels that are brought side by side at once.
RUN = 64


def add_channel_sums(x: Array, total: Array) -> None:
    """total[c] += sum over p of x[n, c, p], for one n after the other."""
    workers = num_threads()
    lines = x.shape[0] * x.shape[1]
    work = workspace(lines + workers * RUN * LANES, x.dtype)
    _sum_lines(x, work, lines, workers)
    _add_lines(work[:lines].reshape(x.shape[:2]), total)


@kernel
def _sum_lines(x: Any, work: Any, scratch: Any, workers: Any) -> None:
    """work[n, c] = the sum over p of x[n, c, p]; scratch memory of each worker stands behind that.

    The numbers of a line are added one by one. So as not to wait for each addition, the lines of
    LANES channels are summed together, transposed.
    """
    zero = x.dtype.type(0)
    size = x.itemsize
    images, channels, count = x.shape
    blocks = (channels + LANES - 1) // LANES
    jobs = images * blocks
    for worker in prange(workers):
        columns = scratch + worker * RUN * LANES
        for job in range(jobs * worker // workers, jobs * (worker + 1) // workers):
            first = job // blocks * channels + job % blocks * LANES
            some = min(LANES, channels - job % blocks * LANES)
            sums = fill(zero)
            for p in range(0, count, RUN):
                run = min(RUN, count - p)
                transpose(
                    zero,
                    work.ctypes.data + columns * size,
                    LANES,
                    x.ctypes.data + (first * count + p) * size,
                    count,
                    some,
                    run,
                )
                for i in range(run):
                    sums = sums + load(work, columns + i * LANES)
            store_part(work, first, 0, first + some, sums)


@kernel
def _add_lines(lines: Any, total: Any) -> None:
    for c in prange(lines.shape[1]):
        value = total[c]
        for n in range(lines.shape[0]):
            value += lines[n, c]
        total[c] = value


@kernel
def add_column_sums(x: Any, total: Any) -> None:
    """total[j] += sum over i of x[i, j], one row after the other."""
    block = 64  # neighbours in a row are one load
    for q in prange((total.size + block - 1) // block):
        end = min(total.size, (q + 1) * block)
        for i in range(x.shape[0]):
            for j in range(q * block, end):
                total[j] += x[i, j]
