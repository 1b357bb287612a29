"""PyTorch's twins of the yardstick's nets compute what netdef computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef import TEST, TRAIN, Net, prototxt
from netdef.proto import netdef_pb2 as pb
from yardstick.nets import NETS

torch = pytest.importorskip("torch")
twin = pytest.importorskip("yardstick.twin")

#: VGG-16 is the same layers once more, and large.
TESTED = [name for name in NETS if name != "vgg16"]


def images(net: Net) -> Any:
    """Fill the inputs of a net; the same as tensors."""
    random = np.random.default_rng(1)
    tensors = []
    for name in net.inputs:
        blob = net.blobs[name]
        if name == "label":
            blob.data[...] = random.integers(0, 10, blob.shape)
            tensors.append(torch.from_numpy(blob.data.astype(np.int64)))
        else:
            blob.data[...] = random.standard_normal(blob.shape)
            tensors.append(torch.from_numpy(blob.data.copy()))
    return tensors


def trained(name: str) -> Net:
    """The net in phase TRAIN after one pass, which gave its BatchNorm layers their statistics."""
    net = Net.from_text(NETS[name].train_text(2), TRAIN, seed=3)
    images(net)
    net.program.forward()
    return net


@pytest.mark.parametrize("name", TESTED)
def test_twins_agree(name: str) -> None:
    train = trained(name)
    losing, deployed = (
        Net.from_text(text, TEST, share=train, seed=1)
        for text in (NETS[name].train_text(2), NETS[name].deploy_text(2))
    )
    inputs = images(losing)
    loss = losing.program.forward()
    deployed.blobs["data"].data[...] = losing.blobs["data"].data
    probabilities = deployed.forward()["prob"]
    assert np.ptp(probabilities) > 1e-3  # or agreement would say nothing
    for form in (torch.contiguous_format, torch.channels_last):
        image = inputs[0].to(memory_format=form)
        with torch.inference_mode():
            model = twin.twin(losing.plan, losing.params).to(memory_format=form)
            np.testing.assert_allclose(float(model(image, inputs[1])), loss, rtol=1e-4)
            model = twin.twin(deployed.plan, deployed.params).to(memory_format=form)
            np.testing.assert_allclose(model(image), probabilities, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TESTED)
def test_gradients_agree(name: str) -> None:
    """The loss and every gradient: in phase TEST where there is dropout, which is random, and in
    float64, since rounding grows from layer to layer of a net that is normalised by two images."""
    message = prototxt.parse(NETS[name].train_text(2), pb.NetParameter).message
    random = any(layer.type == "Dropout" for layer in message.layer)
    state = pb.NetState(phase=pb.TEST if random else pb.TRAIN)
    net = Net.from_message(message, state, seed=3, dtype=np.float64)
    inputs = images(net)
    loss = net.program.forward()
    net.program.backward()
    torch.set_default_dtype(torch.float64)
    try:
        model = twin.twin(net.plan, net.params)
    finally:
        torch.set_default_dtype(torch.float32)
    found = model(*inputs)
    found.backward()
    np.testing.assert_allclose(found.item(), loss, rtol=1e-9)
    learned = [p.blob for p in net.program.learnable if p.blob.diff.any()]
    for own, theirs in zip(learned, model.parameters(), strict=True):
        scale = np.abs(own.diff).max()
        np.testing.assert_allclose(theirs.grad.reshape(own.shape), own.diff, atol=1e-8 * scale)
    model.train()(*inputs).backward()  # as it is measured, dropout included


def test_groups_have_the_rates_of_the_net() -> None:
    net = Net.from_text(NETS["lenet"].train_text(2), TRAIN, seed=3)
    model = twin.twin(net.plan)
    groups = twin.parameter_groups(net.plan, model, rate=0.5, decay=0.1)
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        (0.5, 0.1, 4),
        (1.0, 0.0, 4),
    ]


def test_what_has_no_counterpart_is_refused() -> None:
    layer = 'layer { name: "p" type: "Power" bottom: "data" top: "p" }'
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 } } }'
    with pytest.raises(NotImplementedError, match="Power"):
        twin.twin(Net.from_text(text + layer, TEST).plan)
