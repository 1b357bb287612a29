"""Published models: their files are read as they were published, and their outputs are those of
Caffe, or of OpenCV where only a fork of Caffe could run them.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import read

MODELS = [
    "cifar10_quick_h5",
    "hyperlpr_finemapping",
    "hyperlpr_finemapping_v2",
    "landmark106",
    "lenet_caffe_tensorflow",
    "mtcnn_det1",
    "mtcnn_det2",
    "mtcnn_det3",
    "simpnet_slim_mnist_9965",
    "tiny_squeeze_imagenet",
    "ultralight_slim320",
    "waifu2x_upconv7_scale2x",
    "wechat_qr_detect",
]

#: Rounding of float32 through tens of layers: what Caffe gave for waifu2x, values up to 70, itself
#: differs by 4e-5 from what float64 gives.
TOLERANCE = 1e-4


class Published:
    """A folder with a net, its weights, and one input with the outputs it should give."""

    def __init__(self, folder: Path) -> None:
        self.net = folder / "deploy.prototxt"
        (self.weights,) = folder.glob("weights.*")
        (reference,) = folder.glob("reference_*.npz")
        with np.load(reference) as arrays:
            self._arrays = {key: arrays[key] for key in arrays.files}

    def load(self, **options: Any) -> Net:
        document = read(self.net, pb.NetParameter)
        state = pb.NetState(phase=pb.TEST)
        net = Net.from_message(document.message, state, document.positions, **options)
        report = net.load(self.weights)
        assert report.missing == ()
        assert report.mismatched == ()
        return net

    def inputs(self, net: Net) -> dict[str, Any]:
        """By blob. OpenCV's references have one, without its name."""
        if "input" in self._arrays:
            (name,) = net.inputs
            return {name: self._arrays["input"]}
        return {key[3:]: self._arrays[key] for key in self._arrays if key.startswith("in/")}

    def outputs(self, net: Net) -> dict[str, Any]:
        """By blob. OpenCV names an output by the layer that makes it."""
        types = dict(zip(net.top_names, (layer.type for layer in net.layers), strict=True))
        found = {}
        for key, values in self._arrays.items():
            if key.startswith("out/"):
                found[key[4:]] = values
            elif key.startswith("out:"):
                layer = key[4:]
                (top,) = net.top_names[layer]
                if types[layer] == "DetectionOutput":
                    # Behind the detections OpenCV has zeros, up to keep_top_k rows; Caffe has not.
                    values = values[:, :, : np.flatnonzero(values.any(axis=3))[-1] + 1]
                found[top] = values
        return found

    def check(self, net: Net) -> None:
        """Run ``net`` and compare its outputs."""
        for name, values in self.inputs(net).items():
            net.blobs[name].reshape(*values.shape)
            net.blobs[name].data[...] = values
        net.forward()
        expected = self.outputs(net)
        assert set(expected) <= set(net.outputs)
        for name, values in expected.items():
            found = net.blobs[name].data
            assert found.shape == values.shape, name
            np.testing.assert_allclose(found, values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_outputs_it_gave(shared: Path, name: str) -> None:
    model = Published(shared / "reference" / "models" / name)
    model.check(model.load())
    model.check(model.load(keep=()))  # as the command line runs it


def test_the_folder_holds_no_other_models(shared: Path) -> None:
    assert sorted(path.name for path in (shared / "reference" / "models").iterdir()) == MODELS


def test_simpnet_scores_what_it_scored(shared: Path) -> None:
    """On MNIST's test set, as its authors normalise it."""
    mnist = shared / "data" / "mnist"
    images = np.frombuffer(
        gzip.decompress((mnist / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    ).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(
        gzip.decompress((mnist / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    net = Published(shared / "reference" / "models" / "simpnet_slim_mnist_9965").load(keep=())
    batch = 200
    net.blobs["data"].reshape(batch, 1, 28, 28)
    right = 0
    for start in range(0, len(labels), batch):
        stop = start + batch
        net.blobs["data"].data[...] = (images[start:stop] / 255 - 0.1307) / 0.3081
        net.forward()
        right += int((net.blobs["prob"].data.argmax(axis=1) == labels[start:stop]).sum())
    assert right == 9964
