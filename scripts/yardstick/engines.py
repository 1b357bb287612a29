"""What can run a net: netdef, PyTorch in either memory format.

An engine is built for one :class:`Job` in a process of its own (see ``workers``), and then takes
step after step: one training step, or one batch inferred. It imports its library when it is made,
so that no library is in the process of another.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yardstick.nets import NETS, YardNet

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
    """What one worker does."""

    engine: str
    net: str
    what: str
    batch: int
    threads: int

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


#: One step of the job.
Step = Callable[[], Any]

#: Imports the library; the function it returns makes the net.
Engine = Callable[[Job], Callable[[], Step]]


def netdef_engine(job: Job) -> Callable[[], Step]:
    import netdef
    from netdef import jit
    from netdef.solver import Solver

    jit.set_num_threads(job.threads)

    def fill(net: Any) -> None:
        net.blobs["data"].data[...] = job.images()
        if job.training:
            net.blobs["label"].data[...] = job.labels()

    def train() -> Step:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "solver.prototxt"
            path.with_name("net.prototxt").write_text(job.text)
            path.write_text(f'net: "{path.with_name("net.prototxt")}"\n{SOLVER}')
            solver = Solver(path)
        fill(solver.net)
        return lambda: solver.step(1)

    def infer() -> Step:
        net = netdef.Net.from_text(job.text, netdef.TEST, seed=1)
        fill(net)
        return net.forward

    return train if job.training else infer


def torch_engine(job: Job, channels_last: bool = False) -> Callable[[], Step]:
    # Before netdef, which tells the OpenMP library how long to spin.
    import torch

    from netdef import graph, prototxt
    from netdef.plan import plan
    from netdef.proto import netdef_pb2 as pb
    from yardstick.twin import parameter_groups, twin

    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    form = torch.channels_last if channels_last else torch.contiguous_format

    def make() -> Step:
        state = pb.NetState(phase=pb.TRAIN if job.training else pb.TEST)
        message = prototxt.parse(job.text, pb.NetParameter).message
        planned = plan(graph.split(graph.keep(message, state)))
        model: Any = twin(planned)
        model = model.to(memory_format=form)
        images = torch.from_numpy(job.images()).to(memory_format=form)

        def infer() -> None:
            with torch.inference_mode():
                model(images)

        if not job.training:
            return infer
        labels = torch.from_numpy(job.labels())
        optimizer = torch.optim.SGD(
            parameter_groups(planned, model, RATE, DECAY), lr=RATE, momentum=MOMENTUM
        )

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            model(images, labels).backward()
            optimizer.step()

        return train

    return make


def torch_channels_last_engine(job: Job) -> Callable[[], Step]:
    return torch_engine(job, channels_last=True)


@dataclass(frozen=True)
class Contestant:
    """An engine, what tables call it, and what it needs installed."""

    title: str
    engine: Engine
    package: str
    does: tuple[str, ...] = WHAT

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


ENGINES = {
    "netdef": Contestant("netdef", netdef_engine, "netdef"),
    "torch": Contestant("PyTorch, NCHW", torch_engine, "torch"),
    "torch-nhwc": Contestant("PyTorch, channels_last", torch_channels_last_engine, "torch"),
}
