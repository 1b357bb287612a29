"""Old definitions to today's: an ordered list of steps, each a test if it is needed and a change.

A net of Caffe's first years (V0), with ``layers`` of enumerated types (V1), with its inputs as
fields of the net, or with BatchNorm parameters that learn, becomes the same net in today's words
(V2). What forks say in words of their own and Caffe's words can say, is said in those. Each layer
keeps the ``origin`` it was parsed with. The input is never modified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import Message

from netdef.errors import Diagnostic, Location, NetError, SolverError, did_you_mean
from netdef.proto import netdef_pb2 as pb

if TYPE_CHECKING:
    from netdef.prototxt import Positions

V1 = pb.V1LayerParameter
SCALARS = (bool, int, float, str, bytes)


def upgrade_net(
    net: pb.NetParameter,
    positions: Positions | None = None,
    warnings: list[Diagnostic] | None = None,
) -> pb.NetParameter:
    """``net`` in V2 terms, as a new message.

    Args:
        net: as parsed; of any version.
        positions: where it was parsed from, for messages that say where.
        warnings: is appended what the text left in doubt (once: the next call has no more of it),
            and what Caffe would have dropped without stopping.

    Raises:
        NetError: ``layer`` and ``layers`` are mixed, a V0 layer is of unknown type, padding is
            followed by a layer that cannot pad, or the inputs lack dimensions.
    """
    told = warnings if warnings is not None else []
    if positions is not None and warnings is not None:
        told += positions.take_warnings()
    work = _Work(pb.NetParameter(), positions, told)
    work.net.CopyFrom(net)
    for step in NET_STEPS:
        if step.needed(work.net):
            step.apply(work)
    return work.net


def upgrade_solver(
    solver: pb.SolverParameter, positions: Positions | None = None
) -> pb.SolverParameter:
    """``solver`` with ``type`` in place of the old enumerated ``solver_type``, as a new message.

    Raises SolverError where both are given.
    """
    upgraded = pb.SolverParameter()
    upgraded.CopyFrom(solver)
    if not solver.HasField("solver_type"):
        return upgraded
    if solver.HasField("type"):
        raise SolverError(
            "the solver has both type and the old solver_type",
            code="E210",
            location=positions.at("solver_type") if positions is not None else None,
            hint="keep type",
        )
    upgraded.type = SOLVER_TYPES[solver.solver_type]
    upgraded.ClearField("solver_type")
    return upgraded


#: Update rules by the values of the old enumeration.
SOLVER_TYPES = {
    pb.SolverParameter.SGD: "SGD",
    pb.SolverParameter.NESTEROV: "Nesterov",
    pb.SolverParameter.ADAGRAD: "AdaGrad",
    pb.SolverParameter.RMSPROP: "RMSProp",
    pb.SolverParameter.ADADELTA: "AdaDelta",
    pb.SolverParameter.ADAM: "Adam",
}

#: V2 layer types by V1 ones. NONE, the default, is no type at all.
V1_TYPES = {
    V1.NONE: "",
    V1.ABSVAL: "AbsVal",
    V1.ACCURACY: "Accuracy",
    V1.ARGMAX: "ArgMax",
    V1.BNLL: "BNLL",
    V1.CONCAT: "Concat",
    V1.CONTRASTIVE_LOSS: "ContrastiveLoss",
    V1.CONVOLUTION: "Convolution",
    V1.DATA: "Data",
    V1.DECONVOLUTION: "Deconvolution",
    V1.DROPOUT: "Dropout",
    V1.DUMMY_DATA: "DummyData",
    V1.ELTWISE: "Eltwise",
    V1.EUCLIDEAN_LOSS: "EuclideanLoss",
    V1.EXP: "Exp",
    V1.FLATTEN: "Flatten",
    V1.HDF5_DATA: "HDF5Data",
    V1.HDF5_OUTPUT: "HDF5Output",
    V1.HINGE_LOSS: "HingeLoss",
    V1.IM2COL: "Im2col",
    V1.IMAGE_DATA: "ImageData",
    V1.INFOGAIN_LOSS: "InfogainLoss",
    V1.INNER_PRODUCT: "InnerProduct",
    V1.LRN: "LRN",
    V1.MEMORY_DATA: "MemoryData",
    V1.MULTINOMIAL_LOGISTIC_LOSS: "MultinomialLogisticLoss",
    V1.MVN: "MVN",
    V1.POOLING: "Pooling",
    V1.POWER: "Power",
    V1.RELU: "ReLU",
    V1.SIGMOID: "Sigmoid",
    V1.SIGMOID_CROSS_ENTROPY_LOSS: "SigmoidCrossEntropyLoss",
    V1.SILENCE: "Silence",
    V1.SLICE: "Slice",
    V1.SOFTMAX: "Softmax",
    V1.SOFTMAX_LOSS: "SoftmaxWithLoss",
    V1.SPLIT: "Split",
    V1.TANH: "TanH",
    V1.THRESHOLD: "Threshold",
    V1.WINDOW_DATA: "WindowData",
    # Those that forks added.
    V1.BN: "BN",
    V1.CONVOLUTION3D: "Convolution3D",
    V1.CROP: "Crop",
    V1.DECONVOLUTION3D: "Deconvolution3D",
    V1.DENSE_CRF: "DenseCRF",
    V1.DENSE_IMAGE_DATA: "DenseImageData",
    V1.IMAGE_SEG_DATA: "ImageSegData",
    V1.MAT_READ: "MatRead",
    V1.MAT_WRITE: "MatWrite",
    V1.MULTI_STAGE_MEANFIELD: "MultiStageMeanfield",
    V1.NORMALIZE: "Normalize",
    V1.POOLING3D: "Pooling3D",
    V1.PRELU: "PReLU",
    V1.RESHAPE: "Reshape",
    V1.ROI_POOLING: "ROIPooling",
    V1.SEG_ACCURACY: "SegAccuracy",
    V1.SMOOTH_L1_LOSS: "SmoothL1Loss",
    V1.SPP: "SPP",
    V1.TRIPLET_LOSS: "TripletLoss",
    V1.UNIQUE_LABEL: "UniqueLabel",
    V1.UPSAMPLE: "Upsample",
    V1.VIDEO_DATA: "VideoData",
    V1.VIDEO_SEGMENTATION_DATA: "VideoSegmentationData",
    V1.VIDEO_WITH_VOXEL_TRUTH_DATA: "VideoWithVoxelTruthData",
    V1.VOXEL_SOFTMAX: "VoxelSoftmax",
    V1.VOXEL_SOFTMAX_LOSS: "VoxelSoftmaxLoss",
}

#: V1 layer types by V0 ones. "padding" is missing: it is folded into the layer after it.
V0_TYPES = {
    "accuracy": V1.ACCURACY,
    "bnll": V1.BNLL,
    "concat": V1.CONCAT,
    "conv": V1.CONVOLUTION,
    "data": V1.DATA,
    "dropout": V1.DROPOUT,
    "euclidean_loss": V1.EUCLIDEAN_LOSS,
    "flatten": V1.FLATTEN,
    "hdf5_data": V1.HDF5_DATA,
    "hdf5_output": V1.HDF5_OUTPUT,
    "im2col": V1.IM2COL,
    "images": V1.IMAGE_DATA,
    "infogain_loss": V1.INFOGAIN_LOSS,
    "innerproduct": V1.INNER_PRODUCT,
    "lrn": V1.LRN,
    "multinomial_logistic_loss": V1.MULTINOMIAL_LOGISTIC_LOSS,
    "pool": V1.POOLING,
    "relu": V1.RELU,
    "sigmoid": V1.SIGMOID,
    "softmax": V1.SOFTMAX,
    "softmax_loss": V1.SOFTMAX_LOSS,
    "split": V1.SPLIT,
    "tanh": V1.TANH,
    "window_data": V1.WINDOW_DATA,
}

#: Where a field of a V0 layer goes in the V1 layer: by V0 type, or "*" for all.
V0_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": {
        "conv": ("convolution_param", "num_output"),
        "innerproduct": ("inner_product_param", "num_output"),
    },
    "biasterm": {
        "conv": ("convolution_param", "bias_term"),
        "innerproduct": ("inner_product_param", "bias_term"),
    },
    "weight_filler": {
        "conv": ("convolution_param", "weight_filler"),
        "innerproduct": ("inner_product_param", "weight_filler"),
    },
    "bias_filler": {
        "conv": ("convolution_param", "bias_filler"),
        "innerproduct": ("inner_product_param", "bias_filler"),
    },
    "pad": {"conv": ("convolution_param", "pad"), "pool": ("pooling_param", "pad")},
    "kernelsize": {
        "conv": ("convolution_param", "kernel_size"),
        "pool": ("pooling_param", "kernel_size"),
    },
    "group": {"conv": ("convolution_param", "group")},
    "stride": {"conv": ("convolution_param", "stride"), "pool": ("pooling_param", "stride")},
    "pool": {"pool": ("pooling_param", "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {
        "data": ("data_param", "source"),
        "hdf5_data": ("hdf5_data_param", "source"),
        "images": ("image_data_param", "source"),
        "window_data": ("window_data_param", "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "scale": {"*": ("transform_param", "scale")},
    "meanfile": {"*": ("transform_param", "mean_file")},
    "batchsize": {
        "data": ("data_param", "batch_size"),
        "hdf5_data": ("hdf5_data_param", "batch_size"),
        "images": ("image_data_param", "batch_size"),
        "window_data": ("window_data_param", "batch_size"),
    },
    "cropsize": {"*": ("transform_param", "crop_size")},
    "mirror": {"*": ("transform_param", "mirror")},
    "rand_skip": {
        "data": ("data_param", "rand_skip"),
        "images": ("image_data_param", "rand_skip"),
    },
    "shuffle_images": {"images": ("image_data_param", "shuffle")},
    "new_height": {"images": ("image_data_param", "new_height")},
    "new_width": {"images": ("image_data_param", "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": ("window_data_param", "fg_threshold")},
    "det_bg_threshold": {"window_data": ("window_data_param", "bg_threshold")},
    "det_fg_fraction": {"window_data": ("window_data_param", "fg_fraction")},
    "det_context_pad": {"window_data": ("window_data_param", "context_pad")},
    "det_crop_mode": {"window_data": ("window_data_param", "crop_mode")},
    "hdf5_output_param": {"hdf5_output": ("", "hdf5_output_param")},
}

#: V2 sharing modes by V1 ones.
SHARE_MODES = {
    V1.STRICT: pb.ParamSpec.STRICT,
    V1.PERMISSIVE: pb.ParamSpec.PERMISSIVE,
}

#: Fields that V0 and V1 layers have in common.
V0_COMMON = ("name", "blobs", "blobs_lr", "weight_decay")

#: Preprocessing that used to stand in the data layer's own parameters.
TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")

#: The parameters it stood in, by V1 type and by V2 type.
TRANSFORMED = {
    V1.DATA: "data_param",
    V1.IMAGE_DATA: "image_data_param",
    V1.WINDOW_DATA: "window_data_param",
}
TRANSFORMED_V2 = {V1_TYPES[kind]: name for kind, name in TRANSFORMED.items()}

#: What V2 says under another name or in another form; every other field of V1 goes over as it is.
V1_CONVERTED = frozenset(("type", "param", "blob_share_mode", "blobs_lr", "weight_decay", "layer"))


@dataclass
class _Work:
    """The net being upgraded, and what there is to say about it."""

    net: pb.NetParameter
    positions: Positions | None
    warnings: list[Diagnostic] = field(default_factory=list)

    def at(self, *path: str | int) -> Location | None:
        return self.positions.at(*path) if self.positions is not None else None

    def in_layer(self, layer: Any, *path: str | int) -> Location | None:
        """Where ``path`` within a layer message of any version stands."""
        if self.positions is None or not layer.HasField("origin"):
            return None
        return self.positions.layer(layer.origin, *path)

    def warn(self, message: str, location: Location | None, hint: str = "") -> None:
        self.warnings.append(Diagnostic("E120", message, location, hint, severity="warning"))


class Step(NamedTuple):
    """One upgrade of a net: whether it is ``needed``, and the change, made in place."""

    needed: Callable[[pb.NetParameter], bool]
    apply: Callable[[_Work], None]


def _is_mixed(net: pb.NetParameter) -> bool:
    return len(net.layer) > 0 and len(net.layers) > 0


def _refuse_mixture(work: _Work) -> None:
    new, old = work.at("layer", 0), work.at("layers", 0)
    where = f": the first layer is at {new}, the first layers at {old}" if new and old else ""
    raise NetError(
        f'the net mixes "layer" and "layers"{where}',
        code="E124",
        location=old,
        hint='one net, one spelling; today it is  layer { type: "Convolution" ... }',
    )


def _is_v0(net: pb.NetParameter) -> bool:
    return any(layer.HasField("layer") for layer in net.layers)


def _fold_padding(work: _Work) -> None:
    """Give the padding of each V0 padding layer to the convolution or pooling that reads it."""
    old = work.net.layers
    made_by = dict.fromkeys(work.net.input, -1)
    folded = []
    for index, layer in enumerate(old):
        if layer.layer.type != "padding":
            copy = V1()
            copy.CopyFrom(layer)
            folded.append(copy)
        for j, bottom in enumerate(layer.bottom):
            if bottom not in made_by:
                raise NetError(
                    f'unknown bottom blob "{bottom}" of layer "{layer.layer.name}"',
                    code="E121",
                    location=work.in_layer(layer, "bottom", j),
                    hint=did_you_mean(bottom, made_by),
                )
            source = made_by[bottom]
            if source < 0 or old[source].layer.type != "padding":
                continue
            _check_padding(work, old[source], layer)
            folded[-1].layer.pad = old[source].layer.pad
            folded[-1].bottom[j] = old[source].bottom[0]
        made_by.update((name, index) for name in layer.top)
    del work.net.layers[:]
    work.net.layers.extend(folded)


def _check_padding(work: _Work, padding: pb.V1LayerParameter, reader: pb.V1LayerParameter) -> None:
    name = padding.layer.name
    if reader.layer.type not in ("conv", "pool"):
        raise NetError(
            f'padding layer "{name}" is read by layer "{reader.layer.name}" of type '
            f'"{reader.layer.type}", which cannot pad; only conv and pool can',
            code="E122",
            location=work.in_layer(padding),
        )
    for layer in (padding, reader):
        if len(layer.bottom) != 1:
            raise NetError(
                f'layer "{layer.layer.name}" has {len(layer.bottom)} bottoms; '
                f"a padding layer and the layer that reads it have one",
                code="E122",
                location=work.in_layer(layer),
            )


def _v0_to_v1(work: _Work) -> None:
    _fold_padding(work)
    for layer in work.net.layers:
        if layer.HasField("layer"):
            layer.CopyFrom(_v1_layer(work, layer))


def _v1_layer(work: _Work, outer: pb.V1LayerParameter) -> pb.V1LayerParameter:
    """The V1 layer that stands for ``outer``, which connects the V0 layer within it."""
    old = outer.layer
    new = V1()
    new.CopyFrom(outer)
    new.ClearField("layer")
    if old.HasField("type"):
        if old.type not in V0_TYPES:
            raise NetError(
                f'layer "{old.name}" is of unknown type "{old.type}"',
                code="E123",
                location=work.in_layer(outer, "layer", "type"),
                hint=did_you_mean(old.type, V0_TYPES),
            )
        new.type = V0_TYPES[old.type]
    for descriptor, value in old.ListFields():
        name = descriptor.name
        if name == "type":
            continue
        if name in V0_COMMON:
            _put(new, name, value)
            continue
        places = V0_FIELDS.get(name, {})
        place = places.get(old.type) or places.get("*")
        if place is None:
            work.warn(
                f'{name} has no meaning in layer "{old.name}" of type "{old.type}": it is ignored',
                work.in_layer(outer, "layer", name),
            )
            continue
        parameters, target = place
        _put(getattr(new, parameters) if parameters else new, target, value)
    return new


def _put(message: Message, name: str, value: Any) -> None:
    """Set a field of any kind; a single value becomes a list of one where the field is repeated."""
    current = getattr(message, name)
    if isinstance(current, SCALARS):
        setattr(message, name, value)
    elif isinstance(current, Message):
        current.CopyFrom(value)
    elif isinstance(value, SCALARS):
        current.append(value)
    else:
        current.extend(value)


def _moves_transform(net: pb.NetParameter) -> bool:
    return any(
        getattr(layer, TRANSFORMED[layer.type]).HasField(name)
        for layer in net.layers
        if layer.type in TRANSFORMED
        for name in TRANSFORM_FIELDS
    )


def _move_transform(work: _Work) -> None:
    """Preprocessing of V1 data layers, from their own parameters to transform_param."""
    for layer in work.net.layers:
        if layer.type not in TRANSFORMED:
            continue
        own = getattr(layer, TRANSFORMED[layer.type])
        for name in TRANSFORM_FIELDS:
            if own.HasField(name):
                setattr(layer.transform_param, name, getattr(own, name))
                own.ClearField(name)


def _ignores_transform(net: pb.NetParameter) -> bool:
    return any(_ignored_transform(layer) for layer in net.layer)


def _ignored_transform(layer: pb.LayerParameter) -> list[str]:
    own = TRANSFORMED_V2.get(layer.type)
    if own is None:
        return []
    given = [name for name in TRANSFORM_FIELDS if getattr(layer, own).HasField(name)]
    # WindowData reads its own scale, and that of transform_param never.
    return [name for name in given if (layer.type, name) != ("WindowData", "scale")]


def _warn_of_transform(work: _Work) -> None:
    """In a V2 layer Caffe reads preprocessing from transform_param only; say so, change nothing."""
    for layer in work.net.layer:
        own = TRANSFORMED_V2.get(layer.type, "")
        for name in _ignored_transform(layer):
            work.warn(
                f'layer "{layer.name}": {own}.{name} is ignored, as in Caffe',
                work.in_layer(layer, own, name),
                f"move it to  transform_param {{ {name}: ... }}",
            )


def _is_v1(net: pb.NetParameter) -> bool:
    return len(net.layers) > 0


def _v1_to_v2(work: _Work) -> None:
    net = work.net
    for old_layer in net.layers:
        net.layer.append(_v2_layer(work, old_layer))
    del net.layers[:]


def _v2_layer(work: _Work, old: pb.V1LayerParameter) -> pb.LayerParameter:
    new = pb.LayerParameter()
    for descriptor, value in old.ListFields():
        if descriptor.name not in V1_CONVERTED:
            _put(new, descriptor.name, value)
    if old.HasField("type"):
        new.type = V1_TYPES[old.type]
    columns = (old.param, old.blob_share_mode, old.blobs_lr, old.weight_decay)
    for _ in range(max(len(column) for column in columns)):
        new.param.add()
    for i, name in enumerate(old.param):
        new.param[i].name = name
    for i, mode in enumerate(old.blob_share_mode):
        new.param[i].share_mode = SHARE_MODES[mode]
    for i, rate in enumerate(old.blobs_lr):
        new.param[i].lr_mult = rate
    for i, decay in enumerate(old.weight_decay):
        new.param[i].decay_mult = decay
    return new


def _has_input(net: pb.NetParameter) -> bool:
    return len(net.input) > 0


def _input_to_layer(work: _Work) -> None:
    """Turn input, with input_shape or four input_dim each, into an Input layer at the front."""
    net = work.net
    shapes = _input_shapes(work)
    if shapes:
        layers = list(net.layer)
        first = pb.LayerParameter(name="input", type="Input", top=net.input)
        first.input_param.shape.extend(shapes)
        del net.layer[:]
        net.layer.extend([first, *layers])
    else:
        # A model saved by Caffe names its inputs without shapes: they mean nothing there.
        for i, name in enumerate(net.input):
            work.warn(
                f'input "{name}" has no shape: it is ignored',
                work.at("input", i),
                "add  input_shape { dim: ... }",
            )
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)


def _input_shapes(work: _Work) -> list[pb.BlobShape]:
    net = work.net
    count = len(net.input)
    if net.input_shape:
        if len(net.input_shape) != count:
            raise NetError(
                f"the net has {count} input but {len(net.input_shape)} input_shape: give one each",
                code="E125",
                location=work.at("input_shape", min(len(net.input_shape) - 1, count)),
            )
        return list(net.input_shape)
    if not net.input_dim:
        return []
    if len(net.input_dim) != 4 * count:
        raise NetError(
            f"the net has {count} input but {len(net.input_dim)} input_dim: give four each",
            code="E125",
            location=work.at("input_dim", min(len(net.input_dim) - 1, 4 * count)),
            hint="input_shape { dim: ... } takes any number of dimensions",
        )
    return [pb.BlobShape(dim=net.input_dim[4 * i : 4 * i + 4]) for i in range(count)]


def _has_learning_batch_norm(net: pb.NetParameter) -> bool:
    return any(_is_old_batch_norm(layer) for layer in net.layer)


def _is_old_batch_norm(layer: pb.LayerParameter) -> bool:
    # Three param entries were obligatory once, to keep the solver off the statistics.
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _freeze_batch_norm(work: _Work) -> None:
    """Mean, variance and their scale are gathered, never learned."""
    for layer in work.net.layer:
        if _is_old_batch_norm(layer):
            for spec in layer.param:
                spec.lr_mult = 0
                spec.decay_mult = 0


# -- what forks say in other words -----------------------------------------------------------------

SIDES = ("pad_t", "pad_b", "pad_l", "pad_r")
#: What a window of MAX must not take for a maximum.
LOWEST = -3.4028234663852886e38


def _speaks_dialect(net: pb.NetParameter) -> bool:
    return any(
        layer.pooling_param.HasField("ceil_mode")
        or layer.relu_param.HasField("relu6")
        or any(_sides(layer))
        or any(spec.HasField("fixed") for spec in layer.param)
        for layer in net.layer
    )


def _translate(work: _Work) -> None:
    """Options of forks that netdef has other words for."""
    translated = []
    for layer in work.net.layer:
        for spec in layer.param:
            if spec.fixed:
                spec.lr_mult = spec.decay_mult = 0
            spec.ClearField("fixed")
        _translate_rounding(work, layer)
        if layer.type == "ReLU" and layer.relu_param.relu6 and not layer.relu_param.negative_slope:
            layer.type = "ReLU6"
            layer.relu_param.ClearField("relu6")
        if any(_sides(layer)):
            padding = _translate_sides(layer)
            if padding is not None:
                translated.append(padding)
        translated.append(layer)
    layers = [pb.LayerParameter() for _ in translated]
    for copy, layer in zip(layers, translated, strict=True):
        copy.CopyFrom(layer)
    del work.net.layer[:]
    work.net.layer.extend(layers)


def _translate_rounding(work: _Work, layer: pb.LayerParameter) -> None:
    pooling = layer.pooling_param
    if not pooling.HasField("ceil_mode"):
        return
    mode = pooling.CEIL if pooling.ceil_mode else pooling.FLOOR
    if pooling.HasField("round_mode") and pooling.round_mode != mode:
        raise NetError(
            f'layer "{layer.name}": round_mode and ceil_mode contradict each other',
            code="E126",
            location=work.in_layer(layer, "pooling_param", "ceil_mode"),
            hint="keep round_mode",
        )
    pooling.round_mode = mode
    pooling.ClearField("ceil_mode")


def _sides(layer: pb.LayerParameter) -> list[int]:
    """The padding of a layer at the top, bottom, left and right; empty where it gives no sides."""
    if layer.type not in ("Convolution", "Pooling", "ConvolutionDepthwise", "DepthwiseConvolution"):
        return []
    config = layer.pooling_param if layer.type == "Pooling" else layer.convolution_param
    return [getattr(config, side) for side in SIDES]


def _translate_sides(layer: pb.LayerParameter) -> pb.LayerParameter | None:
    """Padding by sides as pad_h and pad_w; where sides differ, as a Pad layer, which is returned.

    Not where the mean of a window leaves out its padding: there the two are not the same.
    """
    pools = layer.type == "Pooling"
    config: Any = layer.pooling_param if pools else layer.convolution_param
    top, bottom, left, right = _sides(layer)
    even = top == bottom and left == right
    if not even and (not layer.bottom or (pools and config.pool not in (config.MAX, config.AVE))):
        return None
    for side in (*SIDES, "pad", "pad_h", "pad_w"):
        config.ClearField(side)
    if even:
        config.pad_h, config.pad_w = top, left
        return None
    padding = pb.LayerParameter(name=f"{layer.name}_pad", type="Pad", bottom=[layer.bottom[0]])
    padding.top.append(f"{layer.bottom[0]}_{layer.name}_pad")
    padding.pad_param.paddings.extend((0, 0, 0, 0, top, bottom, left, right))
    if pools and config.pool == config.MAX:
        padding.pad_param.constant_values = LOWEST
    padding.include.extend(layer.include)
    padding.exclude.extend(layer.exclude)
    if layer.HasField("origin"):
        padding.origin = layer.origin
    layer.bottom[0] = padding.top[0]
    return padding


#: The upgrades of a net, in the order they build on each other.
NET_STEPS = (
    Step(_is_mixed, _refuse_mixture),
    Step(_is_v0, _v0_to_v1),
    Step(_moves_transform, _move_transform),
    Step(_ignores_transform, _warn_of_transform),
    Step(_is_v1, _v1_to_v2),
    Step(_has_input, _input_to_layer),
    Step(_has_learning_batch_norm, _freeze_batch_norm),
    Step(_speaks_dialect, _translate),
)
