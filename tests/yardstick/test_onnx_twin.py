"""ONNX twins of the yardstick's nets compute what netdef computes."""

from __future__ import annotations

import numpy as np
import pytest

from netdef import TEST, TRAIN, Net
from yardstick.nets import NETS

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
onnx_twin = pytest.importorskip("yardstick.onnx_twin").onnx_twin


@pytest.mark.parametrize("name", [name for name in NETS if name != "vgg16"])
def test_twins_agree(name: str) -> None:
    random = np.random.default_rng(1)
    train = Net.from_text(NETS[name].train_text(2), TRAIN, seed=3)
    train.blobs["data"].data[...] = random.standard_normal(train.blobs["data"].shape)
    train.program.forward()  # gives BatchNorm its statistics
    net = Net.from_text(NETS[name].deploy_text(2), TEST, share=train, seed=1)
    net.blobs["data"].data[...] = train.blobs["data"].data
    probabilities = net.forward()["prob"]
    assert np.ptp(probabilities) > 1e-3  # or agreement would say nothing
    model = onnx_twin(net.plan, net.params)
    onnx.checker.check_model(onnx.load_model_from_string(model))
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"data": net.blobs["data"].data})
    np.testing.assert_allclose(found, probabilities, rtol=1e-3, atol=1e-5)


def test_what_has_no_counterpart_is_refused() -> None:
    layer = 'layer { name: "p" type: "Power" bottom: "data" top: "p" }'
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 } } }'
    net = Net.from_text(text + layer, TEST)
    with pytest.raises(NotImplementedError, match="Power"):
        onnx_twin(net.plan, net.params)
