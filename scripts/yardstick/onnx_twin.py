"""The ONNX twin of a net, for ONNX Runtime.

Written layer by layer rather than exported from the PyTorch twin: an export spells
local response normalisation out in a dozen small operators, where ONNX has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from netdef.blob import Array, Blob
from netdef.plan import LayerPlan, Plan
from netdef.proto import netdef_pb2 as pb
from yardstick.options import must, pair, scale_behind

#: The version of the operators, and the oldest form of the file that may hold it.
OPSET, IR_VERSION = 17, 8


def onnx_twin(plan: Plan, params: Mapping[str, Sequence[Blob]]) -> bytes:
    """The model that maps the input of a net in phase TEST to its only output, as a file holds it.

    Raises NotImplementedError for a layer, or an option of one, that has no counterpart.
    """
    model: bytes = _Writer(plan, params).write().SerializeToString()
    return model


class _Writer:
    """Writes the layers of a net, one after the other, as ONNX nodes."""

    def __init__(self, plan: Plan, params: Mapping[str, Sequence[Blob]]) -> None:
        self.plan = plan
        self.params = params
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        #: What each blob of the net is called here, where every value is written once.
        self.values: dict[str, str] = {}
        self.merged: set[str] = set()

    def write(self) -> Any:
        layers = self.plan.layers
        for number, layer in enumerate(layers):
            write = getattr(self, f"_{layer.type.lower()}", None)
            if write is None:
                raise NotImplementedError(f"{layer.type} has no counterpart in ONNX")
            if layer.type == "BatchNorm":
                write(layer, scale_behind(layers, number))
            else:
                write(layer)
        (source,) = self.plan.inputs
        (output,) = self.plan.outputs
        graph = helper.make_graph(
            self.nodes,
            self.plan.name or "net",
            [self._described(source, source)],
            [self._described(self.values[output], output)],
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )

    def _described(self, value: str, blob: str) -> Any:
        return helper.make_tensor_value_info(value, TensorProto.FLOAT, self.plan.blobs[blob].shape)

    # -- what the layers are written with -------------------------------------------------------

    def _node(
        self,
        layer: LayerPlan,
        operator: str,
        *weights: Array,
        bottoms: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        """Let ``operator`` compute the top of ``layer`` from its bottoms (or, in their place,
        ``bottoms``) and ``weights``."""
        if bottoms is None:
            bottoms = [self.values[name] for name in layer.bottoms]
        names = [f"{layer.name}/{i}" for i in range(len(weights))]
        self.weights += [
            numpy_helper.from_array(np.ascontiguousarray(values), name)
            for values, name in zip(weights, names, strict=True)
        ]
        value = f"{layer.name}:{layer.tops[0]}"
        inputs = [*bottoms, *names]
        self.nodes.append(helper.make_node(operator, inputs, [value], layer.name, **options))
        self.values[layer.tops[0]] = value

    def _values_of(self, layer: LayerPlan) -> list[Array]:
        return [blob.data for blob in self.params[layer.name]]

    # -- the layers -----------------------------------------------------------------------------

    def _input(self, layer: LayerPlan) -> None:
        for top in layer.tops:
            self.values[top] = top

    def _split(self, layer: LayerPlan) -> None:
        for top in layer.tops:
            self.values[top] = self.values[layer.bottoms[0]]

    def _convolution(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        self._node(
            layer,
            "Conv",
            *self._values_of(layer),
            kernel_shape=pair(p, "kernel_size"),
            strides=pair(p, "stride"),
            pads=pair(p, "pad") * 2,
            dilations=pair(p, "dilation"),
            group=p.group,
        )

    def _innerproduct(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        must(layer, p.axis == 1 and not p.transpose, "axis and transpose")
        x = self.values[layer.bottoms[0]]
        if len(layer.bottom_shapes[0]) > 2:
            flat = f"{layer.name}:flat"
            self.nodes.append(helper.make_node("Flatten", [x], [flat], axis=1))
            x = flat
        self._node(layer, "Gemm", *self._values_of(layer), bottoms=[x], transB=1)

    def _relu(self, layer: LayerPlan) -> None:
        must(layer, layer.layer.config.negative_slope == 0, "negative_slope")
        self._node(layer, "Relu")

    def _pooling(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        size = layer.bottom_shapes[0][2:]
        kernel = size if p.global_pooling else pair(p, "kernel_size")
        average = p.pool == pb.PoolingParameter.AVE
        must(layer, average or p.pool == pb.PoolingParameter.MAX, "pool")
        if average and kernel == size and layer.top_shapes[0][2:] == (1, 1):
            self._node(layer, "GlobalAveragePool")
            return
        window: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": pair(p, "stride"),
            "pads": pair(p, "pad") * 2,
            "ceil_mode": 1,
        }
        if average and pair(p, "pad") != (0, 0):
            window["count_include_pad"] = 1
        self._node(layer, "AveragePool" if average else "MaxPool", **window)

    def _lrn(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        must(layer, p.norm_region == pb.LRNParameter.ACROSS_CHANNELS, "norm_region")
        self._node(layer, "LRN", size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)

    def _batchnorm(self, layer: LayerPlan, scale: LayerPlan | None) -> None:
        mean, variance, count = self._values_of(layer)
        divisor = np.float32(max(count[0], 1e-30))
        factor, bias = np.ones_like(mean), np.zeros_like(mean)
        if scale is not None:
            factor, bias = self._values_of(scale)
            self.merged.add(scale.name)
        epsilon = layer.layer.config.eps
        values = (factor, bias, mean / divisor, variance / divisor)
        self._node(layer, "BatchNormalization", *values, epsilon=epsilon)

    def _scale(self, layer: LayerPlan) -> None:
        # The BatchNorm before it has done this.
        must(layer, layer.name in self.merged, "a Scale that follows no BatchNorm")
        self.values[layer.tops[0]] = self.values[layer.bottoms[0]]

    def _eltwise(self, layer: LayerPlan) -> None:
        p = layer.layer.config
        plain = p.operation == pb.EltwiseParameter.SUM and all(c == 1 for c in p.coeff)
        must(layer, plain, "operation and coeff")
        self._node(layer, "Sum" if len(layer.bottoms) > 2 else "Add")

    def _concat(self, layer: LayerPlan) -> None:
        self._node(layer, "Concat", axis=layer.layer.config.axis)

    def _dropout(self, layer: LayerPlan) -> None:
        self.values[layer.tops[0]] = self.values[layer.bottoms[0]]

    def _softmax(self, layer: LayerPlan) -> None:
        self._node(layer, "Softmax", axis=layer.layer.config.axis)
