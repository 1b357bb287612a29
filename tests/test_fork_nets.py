"""Published nets of the forks: every layer is known, and the tops are as large as they say.

The sizes are those the forks publish: as many classes as the data set has, and for segmentation a
map as large as the image.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from netdef import graph, prototxt
from netdef.plan import plan
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import upgrade_net

SYNOPSYS = "foss-for-synopsys-dwc-arc-processors+synopsys-caffe-models/caffe_models"

NETS = [
    # BN with stored statistics, Interp by zoom_factor and by size
    ("hszhao+PSPNet/evaluation/prototxt/pspnet101_cityscapes_713.prototxt", (1, 19, 713, 713)),
    (f"{SYNOPSYS}/icnet/caffe_model/icnet_cityscapes.prototxt", (1, 19, 1025, 2049)),
    (
        "soeaver+caffe-model/seg/pspnet/models/pascal_voc/resnext101-32x4d/"
        "deploy_psp_resnext101-32x4d-merge.prototxt",
        (1, 21, 513, 513),
    ),
    # ShuffleChannel
    (
        f"{SYNOPSYS}/shufflenet_v1/caffe_model/shufflenet_1x_g3_deploy.prototxt",
        (1, 1000, 1, 1),
    ),
    # Upsample without a mask: 3 boxes of 20 classes, 4 sides and 1 sureness
    (
        "dog-qiuqiu+MobileNet-Yolo/darknet2caffe/sample/MobileNetV2-YOLOv3-Nano-voc.prototxt",
        (1, 3 * (20 + 5), 20, 20),
    ),
]


@pytest.mark.parametrize(("name", "shape"), NETS, ids=[Path(name).stem for name, _ in NETS])
def test_a_net_of_a_fork_is_planned(name: str, shape: tuple[int, ...], shared: Path) -> None:
    document = prototxt.read(shared / "prototxt" / name, pb.NetParameter)
    net = upgrade_net(document.message, document.positions, [])
    net = graph.keep(net, pb.NetState(phase=pb.TEST), document.positions)
    planned = plan(graph.split(net, document.positions), document.positions)
    assert planned.layers[-1].top_shapes == (shape,)
