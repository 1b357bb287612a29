"""Handwritten digits that need no download, drawn from stroke skeletons: the same bytes everywhere.

A digit has several skeletons (the ways people write it), each a few strokes through control points.
An image moves the control points, bends the plane by a random Bézier patch, scales, slants, rotates
and shifts the strokes, and inks every pixel by its distance to the nearest one, with soft edges and
some noise.

An image is a function of (seed, split, index, label) alone. Its randomness is counter-based
integers, and floats meet only ``+ - * /`` and square roots, element by element: IEEE 754 rounds
these in one way, so the bytes depend on no machine, thread count, batch size or version of numpy.

Source of the bending: Sederberg & Parry, Free-form deformation of solid geometric models, 1986.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from netdef.data.writer import Database, Progress, ignore, open_writer, write_images

__all__ = ["CLASSES", "LARGEST_SEED", "MOST_IMAGES", "SIDE", "SPLITS", "generate", "write"]

CLASSES = 10
#: Images are ``SIDE`` x ``SIDE`` pixels, as in MNIST.
SIDE = 28
#: Splits draw from different random streams, so they never share an image.
SPLITS = ("train", "test")
MOST_IMAGES = 1_000_000
LARGEST_SEED = 2**64 - 1

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
Counters: TypeAlias = NDArray[np.uint64]

#: The box skeletons are written in: x to the right, y down.
BOX_WIDTH, BOX_HEIGHT = 14.0, 20.0
#: Straight segments a skeleton is divided into.
SEGMENTS = 30
#: Images worked on at once: their buffers fit the second-level cache.
BATCH = 64

# One line per way of writing the digit. Strokes are separated by "|"; each is a smooth curve
# through its "x,y" points, and a corner is the end of one stroke and the start of the next.
SKELETONS: tuple[tuple[str, ...], ...] = (
    (
        "8,0 3,2 0,10 3,18 7,20 11,18 14,10 11,2 8,0",
        "7,1 3,5 2,12 4,18 7,20 11,17 12,9 10,3 6,0 5,2",
        "10,1 4,2 0,9 2,17 7,20 12,16 14,9 11,3 7,2",
        "9,1 5,3 2,9 3,16 7,19 11,15 12,8 10,2 9,1 7,2",
    ),
    (
        "7,0 7,10 7,20",
        "7,0 7,20 | 3,4 7,0",
        "8,0 8,20 | 3,5 6,3 8,0 | 3,20 13,20",
        "8,0 7,10 6,20",
        "7,1 7,20 | 4,3 7,1",
    ),
    (
        "1,5 3,1 8,0 12,3 11,8 6,14 0,20 | 0,20 14,20",
        "1,4 4,0 10,1 12,5 9,11 4,17 1,19 1,16 4,16 9,19 14,18",
        "2,3 7,0 12,3 11,8 7,13 1,19 | 1,19 5,18 10,20 14,18",
        "0,6 1,2 6,0 11,3 10,9 5,16 2,20 | 2,20 13,19",
        "1,2 10,1 | 10,1 12,4 9,10 1,20 | 1,20 14,20",
    ),
    (
        "1,3 5,0 11,1 12,5 9,9 5,10 | 5,10 11,11 13,15 10,19 5,20 0,17",
        "1,1 12,1 | 12,1 6,8 | 6,8 11,10 13,14 10,19 5,20 0,18",
        "2,2 7,0 11,3 9,8 6,9 10,10 12,14 9,19 4,20 1,17",
        "1,4 4,0 10,0 12,4 9,8 5,9 7,10 12,12 12,17 7,20 1,18",
    ),
    (
        "2,0 0,11 | 0,11 13,11 | 10,0 10,20",
        "10,0 0,13 | 0,13 14,13 | 10,0 10,20",
        "2,1 1,8 3,11 8,11 12,9 | 12,1 11,10 10,20",
        "9,0 4,7 0,13 | 0,13 7,13 14,12 | 10,7 9,20",
        "1,2 2,9 6,11 12,9 | 13,0 12,9 11,20",
        "11,1 1,12 | 1,12 13,12 | 11,1 9,20",
    ),
    (
        "3,0 2,9 | 2,9 7,7 12,10 13,15 9,19 4,20 0,17 | 3,0 13,0",
        "13,0 3,1 | 3,1 2,8 | 2,8 8,8 13,12 11,18 5,20 0,18",
        "12,1 5,1 2,5 4,9 10,11 12,15 9,19 4,20 0,18",
        "2,1 2,8 | 2,8 8,7 12,11 11,17 6,20 1,18 | 2,1 12,1",
        "4,1 2,9 9,9 12,14 8,19 1,19 | 4,1 12,0",
    ),
    (
        "10,0 5,4 1,11 2,18 7,20 12,17 12,12 7,10 2,14",
        "7,0 3,7 1,14 4,19 9,20 13,16 11,12 6,12 2,16",
        "12,1 7,1 3,5 1,12 3,18 8,20 13,16 12,11 7,10 2,13",
        "4,0 2,10 2,17 6,20 11,18 11,13 6,12 2,16",
        "9,0 3,8 2,16 6,20 11,17 10,12 5,13 3,17",
    ),
    (
        "0,1 13,1 | 13,1 8,9 5,20",
        "0,1 13,1 | 13,1 9,9 6,20 | 4,10 13,10",
        "0,5 1,1 | 1,1 13,1 | 13,1 7,11 4,20",
        "1,3 5,0 9,2 13,1 | 13,1 9,9 7,20",
        "1,2 12,1 10,8 8,20",
        "0,2 13,1 | 13,1 9,10 4,20 | 4,11 11,10",
    ),
    (
        "11,3 7,0 2,3 4,8 10,12 12,17 7,20 2,17 4,12 10,7 11,3",
        "7,0 3,2 3,7 7,9 11,7 11,2 7,0 | 7,9 2,12 2,18 7,20 12,18 12,12 7,9",
        "12,2 7,0 3,4 6,9 11,14 9,19 4,19 2,15 6,10 12,2",
        "6,9 3,5 6,1 10,3 9,7 6,9 2,14 4,19 9,19 11,15 6,9",
    ),
    (
        "12,4 8,0 3,2 2,7 6,10 11,7 12,3 | 12,3 12,11 10,20",
        "11,3 6,0 1,4 3,9 8,9 11,4 | 11,4 12,12 9,18 5,20 2,18",
        "12,2 6,1 2,5 4,9 9,8 12,2 11,11 8,20",
        "10,4 7,1 3,3 3,8 7,9 10,5 | 11,1 11,10 11,20",
        "11,2 6,0 2,4 4,9 9,8 11,3 10,12 4,20",
    ),
)

# How far images stray from their skeleton; lengths in units of its box, a pixel being about one.
POINT_JITTER = 0.95  # a control point moves by up to this, per axis
BEND = 3.4  # a control point of the Bézier patch moves by up to this
WIDTHS = (0.70, 1.10)  # scale of x
HEIGHTS = (0.85, 1.05)  # scale of y
SLANTS = (-0.15, 0.45)  # shear: people lean to the right
HALF_TURN = 0.12  # tangent of half the largest rotation, about 14 degrees
SHIFT = 1.2  # of the middle of the digit from that of the image
MARGIN = 2.5  # pixels between the strokes' middle lines and the border
RADII = (0.7, 1.6)  # half the width of a stroke
PRESSURE = 0.30  # relative change of width along the strokes
SOFTNESS = (0.9, 1.7)  # pixels over which the edge of a stroke fades
INK = (0.70, 1.0)  # brightness of a stroke, 1 being white
NOISE = 0.06  # largest standard deviation of a pixel

# The uniform numbers an image is made of, by column: its own, then PRESSURES along its strokes,
# then the PATCH. Moves of control points and noise come from streams of their own.
(
    WAY,
    WIDTH,
    HEIGHT,
    SLANT,
    SLANT_TOO,
    TURN,
    TURN_TOO,
    RIGHT,
    DOWN,
    RADIUS,
    FADE,
    LEVEL,
    GRAIN,
    OWN,
) = range(14)
PRESSURES, PATCH = 4, 32


def generate(count: int, *, seed: int, split: str) -> Iterator[tuple[Bytes, Bytes]]:
    """Yield batches of (images ``(n, SIDE, SIDE)``, labels ``(n,)``), ``count`` images in all.

    White strokes on black. Classes are shuffled and differ in number by at most one. Raises
    ``ValueError`` where ``count`` is not in 1..``MOST_IMAGES``, ``seed`` is not an unsigned 64-bit
    integer or ``split`` is not in ``SPLITS``.
    """
    if not 1 <= count <= MOST_IMAGES:
        raise ValueError(f"count is {count}, not in 1..{MOST_IMAGES}")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed}, not in 0..{LARGEST_SEED}")
    stream = _stream(seed, SPLITS.index(split))
    labels = _labels(count, stream)
    for first in range(0, count, BATCH):
        batch = labels[first : first + BATCH]
        indices = np.arange(first, first + len(batch), dtype=np.uint64)
        yield _images(batch, indices, stream), batch


def write(
    folder: Path,
    *,
    train: int = 10_000,
    test: int = 2_000,
    seed: int = 0,
    backend: str = "lmdb",
    force: bool = False,
    progress: Progress = ignore,
) -> tuple[Database, Database]:
    """Write ``digits_train_lmdb`` and ``digits_test_lmdb`` in ``folder``, or ``_leveldb``.

    Raises ``OutputError`` where they cannot be written or, without ``force``, exist already, and
    ``ValueError`` as :func:`generate` does.
    """
    with (
        open_writer(folder / f"digits_train_{backend}", backend, force=force) as train_writer,
        open_writer(folder / f"digits_test_{backend}", backend, force=force) as test_writer,
    ):
        return (
            write_images(train_writer, generate(train, seed=seed, split="train"), train, progress),
            write_images(test_writer, generate(test, seed=seed, split="test"), test, progress),
        )


# Randomness: the n-th number of a stream is a hash of n.


def _mix(values: Counters) -> Counters:
    """The finalizer of SplitMix64: a bijection whose every output bit depends on every input bit.

    Steele, Lea & Flood, Fast splittable pseudorandom number generators, 2014.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Counters = values ^ (values >> np.uint64(31))
    return mixed


def _bits(streams: Counters, count: int) -> Counters:
    """``count`` random 64-bit integers for each of ``streams``: ``(len(streams), count)``."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mix(streams[:, None] + steps)


def _uniform(streams: Counters, count: int) -> Floats:
    """``count`` numbers in [0, 1) for each of ``streams``, exact multiples of 2^-24."""
    uniform: Floats = (_bits(streams, count) >> np.uint64(40)).astype(np.float32) * 2.0**-24
    return uniform


def _stream(seed: int, split: int) -> Counters:
    words = np.array([seed, split], np.uint64)
    return _mix(_mix(words[:1]) + words[1:])


def _labels(count: int, stream: Counters) -> Bytes:
    order = np.argsort(_bits(_mix(~stream), count)[0], kind="stable")
    labels: Bytes = (order % CLASSES).astype(np.uint8)
    return labels


# Skeletons: control points to the ends of short segments, as one fixed linear map.


@dataclass(frozen=True)
class _Skeleton:
    """``controls (k, 2)``; ``basis (p, k)`` maps them to points; segment i joins points
    ``starts[i]`` and ``ends[i]``."""

    controls: Floats
    basis: Floats
    starts: NDArray[np.intp]
    ends: NDArray[np.intp]


@cache
def _skeletons() -> tuple[tuple[_Skeleton, ...], ...]:
    return tuple(tuple(_skeleton(text) for text in ways) for ways in SKELETONS)


def _skeleton(text: str) -> _Skeleton:
    strokes = [
        [(float(x), float(y)) for x, y in (point.split(",") for point in stroke.split())]
        for stroke in text.split("|")
    ]
    # Strokes that meet share a control point, so they still meet after it has moved.
    controls = list(dict.fromkeys(point for stroke in strokes for point in stroke))
    spans = [
        (tuple(controls.index(point) for point in _neighbours(stroke, i)), _length(stroke, i))
        for stroke in strokes
        for i in range(len(stroke) - 1)
    ]
    rows: list[list[float]] = []
    starts: list[int] = []
    for (indices, _), pieces in zip(spans, _share([length for _, length in spans]), strict=True):
        starts += range(len(rows), len(rows) + pieces)
        for step in range(pieces + 1):
            row = [0.0] * len(controls)
            for index, weight in zip(indices, _catmull_rom(step / pieces), strict=True):
                row[index] += weight
            rows.append(row)
    return _Skeleton(
        np.array(controls, np.float32),
        np.array(rows, np.float32),
        np.array(starts, np.intp),
        np.array(starts, np.intp) + 1,
    )


def _neighbours(stroke: list[tuple[float, float]], i: int) -> list[tuple[float, float]]:
    """The four points that shape a stroke between its points i and i + 1; its ends count twice."""
    last = len(stroke) - 1
    return [stroke[max(i - 1, 0)], stroke[i], stroke[i + 1], stroke[min(i + 2, last)]]


def _length(stroke: list[tuple[float, float]], i: int) -> float:
    (ax, ay), (bx, by) = stroke[i], stroke[i + 1]
    return math.sqrt((bx - ax) * (bx - ax) + (by - ay) * (by - ay))


def _catmull_rom(t: float) -> tuple[float, float, float, float]:
    """Weights of four points at ``t`` of the way from the second to the third.

    Catmull & Rom, A class of local interpolating splines, 1974.
    """
    return (
        0.5 * t * (t * (2.0 - t) - 1.0),
        0.5 * (t * t * (3.0 * t - 5.0) + 2.0),
        0.5 * t * (t * (4.0 - 3.0 * t) + 1.0),
        0.5 * t * t * (t - 1.0),
    )


def _share(lengths: list[float]) -> list[int]:
    """Divide SEGMENTS among spans: one each, then always to where segments are longest."""
    pieces = [1] * len(lengths)
    while sum(pieces) < SEGMENTS:
        longest = max(range(len(lengths)), key=lambda i: lengths[i] / pieces[i])
        pieces[longest] += 1
    return pieces


# Drawing.


def _between(low_high: tuple[float, float], uniform: Floats) -> Floats:
    low, high = low_high
    between: Floats = uniform * (high - low) + low
    return between


def _images(labels: Bytes, indices: Counters, stream: Counters) -> Bytes:
    """``(n, SIDE, SIDE)``: images ``indices`` of a stream."""
    streams = _mix(stream ^ _mix(indices + np.uint64(1)))
    own = _uniform(streams, OWN + PRESSURES + PATCH)
    starts, ends = _strokes(labels, own, streams)
    radius = _between(RADII, own[:, RADIUS])
    distance = _distance(starts, ends, _thickness(radius, own[:, OWN : OWN + PRESSURES]))
    softness = _between(SOFTNESS, own[:, FADE])
    ink = np.clip((radius[:, None] - distance) / softness[:, None] + 0.5, 0.0, 1.0)
    ink = ink * ink * (3.0 - 2.0 * ink)  # no visible edge where the fade begins and ends
    level = _between(INK, own[:, LEVEL])
    noise = _noise(streams) * (own[:, GRAIN] * NOISE)[:, None]
    grey = np.clip(ink * level[:, None] + noise, 0.0, 1.0)
    images: Bytes = (grey * 255.0 + 0.5).astype(np.uint8)
    return images.reshape(-1, SIDE, SIDE)


def _strokes(labels: Bytes, own: Floats, streams: Counters) -> tuple[Floats, Floats]:
    """Start and end of each segment in pixels, ``(2, n, SEGMENTS)`` each."""
    starts = np.empty((2, len(labels), SEGMENTS), np.float32)
    ends = np.empty_like(starts)
    ways = np.array([len(ways) for ways in SKELETONS])[labels]
    chosen = np.minimum((own[:, WAY] * ways.astype(np.float32)).astype(np.intp), ways - 1)
    for label, way in sorted(set(zip(labels.tolist(), chosen.tolist(), strict=True))):
        rows = np.flatnonzero((labels == label) & (chosen == way))
        skeleton = _skeletons()[label][way]
        points = _place(_points(skeleton, streams[rows]), own[rows])
        starts[:, rows] = points[:, :, skeleton.starts]
        ends[:, rows] = points[:, :, skeleton.ends]
    return starts, ends


def _points(skeleton: _Skeleton, streams: Counters) -> Floats:
    """Points along a skeleton whose control points moved at random: ``(2, n, p)``."""
    controls = len(skeleton.controls)
    moves = (_uniform(_mix(~streams), 2 * controls) * 2.0 - 1.0) * POINT_JITTER
    moved = skeleton.controls.T[:, None, :] + moves.reshape(-1, 2, controls).transpose(1, 0, 2)
    points = np.zeros((2, len(streams), len(skeleton.basis)), np.float32)
    # Not a matrix product: BLAS libraries add in orders of their own.
    for k in range(controls):
        points += moved[:, :, k, None] * skeleton.basis[:, k]
    return points


def _place(points: Floats, own: Floats) -> Floats:
    """Bend, scale, slant and rotate ``points (2, n, p)``, then put them in the image."""
    x, y = _bend(points, own[:, OWN + PRESSURES :])
    column = own[:, :, None]
    x = (x - BOX_WIDTH / 2) * _between(WIDTHS, column[:, WIDTH])
    y = (y - BOX_HEIGHT / 2) * _between(HEIGHTS, column[:, HEIGHT])
    # Two draws added: slight slants and turns are more common than great ones.
    x = x - y * _between(SLANTS, (column[:, SLANT] + column[:, SLANT_TOO]) * 0.5)
    t: Floats = (column[:, TURN] + column[:, TURN_TOO] - 1.0) * HALF_TURN
    norm = np.reciprocal(t * t + 1.0)
    cosine, sine = (1.0 - t * t) * norm, (t + t) * norm
    return np.stack(
        (
            _fit(x * cosine - y * sine, column[:, RIGHT]),
            _fit(x * sine + y * cosine, column[:, DOWN]),
        )
    )


def _bend(points: Floats, patch: Floats) -> tuple[Floats, Floats]:
    """Displace ``points`` by a bicubic Bézier patch whose control points are ``patch (n, 32)``."""
    x, y = points
    across, down = _bernstein(x * (1.0 / BOX_WIDTH)), _bernstein(y * (1.0 / BOX_HEIGHT))
    shifts = (patch * 2.0 - 1.0) * BEND
    bent_x, bent_y = x.copy(), y.copy()
    for i in range(4):
        for j in range(4):
            weight = across[i] * down[j]
            bent_x += weight * shifts[:, 4 * i + j, None]
            bent_y += weight * shifts[:, 16 + 4 * i + j, None]
    return bent_x, bent_y


def _bernstein(u: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    u = np.clip(u, 0.0, 1.0)
    v = 1.0 - u
    return v * v * v, 3.0 * u * v * v, 3.0 * u * u * v, u * u * u


def _fit(positions: Floats, shift: Floats) -> Floats:
    """Move one axis of the strokes to the middle of the image plus a random shift, shrunk where
    they would leave it."""
    low = positions.min(axis=1, keepdims=True)
    high = positions.max(axis=1, keepdims=True)
    room = SIDE - 1 - 2 * (MARGIN + SHIFT)
    shrink = room / np.maximum(high - low, room)
    middle = (SIDE - 1) / 2 + (shift * 2.0 - 1.0) * SHIFT
    placed: Floats = (positions - (low + high) * 0.5) * shrink + middle
    return placed


def _thickness(radius: Floats, pressures: Floats) -> Floats:
    """For each segment, (mean radius / its own)^2: ``(n, SEGMENTS)``."""
    knots = len(pressures[0]) - 1
    along = np.arange(SEGMENTS, dtype=np.float32) * (knots / SEGMENTS)
    left = along.astype(np.intp)
    part = along - left.astype(np.float32)
    pressure = pressures[:, left] * (1.0 - part) + pressures[:, left + 1] * part
    relative = 1.0 + (pressure * 2.0 - 1.0) * PRESSURE
    return np.reciprocal(relative * relative)


def _distance(starts: Floats, ends: Floats, weights: Floats) -> Floats:
    """Distance of every pixel to the nearest segment, ``(n, SIDE * SIDE)``.

    With a, b the ends of a segment, d = b - a and k = (p - a).d / |d|^2, clipped to t in [0, 1],
    the squared distance of pixel p is |p - a|^2 - |d|^2 t (2k - t), here times the weight.
    """
    count = len(weights)
    pixels = np.arange(SIDE, dtype=np.float32)
    nearest = np.full((count, SIDE, SIDE), np.inf, np.float32)
    k, t, squared = (np.empty_like(nearest) for _ in range(3))
    for s in range(SEGMENTS):
        weight = weights[:, s, None]
        (dx, dy) = ends[:, :, s, None] - starts[:, :, s, None]
        (ax, ay) = pixels - starts[:, :, s, None]
        length = np.maximum(dx * dx + dy * dy, 1e-6)
        np.add((ax * (dx / length))[:, None, :], (ay * (dy / length))[:, :, None], out=k)
        np.maximum(k, 0.0, out=t)
        np.minimum(t, 1.0, out=t)
        k += k
        k -= t
        t *= k
        t *= (length * weight)[:, :, None]
        np.add((ax * ax * weight)[:, None, :], (ay * ay * weight)[:, :, None], out=squared)
        squared -= t
        np.minimum(nearest, squared, out=nearest)
    distance: Floats = np.sqrt(np.maximum(nearest, 0.0)).reshape(count, SIDE * SIDE)
    return distance


def _noise(streams: Counters) -> Floats:
    """About normal with mean 0, standard deviation 1, ``(n, SIDE * SIDE)``: sums of four bytes."""
    words: Any = _bits(_mix(streams + np.uint64(1)), SIDE * SIDE // 2).astype("<u8")
    four = words.view(np.uint8).reshape(len(streams), SIDE * SIDE, 4).astype(np.float32)
    total = four[:, :, 0] + four[:, :, 1] + four[:, :, 2] + four[:, :, 3]
    noise: Floats = (total - 510.0) * (1.0 / math.sqrt((256 * 256 - 1) / 3.0))
    return noise
