"""What nets of py-faster-rcnn find as ``rpn.proposal_layer`` where that is not installed.

Their files name a Python layer, ``ProposalLayer``, that belongs to that program and not to Caffe.
This one does the same, in compiled code. Its settings beside ``param_str`` are the program's
defaults, for TRAIN and for TEST.
"""

from __future__ import annotations

import re

import numpy as np

from netdef.blob import Blob
from netdef.layers.common.rpn import Limits, Proposals, make_anchors
from netdef.proto import netdef_pb2 as pb
from netdef.pycaffe import Layer

TRAIN_LIMITS = Limits(looks=12000, most=2000, threshold=0.7, min_size=16)
TEST_LIMITS = Limits(looks=6000, most=300, threshold=0.7, min_size=16)

#: Height by width of the anchors, their size in sides of a square, and that side.
RATIOS, SCALES, BASE_SIZE = (0.5, 1, 2), (8, 16, 32), 16

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
#: ``'feat_stride': 16`` or ``scales: [8, 16]``, as py-faster-rcnn's files write YAML.
_ENTRY = re.compile(
    rf"""\s*(['"]?)(?P<key>\w+)\1\s*:\s*(?:!!python/tuple\s*)?
    (?:(?P<one>{_NUMBER})|[\[(](?P<many>[-+.\deE,\s]*)[\])])\s*(?:,|(?=\n)|$)""",
    re.VERBOSE,
)


class ProposalLayer(Layer):
    """Bottoms: scores [1, 2 A, H, W], deltas [1, 4 A, H, W], info [1, 3]; tops: rois [R, 5], and
    if asked for, scores [R, 1]. See ``netdef layers Proposal``; a box that is too small is left out
    here.
    """

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        settings = read_settings(self.param_str)
        unknown = settings.keys() - {"feat_stride", "scales", "ratios"}
        if unknown:
            raise ValueError(f"param_str has {', '.join(sorted(unknown))}, which is not known")
        if len(settings.get("feat_stride", ())) != 1:
            raise ValueError("param_str gives no 'feat_stride'")
        if len(bottom) != 3:
            raise ValueError(f"needs 3 bottoms: scores, deltas, im_info, but has {len(bottom)}")
        (stride,) = settings["feat_stride"]
        scales, ratios = settings.get("scales", SCALES), settings.get("ratios", RATIOS)
        if not (stride > 0 and scales and ratios and min(*scales, *ratios) > 0):
            raise ValueError("feat_stride, scales and ratios must be above 0")
        anchors = make_anchors(BASE_SIZE, ratios, scales, np.round)
        limits = TRAIN_LIMITS if self.phase == pb.TRAIN else TEST_LIMITS
        self._anchors = len(anchors)
        self._proposals = Proposals(anchors, float(stride), limits, removes=True)
        top[0].reshape(1, 5)
        for blob in top[1:]:
            blob.reshape(1, 1, 1, 1)

    def reshape(self, bottom: list[Blob], top: list[Blob]) -> None:
        scores, deltas, info = (blob.shape for blob in bottom)
        if len(scores) != 4 or scores[0] != 1:
            raise ValueError("only one image at a time is supported")
        for what, shape, each in (("scores", scores, 2), ("deltas", deltas, 4)):
            wanted = (1, each * self._anchors, *scores[2:])
            if shape != wanted:
                raise ValueError(f"{self._anchors} anchors need {what} of {wanted}, not {shape}")
        if not info or info[0] != 1 or np.prod(info) < 3:
            raise ValueError(f"im_info has height, width and scale, but its shape is {info}")

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        scores, deltas, info = (blob.data for blob in bottom)
        # One scale for both, whatever follows it.
        rois, found = self._proposals.find(scores, deltas, info.reshape(1, -1)[:, :3])
        for blob, values in zip(top, (rois, found[:, None]), strict=False):
            blob.reshape(*values.shape)
            blob.data[...] = values

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        pass


def read_settings(text: str) -> dict[str, list[float]]:
    """The numbers of each key of a ``param_str``: a line or an entry of {...} for each."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    settings: dict[str, list[float]] = {}
    at = 0
    while text[at:].strip():
        entry = _ENTRY.match(text, at)
        if entry is None:
            raise ValueError(f"param_str is not understood from here on: {text[at:].strip()}")
        values = entry["one"] or entry["many"]
        settings[entry["key"]] = [float(value) for value in re.findall(_NUMBER, values)]
        at = entry.end()
    return settings
