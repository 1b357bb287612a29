"""Detectors as they are published: their outputs elsewhere, and that their files build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import graph, prototxt
from netdef.net import Net
from netdef.plan import Plan, plan
from netdef.proto import netdef_pb2 as pb
from netdef.upgrade import upgrade_net


def outputs(shared: Path, name: str) -> tuple[dict[str, Any], Any]:
    """What a published model gives here, and what OpenCV gave."""
    folder = shared / "reference" / "models" / name
    reference = np.load(folder / "reference_opencv.npz")
    net = Net(folder / "deploy.prototxt", pb.TEST, weights=folder / "weights.caffemodel")
    net.blobs[net.inputs[0]].data[...] = reference["input"]
    net.forward()
    return {output: net.blobs[output].data for output in net.outputs}, reference


def test_a_face_detector_of_permuted_maps(shared: Path) -> None:
    found, reference = outputs(shared, "ultralight_slim320")
    for name in ("boxes", "scores"):
        np.testing.assert_allclose(found[name], reference[f"out:{name}"], rtol=0, atol=1e-4)


def test_an_ssd_of_codes(shared: Path) -> None:
    """Priors, and what is kept of a hundred boxes. OpenCV adds rows of zeros, up to keep_top_k."""
    found, reference = outputs(shared, "wechat_qr_detect")
    rows, wanted = found["detection_output"][0, 0], reference["out:detection_output"][0, 0]
    kept = wanted[wanted.any(axis=1)]
    assert 1 < len(kept) < len(wanted)
    np.testing.assert_allclose(rows, kept, rtol=0, atol=1e-4)


SYNOPSYS = "foss-for-synopsys-dwc-arc-processors+synopsys-caffe-models/caffe_models"
INTEL = "intel+caffe/models/intel_optimized_models"
VOC = "soeaver+caffe-model/det/{}/models/pascal_voc"
RFCN = VOC.format("rfcn")
FASTER = VOC.format("faster_rcnn")

#: Of each file what its last layers give.
FILES = {
    f"{SYNOPSYS}/ssd/caffe_model/VGG_VOC0712_SSD_512x512_iter_120000.prototxt": {
        "mbox_priorbox": (1, 2, 4 * 24564),
        "detection_out": (1, 1, 1, 7),
    },
    f"{SYNOPSYS}/mobilenet_ssd/caffe_model/MobileNetSSD_deploy-960x720.prototxt": {
        "detection_out": (1, 1, 1, 7)
    },
    f"{INTEL}/benchmark/ssd/deploy.prototxt": {"detection_out": (1, 1, 1, 7)},
    f"{INTEL}/benchmark/rfcn/deploy.prototxt": {},
    f"{INTEL}/rfcn/coco/ResNet-101/rfcn_end2end/test_agnostic.prototxt": {},
    f"{SYNOPSYS}/pvanet/caffe_model/test.prototxt": {},
    f"{SYNOPSYS}/pvanet/caffe_model/pvanet_v1.prototxt": {},
    "YuwenXiong+py-R-FCN/models/pascal_voc/VGG_CNN_M_1024/faster_rcnn_end2end/test.prototxt": {
        "rois": (1, 5)
    },
    "YuwenXiong+py-R-FCN/models/pascal_voc/ZF/fast_rcnn/test.prototxt": {},
    "peteanderson80+bottom-up-attention/models/vg/VGG16/faster_rcnn_end2end_attr/"
    "test_gt.prototxt": {},
    f"{RFCN}/resnet18/deploy_rfcn_voc_resnet18-priv-merge.prototxt": {"rois": (1, 5)},
    f"{RFCN}/resnext101-32x4d/deploy_rfcn_voc_resnext101-32x4d-merge.prototxt": {"rois": (1, 5)},
    f"{FASTER}/air101/rpn_rcnn_deploys/rpn_deploy_faster_voc_air101-merge.prototxt": {},
    f"{FASTER}/resnet152-v2/rpn_rcnn_deploys/"
    "rcnn_deploy_faster_voc_resnet152-v2-merge.prototxt": {},
}


def planned(file: Path) -> Plan:
    """The plan of a file for TEST."""
    document = prototxt.read(file, pb.NetParameter)
    places = document.positions
    net = upgrade_net(document.message, places, [])
    return plan(graph.split(graph.keep(net, pb.NetState(phase=pb.TEST), places), places), places)


@pytest.mark.parametrize("name", FILES)
def test_files_of_detectors_build(shared: Path, name: str) -> None:
    made = planned(shared / "prototxt" / name)
    shapes = {blob: made.blobs[blob].shape for blob in FILES[name]}
    assert shapes == FILES[name]
