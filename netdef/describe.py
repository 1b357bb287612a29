"""A plan, its memory and files of weights as tables, for ``netdef show`` and ``netdef weights``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from netdef.blob import shape_text
from netdef.memory import Memory, place
from netdef.plan import Plan
from netdef.weights import LayerWeights, Statistics, numbered, statistics

MEBIBYTE = 2**20


def describe_plan(plan: Plan, memory: Memory) -> str:
    """A line per layer with its shapes, parameters and gradients; then what the whole takes.

    A layer that is ``free`` takes no time, one that is ``fused`` runs as one with that before it.
    """
    rows = [("layer", "type", "bottoms", "tops", "params", "backward")]
    fused = {i for group in memory.groups for i in range(group.first + 1, group.stop)}
    for number, (layer, ends) in enumerate(zip(plan.layers, memory.layers, strict=True)):
        tops = [
            f"{name} {shape_text(shape)}"
            + (" (in place)" if in_place else "")
            + (f" loss*{weight:g}" if weight else "")
            for name, shape, in_place, weight in zip(
                layer.tops, layer.top_shapes, layer.in_place, layer.loss_weights, strict=True
            )
        ]
        params = [
            shape_text(plan.params[i].shape)
            + ("" if plan.params[i].owner == i else f" = {plan.params[i].name}")
            for i in layer.params
        ]
        into = [
            name + ("" if addend is None else " (adds)")
            for name, wanted, addend in zip(
                layer.bottoms, layer.propagate, ends.addend, strict=True
            )
            if wanted
        ]
        backward = (
            ("into " + ", ".join(into) if into else "params only") if layer.needs_backward else "-"
        )
        rows.append(
            (
                layer.name,
                layer.type
                + (" (free)" if ends.free_forward else "")
                + (" (fused)" if number in fused else ""),
                ", ".join(layer.bottoms) or "-",
                ", ".join(tops) or "-",
                ", ".join(params) or "-",
                backward,
            )
        )
    weights = sum(math.prod(param.shape) for param in plan.learnable)
    lines = [
        "",
        f"inputs: {', '.join(plan.inputs) or '-'}",
        f"outputs: {', '.join(plan.outputs) or '-'}",
        f"parameters: {weights} values, {_mebibytes(weights * 4)}",
        *_totals(plan, memory),
    ]
    return "\n".join([*_table(rows), *lines])


def describe_memory(plan: Plan, memory: Memory) -> str:
    """A line per buffer, in the order in which they come into use; then the totals."""
    places = place(plan, memory)
    rows = [("buffer", "bytes", "at", "from", "to")]
    order = sorted(range(len(memory.buffers)), key=lambda n: (memory.buffers[n].first, n))
    for number in order:
        buffer, offset = memory.buffers[number], places.offsets[number]
        rows.append(
            (
                buffer.name,
                str(places.sizes[number]),
                "own" if offset is None else str(offset),
                _moment(memory.moments, buffer.first),
                _moment(memory.moments, buffer.last),
            )
        )
    return "\n".join([*_table(rows), "", *_totals(plan, memory)])


def describe_weights(layers: Sequence[LayerWeights]) -> str:
    """A line for each blob of a file, with what its numbers are like; then the totals."""
    rows = [("layer", "type", "blob", "shape", "numbers", "min", "max", "mean", "std", "oddities")]
    kinds: dict[str, int] = {}
    for layer in layers:
        for index, blob in numbered(layer):
            found = statistics(blob.data)
            numbers = (found.minimum, found.maximum, found.mean, found.std)
            least, most, mean, std = (
                "-" if math.isnan(number) else f"{number:.4g}" for number in numbers
            )
            rows.append(
                (
                    layer.name,
                    layer.type or "-",
                    str(index),
                    shape_text(blob.shape),
                    str(blob.data.size),
                    least,
                    most,
                    mean,
                    std,
                    _oddities(found, blob.data.size),
                )
            )
            kinds[blob.data.dtype.name] = kinds.get(blob.data.dtype.name, 0) + blob.data.size
    holding = sum(1 for layer in layers if layer.blobs)
    told = ", ".join(f"{count} in {kind}" for kind, count in kinds.items()) or "none"
    lines = [
        "",
        f"layers: {holding} with weights, {len(layers) - holding} without",
        f"numbers: {told}",
    ]
    return "\n".join([*(_table(rows) if holding else []), *lines])


def _oddities(found: Statistics, count: int) -> str:
    """What a look at the numbers should not miss."""
    told = []
    if found.nans:
        told.append(f"{found.nans} NaN")
    if found.infinities:
        told.append(f"{found.infinities} infinite")
    if count > 1 and found.zeros == count:
        told.append("all zero")
    elif 2 * found.zeros > count > 1:
        told.append(f"{100 * found.zeros // count} % zero")
    return ", ".join(told)


def _moment(names: Sequence[str], moment: int) -> str:
    """A moment as users know it."""
    if moment < len(names):
        return f"{names[moment]} forward"
    if moment < 2 * len(names):
        return f"{names[2 * len(names) - 1 - moment]} backward"
    return "end"


def _totals(plan: Plan, memory: Memory) -> list[str]:
    places = place(plan, memory)
    # A gradient that nobody computes is never touched, and takes no memory.
    sizes = {
        n: places.sizes[n]
        for n, buffer in enumerate(memory.buffers)
        if buffer.first < 2 * len(memory.moments)
    }
    own = sum(size for n, size in sizes.items() if places.offsets[n] is None)
    return [
        f"blobs, gradients and work: {_mebibytes(sum(sizes.values()))}",
        f"memory: {_mebibytes(places.arena)} that they share, {_mebibytes(own)} of their own",
    ]


def _mebibytes(count: int) -> str:
    return f"{count / MEBIBYTE:.2f} MiB"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
