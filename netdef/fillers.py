"""Fillers: what a parameter holds before training, a pure function of filler, shape and key."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdef import rng
from netdef.blob import Array, Shape
from netdef.errors import NetError, did_you_mean
from netdef.proto import netdef_pb2 as pb

Filler = Callable[[pb.FillerParameter, Array, np.uint64, int], None]


def fill(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int = 0) -> None:
    """Fill ``out`` in place as ``filler`` says, from the random stream ``key`` at ``iteration``.

    Raises NetError for an unknown type or a shape the filler cannot fill.
    """
    if filler.type not in FILLERS:
        raise NetError(
            f'unknown filler type "{filler.type}"',
            code="E120",
            hint=did_you_mean(filler.type, FILLERS) or f"known fillers: {', '.join(FILLERS)}",
        )
    if filler.sparse != -1 and filler.type != "gaussian":
        raise NetError(f'sparse is only for gaussian fillers, not "{filler.type}"', code="E120")
    _check(filler)
    if out.size:
        # A scalar is one unit with one input.
        FILLERS[filler.type](filler, out if out.ndim else out.reshape(1), key, iteration)


def _check(filler: pb.FillerParameter) -> None:
    """Raise for what Caffe's random numbers refuse."""
    if filler.sparse < -1:
        raise NetError(f"sparse cannot be {filler.sparse}", code="E120", hint="-1 means dense")
    if filler.type == "uniform" and not filler.min <= filler.max:
        raise NetError(
            f"a uniform filler needs min <= max, not {filler.min:g} and {filler.max:g}", code="E120"
        )
    if filler.type == "gaussian" and not filler.std >= 0:
        raise NetError(f"a gaussian filler needs std >= 0, not {filler.std:g}", code="E120")


def constant(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int) -> None:
    """x = value"""
    out[...] = filler.value


def uniform(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int) -> None:
    """x ~ U(min, max)"""
    _uniform(filler.min, filler.max, out, key, iteration)


def gaussian(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int) -> None:
    """x ~ N(mean, std); with ``sparse`` about that many inputs of each output are not zero"""
    flat = _normal(filler.mean, filler.std, out, key, iteration)
    if filler.sparse >= 0:
        chance = np.empty(out.size)
        rng.uniform(key, np.uint64(2 * iteration + 1), chance)
        flat[chance >= filler.sparse / out.shape[0]] = 0


def positive_unitball(
    filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int
) -> None:
    """x ~ U(0, 1), then each output's inputs are divided by their sum"""
    _uniform(0.0, 1.0, out, key, iteration)
    rows = out.reshape(out.shape[0], -1)
    rows /= rows.sum(axis=1, keepdims=True)


def xavier(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int) -> None:
    """x ~ U(-a, a), a = sqrt(3 / n), n = fan in, fan out or their mean (Glorot & Bengio 2010)"""
    limit = math.sqrt(3.0 / _fan(filler, out.shape))
    _uniform(-limit, limit, out, key, iteration)


def msra(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int) -> None:
    """x ~ N(0, sqrt(2 / n)), n = fan in, fan out or their mean (He, Zhang, Ren & Sun 2015)"""
    _normal(0.0, math.sqrt(2.0 / _fan(filler, out.shape)), out, key, iteration)


def bilinear(filler: pb.FillerParameter, out: Array, key: np.uint64, iteration: int) -> None:
    """The kernel of bilinear upsampling, for Deconvolution (Long, Shelhamer & Darrell 2015)"""
    if out.ndim != 4 or out.shape[2] != out.shape[3]:
        raise NetError(
            f"a bilinear filler needs a square kernel in 4 axes, not {out.shape}", code="E120"
        )
    size = out.shape[3]
    factor = math.ceil(size / 2.0)
    centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
    ramp = 1 - np.abs(np.arange(size) / factor - centre)
    out[...] = ramp[:, None] * ramp[None, :]


FILLERS: dict[str, Filler] = {
    "constant": constant,
    "gaussian": gaussian,
    "uniform": uniform,
    "positive_unitball": positive_unitball,
    "xavier": xavier,
    "msra": msra,
    "bilinear": bilinear,
}


def _fan(filler: pb.FillerParameter, shape: Shape) -> float:
    """The number of inputs (or outputs, or the mean) of one unit, from the shape of its weights."""
    count = math.prod(shape)
    fan_in = count / shape[0]
    fan_out = count / shape[1] if len(shape) > 1 else count
    if filler.variance_norm == pb.FillerParameter.FAN_OUT:
        return fan_out
    if filler.variance_norm == pb.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2.0
    return fan_in


def _uniform(low: float, high: float, out: Array, key: np.uint64, iteration: int) -> None:
    flat: Any = out.reshape(-1)
    unit = np.empty(out.size)
    rng.uniform(key, np.uint64(2 * iteration), unit)
    unit *= high - low
    unit += low
    flat[...] = unit


def _normal(mean: float, std: float, out: Array, key: np.uint64, iteration: int) -> Array:
    flat = out.reshape(-1)
    unit = np.empty(out.size)
    rng.gaussian(key, np.uint64(2 * iteration), unit)
    unit *= std
    unit += mean
    flat[...] = unit
    return flat
