"""Every layer against Caffe: one pass forward and one backward through the nets of golden/layers.

The cases are found by their files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.net import Net
from netdef.proto import netdef_pb2 as pb

FOLDER = Path(__file__).parent / "golden" / "layers"

#: Rounding of float32 sums whose order is not Caffe's; the reference promises 1e-4 and 1e-5.
RTOL, ATOL = 2e-5, 2e-6


class Case:
    """One .npz file: the net, what it is fed, and what Caffe made of it."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with np.load(path) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.text = str(self.arrays["prototxt"])
        self.phase = pb.Phase.Value(str(self.arrays["phase"]))

    def group(self, kind: str) -> dict[str, Any]:
        """The arrays under ``kind/``, by the rest of their key."""
        start = f"{kind}/"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}


CASES = [Case(path) for path in sorted(FOLDER.glob("*.npz"))]


def param_of(net: Net, key: str) -> Any:
    layer, _, index = key.rpartition("/")
    return net.params[layer][int(index)]


def assert_close(actual: Any, expected: Any, what: str) -> None:
    assert actual.shape == expected.shape, what
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=ATOL, err_msg=what)


@pytest.mark.parametrize("keep_all", [False, True], ids=["shared_memory", "keep_all"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pass_agrees_with_caffe(case: Case, keep_all: bool) -> None:
    net = Net.from_text(case.text, case.phase, seed=1, keep_all=keep_all)
    for key, values in case.group("in").items():
        net.blobs[key].reshape(*values.shape)
        net.blobs[key].data[...] = values
    assert {f"{n}/{i}" for n, blobs in net.params.items() for i in range(len(blobs))} == set(
        case.group("param")
    )
    for key, values in case.group("param").items():
        param_of(net, key).data[...] = values

    net.forward()
    assert net.outputs == sorted(case.group("out"))
    for key, values in case.group("out").items():
        assert_close(net.blobs[key].data, values, f"out/{key}")
    for key, values in case.group("param_after").items():
        assert_close(param_of(net, key).data, values, f"param_after/{key}")

    for key, values in case.group("outdiff").items():
        net.blobs[key].diff[...] = values
    if not case.group("indiff") and not case.group("paramdiff"):
        return
    net.clear_param_diffs()
    net.backward()
    for key, values in case.group("indiff").items():
        assert_close(net.blobs[key].diff, values, f"indiff/{key}")
    for key, values in case.group("paramdiff").items():
        assert_close(param_of(net, key).diff, values, f"paramdiff/{key}")


def test_the_folder_is_whole() -> None:
    assert len(CASES) == 153
