"""What Python layers written for Caffe find: the class they derive from, and the name ``caffe``.

A published Python layer begins with ``import caffe`` and derives from ``caffe.Layer``. Where no
Caffe is installed, :func:`stand_in` lets that import give netdef.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import netdef
from netdef import proto
from netdef.blob import Blob
from netdef.proto import netdef_pb2 as pb


class Layer:
    """The base class of Python layers, ``caffe.Layer``.

    A layer defines four methods. ``bottom`` and ``top`` are lists of blobs with ``data``, ``diff``,
    ``shape`` (``num``, ``channels``, ``height``, ``width``) and ``reshape(*shape)``::

        setup(self, bottom, top)                      once: read self.param_str, check, prepare
        reshape(self, bottom, top)                    give every top its shape
        forward(self, bottom, top)                    write top[i].data
        backward(self, top, propagate_down, bottom)   write bottom[i].diff where propagate_down[i]

    ``self.param_str`` is the text of ``python_param``, ``self.phase`` is ``caffe.TRAIN`` or
    ``caffe.TEST``, ``self.blobs`` holds the parameters; ``self.blobs.add_blob(*shape)`` in
    ``setup`` makes one, of zeros to be overwritten there.
    """

    type = "Python"

    def __init__(self, param: pb.LayerParameter) -> None:
        self.param_str = param.python_param.param_str
        self.phase = int(param.phase)
        self.blobs = Blobs()

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        pass

    def reshape(self, bottom: list[Blob], top: list[Blob]) -> None:
        raise NotImplementedError("reshape(self, bottom, top) is not defined")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        raise NotImplementedError("forward(self, bottom, top) is not defined")

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        raise NotImplementedError("backward(self, top, propagate_down, bottom) is not defined")


class Blobs(list[Blob]):
    """The parameters of a Python layer."""

    def add_blob(self, *shape: int) -> Blob:
        """One parameter more, of zeros."""
        blob = Blob.zeros(shape, str(len(self)))
        self.append(blob)
        return blob


def stand_in() -> None:
    """Let ``import caffe`` give netdef from now on, unless a Caffe is installed."""
    if "caffe" in sys.modules or importlib.util.find_spec("caffe") is not None:
        return
    modules: dict[str, Any] = {
        "caffe": netdef,
        "caffe.proto": proto,
        "caffe.proto.caffe_pb2": pb,
    }
    sys.modules.update(modules)
    proto.caffe_pb2 = pb  # type: ignore[attr-defined]
