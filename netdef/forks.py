"""What forks of Caffe added, as far as netdef knows of it without computing it.

Plain data, so that a message can say where a layer or an option comes from. What netdef does
compute is not listed: a layer type that has a file in ``netdef/layers`` goes before this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import Message

from netdef.prototxt_fields import FIRST_OF_FORKS

_SSD = "SSD"
_RFCN = "R-FCN"
_FLOWNET = "FlowNet2"
_DEEPLAB = "DeepLab"
_SEGNET = "SegNet"
_NVIDIA = "NVIDIA Caffe"
_INTEL = "Intel Caffe"
_SYNOPSYS = "Synopsys Caffe"
_YOLO = "MobileNet-YOLO"
_YOLO2 = "the YOLO forks"
_MYCAFFE = "MyCaffe"
_C3D = "C3D"
_WINDOWS = "caffe-windows"

#: Layer types of forks, by the fork in which people met them first.
LAYERS: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("AnnotatedData", "DetectionEvaluate", "DetectionOutput", "MultiBoxLoss", "Normalize",
         "NormalizeBBox", "Permute", "PriorBox", "VideoData"), _SSD),
    **dict.fromkeys(("ROIPooling", "SmoothL1Loss"), "Fast R-CNN"),
    **dict.fromkeys(("BoxAnnotatorOHEM", "PSROIPooling", "SmoothL1LossOHEM", "SoftmaxWithLossOHEM"),
                    _RFCN),
    **dict.fromkeys(("Proposal", "ProposalTarget", "AnchorTarget", "RoiData"), "PVANET"),
    **dict.fromkeys(("PSROIAlign", "RPN", "DecodeBBox", "BBoxDecode"), "forks of Faster R-CNN"),
    **dict.fromkeys(("ROIAlign", "RoIAlign"), "Mask R-CNN"),
    **dict.fromkeys(("MaskPooling", "MaskResize", "ROIWarping", "ROIWarpingTest"), "MNC"),
    **dict.fromkeys(
        ("AdaptiveBiasChannel", "BiasChannel", "DenseCRF", "DomainTransform", "ImageSegData",
         "Interp", "MatRead", "MatWrite", "SegAccuracy", "UniqueLabel"), _DEEPLAB),
    **dict.fromkeys(("BN", "DenseImageData", "Upsample"), _SEGNET),
    **dict.fromkeys(("Grouping", "ParseEvaluate", "ParseOutput", "UnPooling"), "ParseNet"),
    **dict.fromkeys(("MultiStageMeanfield",), "CRF-RNN"),
    **dict.fromkeys(
        ("Accum", "BlackAugmentation", "ChannelNorm", "Correlation", "Correlation1D", "CustomData",
         "DataAugmentation", "Downsample", "FLOWriter", "FlowAugmentation", "FlowWarp",
         "FloatReader", "FloatWriter", "GenerateAugmentationParameters", "ImgReader", "ImgWriter",
         "L1Loss", "LpqLoss", "Mean", "NegReLU", "Resample"), _FLOWNET),
    **dict.fromkeys(("CPMData", "EuclideanmaskLoss", "ImResize", "Maximum", "Nms", "Switch"),
                    "OpenPose"),
    **dict.fromkeys(("Axpy",), "SENet"),
    **dict.fromkeys(("DetectNetTransformation", "TRT"), _NVIDIA),
    **dict.fromkeys(("SpatialDropout", "MnActivation"), _INTEL),
    **dict.fromkeys(("BoxData", "DetectionLoss", "EvalDetection", "Region", "RegionLoss", "Reorg"),
                    _YOLO2),
    **dict.fromkeys(
        ("AssistedExcitation", "LaneData", "ReLU6", "SegmentationEvaluate", "YoloDetectionOutput",
         "YoloSeg", "Yolov3", "Yolov3DetectionOutput"), _YOLO),
    **dict.fromkeys(("DepthwiseConvolution", "ConvolutionDepthwise"), "MobileNet for Caffe"),
    **dict.fromkeys(("ShuffleChannel",), "ShuffleNet"),
    **dict.fromkeys(
        ("Add", "BatchToSpaceND", "BroadcastTo", "CropAndResize", "DepthToSpace", "Div",
         "EmbeddingLookup", "ExpandDimsND", "GatherNd", "Gemm", "HardSigmoid", "HardSwish",
         "ICNetSubgraph", "MirrorPad", "Mul", "NMS", "NMSGather", "Pad", "Piece",
         "PyramidRoiAlign", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
         "ResizeBilinear", "ResizeNearestNeighbor", "ReverseSequence", "SpaceToBatchND",
         "SpaceToDepth", "SqueezeConvolution", "SqueezeInnerProduct", "Squeeze", "Stack",
         "StridedSlice", "Sub", "ThresholdedReLU", "TileND", "TopkGather", "Unstack",
         "UpsampleDarknet", "Where4", "XLU", "YoloV2Loss", "YoloV3Loss"), _SYNOPSYS),
    **dict.fromkeys(("Lstm",), "caffe-lstm"),
    **dict.fromkeys(("CTCGreedyDecoder", "CTCLoss", "Reverse", "Transpose", "WarpCTCLoss"),
                    "CTPN and caffe_ocr"),
    **dict.fromkeys(("ContinuationIndicator", "CtcLoss", "LabelsequenceAccuracy", "ReverseTime"),
                    "warpctc-caffe"),
    **dict.fromkeys(("DenseBlock",), "DenseNet for Caffe"),
    **dict.fromkeys(("CenterLoss",), "caffe-face"),
    **dict.fromkeys(("MarginInnerProduct",), "SphereFace"),
    **dict.fromkeys(
        ("ChannelScale", "Flip", "InnerDistance", "Insanity", "LabelSpecificAdd",
         "LabelSpecificRescale", "Local", "SubRegion"), _WINDOWS),
    **dict.fromkeys(("BatchReduction", "Gather", "Scatter", "SegData", "SyncBN"),
                    "yjxiong's Caffe"),
    **dict.fromkeys(
        ("Convolution3D", "Deconvolution3D", "Pooling3D", "VideoSegmentationData",
         "VideoWithVoxelTruthData", "VoxelSoftmax", "VoxelSoftmaxLoss"), _C3D),
    **dict.fromkeys(("NdConvolution", "NdPooling", "NdDeconvolution"), "video-caffe"),
    **dict.fromkeys(("ConvolutionRistretto", "DeconvolutionRistretto", "FcRistretto",
                     "LRNRistretto"), "Ristretto"),
    **dict.fromkeys(("DeformableConvolution", "DeformablePSROIPooling"), "Deformable ConvNets"),
    **dict.fromkeys(("DiceCoefLoss", "FocalLoss", "SparseData", "SparseInnerProduct"),
                    "DeepDetect"),
    **dict.fromkeys(("SeLu", "SeLuDropout"), "soeaver's Caffe"),
    **dict.fromkeys(("ImageLabelmapData",), "HED"),
    **dict.fromkeys(("Quantize", "Rescale"), "DeepSkeleton"),
    **dict.fromkeys(("CropCenter",), "waifu2x-caffe"),
    **dict.fromkeys(("FixedNeuron",), "Vitis AI"),
    **dict.fromkeys(("Mish",), "darknet2caffe"),
    **dict.fromkeys(("TripletLoss",), "forks for metric learning"),
    **dict.fromkeys(
        ("AccuracyDecode", "AccuracyEncoding", "ChannelEmbedding", "DataSequence", "DataTemporal",
         "Debug", "Decode", "GRN", "GateAddNorm", "Knn", "LayerNorm", "LstmAttention",
         "LstmSimple", "MemoryLoss", "MultiheadAttentionInterp", "NLLLoss", "Normalization2",
         "QuantileAccuracy", "QuantileLoss", "ReshapeTemporal", "SoftmaxCrossEntropy2Loss",
         "TokenizedData", "TransformerBlock", "UnPooling1", "UnPooling2", "VarSelNet"), _MYCAFFE),
}  # fmt: skip

#: Layer types that two forks mean different things by, told apart by their options: type, option,
#: the fork whose meaning netdef does not compute.
_OTHER_MEANINGS: Final = (
    ("DetectionOutput", "biases", _YOLO2),
    ("DetectionOutput", "coords", _YOLO2),
    ("DetectionOutput", "side", _YOLO2),
)


def other_meaning(layer: Any) -> str:
    """The fork that means something else by the type of ``layer`` than netdef; empty for none."""
    for type_name, option, fork in _OTHER_MEANINGS:
        if layer.type == type_name and any(
            given.name == option
            for config, value in layer.ListFields()
            if config.message_type is not None and isinstance(value, Message)
            for given, _ in value.ListFields()
        ):
            return fork
    return ""


#: Options that forks added to messages of Caffe's and that netdef reads. Those it translates
#: (``netdef/upgrade.py``) are gone before anyone asks.
READ: Final[dict[str, frozenset[str]]] = {
    "TransformationParameter": frozenset(("resize_param", "crop_h", "crop_w")),
    "BatchNormParameter": frozenset(
        ("scale_bias", "scale_filler", "bias_filler", "update_global_stats", "add_eps_before_sqrt")
    ),
    "DropoutParameter": frozenset(("scale_train", "sample_weights_test")),
    "LossParameter": frozenset(("weight_by_label_freqs", "class_weighting")),
    "SoftmaxParameter": frozenset(("weight_by_label_freqs", "class_weighting")),
}

#: Those that change nothing here: what computes, in what precision, on how many threads, and what
#: is shown.
WITHOUT_EFFECT: Final[dict[str, frozenset[str]]] = {
    "NetParameter": frozenset(
        ("engine", "default_forward_type", "default_backward_type", "default_forward_math",
         "default_backward_math", "global_grad_scale", "global_grad_scale_adaptive",
         "default_conv_algos_override", "default_cudnn_math_override", "mem_param",
         "reduce_memory_use")),
    "LayerParameter": frozenset(
        ("forward_type", "backward_type", "forward_math", "backward_math", "debug", "engine",
         "reshape_every_iter", "split_param")),
    "SolverParameter": frozenset(
        ("show_per_class_result", "richness", "per_parameter_reduce", "reduce_buckets",
         "store_blobs_in_old_format", "solver_data_type", "engine", "accuracy_average_window",
         "output_average_results", "larc_policy", "larc_eta", "local_gw_ratio", "momentum_power",
         "max_momentum", "warmup_start_lr", "rampup_lr", "ap_version", "eval_type")),
    "TransformationParameter": frozenset(
        ("use_gpu_transform", "display", "interpolation_algo_down", "interpolation_algo_up",
         "random_seed", "num_labels")),
    "DataParameter": frozenset(
        ("cache", "threads", "parser_threads", "show_data", "disk_reader_threads",
         "huge_video_dataset", "verbose")),
    "ImageDataParameter": frozenset(("show_data", "ignore_label")),
    "AccuracyParameter": frozenset(("enable_simple_accuracy",)),
    "BatchNormParameter": frozenset(("engine", "icnet")),
    "ConcatParameter": frozenset(("engine",)),
    "ConvolutionParameter": frozenset(
        ("filter_group", "negative_slope", "conv_algos_override", "cudnn_convolution_algo_seeker",
         "dis_mode", "gen_mode")),
    "EltwiseParameter": frozenset(("engine",)),
    "InnerProductParameter": frozenset(("engine",)),
    "PythonParameter": frozenset(("python_path",)),
    "ReLUParameter": frozenset(("fuse",)),
    "SoftmaxParameter": frozenset(("algorithm_train",)),
}  # fmt: skip


def option_name(path: tuple[str | int, ...]) -> str:
    """What to call the option at ``path`` of a message: ``convolution_param.relu``."""
    return ".".join(part for part in path if isinstance(part, str))


def unread_options(message: Message) -> Iterator[tuple[str | int, ...]]:
    """Where in ``message`` options of forks stand that netdef would pass over.

    They would change the result, so whoever builds a net or a solver refuses them. An option that
    is given, but with the value it would have without, says nothing. Messages of the layers of
    forks are not looked into: those layers read their own.
    """
    name = message.DESCRIPTOR.name
    passed = READ.get(name, frozenset()) | WITHOUT_EFFECT.get(name, frozenset())
    for field, value in message.ListFields():
        if field.number >= FIRST_OF_FORKS:
            fork_layer = field.message_type is not None and name.endswith("LayerParameter")
            if not (field.name in passed or fork_layer or _is_default(field, value)):
                yield (field.name,)
        elif field.enum_type is not None and isinstance(value, int):
            # Engines have no effect, whatever their name.
            if value >= FIRST_OF_FORKS and field.name != "engine":
                yield (field.name,)
        elif field.message_type is not None and field.message_type.name != "BlobProto":
            if isinstance(value, Message):
                yield from ((field.name, *rest) for rest in unread_options(value))
            else:
                for index, each in enumerate(value):
                    yield from ((field.name, index, *rest) for rest in unread_options(each))


def _is_default(field: Any, value: Any) -> bool:
    return (
        field.message_type is None
        and isinstance(value, (int, float, str))
        and (value == field.default_value)
    )
