"""The six nets of the yardstick, as prototxt.

Each function draws one net from its inputs to its scores; ``train_text`` puts the losses under it
and ``deploy_text`` a Softmax. Records come from ``Input`` layers, which the caller fills once, so
that nothing but computing is measured. Filters start from the "msra" filler, which keeps values of
every depth in range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Draft:
    """A net that is being written. Every method adds one layer and returns the name of its top."""

    def __init__(self) -> None:
        self.layers: list[str] = []

    def layer(
        self, type: str, name: str, bottoms: str | tuple[str, ...], top: str, settings: str = ""
    ) -> str:
        names = (bottoms,) if isinstance(bottoms, str) else bottoms
        words = [f'name: "{name}" type: "{type}"']
        words += [f'bottom: "{bottom}"' for bottom in names]
        words += [f'top: "{top}"', settings]
        self.layers.append(f"layer {{ {' '.join(filter(None, words))} }}\n")
        return top

    def input(self, name: str, *shape: int) -> str:
        dims = " ".join(f"dim: {n}" for n in shape)
        return self.layer("Input", name, (), name, f"input_param {{ shape {{ {dims} }} }}")

    def convolution(
        self,
        name: str,
        bottom: str,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        bias: bool = True,
    ) -> str:
        options = [f"num_output: {outputs} kernel_size: {kernel}"]
        options += [f"stride: {stride}"] if stride != 1 else []
        options += [f"pad: {pad}"] if pad else []
        options += [f"group: {group}"] if group != 1 else []
        options += ["" if bias else "bias_term: false", 'weight_filler { type: "msra" }']
        settings = f"{_rates(bias)} convolution_param {{ {' '.join(filter(None, options))} }}"
        return self.layer("Convolution", name, bottom, name, settings)

    def inner_product(self, name: str, bottom: str, outputs: int) -> str:
        options = f'num_output: {outputs} weight_filler {{ type: "msra" }}'
        settings = f"{_rates(bias=True)} inner_product_param {{ {options} }}"
        return self.layer("InnerProduct", name, bottom, name, settings)

    def relu(self, name: str, bottom: str) -> str:
        return self.layer("ReLU", name, bottom, bottom)

    def pooling(
        self, name: str, bottom: str, method: str, kernel: int, stride: int = 1, pad: int = 0
    ) -> str:
        options = f"pool: {method} kernel_size: {kernel} stride: {stride}"
        options += f" pad: {pad}" if pad else ""
        return self.layer("Pooling", name, bottom, name, f"pooling_param {{ {options} }}")

    def lrn(self, name: str, bottom: str) -> str:
        """Across 5 channels: Krizhevsky, Sutskever & Hinton, 2012, section 3.3."""
        settings = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
        return self.layer("LRN", name, bottom, name, settings)

    def dropout(self, name: str, bottom: str, ratio: float) -> str:
        settings = f"dropout_param {{ dropout_ratio: {ratio:g} }}"
        return self.layer("Dropout", name, bottom, bottom, settings)

    def normalization(self, norm: str, scale: str, bottom: str) -> str:
        """Batch normalisation, then a factor and a bias per channel, both in place."""
        self.layer("BatchNorm", norm, bottom, bottom)
        return self.layer("Scale", scale, bottom, bottom, "scale_param { bias_term: true }")

    def add(self, name: str, *bottoms: str) -> str:
        return self.layer("Eltwise", name, bottoms, name)

    def concat(self, name: str, *bottoms: str) -> str:
        return self.layer("Concat", name, bottoms, name)

    def softmax(self, name: str, bottom: str) -> str:
        return self.layer("Softmax", name, bottom, name)

    def loss(self, name: str, bottom: str, weight: float = 1.0) -> str:
        settings = f"loss_weight: {weight:g}"
        return self.layer("SoftmaxWithLoss", name, (bottom, "label"), name, settings)


def _rates(bias: bool) -> str:
    """As in Caffe's examples, a bias learns twice as fast as its weights, and does not decay."""
    weights = "param { lr_mult: 1 decay_mult: 1 }"
    return f"{weights} param {{ lr_mult: 2 decay_mult: 0 }}" if bias else weights


# -- the nets ------------------------------------------------------------------------------------


def lenet(net: Draft, training: bool) -> str:
    """LeCun, Bottou, Bengio & Haffner, 1998, in the form of Caffe's MNIST example."""
    x = net.convolution("conv1", "data", 20, 5)
    x = net.pooling("pool1", x, "MAX", 2, 2)
    x = net.convolution("conv2", x, 50, 5)
    x = net.pooling("pool2", x, "MAX", 2, 2)
    x = net.relu("relu1", net.inner_product("ip1", x, 500))
    return net.inner_product("ip2", x, 10)


def cifar10_quick(net: Draft, training: bool) -> str:
    """Krizhevsky's quick net for CIFAR-10, in the form of Caffe's example."""
    x = net.convolution("conv1", "data", 32, 5, pad=2)
    x = net.relu("relu1", net.pooling("pool1", x, "MAX", 3, 2))
    x = net.relu("relu2", net.convolution("conv2", x, 32, 5, pad=2))
    x = net.pooling("pool2", x, "AVE", 3, 2)
    x = net.relu("relu3", net.convolution("conv3", x, 64, 5, pad=2))
    x = net.pooling("pool3", x, "AVE", 3, 2)
    x = net.inner_product("ip1", x, 64)
    return net.inner_product("ip2", x, 10)


def caffenet(net: Draft, training: bool) -> str:
    """AlexNet with pooling before normalisation: Jia et al., "Caffe", 2014."""
    x = net.relu("relu1", net.convolution("conv1", "data", 96, 11, stride=4))
    x = net.lrn("norm1", net.pooling("pool1", x, "MAX", 3, 2))
    x = net.relu("relu2", net.convolution("conv2", x, 256, 5, pad=2, group=2))
    x = net.lrn("norm2", net.pooling("pool2", x, "MAX", 3, 2))
    x = net.relu("relu3", net.convolution("conv3", x, 384, 3, pad=1))
    x = net.relu("relu4", net.convolution("conv4", x, 384, 3, pad=1, group=2))
    x = net.relu("relu5", net.convolution("conv5", x, 256, 3, pad=1, group=2))
    x = net.pooling("pool5", x, "MAX", 3, 2)
    x = net.dropout("drop6", net.relu("relu6", net.inner_product("fc6", x, 4096)), 0.5)
    x = net.dropout("drop7", net.relu("relu7", net.inner_product("fc7", x, 4096)), 0.5)
    return net.inner_product("fc8", x, 1000)


@dataclass(frozen=True)
class Inception:
    """How many channels each branch has; those with ``reduce`` pass a 1x1 convolution first."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


INCEPTIONS = {
    "3a": Inception(64, 96, 128, 16, 32, 32),
    "3b": Inception(128, 128, 192, 32, 96, 64),
    "4a": Inception(192, 96, 208, 16, 48, 64),
    "4b": Inception(160, 112, 224, 24, 64, 64),
    "4c": Inception(128, 128, 256, 24, 64, 64),
    "4d": Inception(112, 144, 288, 32, 64, 64),
    "4e": Inception(256, 160, 320, 32, 128, 128),
    "5a": Inception(256, 160, 320, 32, 128, 128),
    "5b": Inception(384, 192, 384, 48, 128, 128),
}


def googlenet(net: Draft, training: bool) -> str:
    """Szegedy et al., "Going deeper with convolutions", 2015; its two auxiliary classifiers only
    train."""

    def convolved(
        block: str, name: str, bottom: str, outputs: int, kernel: int, stride: int = 1, pad: int = 0
    ) -> str:
        x = net.convolution(f"{block}/{name}", bottom, outputs, kernel, stride=stride, pad=pad)
        return net.relu(f"{block}/relu_{name}", x)

    def inception(block: str, x: str, size: Inception) -> str:
        one = convolved(block, "1x1", x, size.one, 1)
        three = convolved(block, "3x3_reduce", x, size.three_reduce, 1)
        three = convolved(block, "3x3", three, size.three, 3, pad=1)
        five = convolved(block, "5x5_reduce", x, size.five_reduce, 1)
        five = convolved(block, "5x5", five, size.five, 5, pad=2)
        pool = net.pooling(f"{block}/pool", x, "MAX", 3, 1, pad=1)
        pool = convolved(block, "pool_proj", pool, size.pool, 1)
        return net.concat(f"{block}/output", one, three, five, pool)

    def auxiliary(block: str, x: str) -> None:
        x = net.pooling(f"{block}/ave_pool", x, "AVE", 5, 3)
        x = convolved(block, "conv", x, 128, 1)
        x = net.relu(f"{block}/relu_fc", net.inner_product(f"{block}/fc", x, 1024))
        x = net.dropout(f"{block}/drop_fc", x, 0.7)
        x = net.inner_product(f"{block}/classifier", x, 1000)
        net.loss(f"{block}/loss", x, weight=0.3)

    x = net.convolution("conv1/7x7_s2", "data", 64, 7, stride=2, pad=3)
    x = net.relu("conv1/relu_7x7", x)
    x = net.lrn("pool1/norm1", net.pooling("pool1/3x3_s2", x, "MAX", 3, 2))
    x = convolved("conv2", "3x3_reduce", x, 64, 1)
    x = net.lrn("conv2/norm2", convolved("conv2", "3x3", x, 192, 3, pad=1))
    x = net.pooling("pool2/3x3_s2", x, "MAX", 3, 2)
    for block, size in INCEPTIONS.items():
        x = inception(f"inception_{block}", x, size)
        if training and block in ("4a", "4d"):
            auxiliary("loss1" if block == "4a" else "loss2", x)
        if block in ("3b", "4e"):
            x = net.pooling(f"pool{block[0]}/3x3_s2", x, "MAX", 3, 2)
    x = net.pooling("pool5/7x7_s1", x, "AVE", 7, 1)
    x = net.dropout("pool5/drop_7x7_s1", x, 0.4)
    return net.inner_product("loss3/classifier", x, 1000)


def resnet50(net: Draft, training: bool) -> str:
    """He, Zhang, Ren & Sun, "Deep residual learning", 2016: a stage's first 1x1 has the stride."""

    def convolved(
        branch: str, bottom: str, outputs: int, kernel: int, stride: int = 1, pad: int = 0
    ) -> str:
        name = f"res{branch}"
        x = net.convolution(name, bottom, outputs, kernel, stride=stride, pad=pad, bias=False)
        return net.normalization(f"bn{branch}", f"scale{branch}", x)

    def bottleneck(block: str, x: str, width: int, stride: int, widens: bool) -> str:
        shortcut = x
        if widens:
            shortcut = convolved(f"{block}_branch1", x, 4 * width, 1, stride=stride)
        branch = f"{block}_branch2"
        x = convolved(f"{branch}a", x, width, 1, stride=stride)
        x = net.relu(f"res{branch}a_relu", x)
        x = convolved(f"{branch}b", x, width, 3, pad=1)
        x = net.relu(f"res{branch}b_relu", x)
        x = convolved(f"{branch}c", x, 4 * width, 1)
        return net.relu(f"res{block}_relu", net.add(f"res{block}", shortcut, x))

    x = net.convolution("conv1", "data", 64, 7, stride=2, pad=3, bias=False)
    x = net.relu("conv1_relu", net.normalization("bn_conv1", "scale_conv1", x))
    x = net.pooling("pool1", x, "MAX", 3, 2)
    for stage, blocks, width in ((2, 3, 64), (3, 4, 128), (4, 6, 256), (5, 3, 512)):
        for number in range(blocks):
            first = number == 0
            stride = 2 if first and stage > 2 else 1
            x = bottleneck(f"{stage}{'abcdef'[number]}", x, width, stride, widens=first)
    return net.inner_product("fc1000", net.pooling("pool5", x, "AVE", 7, 1), 1000)


def vgg16(net: Draft, training: bool) -> str:
    """Configuration D of Simonyan & Zisserman, "Very deep convolutional networks", 2015."""
    x = "data"
    for stage, (convolutions, width) in enumerate(
        ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1
    ):
        for number in range(1, convolutions + 1):
            name = f"{stage}_{number}"
            x = net.relu(f"relu{name}", net.convolution(f"conv{name}", x, width, 3, pad=1))
        x = net.pooling(f"pool{stage}", x, "MAX", 2, 2)
    x = net.dropout("drop6", net.relu("relu6", net.inner_product("fc6", x, 4096)), 0.5)
    x = net.dropout("drop7", net.relu("relu7", net.inner_product("fc7", x, 4096)), 0.5)
    return net.inner_product("fc8", x, 1000)


@dataclass(frozen=True)
class YardNet:
    """A net, the shape of one of its images, and the batch size it is measured at."""

    title: str
    draw: Callable[[Draft, bool], str]
    image: tuple[int, int, int]
    batch: int
    classes: int
    loss: str = "loss"

    def train_text(self, batch: int) -> str:
        """From ``data`` and ``label`` to the losses."""
        net = Draft()
        net.input("data", batch, *self.image)
        net.input("label", batch)
        net.loss(self.loss, self.draw(net, True))
        return self._text(net)

    def deploy_text(self, batch: int) -> str:
        """From ``data`` to ``prob``, the probability of each class."""
        net = Draft()
        net.input("data", batch, *self.image)
        net.softmax("prob", self.draw(net, False))
        return self._text(net)

    def _text(self, net: Draft) -> str:
        return f'name: "{self.title}"\n{"".join(net.layers)}'


NETS = {
    "lenet": YardNet("LeNet", lenet, (1, 28, 28), 64, 10),
    "cifar10_quick": YardNet("CIFAR-10 quick", cifar10_quick, (3, 32, 32), 100, 10),
    "caffenet": YardNet("CaffeNet", caffenet, (3, 227, 227), 64, 1000),
    "googlenet": YardNet("GoogLeNet", googlenet, (3, 224, 224), 16, 1000, "loss3/loss3"),
    "resnet50": YardNet("ResNet-50", resnet50, (3, 224, 224), 16, 1000),
    "vgg16": YardNet("VGG-16", vgg16, (3, 224, 224), 8, 1000),
}
