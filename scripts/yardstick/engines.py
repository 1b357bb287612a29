"""What can run a net: netdef, PyTorch in either memory format, ONNX Runtime.

An engine is made for one :class:`Job` in a process of its own (see ``workers``), and then takes
step after step: one training step, or one batch inferred. It imports its library when it is made,
so that no library is in the process of another.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yardstick.nets import NETS, YardNet

if TYPE_CHECKING:
    from netdef.plan import Plan

#: What is measured: a training step; a forward pass; a forward pass of one image.
WHAT = ("train", "infer", "infer1")

#: The update of both sides: small, so that the net stays where it is, step after step.
RATE, MOMENTUM, DECAY = 1e-5, 0.9, 0.0005

SOLVER = f"""\
base_lr: {RATE} lr_policy: "fixed" momentum: {MOMENTUM} weight_decay: {DECAY}
type: "SGD" random_seed: 1 snapshot_after_train: false
"""


@dataclass(frozen=True)
class Job:
    """What one worker does. ``cache``: where netdef keeps compiled kernels; else where it always
    does."""

    engine: str
    net: str
    what: str
    batch: int
    threads: int
    cache: str = ""

    @property
    def yard_net(self) -> YardNet:
        return NETS[self.net]

    @property
    def training(self) -> bool:
        return self.what == "train"

    @property
    def text(self) -> str:
        net = self.yard_net
        return net.train_text(self.batch) if self.training else net.deploy_text(self.batch)

    def images(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        shape = (self.batch, *self.yard_net.image)
        return np.random.default_rng(1).standard_normal(shape, np.float32)

    def labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.random.default_rng(2).integers(0, self.yard_net.classes, self.batch)

    def plan(self) -> Plan:
        """The plan of its net, with nothing allocated."""
        from netdef import graph, prototxt
        from netdef.plan import plan
        from netdef.proto import netdef_pb2 as pb

        message = prototxt.parse(self.text, pb.NetParameter).message
        state = pb.NetState(phase=pb.TRAIN if self.training else pb.TEST)
        return plan(graph.split(graph.keep(message, state)))


#: One step of the job.
Step = Callable[[], Any]

#: Imports the library; the function it returns makes the net.
Engine = Callable[[Job], Callable[[], Step]]

#: The kernels that netdef has compiled in this process.
compiled: list[str] = []


def netdef_engine(job: Job) -> Callable[[], Step]:
    if job.cache:
        os.environ["NETDEF_CACHE_DIR"] = job.cache

    import netdef
    from netdef import jit
    from netdef.layer import layer_types
    from netdef.solver import Solver

    jit.set_num_threads(job.threads)
    jit.on_compile(compiled.append)
    layer_types()  # imports them

    # As the commands do it, which look at no blobs (keep).

    def fill(net: Any) -> None:
        net.blobs["data"].data[...] = job.images()
        if job.training:
            net.blobs["label"].data[...] = job.labels()

    def train() -> Step:
        with tempfile.TemporaryDirectory() as folder:
            net = Path(folder) / "net.prototxt"
            net.write_text(job.text)
            path = Path(folder) / "solver.prototxt"
            path.write_text(f'net: "{net}"\n{SOLVER}')
            solver = Solver(path, keep=())
        fill(solver.net)
        return lambda: solver.step(1)

    def infer() -> Step:
        net = netdef.Net.from_text(job.text, netdef.TEST, seed=1, keep=())
        fill(net)
        return net.forward

    return train if job.training else infer


def torch_engine(
    job: Job, channels_last: bool = False, fused: bool | None = None
) -> Callable[[], Step]:
    """``fused``: update all terms of a parameter in one pass, which PyTorch does when asked."""
    # Before netdef, which tells the OpenMP library how long to spin.
    import torch

    from yardstick.twin import parameter_groups, twin

    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    form = torch.channels_last if channels_last else torch.contiguous_format

    def make() -> Step:
        plan = job.plan()
        model: Any = twin(plan)
        model = model.to(memory_format=form)
        images = torch.from_numpy(job.images()).to(memory_format=form)

        def infer() -> None:
            with torch.inference_mode():
                model(images)

        if not job.training:
            return infer
        labels = torch.from_numpy(job.labels())
        groups = parameter_groups(plan, model, RATE, DECAY)
        optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, fused=fused)

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            model(images, labels).backward()
            optimizer.step()

        return train

    return make


def torch_nhwc_engine(job: Job) -> Callable[[], Step]:
    return torch_engine(job, channels_last=True)


def torch_fused_engine(job: Job) -> Callable[[], Step]:
    return torch_engine(job, channels_last=True, fused=True)


def onnx_engine(job: Job) -> Callable[[], Step]:
    import onnxruntime

    import netdef
    from yardstick.onnx_twin import onnx_twin

    def make() -> Step:
        net = netdef.Net.from_text(job.text, netdef.TEST, seed=1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            onnx_twin(net.plan, net.params), options, providers=["CPUExecutionProvider"]
        )
        images = {"data": job.images()}
        return lambda: session.run(None, images)

    return make


@dataclass(frozen=True)
class Contestant:
    """An engine, what tables call it, the packages it needs, and which of ``WHAT`` it does."""

    title: str
    engine: Engine
    packages: tuple[str, ...]
    does: tuple[str, ...] = WHAT

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


ENGINES = {
    "netdef": Contestant("netdef", netdef_engine, ("netdef",)),
    "torch": Contestant("PyTorch NCHW", torch_engine, ("torch",)),
    "torch-nhwc": Contestant("PyTorch NHWC", torch_nhwc_engine, ("torch",)),
    "torch-fused": Contestant(
        "PyTorch NHWC, fused SGD", torch_fused_engine, ("torch",), ("train",)
    ),
    "onnxruntime": Contestant(
        "ONNX Runtime", onnx_engine, ("onnxruntime", "onnx"), ("infer", "infer1")
    ),
}

#: The two memory formats of PyTorch, with its optimizer as it comes.
FORMATS = ("torch", "torch-nhwc")
