"""Upgrades against what Caffe's own tools wrote, and step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
from google.protobuf.message import Message

from netdef import prototxt
from netdef.errors import Diagnostic, NetError, SolverError
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import V0_TYPES, V1_TYPES, upgrade_net, upgrade_solver

M = TypeVar("M", bound=Message)

GOLDEN = sorted((Path(__file__).parent / "golden" / "upgrade").glob("*.before.prototxt"))


def net(text: str) -> pb.NetParameter:
    return prototxt.parse(text, pb.NetParameter).message


def upgraded(text: str) -> pb.NetParameter:
    """The upgrade of ``text``, which is itself left alone, without origins."""
    before = net(text)
    copy = pb.NetParameter.FromString(before.SerializeToString())
    after = upgrade_net(before)
    assert before == copy
    return plain(after)


def plain(message: M) -> M:
    """``message`` without what is not written to files."""
    return prototxt.parse(prototxt.to_text(message), type(message)).message


def error(text: str) -> Diagnostic:
    document = prototxt.parse(text, pb.NetParameter, "n.prototxt")
    with pytest.raises(NetError) as caught:
        upgrade_net(document.message, document.positions)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def check_like_caffe(before: Path, after: Path) -> None:
    if "solver" in after.name.partition("__")[0]:
        ours = upgrade_solver(prototxt.read(before, pb.SolverParameter).message)
        assert plain(ours) == prototxt.read(after, pb.SolverParameter).message
    else:
        upgraded = upgrade_net(prototxt.read(before, pb.NetParameter).message)
        assert plain(upgraded) == plain(prototxt.read(after, pb.NetParameter).message)


@pytest.mark.parametrize("before", GOLDEN, ids=lambda path: path.name.partition(".")[0])
def test_like_caffe(before: Path) -> None:
    check_like_caffe(before, before.with_name(before.name.replace(".before.", ".after.")))


def test_like_caffe_on_every_reference(shared: Path) -> None:
    references = sorted((shared / "reference" / "upgrade").iterdir())
    assert references
    for after in references:
        name = after.name.partition("__")[2]
        check_like_caffe(shared / "prototxt" / name.replace("__", "/"), after)


def test_nothing_to_do() -> None:
    text = 'name: "n" layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
    assert upgraded(text) == plain(net(text))


V0 = """
name: "old"
input: "data"
input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { bottom: "data" top: "pad1" layer { name: "pad1" type: "padding" pad: 2 } }
layers { bottom: "pad1" top: "conv1"
  layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 5 stride: 2 group: 1 biasterm: false
    weight_filler { type: "gaussian" std: 0.01 } blobs_lr: 1 blobs_lr: 2 weight_decay: 1 } }
layers { bottom: "conv1" top: "pool1"
  layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } }
layers { bottom: "pool1" top: "fc" layer { name: "fc" type: "innerproduct" num_output: 10 } }
layers { bottom: "fc" top: "loss" layer { name: "loss" type: "softmax_loss" } }
"""


def test_v0() -> None:
    assert upgraded(V0) == plain(
        net("""
name: "old"
layer { name: "input" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 bias_term: false pad: 2 kernel_size: 5 group: 1 stride: 2
    weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool1" top: "fc"
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" top: "loss" }
""")
    )


def test_v0_data_layers() -> None:
    assert upgraded("""
layers { top: "a" layer { name: "d" type: "data" source: "db" batchsize: 8 scale: 0.5
  meanfile: "m" cropsize: 4 mirror: true rand_skip: 3 } }
layers { top: "b" layer { name: "i" type: "images" source: "l" batchsize: 2 shuffle_images: true
  new_height: 5 new_width: 6 } }
layers { top: "c" layer { name: "w" type: "window_data" source: "w" batchsize: 2
  det_fg_threshold: 0.5 det_bg_threshold: 0.25 det_fg_fraction: 0.75 det_context_pad: 16
  det_crop_mode: "square" } }
layers { bottom: "a" layer { name: "o" type: "hdf5_output"
  hdf5_output_param { file_name: "f.h5" } } }
""") == plain(
        net("""
layer { name: "d" type: "Data" top: "a"
  transform_param { scale: 0.5 mean_file: "m" crop_size: 4 mirror: true }
  data_param { source: "db" batch_size: 8 rand_skip: 3 } }
layer { name: "i" type: "ImageData" top: "b"
  image_data_param { source: "l" batch_size: 2 shuffle: true new_height: 5 new_width: 6 } }
layer { name: "w" type: "WindowData" top: "c"
  window_data_param { source: "w" batch_size: 2 fg_threshold: 0.5 bg_threshold: 0.25
    fg_fraction: 0.75 context_pad: 16 crop_mode: "square" } }
layer { name: "o" type: "HDF5Output" bottom: "a" hdf5_output_param { file_name: "f.h5" } }
""")
    )


def test_v0_field_without_meaning_is_told() -> None:
    document = prototxt.parse(
        'layers { top: "x" layer { name: "r" type: "relu" kernelsize: 3 } }',
        pb.NetParameter,
        "n.prototxt",
    )
    warnings: list[Diagnostic] = []
    after = upgrade_net(document.message, document.positions, warnings)
    assert plain(after) == net('layer { name: "r" type: "ReLU" top: "x" }')
    (warning,) = warnings
    assert warning.severity == "warning"
    assert warning.message == (
        'kernelsize has no meaning in layer "r" of type "relu": it is ignored'
    )
    assert str(warning.location).startswith("n.prototxt:1:")


def test_v0_mistakes() -> None:
    told = error('layers { layer { name: "c" type: "convv" } }')
    assert (told.code, told.hint) == ("E123", 'did you mean "conv"?')
    told = error('layers { bottom: "nix" top: "c" layer { name: "c" type: "conv" } }')
    assert told.message == 'unknown bottom blob "nix" of layer "c"'
    told = error("""input: "x" input_dim: [1, 1, 1, 1]
        layers { bottom: "x" top: "p" layer { name: "p" type: "padding" pad: 1 } }
        layers { bottom: "p" top: "r" layer { name: "r" type: "relu" } }""")
    assert (told.code, told.location and told.location.line) == ("E122", 2)
    assert "only conv and pool can" in told.message


def test_v1_parameters_become_param() -> None:
    before = """layers { name: "c" type: CONVOLUTION bottom: "x" top: "y" loss_weight: 0.5
        param: "w" param: "b" blob_share_mode: PERMISSIVE blobs_lr: 1 blobs_lr: 2 blobs_lr: 3
        weight_decay: 0 include { phase: TRAIN } exclude { min_level: 1 } }"""
    after = """layer { name: "c" type: "Convolution" bottom: "x" top: "y" loss_weight: 0.5
        param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0 }
        param { name: "b" lr_mult: 2 } param { lr_mult: 3 }
        include { phase: TRAIN } exclude { min_level: 1 } }"""
    assert upgraded(before) == plain(net(after))


def test_every_v1_type_and_parameter_goes_over() -> None:
    assert set(V1_TYPES) == set(pb.V1LayerParameter.LayerType.values())
    assert set(V0_TYPES.values()) <= set(V1_TYPES)
    for field in pb.V1LayerParameter.DESCRIPTOR.fields:
        if not field.name.endswith("_param"):
            continue
        before = pb.NetParameter()
        layer = before.layers.add(type=pb.V1LayerParameter.NONE)
        getattr(layer, field.name).SetInParent()
        (after,) = upgrade_net(before).layer
        assert after.HasField(field.name), field.name
        assert after.type == ""


def test_v1_preprocessing_moves_to_transform_param() -> None:
    assert upgraded("""
layers { name: "d" type: IMAGE_DATA top: "x" transform_param { mirror: true }
  image_data_param { source: "l" scale: 0.5 crop_size: 4 mean_file: "m" mirror: false } }
""") == plain(
        net("""
layer { name: "d" type: "ImageData" top: "x"
  transform_param { scale: 0.5 mirror: false crop_size: 4 mean_file: "m" }
  image_data_param { source: "l" } }
""")
    )


def test_v2_preprocessing_outside_transform_param_is_ignored_as_in_caffe() -> None:
    text = 'layer { name: "d" type: "Data" top: "x" data_param { source: "db" scale: 0.5 } }'
    warnings: list[Diagnostic] = []
    document = prototxt.parse(text, pb.NetParameter)
    assert upgrade_net(document.message, document.positions, warnings) == document.message
    (warning,) = warnings
    assert warning.message == 'layer "d": data_param.scale is ignored, as in Caffe'
    assert warning.location is not None


def test_a_v2_window_data_layer_reads_its_own_scale_as_in_caffe() -> None:
    text = 'layer { name: "w" type: "WindowData" window_data_param { scale: 0.5 mirror: true } }'
    warnings: list[Diagnostic] = []
    upgrade_net(net(text), warnings=warnings)
    assert [w.message for w in warnings] == [
        'layer "w": window_data_param.mirror is ignored, as in Caffe'
    ]


def test_origins_are_kept() -> None:
    before = net(V0)
    after = upgrade_net(before)
    # The Input layer stands for fields of the net, and the first of the old layers was padding.
    assert [a.origin for a in after.layer[1:]] == [b.origin for b in before.layers[1:]]
    assert not after.layer[0].HasField("origin")


def test_mixture_is_refused_with_both_places() -> None:
    told = error('layer { name: "a" type: "ReLU" }\nlayers { name: "b" type: RELU }')
    assert told.code == "E124"
    assert "the first layer is at n.prototxt:1:" in told.message
    assert "the first layers at n.prototxt:2:" in told.message
    assert told.location is not None
    assert told.location.line == 2


def test_input_without_shape_is_dropped_as_in_saved_models() -> None:
    warnings: list[Diagnostic] = []
    after = upgrade_net(net('input: "data" layer { name: "r" type: "ReLU" }'), None, warnings)
    assert not after.input
    assert [layer.name for layer in after.layer] == ["r"]
    assert [w.message for w in warnings] == ['input "data" has no shape: it is ignored']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'input: "a" input: "b" input_shape { dim: 1 }',
            "the net has 2 input but 1 input_shape: give one each",
        ),
        (
            'input: "a" input_dim: [1, 2, 3]',
            "the net has 1 input but 3 input_dim: give four each",
        ),
    ],
)
def test_input_needs_its_dimensions(text: str, message: str) -> None:
    told = error(text)
    assert told.message == message
    assert told.location is not None


def test_only_batch_norm_with_three_params_is_frozen() -> None:
    three = "param { lr_mult: 1 } " * 3
    after = upgraded(
        f'layer {{ name: "a" type: "BatchNorm" {three} }}'
        'layer { name: "b" type: "BatchNorm" param { lr_mult: 1 } }'
        f'layer {{ name: "c" type: "Scale" {three} }}'
    )
    assert [(p.lr_mult, p.decay_mult) for p in after.layer[0].param] == [(0, 0)] * 3
    assert after.layer[1].param[0].lr_mult == 1
    assert [p.lr_mult for p in after.layer[2].param] == [1, 1, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_solver_type(old: str, new: str) -> None:
    before = prototxt.parse(f"solver_type: {old} max_iter: 5", pb.SolverParameter).message
    after = upgrade_solver(before)
    assert prototxt.to_text(after) == f'max_iter: 5\ntype: "{new}"\n'
    assert before.HasField("solver_type")


def test_solver_with_both_types_is_refused() -> None:
    document = prototxt.parse('type: "Adam"\nsolver_type: ADAM', pb.SolverParameter, "s.prototxt")
    with pytest.raises(SolverError) as caught:
        upgrade_solver(document.message, document.positions)
    (told,) = caught.value.diagnostics
    assert told.location is not None
    assert told.location.line == 2


# --- what forks say in words of their own ---------------------------------------------------------


def layer_of(options: str) -> str:
    return f'layer {{ name: "l" bottom: "x" top: "y" {options} }}'


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("ceil_mode: false", "round_mode: FLOOR"),
        ("ceil_mode: true", "round_mode: CEIL"),
        ("ceil_mode: false round_mode: FLOOR", "round_mode: FLOOR"),
        ("pad_l: 1 pad_r: 1 pad_t: 2 pad_b: 2 pad: 7", "pad_h: 2 pad_w: 1"),
        (
            "pad_l: 0 pad_r: 0 pad_t: 0 pad_b: 0 pad: 7",
            "pad_l: 0 pad_r: 0 pad_t: 0 pad_b: 0 pad: 7",
        ),
        ("pad_b: 1 pool: AVE_EXC_PAD", "pad_b: 1 pool: AVE_EXC_PAD"),
    ],
)
def test_pooling_of_forks_in_the_words_of_caffe(given: str, wanted: str) -> None:
    options = 'type: "Pooling" pooling_param {{ kernel_size: 3 {} }}'
    after = upgraded(layer_of(options.format(given)))
    assert after == plain(net(layer_of(options.format(wanted))))


def test_rounding_that_is_given_twice_must_agree() -> None:
    text = layer_of('type: "Pooling" pooling_param { ceil_mode: false round_mode: CEIL }')
    with pytest.raises(NetError, match="contradict"):
        upgraded(text)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 @ }', ""),
        ('type: "Pooling" pooling_param { kernel_size: 3 pool: AVE @ }', ""),
        ('type: "Pooling" pooling_param { kernel_size: 3 @ }', "constant_values: -3.4028235e+38"),
    ],
)
def test_padding_that_differs_from_side_to_side_is_a_layer(options: str, value: str) -> None:
    rule = " include { phase: TEST }"
    given = layer_of(options.replace("@", "pad: 9 pad_t: 1 pad_b: 2 pad_l: 3 pad_r: 4") + rule)
    padding = f"""
layer {{ name: "l_pad" type: "Pad" bottom: "x" top: "x_l_pad" include {{ phase: TEST }}
  pad_param {{ paddings: [0, 0, 0, 0, 1, 2, 3, 4] {value} }} }}
"""
    reader = layer_of(options.replace("@", "") + rule).replace('"x"', '"x_l_pad"')
    assert upgraded(given) == plain(net(padding + reader))


def test_padding_of_a_layer_without_bottoms_is_left_to_whoever_builds_it() -> None:
    text = 'layer { name: "l" type: "Convolution" convolution_param { pad_l: 1 } }'
    assert upgraded(text) == plain(net(text))


def test_relu6_and_fixed_parameters() -> None:
    assert upgraded(layer_of('type: "ReLU" relu_param { relu6: true }')) == plain(
        net(layer_of('type: "ReLU6" relu_param { }'))
    )
    leaky = layer_of('type: "ReLU" relu_param { relu6: true negative_slope: 0.1 }')
    assert upgraded(leaky) == plain(net(leaky))
    assert upgraded(
        layer_of('type: "Scale" param { fixed: true } param { fixed: false }')
    ) == plain(net(layer_of('type: "Scale" param { lr_mult: 0 decay_mult: 0 } param { }')))
