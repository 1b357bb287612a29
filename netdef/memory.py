"""The memory of a plan: which arrays share a buffer, how long each is needed, where it lies.

Three steps, each a pure function; nothing is allocated:

1. ``_trace`` gives a number to every *value*: what a top holds from when its layer writes it. A
   layer that works in place ends one value of a blob and begins the next.
2. ``arrange`` puts values into *buffers*. Views (Split, Flatten, ...) stay in the buffer of their
   bottom. A layer that works in place takes the buffer over, unless somebody still needs what it
   overwrites: then its top gets a buffer of its own, and nobody has to keep a copy. Gradients go
   the same way; several readers of one value add to one buffer. Each buffer is in use from a first
   to a last *moment*: forward steps count up from 0, backward steps go on counting.
3. ``place`` lays buffers that are in use at different moments over each other, in one arena.

What users may look at after a pass is never reused: all blobs, unless ``arrange`` is told which to
``keep``. Inputs, outputs and losses are kept in any case.

Source: Pisarchyk & Lee, "Efficient memory management for deep neural net inference", MLSys 2020
(largest buffer first, best fit over lifetimes); Chen, Xu, Zhang & Guestrin, "Training deep nets
with sublinear memory cost", 2016 (in place and sharing by liveness).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netdef.blob import Shape
from netdef.fusion import Group
from netdef.plan import LayerPlan, Plan

#: Buffers begin on pages of the arena, each at another place within its page: loads and stores
#: whose addresses agree in the lowest 12 bits would wait for each other.
PAGE = 4096
LINE = 64

DATA, DIFF, ADDEND, WORK, GROUP_WORK = "data", "diff", "addend", "work", "group work"


@dataclass(frozen=True)
class Buffer:
    """Memory in use from ``first`` to ``last``, both included.

    Its size is that of top ``index`` of layer number ``layer``; of an ``addend`` that of a bottom,
    and of ``work`` what the layer asks for. With ``own`` it lies outside the arena: it is used at
    any time.
    """

    kind: str
    layer: int
    index: int
    name: str
    first: int
    last: int
    own: bool


@dataclass(frozen=True)
class Ends:
    """The buffers a layer works on, by number; None where there is none.

    ``bottom_diff`` is None where a gradient is not asked for. Where ``addend`` is not None, the
    gradient is computed there and then added to ``bottom_diff``, which others write too.
    ``free_forward``, ``free_backward``: a view that needs no computing in this direction.
    """

    bottom_data: tuple[int | None, ...]
    bottom_diff: tuple[int | None, ...]
    addend: tuple[int | None, ...]
    top_data: tuple[int | None, ...]
    top_diff: tuple[int | None, ...]
    work: tuple[int, ...]
    free_forward: bool
    free_backward: bool


@dataclass(frozen=True)
class Memory:
    """The buffers of a plan, and who works on which.

    ``groups`` has the layers that run as one, ``works`` the numbers of their own buffers;
    ``moments`` the name of what runs at each moment of a forward pass, and so backward from its
    end.
    ``blobs`` has the buffers of data and gradient that a blob shows after a pass, ``kept`` the
    names of those that show what they held. With ``reused`` there are others, and what passes
    between the layers of a group has no buffers. ``superseded`` has (layer, top, reader) of each
    top that no blob shows, because ``reader`` works on it in place and leaves it where it is.
    """

    buffers: tuple[Buffer, ...]
    layers: tuple[Ends, ...]
    groups: tuple[Group, ...]
    works: tuple[tuple[int, ...], ...]
    moments: tuple[str, ...]
    blobs: Mapping[str, tuple[int | None, int | None]]
    kept: frozenset[str]
    superseded: tuple[tuple[int, int, int], ...]
    reused: bool
    backward: bool


@dataclass(frozen=True)
class Places:
    """Sizes of all buffers in bytes, their offsets in the arena (None: own memory), its size."""

    sizes: tuple[int, ...]
    offsets: tuple[int | None, ...]
    arena: int


# -- values ----------------------------------------------------------------------------------------


@dataclass
class _Trace:
    """The values of a plan. ``bottoms`` and ``tops`` hold value numbers, by layer."""

    #: (layer, top) of each value
    made: list[tuple[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    bottoms: list[list[int]] = field(default_factory=list)
    tops: list[list[int]] = field(default_factory=list)
    #: The first and the last value of each blob.
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)


def _trace(plan: Plan) -> _Trace:
    trace = _Trace()
    for i, layer in enumerate(plan.layers):
        trace.bottoms.append([trace.last[name] for name in layer.bottoms])
        trace.tops.append(list(range(len(trace.made), len(trace.made) + len(layer.tops))))
        for j, name in enumerate(layer.tops):
            number = len(trace.made)
            trace.made.append((i, j))
            trace.names.append(name)
            trace.first.setdefault(name, number)
            trace.last[name] = number
    return trace


class _Classes:
    """Numbers that belong together (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def __getitem__(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def copy(self) -> _Classes:
        copied = _Classes(0)
        copied._parent = list(self._parent)
        return copied

    def join(self, a: int, b: int) -> None:
        a, b = self[a], self[b]
        self._parent[max(a, b)] = min(a, b)


# -- buffers ---------------------------------------------------------------------------------------


def arrange(
    plan: Plan,
    groups: Sequence[Group] = (),
    *,
    keep: Collection[str] | None = None,
    apart: bool = False,
    backward: bool = True,
) -> Memory:
    """Put everything the layers of ``plan`` read and write into buffers.

    ``groups``: those that run as one, found for the same ``keep`` and ``backward``.
    ``keep``: the blobs that can be looked at after a pass, beside inputs, outputs and losses; by
    default all. With ``apart`` each of them even has memory of its own, split ones too.
    ``backward``: whether there will be backward passes; only where not all blobs are kept does that
    matter.
    """
    return _Arrangement(plan, groups, keep, apart, backward or keep is None).memory()


class _Arrangement:
    """What is known of a plan while its memory is arranged."""

    def __init__(
        self,
        plan: Plan,
        groups: Sequence[Group],
        keep: Collection[str] | None,
        apart: bool,
        backward: bool,
    ) -> None:
        self.layers = plan.layers
        self.groups = tuple(groups)
        self.plan = plan
        self.trace = trace = _trace(plan)
        self.reused = keep is not None
        self.backward = backward
        self.group_of = {i: group for group in groups for i in range(group.first, group.stop)}
        #: Values that are never there: those that pass between the layers of a group.
        self.hidden = {
            trace.tops[i][0]
            for i, group in self.group_of.items()
            if self.reused and i < group.stop - 1
        }
        # Layers that run as one run at one moment. Where all blobs are kept, they may run one by
        # one, too, which then does not matter.
        self.moments: list[int] = []
        for i in range(len(plan.layers)):
            joins = self.reused and i in self.group_of and i > self.group_of[i].first
            self.moments.append(self.moments[-1] if joins else len(set(self.moments)))
        self.end = 2 * len(set(self.moments))
        self.late = _late(plan)
        made = {name for layer in plan.layers if not layer.bottoms for name in layer.tops}
        weighted = {
            name
            for layer in plan.layers
            for name, weight in zip(layer.tops, layer.loss_weights, strict=True)
            if weight
        }
        self.kept = frozenset(
            plan.blobs
            if keep is None
            else (name for name in plan.blobs if name in {*keep, *plan.outputs, *made, *weighted})
        )
        self.sources = made
        self.readers: dict[int, list[tuple[int, int]]] = {}
        for i, bottoms in enumerate(trace.bottoms):
            for k, value in enumerate(bottoms):
                self.readers.setdefault(value, []).append((i, k))
        self.read = self.readers.keys()
        self.free_forward = [not apart and self._is_free(i) for i in range(len(plan.layers))]
        self.free_backward = [
            free and layer.propagate[0]
            for free, layer in zip(self.free_forward, plan.layers, strict=True)
        ]
        self.buffers: list[Buffer] = []

    def _is_free(self, number: int) -> bool:
        """Whether a layer is a view whose tops can use the buffers of its bottom.

        An output cannot: users do with its values what they like, and give its gradient.
        """
        layer = self.layers[number]
        return (
            layer.layer.view
            and not any(layer.loss_weights)
            and all(value in self.read for value in self.trace.tops[number])
            and not any(name in self.plan.outputs for name in layer.tops)
        )

    def memory(self) -> Memory:
        data = self._data()
        diff, addend = self._diff()
        work, works = self._work()
        trace = self.trace
        backward = self.backward
        ends = []
        for i, layer in enumerate(self.layers):
            wanted = [wants and layer.needs_backward and backward for wants in layer.propagate]
            bottoms, tops = trace.bottoms[i], trace.tops[i]
            ends.append(
                Ends(
                    bottom_data=tuple(data[value] for value in bottoms),
                    bottom_diff=tuple(
                        diff[value] if wants else None
                        for value, wants in zip(bottoms, wanted, strict=True)
                    ),
                    addend=tuple(addend.get((i, k)) for k in range(len(bottoms))),
                    top_data=tuple(data[value] for value in tops),
                    top_diff=tuple(diff[value] for value in tops),
                    work=work[i],
                    free_forward=self.free_forward[i],
                    free_backward=self.free_backward[i],
                )
            )
        return Memory(
            buffers=tuple(self.buffers),
            layers=tuple(ends),
            groups=self.groups,
            works=works,
            moments=self._names(),
            blobs={name: (data[trace.last[name]], diff[self._shown(name)]) for name in trace.last},
            kept=self.kept,
            superseded=self._superseded(data),
            reused=self.reused,
            backward=backward,
        )

    def _superseded(self, data: list[int | None]) -> tuple[tuple[int, int, int], ...]:
        if self.reused:
            return ()
        trace = self.trace
        shown = {data[value] for value in trace.last.values()}
        return tuple(
            (*trace.made[value], self.readers[value][0][0])
            for value, name in enumerate(trace.names)
            if value != trace.last[name] and data[value] not in shown
        )

    def _names(self) -> tuple[str, ...]:
        """What runs at each moment of a forward pass."""
        names: dict[int, str] = {}
        for moment, layer in zip(self.moments, self.layers, strict=True):
            names.setdefault(moment, layer.name)
        if self.reused:
            names |= {self.moments[group.first]: group.name for group in self.groups}
        return tuple(names.values())

    def _moment(self, layer: int) -> int:
        """When a layer runs forward."""
        return self.moments[layer]

    def _moment_back(self, layer: int) -> int:
        """When a layer runs backward."""
        return self.end - 1 - self.moments[layer]

    def _add(
        self, kind: str, layer: int, index: int, name: str, moments: Collection[int], own: bool
    ) -> int:
        self.buffers.append(Buffer(kind, layer, index, name, min(moments), max(moments), own))
        return len(self.buffers) - 1

    # -- values --

    def _data(self) -> list[int | None]:
        """The buffer of each value."""
        trace, count = self.trace, len(self.trace.made)
        # Values that are the same: those of views.
        content = _Classes(count)
        for i in range(len(self.layers)):
            if self.free_forward[i]:
                for value in trace.tops[i]:
                    content.join(trace.bottoms[i][0], value)
        reads = self._reads(content)
        shown = {content[value] for name, value in trace.last.items() if name in self.kept}
        # Contents that follow each other in one buffer.
        place = _Classes(count)
        for i, layer in enumerate(self.layers):
            for j, value in enumerate(trace.tops[i]):
                if self.free_forward[i]:
                    place.join(trace.bottoms[i][0], value)
                elif layer.in_place[j]:
                    below = trace.bottoms[i][j]
                    # What a source has made stays where it made it, and where users write it.
                    if trace.names[below] in self.sources or (
                        content[below] not in shown
                        and not any(
                            moment >= self._moment(i) and (reader, bottom) != (i, j)
                            for moment, reader, bottom in reads[content[below]]
                        )
                    ):
                        place.join(below, value)
        moments: dict[int, list[int]] = {}
        own: dict[int, bool] = {}
        for value in range(count):
            i, _ = trace.made[value]
            mine = place[value]
            if value in self.hidden:
                continue
            moments.setdefault(mine, []).append(self._moment(i))
            moments[mine] += [moment for moment, _, _ in reads[content[value]]]
            own[mine] = own.get(mine, False) or (
                not self.reused or content[value] in shown or i >= self.late
            )
        numbers = {
            mine: self._add(DATA, *trace.made[mine], trace.names[mine], when, own[mine])
            for mine, when in moments.items()
        }
        return [None if value in self.hidden else numbers[place[value]] for value in range(count)]

    def _reads(self, content: _Classes) -> list[list[tuple[int, int, int | None]]]:
        """Who reads each content: (moment, layer, bottom); in backward bottom is None."""
        trace = self.trace
        reads: list[list[tuple[int, int, int | None]]] = [[] for _ in trace.made]
        for i, layer in enumerate(self.layers):
            if not self.free_forward[i]:
                for k, value in enumerate(trace.bottoms[i]):
                    reads[content[value]].append((self._moment(i), i, k))
            # As in Caffe, a top is in backward what layers in place have made of it.
            tops = [trace.last[name] for name in layer.tops]
            alone = not (self.reused and i in self.group_of) and not self.free_backward[i]
            if self.backward and layer.needs_backward and alone:
                for what, values in (("bottom", trace.bottoms[i]), ("top", tops)):
                    if what in layer.layer.backward_reads:
                        for value in values:
                            reads[content[value]].append((self._moment_back(i), i, None))
        for group in self.groups:
            last = self.layers[group.stop - 1]
            if self.backward and last.needs_backward:
                bottoms = [trace.bottoms[i][k] for i, k in group.bottoms]
                tops = [trace.last[name] for name in last.tops]
                for what, values in (("bottom", bottoms), ("top", tops)):
                    if what in group.fused.backward_reads:
                        for value in values:
                            moment = self._moment_back(group.first)
                            reads[content[value]].append((moment, group.first, None))
        return reads

    # -- gradients --

    def _shown(self, name: str) -> int:
        """The value whose gradient a blob shows: that which backward comes to last."""
        first, last = self.trace.first[name], self.trace.last[name]
        return first if last in self.read else last

    def _diff(self) -> tuple[list[int | None], dict[tuple[int, int], int]]:
        """The buffer of each value's gradient, and by layer and bottom those that are added."""
        trace, layers, count = self.trace, self.layers, len(self.trace.made)
        if not self.backward:
            return [None] * count, {}
        same, writers = self._gradients()
        # Gradients that follow each other in one buffer, as backward passes a layer in place.
        place = _Classes(count)
        for value in range(count):
            place.join(same[value], value)
        ends = self._last_moments(same, writers)
        for i, layer in enumerate(layers):
            for j, value in enumerate(trace.tops[i]):
                if not layer.in_place[j] or self.free_backward[i] or layer.loss_weights[j]:
                    continue  # the gradient of a loss is its weight, and stays
                below = trace.bottoms[i][j]
                begins = writers.get(same[below], [(i, j)])[-1] == (i, j)
                if begins and ends.get(same[value], 0) <= self._moment_back(i):
                    place.join(below, value)
        addend: dict[tuple[int, int], int] = {}
        for written in writers.values():
            # Backward runs from the last layer to the first: the first to come writes.
            for i, k in written[-2::-1]:
                name = f"{layers[i].bottoms[k]} diff in {layers[i].name}"
                when = [self._moment_back(i)]
                addend[i, k] = self._add(ADDEND, i, k, name, when, i >= self.late)

        shown = {place[self._shown(name)] for name in self.kept}
        moments: dict[int, list[int]] = {}
        own: set[int] = set()
        for value in range(count):
            i, j = trace.made[value]
            mine = place[value]
            if value in self.hidden:
                continue
            when = [self._moment_back(n) for n, _ in writers.get(same[value], ())]
            moments.setdefault(mine, []).extend(when)
            if layers[i].needs_backward and not self.free_backward[i]:
                moments[mine].append(self._moment_back(i))
                if not when:
                    # It is 0, or what the user writes, or the weight of a loss.
                    own.add(mine)
            if not self.reused or mine in shown or i >= self.late:
                own.add(mine)
        numbers = {
            mine: self._add(
                DIFF,
                *trace.made[mine],
                f"{trace.names[mine]} diff",
                when or [self.end],
                mine in own,
            )
            for mine, when in moments.items()
            if when or mine in own
        }
        diffs = [
            None if value in self.hidden else numbers.get(place[value]) for value in range(count)
        ]
        return diffs, addend

    def _gradients(self) -> tuple[_Classes, dict[int, list[tuple[int, int]]]]:
        """Values that have one gradient; of each the bottoms (layer, index) that write it, in
        order: the last of them is the first in backward, and writes, the others add."""
        trace = self.trace
        same = _Classes(len(trace.made))
        for i in range(len(self.layers)):
            if self.free_backward[i]:
                for value in trace.tops[i]:
                    same.join(trace.bottoms[i][0], value)
        writers: dict[int, list[tuple[int, int]]] = {}
        for i, layer in enumerate(self.layers):
            for k, value in enumerate(trace.bottoms[i]):
                if layer.needs_backward and layer.propagate[k] and not self.free_backward[i]:
                    writers.setdefault(same[value], []).append((i, k))
        for i in range(len(self.layers)):
            if self.reused and self._may_share_sum(i):
                joined = self._with_sum(i, same, writers)
                if joined is not None:
                    same, writers = joined
                    self.free_backward[i] = True
        return same, writers

    def _may_share_sum(self, number: int) -> bool:
        """Whether a layer passes the gradient of its top to its bottoms as it is, unseen."""
        layer, trace = self.layers[number], self.trace
        seen = self.kept & {*layer.bottoms, *layer.tops}
        return (
            layer.layer.plain_sum
            and layer.needs_backward
            and not any(layer.in_place)
            and not seen
            and all(value in self.read for value in trace.tops[number])
        )

    def _with_sum(
        self, number: int, same: _Classes, writers: dict[int, list[tuple[int, int]]]
    ) -> tuple[_Classes, dict[int, list[tuple[int, int]]]] | None:
        """The same with the gradients of bottoms and top of a sum in one, if that can be.

        One buffer then first holds the gradient of the top, and what others add makes it that of a
        bottom which they read, too. That goes well if whoever reads it does so when all that
        belongs to it has been written, and nothing else.
        """
        layer, trace = self.layers[number], self.trace
        wanted = [v for v, to in zip(trace.bottoms[number], layer.propagate, strict=True) if to]
        merged = same.copy()
        for value in wanted:
            merged.join(value, trace.tops[number][0])
        mine = {v for v in range(len(trace.made)) if merged[v] == merged[trace.tops[number][0]]}
        held = sorted(
            writer
            for old in {same[value] for value in mine}
            for writer in writers.get(old, ())
            if writer[0] != number
        )
        for value in mine:
            maker, _ = trace.made[value]
            reads = self.layers[maker].needs_backward and not self.free_backward[maker]
            if not reads or maker == number:
                continue
            moment = self._moment_back(maker)
            there = [writer for writer in held if self._moment_back(writer[0]) < moment]
            if sorted(self._contributions(value, number)) != there:
                return None
            group = self.group_of.get(maker)
            if group is not None and group.fused.changes_gradient:
                later = [self._moment_back(i) for i, _ in held]
                later += [self._moment_back(trace.made[v][0]) for v in mine]
                if max(later) > moment:
                    return None
        found = {
            merged[old]: list(bottoms)
            for old, bottoms in writers.items()
            if merged[old] != merged[trace.tops[number][0]]
        }
        found[merged[trace.tops[number][0]]] = held
        return merged, found

    def _contributions(self, value: int, number: int) -> list[tuple[int, int]]:
        """The bottoms whose gradients make up that of a value, if layer ``number`` is free too."""
        found = []
        for i, k in self.readers.get(value, ()):
            layer = self.layers[i]
            if not layer.needs_backward or not layer.propagate[k]:
                continue
            if i == number or self.free_backward[i]:
                for top in self.trace.tops[i]:
                    found += self._contributions(top, number)
            else:
                found.append((i, k))
        return found

    def _last_moments(
        self, same: _Classes, writers: dict[int, list[tuple[int, int]]]
    ) -> dict[int, int]:
        """When each gradient is read or written for the last time."""
        moments: dict[int, int] = {}
        for gradient, bottoms in writers.items():
            moments[gradient] = max(self._moment_back(i) for i, _ in bottoms)
        for value, (i, _) in enumerate(self.trace.made):
            if self.layers[i].needs_backward and not self.free_backward[i]:
                read = self._moment_back(i)
                moments[same[value]] = max(moments.get(same[value], 0), read)
        return moments

    # -- work --

    def _work(self) -> tuple[list[tuple[int, ...]], tuple[tuple[int, ...], ...]]:
        """The buffers that layers, and groups, keep from forward for backward."""

        def buffers(kind: str, i: int, name: str, count: int) -> tuple[int, ...]:
            when = [self._moment(i)]
            if self.backward and self.layers[i].needs_backward:
                when.append(self._moment_back(i))
            own = not self.reused or i >= self.late
            return tuple(self._add(kind, i, k, f"{name} work {k}", when, own) for k in range(count))

        alone = []
        for i, layer in enumerate(self.layers):
            runs = not (self.reused and i in self.group_of)
            count = len(list(layer.layer.work(*layer.bottom_shapes))) if runs else 0
            alone.append(buffers(WORK, i, layer.name, count))
        works = [
            buffers(GROUP_WORK, group.first, group.name, len(list(group.work(self.plan))))
            for group in self.groups
        ]
        return alone, tuple(works)


def _late(plan: Plan) -> int:
    """The first layer whose shapes may change when others have already computed; else the end.

    What it and those behind it write has memory of its own, so that nothing else has to move.
    """
    computed = False
    for i, layer in enumerate(plan.layers):
        computed |= bool(layer.bottoms)
        if computed and layer.layer.dynamic:
            return i
    return len(plan.layers)


# -- places ----------------------------------------------------------------------------------------


def shape_of(plan: Plan, memory: Memory, buffer: Buffer) -> tuple[Shape, Any]:
    """The shape of a buffer, and its type where that is not the net's."""
    layer: LayerPlan = plan.layers[buffer.layer]
    if buffer.kind == WORK:
        wanted = list(layer.layer.work(*layer.bottom_shapes))[buffer.index]
        return wanted.shape, wanted.dtype
    if buffer.kind == GROUP_WORK:
        group = next(group for group in memory.groups if group.first == buffer.layer)
        wanted = list(group.work(plan))[buffer.index]
        return wanted.shape, wanted.dtype
    if buffer.kind == ADDEND:
        return layer.bottom_shapes[buffer.index], None
    return layer.top_shapes[buffer.index], None


def place(plan: Plan, memory: Memory, dtype: Any = np.float32) -> Places:
    """Lay out the arena for the present shapes of a plan, whose values are of ``dtype``.

    The largest buffer is placed first, and each in the smallest gap that takes it between those it
    shares a moment with.
    """
    sizes = []
    for buffer in memory.buffers:
        shape, own_type = shape_of(plan, memory, buffer)
        sizes.append(math.prod(shape) * np.dtype(own_type or dtype).itemsize)
    rooms = [-(-size // PAGE) * PAGE + PAGE for size in sizes]
    shared = [number for number, buffer in enumerate(memory.buffers) if not buffer.own]
    order = sorted(shared, key=lambda n: (-rooms[n], memory.buffers[n].first, n))
    begin, end, first, last = (np.zeros(len(order), np.int64) for _ in range(4))
    offsets: list[int | None] = [None] * len(sizes)
    for count, number in enumerate(order):
        buffer, room = memory.buffers[number], rooms[number]
        beside = (first[:count] <= buffer.last) & (last[:count] >= buffer.first)
        at = _best_gap(begin[:count][beside], end[:count][beside], room)
        begin[count], end[count] = at, at + room
        first[count], last[count] = buffer.first, buffer.last
        # Neighbours in time get different lines of their pages.
        offsets[number] = at + number * 7 * LINE % PAGE
    return Places(tuple(sizes), tuple(offsets), int(end.max(initial=0)))


def _best_gap(begin: np.ndarray, end: np.ndarray, room: int) -> int:
    """Where the smallest gap of at least ``room`` begins between pieces; else behind them all."""
    order = np.argsort(begin, kind="stable")
    starts = np.concatenate([[0], np.maximum.accumulate(end[order])])
    gaps = begin[order] - starts[:-1]
    fitting = np.flatnonzero(gaps >= room)
    if fitting.size:
        return int(starts[fitting[np.argmin(gaps[fitting])]])
    return int(starts[-1])
