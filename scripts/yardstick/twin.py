"""The PyTorch twin of a net: the same computation, in the words of PyTorch.

``twin`` goes through the layers that netdef planned and writes them down with the modules and
functions a PyTorch user would take. ``torch.fx`` turns that into straight-line Python code, so that
no time is spent on looking up what comes next. A layer that has no exact counterpart is an error:
what is compared must be the same computation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from netdef.blob import Blob
from netdef.plan import LayerPlan, Plan
from netdef.proto import netdef_pb2 as pb
from yardstick.options import must, pair, scale_behind


def twin(plan: Plan, params: Mapping[str, Sequence[Blob]] | None = None) -> fx.GraphModule:
    """A module that maps the inputs of a net, in order, to its loss, or to its only output.

    ``params``: by layer name, values to copy; without them filters are drawn as netdef's "msra"
    draws them. Labels are taken as PyTorch does, as int64. Raises NotImplementedError for a layer,
    or an option of one, that has no counterpart.
    """
    module = _Writer(plan, params).write()
    return module.train(plan.state.phase == pb.TRAIN)


def parameter_groups(
    plan: Plan, module: nn.Module, rate: float, decay: float
) -> list[dict[str, Any]]:
    """The parameters of a twin for ``torch.optim``, with the net's rates and decays."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    learnable = [param for param in plan.learnable if param.learns]
    for parameter, own in zip(module.parameters(), learnable, strict=True):
        groups.setdefault((own.lr_mult, own.decay_mult), []).append(parameter)
    return [
        {"params": parameters, "lr": rate * lr_mult, "weight_decay": decay * decay_mult}
        for (lr_mult, decay_mult), parameters in groups.items()
    ]


class _Writer:
    """Writes the layers of a net, one after the other, into a graph of PyTorch calls."""

    def __init__(self, plan: Plan, params: Mapping[str, Sequence[Blob]] | None) -> None:
        self.plan = plan
        self.params = params
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.losses: list[tuple[fx.Node, float]] = []
        #: Scale layers that the module of the BatchNorm before them computes.
        self.merged: set[str] = set()

    def write(self) -> fx.GraphModule:
        layers = list(self.plan.layers)
        for number, layer in enumerate(layers):
            write = getattr(self, f"_{layer.type.lower()}", None)
            if write is None:
                raise NotImplementedError(f"{layer.type} has no counterpart in PyTorch")
            if layer.type == "BatchNorm":
                write(layer, scale_behind(layers, number))
            else:
                write(layer)
        self.graph.output(self._result())
        return fx.GraphModule(self.root, self.graph, "Twin")

    def _result(self) -> fx.Node:
        if not self.losses:
            (output,) = self.plan.outputs
            return self.values[output]
        total: Any = 0
        for value, weight in self.losses:
            part = value if weight == 1 else self._call(torch.mul, value, weight)
            total = part if total == 0 else self._call(torch.add, total, part)
        result: fx.Node = total
        return result

    # -- what the layers are written with -------------------------------------------------------

    def _call(self, function: Any, *arguments: Any, **options: Any) -> fx.Node:
        return self.graph.call_function(function, arguments, options)

    def _module(self, layer: LayerPlan, module: nn.Module, x: fx.Node | None = None) -> None:
        """Let ``layer`` be computed by ``module``, from ``x`` or else from its bottom."""
        name = layer.name.replace("/", "_").replace(".", "_")
        self.root.add_module(name, module)
        if x is None:
            (x,) = self._bottoms(layer)
        self._set(layer, self.graph.call_module(name, (x,)))

    def _bottoms(self, layer: LayerPlan) -> list[fx.Node]:
        return [self.values[name] for name in layer.bottoms]

    def _set(self, layer: LayerPlan, value: fx.Node) -> None:
        (top,) = layer.tops
        self.values[top] = value

    def _fill(self, layer: LayerPlan, module: nn.Module) -> None:
        """Give ``module`` the weight and bias of ``layer``."""
        targets = list(module.parameters())
        if self.params is None:
            nn.init.kaiming_normal_(targets[0])
            for bias in targets[1:]:
                nn.init.zeros_(bias)
            return
        with torch.no_grad():
            for target, blob in zip(targets, self.params[layer.name], strict=True):
                target.copy_(torch.from_numpy(blob.data).reshape(target.shape))

    # -- the layers -----------------------------------------------------------------------------

    def _input(self, layer: LayerPlan) -> None:
        for top in layer.tops:
            self.values[top] = self.graph.placeholder(top)

    def _split(self, layer: LayerPlan) -> None:
        for top in layer.tops:
            self.values[top] = self.values[layer.bottoms[0]]

    def _convolution(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        channels = layer.bottom_shapes[0][1]
        module = nn.Conv2d(
            channels,
            p.num_output,
            pair(p, "kernel_size"),
            stride=pair(p, "stride"),
            padding=pair(p, "pad"),
            dilation=pair(p, "dilation"),
            groups=p.group,
            bias=p.bias_term,
        )
        self._fill(layer, module)
        self._module(layer, module)

    def _innerproduct(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        must(layer, p.axis == 1 and not p.transpose, "axis and transpose")
        (x,) = self._bottoms(layer)
        if len(layer.bottom_shapes[0]) > 2:
            x = self._call(torch.flatten, x, 1)
        module = nn.Linear(math.prod(layer.bottom_shapes[0][1:]), p.num_output, bias=p.bias_term)
        self._fill(layer, module)
        self._module(layer, module, x)

    def _relu(self, layer: LayerPlan) -> None:
        must(layer, layer.layer.config.negative_slope == 0, "negative_slope")
        self._module(layer, nn.ReLU(inplace=layer.in_place[0]))

    def _pooling(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        (_, _, height, width), (_, _, *pooled) = layer.bottom_shapes[0], layer.top_shapes[0]
        kernel = (height, width) if p.global_pooling else pair(p, "kernel_size")
        stride, pad = pair(p, "stride"), pair(p, "pad")
        module: nn.Module
        if p.pool == pb.PoolingParameter.MAX:
            module = nn.MaxPool2d(kernel, stride, pad, ceil_mode=True)
        else:
            must(layer, p.pool == pb.PoolingParameter.AVE, "pool")
            # Both count padding in the divisor, and both cut the last window off at its end.
            module = nn.AvgPool2d(kernel, stride, pad, ceil_mode=True, count_include_pad=True)
            if kernel == (height, width) and pooled == [1, 1] and pad == (0, 0):
                module = nn.AdaptiveAvgPool2d(1)
        self._module(layer, module)

    def _lrn(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        across = p.norm_region == pb.LRNParameter.ACROSS_CHANNELS
        must(layer, across, "norm_region")
        self._module(layer, nn.LocalResponseNorm(p.local_size, p.alpha, p.beta, p.k))

    def _batchnorm(self, layer: LayerPlan, scale: LayerPlan | None) -> None:
        """With the Scale behind it, if there is one: nn.BatchNorm2d does both."""
        p = layer.layer.config
        module = nn.BatchNorm2d(
            layer.bottom_shapes[0][1],
            eps=p.eps,
            momentum=1 - p.moving_average_fraction,
            affine=scale is not None,
        )
        if scale is not None:
            self.merged.add(scale.name)
        if self.params is not None:
            if scale is not None:
                self._fill(scale, module)
            mean, variance, count = (blob.data for blob in self.params[layer.name])
            assert module.running_mean is not None
            assert module.running_var is not None
            # Caffe keeps sums and their count; before the first batch all are 0.
            module.running_mean.copy_(torch.from_numpy(mean / max(count[0], 1e-30)))
            module.running_var.copy_(torch.from_numpy(variance / max(count[0], 1e-30)))
        self._module(layer, module)

    def _scale(self, layer: LayerPlan) -> None:
        # The BatchNorm before it has done this, and its twin has the value.
        must(layer, layer.name in self.merged, "a Scale that follows no BatchNorm")
        self._set(layer, self.values[layer.bottoms[0]])

    def _eltwise(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        plain = p.operation == pb.EltwiseParameter.SUM and all(c == 1 for c in p.coeff)
        must(layer, plain, "operation and coeff")
        first, *rest = self._bottoms(layer)
        for value in rest:
            first = self._call(torch.add, first, value)
        self._set(layer, first)

    def _concat(self, layer: LayerPlan) -> None:
        axis = layer.layer.config.axis
        self._set(layer, self._call(torch.cat, self._bottoms(layer), dim=axis))

    def _dropout(self, layer: LayerPlan) -> None:
        # Not in place: the ReLU before it needs its own output to find the gradient.
        self._module(layer, nn.Dropout(layer.layer.config.dropout_ratio))

    def _softmax(self, layer: LayerPlan) -> None:
        (x,) = self._bottoms(layer)
        self._set(layer, self._call(F.softmax, x, dim=layer.layer.config.axis))

    def _softmaxwithloss(self, layer: LayerPlan) -> None:
        p = layer.layer.message.loss_param
        must(layer, not p.ListFields(), "loss_param")
        loss = self._call(F.cross_entropy, *self._bottoms(layer))
        self._set(layer, loss)
        self.losses.append((loss, layer.loss_weights[0]))
