"""The nets of the yardstick are the published ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from netdef import graph, prototxt
from netdef.plan import Plan, plan
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import upgrade_net
from yardstick.nets import NETS


def planned(net: pb.NetParameter, phase: int) -> Plan:
    state = pb.NetState(phase=pb.Phase.Name(phase))
    return plan(graph.split(graph.keep(upgrade_net(net), state)))


def train(name: str) -> Plan:
    text = NETS[name].train_text(2)
    return planned(prototxt.parse(text, pb.NetParameter).message, pb.TRAIN)


def deploy(name: str) -> Plan:
    text = NETS[name].deploy_text(2)
    return planned(prototxt.parse(text, pb.NetParameter).message, pb.TEST)


def learned(net: Plan) -> int:
    return sum(math.prod(param.shape) for param in net.learnable if param.learns)


#: What is learned, counted by hand from the papers' tables, weights and biases of each stage.
LEARNED = {
    # 5x5 filters, and what the two fully connected layers hold.
    "lenet": (20 * 25 + 20) + (50 * 500 + 50) + (500 * 800 + 500) + (10 * 500 + 10),
    "cifar10_quick": (32 * 75 + 32)
    + (32 * 800 + 32)
    + (64 * 800 + 64)
    + (64 * 1024 + 64)
    + (10 * 64 + 10),
    # The figures their authors and model zoos publish.
    "caffenet": 60_965_224,
    "googlenet": 6_998_552,
    "resnet50": 25_557_032,
    "vgg16": 138_357_544,
}


@pytest.mark.parametrize("name", NETS)
def test_parameters(name: str) -> None:
    assert learned(deploy(name)) == LEARNED[name]


def test_auxiliary_classifiers_of_googlenet_only_train() -> None:
    net = train("googlenet")
    assert learned(net) == 13_378_280
    weights = {layer.name: layer.loss_weights[0] for layer in net.layers if layer.loss_weights[0]}
    assert weights == pytest.approx({"loss1/loss": 0.3, "loss2/loss": 0.3, "loss3/loss3": 1.0})


@pytest.mark.parametrize("name", [name for name in NETS if name != "googlenet"])
def test_training_learns_what_is_deployed(name: str) -> None:
    shapes = [param.shape for param in train(name).params]
    assert shapes == [param.shape for param in deploy(name).params]


@pytest.mark.parametrize("name", NETS)
def test_shapes_of_inputs_and_outputs(name: str) -> None:
    net = deploy(name)
    assert net.blobs["data"].shape == (2, *NETS[name].image)
    assert [net.blobs[output].shape for output in net.outputs] == [(2, NETS[name].classes)]


#: Maps before each net's first fully connected layer, from its paper.
LAST_MAPS = {
    ("lenet", "pool2"): (50, 4, 4),
    ("cifar10_quick", "pool3"): (64, 4, 4),
    ("caffenet", "pool5"): (256, 6, 6),
    ("googlenet", "inception_5b/output"): (1024, 7, 7),
    ("resnet50", "res5c"): (2048, 7, 7),
    ("vgg16", "pool5"): (512, 7, 7),
}


@pytest.mark.parametrize(("name", "blob"), LAST_MAPS)
def test_shapes_of_the_last_maps(name: str, blob: str) -> None:
    assert deploy(name).blobs[blob].shape[1:] == LAST_MAPS[name, blob]


#: The same nets in their authors' words.
PUBLISHED = {
    "lenet": "BVLC+caffe/examples/mnist/lenet.prototxt",
    "cifar10_quick": "BVLC+caffe/examples/cifar10/cifar10_quick.prototxt",
    "caffenet": "BVLC+caffe/models/bvlc_reference_caffenet/deploy.prototxt",
    "googlenet": "BVLC+caffe/models/bvlc_googlenet/deploy.prototxt",
    "resnet50": "foss-for-synopsys-dwc-arc-processors+synopsys-caffe-models/caffe_models/resnet_50/"
    "caffe_model/ResNet-50-deploy-1280x720.prototxt",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_layer_by_layer_like_the_published_net(name: str, shared: Path) -> None:
    message = prototxt.read(shared / "prototxt" / PUBLISHED[name], pb.NetParameter).message
    published = upgrade_net(message)
    (dims,) = (layer.input_param.shape[0].dim for layer in published.layer if layer.type == "Input")
    dims[:] = [2, *NETS[name].image]
    for layer in published.layer:
        if name == "resnet50" and layer.name == "conv1":
            # The first filters alone have a bias there, which normalisation takes away again.
            layer.convolution_param.bias_term = False
        if name == "resnet50" and layer.name == "pool5":
            # That file is for images of 1280x720.
            layer.pooling_param.CopyFrom(pb.PoolingParameter(pool="AVE", kernel_size=7))
    assert shapes(deploy(name)) == shapes(planned(published, pb.TEST))


def shapes(net: Plan) -> list[object]:
    """What can be compared: every layer with its name, blobs, and shapes of tops and parameters."""
    return [
        (
            layer.name,
            layer.type,
            layer.in_place,
            layer.top_shapes,
            [net.params[i].shape for i in layer.params],
        )
        for layer in net.layers
        if layer.type not in ("Input", "Split")
    ]
