"""``netdef.check``: what it finds in nets and solvers, and what it makes of real files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from netdef import forks, graph, prototxt
from netdef.check import Report, check
from netdef.errors import Diagnostic
from netdef.layer import layer_types
from netdef.plan import plan
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt_fields import FIRST_OF_FORKS
from netdef.upgrade import upgrade_net

IN = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [2, 3, 8, 8] } } }\n'
DATA = """
layer { name: "d" type: "Data" top: "x" top: "label" @
  data_param { source: "nowhere" batch_size: 4 backend: LMDB } }
"""


@pytest.fixture
def report(tmp_path: Path) -> Callable[[str], Report]:
    def of(text: str) -> Report:
        file = tmp_path / "net.prototxt"
        file.write_text(text)
        return check(str(file))

    return of


def places(found: list[Diagnostic]) -> list[tuple[str, int]]:
    return [(d.code, d.location.line) for d in found if d.location is not None]


def test_every_mistake_of_a_net_is_found(report: Callable[[str], Report]) -> None:
    found = report(
        IN
        + 'layer { name: "a" type: "Convolution" bottom: "x" top: "a" }\n'
        + 'layer { name: "b" type: "Convolutoin" bottom: "x" top: "b" }\n'
        + 'layer { name: "c" type: "ReLU" bottom: "y" top: "c" }\n'
        + 'layer { name: "d" type: "Concat" bottom: "x" bottom: "a" top: "d" }\n'
        + 'layer { name: "e" type: "Tile" bottom: "x" top: "e" }\n'
    )
    assert places(found.errors) == [("E100", 2), ("E101", 3), ("E111", 4), ("E100", 6)]
    assert found.errors[1].hint == 'did you mean "Convolution"?'
    assert found.kind == "net"
    assert not found.ok


def test_a_layer_is_asked_for_its_shapes_before_its_parameters(
    report: Callable[[str], Report],
) -> None:
    for options in ("type: 'PReLU'", "type: 'Convolution' convolution_param { num_output: 2 }"):
        text = (
            IN.replace("2, 3, 8, 8", "2") + f"layer {{ name: 'a' bottom: 'x' top: 'a' {options} }}"
        )
        assert places(report(text).errors) == [("E100", 2)]


def test_a_net_is_checked_in_the_states_it_is_meant_for(report: Callable[[str], Report]) -> None:
    wrong = 'layer { name: "a" type: "Tile" bottom: "x" top: "a" include { @ } }\n'
    for rule in ("phase: TRAIN", "phase: TEST", 'stage: "deploy"'):
        data = DATA.replace("@", "transform_param { crop_size: 8 }")
        assert len(report(data + wrong.replace("@", rule)).errors) == 1, rule
    # A net with inputs in place of data is for TEST, unless it says otherwise.
    assert report(IN + wrong.replace("@", 'phase: TEST stage: "x"')).ok is False
    only = 'layer { name: "a" type: "ReLU" bottom: "x" top: "a" include { phase: TEST } }\n'
    reads = 'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }\n'
    assert report(IN + only + reads).ok
    # Nothing enters the net in TRAIN, so it is not meant for it.
    data = DATA.replace("@", "include { phase: TEST }")
    assert report(data + reads.replace('"a"', '"x"')).ok


@pytest.mark.parametrize(
    ("options", "outputs", "assumed"),
    [
        ("transform_param { crop_size: 8 mean_value: [1, 2, 3] }", 192, ""),
        ("transform_param { crop_h: 2 crop_w: 3 force_gray: true }", 6, ""),
        ("transform_param { resize_param { height: 4 width: 5 } force_color: true }", 60, ""),
        ("", 3 * 224 * 224, "3x224x224"),
        ("", 784, "1x28x28"),
        ("", 3 * 32 * 32, "3x32x32"),
    ],
)
def test_what_data_layers_would_bring(
    report: Callable[[str], Report], options: str, outputs: int, assumed: str
) -> None:
    text = (
        DATA.replace("@", options)
        + f"""
layer {{ name: "r" type: "Reshape" bottom: "x" top: "r"
  reshape_param {{ shape {{ dim: [4, {outputs}] }} }} }}
"""
    )
    found = report(text)
    assert found.ok, found.errors
    assert [assumed in w.message for w in found.warnings] == ([True] if assumed else [])


def test_an_assumption_hides_no_mistake(report: Callable[[str], Report]) -> None:
    text = (
        DATA.replace("@", "")
        + """
layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "e" type: "Eltwise" bottom: "x" bottom: "p" top: "e" }
"""
    )
    assert places(report(text).errors) == [("E100", 6)]


def test_layers_and_options_of_forks_are_told(report: Callable[[str], Report]) -> None:
    text = (
        IN
        + """
layer { name: "a" type: "MultiStageMeanfield" bottom: "x" top: "a" }
layer { name: "b" type: "Tile" bottom: "a" top: "b" tile_param { axis: 1 tiles: 2 } }
layer { name: "c" type: "Pooling" bottom: "x" top: "c" pooling_param { pad_type: 1 } }
layer { name: "d" type: "ReLU" bottom: "x" top: "d" relu_param { engine: MKL2017 fuse: true } }
"""
    )
    found = report(text)
    assert found.ok
    assert places(found.warnings) == [("E131", 3), ("E132", 5)]
    assert "CRF-RNN" in found.warnings[0].message
    assert "pooling_param.pad_type" in found.warnings[1].message


def test_a_solver(report: Callable[[str], Report]) -> None:
    good = 'net: "nowhere.prototxt" base_lr: 0.1 lr_policy: "fixed" test_iter: 1 test_interval: 5'
    assert report(good).ok
    wrong = good.replace("fixed", "fixd").replace("test_iter: 1", "test_iter: 0") + ' type: "SDG"'
    found = report(wrong)
    assert [each.code for each in found.errors] == ["E201", "E200", "E220"]
    fork = report(good + " min_lr: 0.001 show_per_class_result: true")
    assert [each.code for each in fork.warnings] == ["E132"]
    inline = good.replace('net: "nowhere.prototxt"', "net_param { layer { type: 'Frob' } }")
    assert [each.code for each in report(inline).errors] == ["E101"]


def test_what_is_neither(report: Callable[[str], Report], tmp_path: Path) -> None:
    assert report("item { name: 'cat' label: 1 }").kind == "label map"
    assert [d.code for d in check(str(tmp_path / "none.prototxt")).errors] == ["E001"]
    assert [d.code for d in check(str(tmp_path)).errors] == ["E001"]
    assert [d.code for d in report("").errors] == ["E112"]


# ---------------------------------------------------------------------------- the options of forks


def test_every_option_of_a_fork_is_read_or_has_no_effect_or_is_refused() -> None:
    """Those tables name nothing that the schema lacks, and nothing twice."""
    for table in (forks.READ, forks.WITHOUT_EFFECT):
        for message, names in table.items():
            fields = pb.DESCRIPTOR.message_types_by_name[message].fields_by_name
            for name in names:
                assert fields[name].number >= FIRST_OF_FORKS, (message, name)
    for message, names in forks.READ.items():
        assert names.isdisjoint(forks.WITHOUT_EFFECT.get(message, ()))


def test_options_of_forks_that_change_the_result_are_found() -> None:
    def unread(text: str) -> list[str]:
        layer = prototxt.parse(text, pb.LayerParameter).message
        return [forks.option_name(path) for path in forks.unread_options(layer)]

    assert unread("convolution_param { relu: true }") == ["convolution_param.relu"]
    assert unread("convolution_param { relu: false }") == []
    assert unread("eltwise_param { operation: DIV }") == ["eltwise_param.operation"]
    assert unread("convolution_param { engine: MKLDNN weight_filler { diag_val: 1 } }") == [
        "convolution_param.weight_filler.diag_val"
    ]
    assert unread("bn_param { icnet: true } prior_box_param { clip: true }") == []


# -------------------------------------------------------------------------------------- real files

#: Files of the collection that are refused, and why. All others are fine.
REFUSED = {
    # MyCaffe: a phase of its own, RUN, and a path of Windows whose backslashes are escapes.
    "MyCaffe+MyCaffe/MyCaffe.test/test_data/models/rnn/char_rnn/lstm_attention/train_val.prototxt":
        ("E015",),
    "MyCaffe+MyCaffe/MyCaffe.test/test_data/projects/minGPT/models/gpt/train_test.prototxt":
        ("E005", "E015"),
    # Solvers of MyCaffe, whose program adds the net, and whose rules have names in capitals.
    "MyCaffe+MyCaffe/MyCaffe.app/Resources/alexnet_cifar_solver.prototxt": ("E200",),
    "MyCaffe+MyCaffe/MyCaffe.app/Resources/lenet_solver.prototxt": ("E200",),
    "MyCaffe+MyCaffe/MyCaffe.app/Resources/triplet_solver.prototxt": ("E200", "E220"),
    "MyCaffe+MyCaffe/MyCaffe.test/test_data/models/reinforcement/cartpole.noisy.dqn/solver.prototxt":
        ("E200", "E220"),
    "MyCaffe+MyCaffe/MyCaffe.test/test_data/models/ssd/vgg16/ssd_vgg16_solver.prototxt": ("E200",),
    "MyCaffe+MyCaffe/MyCaffe.test/test_data/projects/minGPT/models/gpt/solver.prototxt":
        ("E200", "E220"),
    "MyCaffe+MyCaffe/models/autoencoder/mnist/autoencoder_solver.prototxt": ("E200",),
    # A test of no batches: Caffe would divide by 0.
    "s9xie+hed/examples/hed/solver.prototxt": ("E200",),
    # A list of devices.
    "yjxiong+caffe/examples/mnist/lenet_parallel_solver.prototxt": ("E018",),
}  # fmt: skip
#: Descriptions of accelerators, which are neither nets nor solvers.
ACCELERATORS = "Xilinx+Vitis-AI/src/vai_runtime/target_factory/"


def test_real_files_are_fine_or_refused_for_a_reason(shared: Path) -> None:
    """In the order of the files; a net with a warning is fine."""
    folder = shared / "prototxt"
    seen, nets = 0, 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".tsv":
            continue
        name = path.relative_to(folder).as_posix()
        found = check(str(path))
        codes = REFUSED.get(name, ("E012", "E011") if name.startswith(ACCELERATORS) else ())
        assert tuple(each.code for each in found.errors) == codes, name
        assert all(each.location is not None for each in (*found.errors, *found.warnings)), name
        seen += 1
        nets += found.kind == "net"
    assert (seen, nets) == (274, 185)


def test_shapes_of_real_nets_are_those_of_caffe(shared: Path) -> None:
    """Blobs, parameters and layers, in order, of nets that Caffe built in phase TEST."""
    with gzip.open(shared / "reference" / "shapes.json.gz") as file:
        expected = json.load(file)
    for path, of_caffe in expected.items():
        document = prototxt.read(shared / "prototxt" / path, pb.NetParameter)
        kept = graph.keep(upgrade_net(document.message), pb.NetState(phase=pb.TEST))
        planned = plan(graph.split(kept))
        assert [[each.name, each.type] for each in planned.layers] == of_caffe["layers"], path
        blobs = {name: list(blob.shape) for name, blob in planned.blobs.items()}
        assert blobs == of_caffe["blobs"], path
        params = {
            each.name: [list(planned.params[i].shape) for i in each.params]
            for each in planned.layers
            if each.params
        }
        assert params == of_caffe["params"], path


def test_fork_layers_that_netdef_computes_say_so_before_the_table() -> None:
    assert "Pad" in layer_types()
    assert "Pad" in forks.LAYERS
