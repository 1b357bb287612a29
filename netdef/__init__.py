"""netdef: trains and runs networks written as Caffe prototxt.

``import netdef as caffe`` gives the names of pycaffe::

    net = caffe.Net("deploy.prototxt", "lenet.caffemodel", caffe.TEST)
    solver = caffe.get_solver("solver.prototxt")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

TRAIN = 0
TEST = 1

#: Where each public name lives. They are imported when first asked for: ``netdef --help`` needs
#: none.
_HOMES = {
    "AdaDeltaSolver": "netdef.solver",
    "AdaGradSolver": "netdef.solver",
    "AdamSolver": "netdef.solver",
    "Blob": "netdef.blob",
    "Layer": "netdef.pycaffe",
    "NesterovSolver": "netdef.solver",
    "Net": "netdef.net",
    "NetdefError": "netdef.errors",
    "RMSPropSolver": "netdef.solver",
    "SGDSolver": "netdef.solver",
    "Solver": "netdef.solver",
    "get_solver": "netdef.solver",
    "layer_type_list": "netdef.layer",
    "set_num_threads": "netdef.jit",
    "set_random_seed": "netdef.net",
}

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetdefError",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "__version__",
    "get_solver",
    "layer_type_list",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_num_threads",
    "set_random_seed",
]

if TYPE_CHECKING:
    from netdef.blob import Blob
    from netdef.errors import NetdefError
    from netdef.jit import set_num_threads
    from netdef.layer import layer_type_list
    from netdef.net import Net, set_random_seed
    from netdef.pycaffe import Layer
    from netdef.solver import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        Solver,
        get_solver,
    )


def set_mode_cpu() -> None:
    """Compute on the CPU: what netdef does anyway. For pycaffe scripts."""


def set_mode_gpu() -> None:
    """Warns that netdef computes on the CPU. For pycaffe scripts."""
    import warnings

    warnings.warn("netdef computes on the CPU; set_mode_gpu changes nothing", stacklevel=2)


def set_device(device: int) -> None:
    """Does nothing: there is one CPU to choose. For pycaffe scripts."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'netdef' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
