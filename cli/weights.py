"""``netdef weights``: what is in a .caffemodel, and whether a net can take it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .running import Command, caffe_option, say, split_list

if TYPE_CHECKING:
    from netdef.errors import NetdefError
    from netdef.plan import Plan
    from netdef.weights import CopyReport, LayerWeights


@click.command(cls=Command)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@caffe_option("model", type=click.Path(), help="A net: which of its layers would take the weights?")
@caffe_option(
    "phase",
    type=click.Choice(["TRAIN", "TEST"], case_sensitive=False),
    default="TEST",
    metavar="[TRAIN|TEST]",
    show_default=True,
    help="Phase of that net.",
)
@caffe_option("level", type=int, default=0, help="Level of that net's state.")
@caffe_option("stage", default="", help="Stages of that net's state, comma-separated.")
@click.option("--json", "as_json", is_flag=True, help="Print an object for each file, a line each.")
@click.pass_context
def weights(
    ctx: click.Context,
    files: Sequence[str],
    model: str | None,
    phase: str,
    level: int,
    stage: str,
    as_json: bool,
) -> None:
    """List what is in each FILE: layers, shapes, and what their numbers are like.

    Reads .caffemodel and .caffemodel.h5 files, of Caffe and of its forks. The exit status is 1
    where a file cannot be read, or has layers that do not fit those of the net.

    \b
    netdef weights lenet_iter_10000.caffemodel
    netdef weights VGG_ILSVRC_16_layers.caffemodel --model train_val.prototxt
    netdef weights *.caffemodel --json
    """
    from netdef.describe import describe_weights
    from netdef.errors import NetdefError
    from netdef.events import WeightsLoaded
    from netdef.sinks.text import weights_table
    from netdef.weights import match_weights, read_weights

    targets = _parameters(_planned(model, phase, level, split_list(stage))) if model else None
    unusable = False
    for number, path in enumerate(files):
        report = None
        try:
            layers = read_weights(path)
            if targets is not None:
                report = match_weights(layers, targets)
        except NetdefError as error:
            unusable = True
            if as_json:
                say(json.dumps(_refused(path, error), ensure_ascii=False))
            else:
                click.echo(str(error), err=True)
            continue
        if report is not None and report.mismatched:
            unusable = True
        if as_json:
            say(json.dumps(_listed(path, layers, report), ensure_ascii=False, allow_nan=False))
            continue
        if len(files) > 1:
            say(("\n" if number else "") + f"{path}:")
        say(describe_weights(layers))
        if report is not None:
            mismatched = [str(mismatch) for mismatch in report.mismatched]
            loaded = WeightsLoaded(
                path, report.copied, report.ignored, report.missing, mismatched, report.unused
            )
            say("\n" + "\n".join(weights_table(loaded)))
    if unusable:
        ctx.exit(1)


def _planned(model: str, phase: str, level: int, stages: Sequence[str]) -> Plan:
    from netdef import graph, prototxt
    from netdef.plan import plan
    from netdef.proto import netdef_pb2 as pb
    from netdef.upgrade import upgrade_net

    document = prototxt.read(model, pb.NetParameter)
    net = upgrade_net(document.message, document.positions, [])
    state = pb.NetState()
    state.CopyFrom(net.state)
    state.phase = pb.TRAIN if phase.upper() == "TRAIN" else pb.TEST
    if level:
        state.level = level
    state.stage.extend(stages)
    return plan(graph.split(graph.keep(net, state, document.positions), document.positions))


def _parameters(planned: Plan) -> dict[str, list[Any]]:
    """Arrays in the shapes of the parameters of each layer. They take no memory."""
    import numpy as np

    owned = [np.broadcast_to(np.zeros(()), param.shape) for param in planned.params]
    return {
        layer.name: [owned[planned.params[index].owner] for index in layer.params]
        for layer in planned.layers
    }


def _listed(path: str, layers: Sequence[LayerWeights], report: CopyReport | None) -> dict[str, Any]:
    from netdef.weights import numbered, statistics

    found: list[dict[str, Any]] = []
    for layer in layers:
        blobs: list[dict[str, Any]] = []
        for index, blob in numbered(layer):
            numbers = statistics(blob.data)
            blobs.append(
                {
                    "index": index,
                    "shape": list(blob.shape),
                    "dtype": blob.data.dtype.name,
                    "count": blob.data.size,
                    "min": _finite(numbers.minimum),
                    "max": _finite(numbers.maximum),
                    "mean": _finite(numbers.mean),
                    "std": _finite(numbers.std),
                    "zero": numbers.zeros,
                    "nan": numbers.nans,
                    "inf": numbers.infinities,
                    "diff": blob.diff is not None,
                }
            )
        found.append({"name": layer.name, "type": layer.type, "blobs": blobs})
    shown: dict[str, Any] = {
        "file": path,
        "ok": report is None or not report.mismatched,
        "bytes": os.path.getsize(path),
        "parameters": sum(blob.data.size for layer in layers for blob in layer.blobs),
        "layers": found,
    }
    if report is not None:
        shown["match"] = {
            "copied": report.copied,
            "ignored": report.ignored,
            "missing": report.missing,
            "mismatched": [
                {"layer": mismatch.layer, "message": str(mismatch)}
                for mismatch in report.mismatched
            ],
        }
    return shown


def _refused(path: str, error: NetdefError) -> dict[str, Any]:
    errors = [
        {"code": found.code, "message": found.message, "hint": found.hint}
        for found in error.diagnostics
    ]
    return {"file": path, "ok": False, "errors": errors}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
