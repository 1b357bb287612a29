"""One JSON object a line for every event, for programs.

Each object has ``type``, the event's class name in snake case (``iteration_done``), ``time``, in
seconds since 1970, and the event's fields under their own names (see :mod:`netdef.events`):

* numbers have full precision; one that is not finite (nan, inf) is null
* outputs are objects ``{"name", "values", "loss_weight"}``, and so is whatever else has fields
* a solver or a net definition is a string in prototxt
* a plan is an object ``{"name", "phase", "layers", "outputs"}``, each layer
  ``{"name", "type", "bottoms", "tops", "top_shapes"}``

::

    {"type": "iteration_done", "time": 1763654400.1, "iteration": 0, "loss": 2.32814, ...}
    {"type": "test_finished", "time": 1763654409.8, "iteration": 500, "index": 0,
     "outputs": [{"name": "accuracy", "values": [0.9271], "loss_weight": 0.0}], "loss": null, ...}

Ignore types and fields you do not know: later versions add some.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from google.protobuf.message import Message

from netdef.events import Event
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import to_text
from netdef.sinks.stream import Stream

if TYPE_CHECKING:
    from netdef.plan import Plan


class JsonLines:
    """Prints each event to ``stream`` as one line of JSON, and flushes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = Stream(stream)
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        line = json.dumps(record(event), ensure_ascii=False, allow_nan=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        with self._lock:
            self._stream.flush()


def record(event: Event) -> dict[str, Any]:
    """``event`` as the object that is printed."""
    shown: dict[str, Any] = {"type": _snake_case(type(event).__name__), "time": time.time()}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        shown[field.name] = _plan(value) if field.name == "plan" else _plain(value)
    return shown


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _plain(value: Any) -> Any:
    """``value`` in what JSON has."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Message):
        return to_text(value)
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return [_plain(item) for item in value]


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "phase": pb.Phase.Name(plan.state.phase),
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "bottoms": list(layer.bottoms),
                "tops": list(layer.tops),
                "top_shapes": [list(shape) for shape in layer.top_shapes],
            }
            for layer in plan.layers
        ],
        "outputs": list(plan.outputs),
    }
