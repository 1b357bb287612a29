"""Python: a layer written in Python by its user."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from netdef.blob import Blob, Shape, shape_text
from netdef.errors import NetdefError, did_you_mean
from netdef.layer import Layer, Param, register
from netdef.pycaffe import stand_in

#: Where code that is not the user's lies: netdef, and what Python runs to import.
NOT_THEIRS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    os.path.dirname(importlib.__file__) + os.sep,
    "<frozen ",
)

#: Modules that belong to programs around Caffe, and what stands for them where they are missing.
STAND_INS = {"rpn.proposal_layer": "netdef.layers.common.proposal_layer"}


@register("Python", config="python_param")
class Python(Layer):
    """Runs the class ``layer`` of the module ``module``: a layer written in Python.

        bottom  any number, of any shapes
        top     any number, of the shapes that the class gives them
        params  those the class adds in ``setup``

    The class derives from ``caffe.Layer`` and defines ``setup(bottom, top)``, called once,
    ``reshape(bottom, top)``, called before every pass, ``forward(bottom, top)`` and
    ``backward(top, propagate_down, bottom)``. It finds ``self.param_str``, ``self.phase`` and
    ``self.blobs``, to which ``self.blobs.add_blob(*shape)`` adds a parameter. Where no Caffe is
    installed, ``import caffe`` gives netdef, so published layers run unchanged. Modules are looked
    for as Python does (``PYTHONPATH``), and then in the current folder; where py-faster-rcnn's
    ``rpn.proposal_layer`` is not found, netdef has its own. ``forward`` may give its
    tops other shapes; what follows is planned anew. To use it as a loss, give it a
    ``loss_weight``.

    When the net is built, ``setup`` and ``reshape`` meet blobs of the right shapes, filled with
    zeros. A gradient that ``backward`` does not write is 0.

    Example::

        layer {
          name: "loss"
          type: "Python"
          bottom: "x"  # 10x3
          bottom: "y"  # 10x3
          top: "loss"
          python_param {
            module: "pyloss"
            layer: "Distance"
          }
          loss_weight: 1
        }

    Source: Caffe 1.0.
    """

    bottoms = (0, None)
    tops = (0, None)
    in_place = True
    dynamic = True

    _user: Any = None

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        return self._reshape(self._start(bottoms))

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        self._start(bottoms)
        for i, values in enumerate(self._initial):
            yield Param(str(i), values.shape, values)

    def _start(self, bottoms: Sequence[Shape]) -> list[Blob]:
        """Let the class set up, once, on bottoms of these shapes; gives such bottoms."""
        bottom = [
            Blob.zeros(shape, name, self.dtype)
            for name, shape in zip(self.message.bottom, bottoms, strict=True)
        ]
        if self._user is None:
            self._top = [Blob.zeros((0,), name, self.dtype) for name in self.message.top]
            user = self._create()
            with self._blaming("setup"):
                user.setup(bottom, self._top)
            self._user = user
            self._initial = [blob.data.copy() for blob in user.blobs]
        return bottom

    def _reshape(self, bottom: list[Blob]) -> list[Shape]:
        with self._blaming("reshape"):
            self._user.reshape(bottom, self._top)
        return self._checked([y.shape for y in self._top], bottom)

    def _checked(self, tops: list[Shape], bottom: list[Blob]) -> list[Shape]:
        names = self.message.bottom, self.message.top
        for i, (x, y, shape, mine) in enumerate(zip(*names, tops, bottom, strict=False)):
            if x == y and shape != mine.shape:
                raise self.error(
                    f'cannot work in place on "{x}": it is {shape_text(mine.shape)}, and would be '
                    f"{shape_text(shape)}",
                    "top",
                    i,
                    hint="give the top another name",
                )
        return tops

    def _create(self) -> Any:
        """An instance of the user's class."""
        config = self.config
        for field in ("module", "layer"):
            if not getattr(config, field):
                raise self.error(f"{field} is missing", "python_param")
        stand_in()
        here = os.getcwd()
        sys.path.append(here)
        try:
            importlib.invalidate_caches()
            module = self._import(config.module)
        except ModuleNotFoundError as error:
            missing = f'there is no module "{error.name}"'
            if not _is_part(config.module, error.name):
                missing = f'module "{config.module}" needs module "{error.name}", which is missing'
            raise self.error(
                missing,
                "python_param",
                "module",
                hint=f'modules are looked for in PYTHONPATH and in "{here}"',
            ) from error
        except Exception as error:
            raise self._blame(f'import of module "{config.module}"', error) from error
        finally:
            sys.path.remove(here)
        found = getattr(module, config.layer, None)
        if not isinstance(found, type):
            classes = [name for name, value in vars(module).items() if isinstance(value, type)]
            raise self.error(
                f'module "{config.module}" has no class "{config.layer}"',
                "python_param",
                "layer",
                hint=did_you_mean(config.layer, classes),
            )
        message = self.message.__class__()
        message.CopyFrom(self.message)
        message.phase = self.phase  # type: ignore[assignment]
        with self._blaming("__init__"):
            return found(message)

    def _import(self, name: str) -> Any:
        """The user's module, or what stands in for it."""
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if name not in STAND_INS or not _is_part(name, error.name):
                raise
            return importlib.import_module(STAND_INS[name])

    @contextmanager
    def _blaming(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._blame(f"{self.config.layer}: {method}", error) from error

    def _blame(self, what: str, error: Exception) -> NetdefError:
        """What the user is told of an exception in code of theirs."""
        said = " ".join(str(error).split())
        return self.error(
            f"{what}: {said or type(error).__name__}",
            "python_param",
            hint=f"{type(error).__name__}{_place(error)}",
        )

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        # The class may write every gradient, and read its bottoms to the end: what it must not
        # change it gets a copy of.
        self._bottom = []
        for i, x in enumerate(bottom):
            overwritten = i < len(top) and top[i].data is x.data
            data = x.data.copy() if overwritten else x.data
            self._bottom.append(Blob(data, np.zeros_like(data) if x.diff is None else x.diff))
        if any(y.data.dtype != self.dtype for y in self._top):
            self._top = [Blob.zeros(y.shape, y.name, self.dtype) for y in self._top]
        self._user.blobs[:] = self.blobs

    def next_shapes(self, bottom: list[Blob]) -> list[Shape]:
        for x, given in zip(self._bottom, bottom, strict=True):
            if x.data is not given.data:
                np.copyto(x.data, given.data)
        # The class may give its tops other shapes in forward too, so that runs here, on blobs of
        # its own.
        shapes = self._reshape(self._bottom)
        with self._blaming("forward"):
            self._user.forward(self._bottom, self._top)
        found = [y.shape for y in self._top]
        return shapes if found == shapes else self._checked(found, self._bottom)

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        for y, found in zip(top, self._top, strict=True):
            np.copyto(y.data, found.data)

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        for y, given in zip(self._top, top, strict=True):
            np.copyto(y.diff, given.diff)
        for x in self._bottom:
            x.diff.fill(0)
        self._user.blobs[:] = [
            blob if learns else Blob(blob.data, np.zeros_like(blob.data), blob.name)
            for blob, learns in zip(self.blobs, self.learn, strict=True)
        ]
        propagate_down = [x.diff is not None for x in bottom]
        with self._blaming("backward"):
            self._user.backward(self._top, propagate_down, self._bottom)


def _is_part(module: str, package: str | None) -> bool:
    """Whether a module is this one, or stands in this package."""
    return package is not None and f"{module}.".startswith(f"{package}.")


def _place(error: Exception) -> str:
    """Where in the user's code an exception comes from, if it is from there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        # What they call is not to blame: netdef's blobs, Python's import.
        if not frame.filename.startswith(NOT_THEIRS):
            return f" at {frame.filename}:{frame.lineno}"
    return ""
