"""Snapshots: .solverstate and .solverstate.h5, of Caffe and of netdef."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fuzzing.mutations import Random, spoil, spoil_bytes, spoil_message
from netdef.snapshot import (
    Cursor,
    State,
    find_learned_net,
    read_state,
    write_state,
    write_state_hdf5,
)
from netdef.weights import statistics

COUNT = 5_000

GOLDEN = Path(__file__).parents[3] / "tests" / "golden" / "solvers"


@functools.cache
def originals() -> Sequence[bytes]:
    files = [GOLDEN / "sgd_fixed.solverstate", GOLDEN / "adam.solverstate.h5"]
    ours = State(
        7,
        "snap.caffemodel",
        [np.ones((2, 3), np.float32), np.zeros(0, np.float32)],
        current_step=1,
        random_seed=5,
        forward_passes=8,
        cursors=[Cursor(0, "data", 64), Cursor(1, "", 3)],
    )
    with tempfile.TemporaryDirectory() as folder:
        for write, name in ((write_state, "ours"), (write_state_hdf5, "ours.h5")):
            write(Path(folder) / name, ours)
            files.append(Path(folder) / name)
        return [file.read_bytes() for file in files]


def mutant(random: Random) -> bytes:
    content = originals()[int(random.integers(len(originals())))]
    hdf5 = content.startswith(b"\x89HDF")
    return spoil(random, content, [spoil_bytes] if hdf5 else [spoil_message, spoil_bytes])


def read(content: bytes, folder: Path) -> None:
    """As ``--snapshot`` reads a file; its model may lie beside it."""
    path = folder / "s.solverstate"
    path.write_bytes(content)
    state = read_state(path)
    for values in state.history:
        statistics(values.reshape(-1))
    model = folder / Path(state.learned_net).name
    if model.name.startswith("snap"):
        with contextlib.suppress(OSError, ValueError):  # no name of a file
            model.touch()
    find_learned_net(state, path)
