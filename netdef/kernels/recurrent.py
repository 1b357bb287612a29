"""What recurrent layers do in one step, besides the matrix product: state, gates, cells.

States and cells are [N, D], gates [N, 4 D] in the order input, forget, output, candidate, ``cont``
is [N]. Where ``cont`` is 0 a sequence begins: nothing of what came before counts, be it NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netdef.jit import inline, kernel, prange
from netdef.kernels.transcendental import sigmoid, tanh

#: Neighbours that one job takes: few enough to share one long row among all threads.
BLOCK = 64


@kernel
def carry(h: Any, cont: Any, y: Any) -> None:
    """y[n] = cont[n] h[n]; ``y`` may be ``h``"""
    zero = h.dtype.type(0)
    blocks = (h.shape[1] + BLOCK - 1) // BLOCK
    for job in prange(h.shape[0] * blocks):
        n = job // blocks
        first = job % blocks * BLOCK
        for d in range(first, min(first + BLOCK, h.shape[1])):
            y[n, d] = zero if cont[n] == 0 else cont[n] * h[n, d]


@kernel
def fill_rows(row: Any, y: Any) -> None:
    """y[i] = row"""
    for i in prange(y.shape[0]):
        for j in range(row.size):
            y[i, j] = row[j]


@kernel
def add_to_steps(x: Any, y: Any) -> None:
    """y[t, n] += x[n]"""
    for job in prange(y.shape[0] * y.shape[1]):
        t = job // y.shape[1]
        n = job % y.shape[1]
        for j in range(y.shape[2]):
            y[t, n, j] += x[n, j]


@kernel
def sum_steps(x: Any, total: Any) -> None:
    """total[n] = sum over t of x[t, n], one step after the other"""
    zero = x.dtype.type(0)
    for n in prange(x.shape[1]):
        for j in range(x.shape[2]):
            total[n, j] = zero
        for t in range(x.shape[0]):
            for j in range(x.shape[2]):
                total[n, j] += x[t, n, j]


@kernel
def lstm_unit(c_prev: Any, gates: Any, cont: Any, opened: Any, c: Any, h: Any) -> None:
    """One step of LSTM; ``opened`` keeps the activations of ``gates`` and may be the same."""
    size = np.uint64(c.shape[1])
    blocks = (c.shape[1] + BLOCK - 1) // BLOCK
    for job in prange(c.shape[0] * blocks):
        n = job // blocks
        first = np.uint64(job % blocks * BLOCK)
        end = min(first + np.uint64(BLOCK), size)
        # Gates that open, then the candidate, then what comes of them: short loops are vectorised.
        for gate in range(3):
            begin = np.uint64(gate) * size
            for d in range(begin + first, begin + end):
                opened[n, d] = sigmoid(gates[n, d])
        third = np.uint64(3) * size
        for d in range(third + first, third + end):
            opened[n, d] = tanh(gates[n, d])
        for d in range(first, end):
            i, f = opened[n, d], opened[n, size + d]
            o, g = opened[n, size + size + d], opened[n, third + d]
            cell = _cell(c_prev[n, d], cont[n], i, f, g)
            c[n, d] = cell
            h[n, d] = o * tanh(cell)


@kernel
def lstm_unit_backward(
    c_prev: Any, opened: Any, cont: Any, dc: Any, dh: Any, dgates: Any, dc_prev: Any
) -> None:
    """The gradients of that step; ``dc_prev`` may be ``dc``."""
    size = np.uint64(dc.shape[1])
    second, third = size + size, size + size + size
    zero = dc.dtype.type(0)
    one = dc.dtype.type(1)
    blocks = (dc.shape[1] + BLOCK - 1) // BLOCK
    for job in prange(dc.shape[0] * blocks):
        n = job // blocks
        first = np.uint64(job % blocks * BLOCK)
        for d in range(first, min(first + np.uint64(BLOCK), size)):
            i = opened[n, d]
            f = opened[n, size + d]
            o = opened[n, second + d]
            g = opened[n, third + d]
            slant = dh[n, d]
            # Computed anew: the top may have been overwritten since.
            tanh_c = tanh(_cell(c_prev[n, d], cont[n], i, f, g))
            d_cell = dc[n, d] + slant * o * (one - tanh_c * tanh_c)
            kept = zero if cont[n] == 0 else cont[n] * f * d_cell
            before = zero if cont[n] == 0 else kept * c_prev[n, d] * (one - f)
            dgates[n, d] = d_cell * g * i * (one - i)
            dgates[n, size + d] = before
            dgates[n, second + d] = slant * tanh_c * o * (one - o)
            dgates[n, third + d] = d_cell * i * (one - g * g)
            dc_prev[n, d] = kept


@inline
def _cell(c_prev: Any, cont: Any, i: Any, f: Any, g: Any) -> Any:
    if cont == 0:
        return i * g
    return cont * f * c_prev + i * g
