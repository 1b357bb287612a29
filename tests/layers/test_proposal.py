"""Proposal, and the Python layer of py-faster-rcnn that it is made after.

The reference goes from anchor to anchor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.errors import DataError, NetError
from netdef.layers.common.proposal_layer import read_settings
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Draw, Mistake, Trial, values

#: Anchors of py-faster-rcnn's generate_anchors(), as its source lists them.
NINE = [
    [-83, -39, 100, 56],
    [-175, -87, 192, 104],
    [-359, -183, 376, 200],
    [-55, -55, 72, 72],
    [-119, -119, 136, 136],
    [-247, -247, 264, 264],
    [-35, -79, 52, 96],
    [-79, -167, 96, 184],
    [-167, -343, 184, 360],
]

#: They count from 1.
ANCHORS = np.array(NINE) - 1.0


def area(box: Any) -> float:
    return float((box[2] - box[0] + 1) * (box[3] - box[1] + 1))


def overlap(a: Any, b: Any) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = float(np.prod(np.maximum(high - low + 1, 0)))
    return both / (area(a) + area(b) - both)


def proposed(
    anchors: Any = ANCHORS,
    stride: float = 16,
    looks: int = 6000,
    most: int = 300,
    threshold: float = np.float32(0.7),
    min_size: float = 16,
    removes: bool = False,
    scores_too: bool = True,
) -> Callable[..., Any]:
    def expected(scores: Any, deltas: Any, info: Any) -> Any:
        images, _, rows, columns = scores.shape
        info = np.broadcast_to(info.reshape(len(info), -1), (images, info[0].size))
        found, their_scores = [], []
        for n in range(images):
            height, width, *scale = info[n]
            low, narrow = np.array([scale[0], scale[-1]][: len(scale) + 1]) * min_size
            boxes = []
            for i, j in np.ndindex(rows, columns):
                for a, anchor in enumerate(anchors):
                    x1, y1, x2, y2 = anchor + np.array([j, i, j, i]) * stride
                    w, h = x2 - x1 + 1, y2 - y1 + 1
                    dx, dy, dw, dh = deltas[n, 4 * a : 4 * a + 4, i, j]
                    cx, cy = x1 + w / 2 + dx * w, y1 + h / 2 + dy * h
                    w, h = np.exp(dw) * w, np.exp(dh) * h
                    box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                    box = box.clip(0, [width - 1, height - 1] * 2)
                    score = scores[n, len(anchors) + a, i, j]
                    if box[2] - box[0] + 1 < narrow or box[3] - box[1] + 1 < low:
                        if removes:
                            continue
                        score = 0
                    boxes.append((score, box))
            kept: list[Any] = []
            for score, box in sorted(boxes, key=lambda one: -one[0])[:looks]:
                if len(kept) < most and all(overlap(box, other) <= threshold for other in kept):
                    kept.append(box)
                    found.append([n, *box])
                    their_scores.append(score)
        rois = np.reshape(found, (-1, 5))
        return (rois, np.array(their_scores)) if scores_too else rois

    return expected


def deltas(random: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(0.3 * random.standard_normal(shape))


def probabilities(random: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(random.permutation(int(np.prod(shape))).reshape(shape) / np.prod(shape))


def case(
    options: str,
    expected: Callable[..., Any],
    anchors: int = 9,
    info: Any = ((90, 120, 1),),
    images: int = 1,
    size: tuple[int, int] = (4, 5),
    tops: str = 'top: "rois" top: "score"',
    draw: Draw = probabilities,
) -> Case:
    shapes = (images, 2 * anchors, *size), (images, 4 * anchors, *size), np.shape(info)
    return Case(
        f'type: "Proposal" {tops} proposal_param {{ {options} }}',
        shapes,
        expected,
        [draw, deltas, values(info)],
        other=[(images, 2 * anchors, 3, 2), (images, 4 * anchors, 3, 2), shapes[2]],
    )


def squares(base: int, scales: list[float]) -> Any:
    half = np.array(scales) * base / 2
    centre = (base - 1) / 2
    return np.stack([*[centre - half + 0.5] * 2, *[centre + half - 0.5] * 2], axis=1)


CASES = [
    case("", proposed()),
    case("", proposed(scores_too=False), tops='top: "rois"'),
    case("pre_nms_topn: 20 post_nms_topn: 5", proposed(looks=20, most=5)),
    case("nms_thresh: 0.25", proposed(threshold=0.25)),
    case("max_rois: 7 iou_threshold: 0.25", proposed(most=7, threshold=0.25)),
    case("min_size: 60", proposed(min_size=60)),
    case("feat_stride: 8", proposed(stride=8)),
    case("scale: 2 scale: 4 ratio: 1", proposed(squares(16, [2, 4])), anchors=2),
    case(
        "anchor_base_size: 8 scale: 2 scale: 4 ratio: 1 min_size: 1",
        proposed(squares(8, [2, 4]), min_size=1),
        anchors=2,
    ),
    # One scale for height and width, or one for each; what follows does not count.
    case("", proposed(), info=[[90, 120, 2.5]]),
    case("", proposed(), info=[[90, 120, 2.5, 0.5]]),
    # A batch, with one image size for all or one for each.
    case("", proposed(), images=2),
    case("", proposed(), images=2, info=[[90, 120, 1], [60, 50, 2]]),
    case("", proposed(), images=1, info=np.reshape([90, 120, 1], (1, 3, 1, 1)).tolist()),
    # Equal scores keep the order of rows, columns and anchors.
    case("post_nms_topn: 20", proposed(most=20), draw=values(0.5)),
    Case(
        'type: "Proposal" top: "rois" top: "score"',
        [(0, 18, 2, 2), (0, 36, 2, 2), (1, 3)],
        lambda *_: (np.zeros((0, 5)), np.zeros(0)),
        [probabilities, deltas, values([[9, 9, 1]])],
        other=[(0, 18, 1, 2), (0, 36, 1, 2), (1, 3)],
    ),
]

SCORES, DELTAS, INFO = (1, 18, 2, 3), (1, 36, 2, 3), (1, 3)


def mistake(options: str, message: str, at: str, *bottoms: Shape, info: Any = None) -> Mistake:
    text = f'type: "Proposal" proposal_param {{ {options} }}'
    shapes = bottoms or (SCORES, DELTAS, INFO)
    if info is None:
        return Mistake(text, shapes, message, at)
    draw = [probabilities, deltas, values(info)]
    return Mistake(text, shapes, message, at, draw, error=DataError)


MISTAKES = [
    mistake("", "takes 3 bottom blobs, but 2 given", "layer", SCORES, DELTAS),
    mistake("", "needs a bottom of 4 axes", '"x0"', (1, 18), DELTAS, INFO),
    mistake(
        "", "9 anchors need 2 channels each, 1x18x2x3, but bottom 0", '"x0"', DELTAS, DELTAS, INFO
    ),
    mistake(
        "", "9 anchors need 4 channels each, 1x36x2x3, but bottom 1", '"x1"', SCORES, SCORES, INFO
    ),
    mistake("scale: 8", "3 anchors need 2 channels each, 1x6x2x3", '"x0"'),
    mistake("", "the third bottom has at least 3 numbers", '"x2"', SCORES, DELTAS, (1, 2)),
    mistake("", "the third bottom has at least 3 numbers", '"x2"', SCORES, DELTAS, (2, 3)),
    mistake("feat_stride: 0", "feat_stride is 0, but must be above 0", "0"),
    mistake("ratio: 1 ratio: -2", "ratio is -2, but must be above 0", "-2"),
    mistake("max_rois: 3 post_nms_topn: 3", "give post_nms_topn or max_rois, not both", "3 "),
    mistake("anchor_scale: 5", "anchor_scale is of other forks", "5"),
    mistake("nms_thresh: -1", "nms_thresh is -1, but must be at least 0", "-1"),
    mistake("", "image 0 (counted from 0) is said to be 0 x 5 pixels", '"x2"', info=[[0, 5, 1]]),
    mistake("", "is said to be nan x 5 pixels", '"x2"', info=[[np.nan, 5, 1]]),
]


def test_nan_is_never_proposed() -> None:
    with Trial(CASES[0]) as trial:
        trial.forward()
        everything = len(trial.top[0].data)
        trial.bottom[0].data[:, 9:12] = np.nan
        trial.bottom[1].data[:, 16:20] = np.nan
        trial.forward()
        assert 0 < len(trial.top[0].data) < everything
        assert np.isfinite(trial.top[0].data).all()
        assert np.isfinite(trial.top[1].data).all()


# -- rpn.proposal_layer ----------------------------------------------------------------------------


def python_net(param_str: str, phase: int, tops: str = 'top: "rois"', anchors: int = 9) -> Net:
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }\n"
        for name, shape in (
            ("scores", (1, 2 * anchors, 4, 5)),
            ("deltas", (1, 4 * anchors, 4, 5)),
            ("info", (1, 3)),
        )
    )
    return Net.from_text(
        f"""{inputs}
        layer {{
          name: "proposal" type: "Python" bottom: "scores" bottom: "deltas" bottom: "info" {tops}
          python_param {{
            module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{param_str}"
          }}
        }}
        layer {{ name: "relu" type: "ReLU" bottom: "rois" top: "relu" }}
        """,
        phase,
    )


@pytest.mark.parametrize(
    ("phase", "looks", "most"), [(pb.TEST, 6000, 300), (pb.TRAIN, 12000, 2000)]
)
@pytest.mark.parametrize("settings", ["'feat_stride': 16", "{'feat_stride': 8, 'scales': [2, 4]}"])
def test_nets_of_py_faster_rcnn_run(phase: int, looks: int, most: int, settings: str) -> None:
    few = "scales" in settings
    anchors = ANCHORS if not few else None
    net = python_net(settings, phase, 'top: "rois" top: "score"', 6 if few else 9)
    random = np.random.default_rng(1)
    for blob, draw in (("scores", probabilities), ("deltas", deltas)):
        net.blobs[blob].data[...] = draw(random, net.blobs[blob].shape)
    net.blobs["info"].data[...] = [90, 120, 1.5]
    net.forward()
    if few:
        # Of the three ratios, as ANCHORS has them for the scales 8, 16 and 32.
        widths = np.array([23, 16, 11])[:, None] * [2, 4]
        heights = np.array([12, 16, 22])[:, None] * [2, 4]
        w, h = widths.ravel() / 2 - 0.5, heights.ravel() / 2 - 0.5
        anchors = np.stack([7.5 - w, 7.5 - h, 7.5 + w, 7.5 + h], axis=1)
    reference = proposed(anchors, 8 if few else 16, looks, most, removes=True)
    given = (net.blobs[name].data.astype(np.float64) for name in ("scores", "deltas", "info"))
    rois, scores = reference(*given)
    np.testing.assert_allclose(net.blobs["rois"].data, rois, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(net.blobs["score"].data, scores[:, None], rtol=1e-6)
    assert net.blobs["relu"].shape == rois.shape


def test_small_boxes_may_leave_nothing() -> None:
    net = python_net("'feat_stride': 16", pb.TEST)
    net.blobs["info"].data[...] = [90, 120, 100]
    net.forward()
    assert net.blobs["relu"].shape == (0, 5)


def test_a_module_of_the_user_comes_first(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "rpn"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "proposal_layer.py").write_text(
        "import caffe\n"
        "class ProposalLayer(caffe.Layer):\n"
        "    def reshape(self, bottom, top):\n"
        "        top[0].reshape(7, 5)\n"
        "    def forward(self, bottom, top):\n"
        "        top[0].data[...] = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        net = python_net("'feat_stride': 16", pb.TEST)
    finally:
        for name in ("rpn", "rpn.proposal_layer"):
            sys.modules.pop(name, None)
    net.forward()
    assert net.blobs["rois"].data.tolist() == [[3] * 5] * 7


@pytest.mark.parametrize(
    ("param_str", "message"),
    [
        ("", "param_str gives no 'feat_stride'"),
        ("'feat_stride': 16 'scales': 3", "param_str is not understood from here on"),
        ("'feat_stride': __import__('os')", "param_str is not understood from here on"),
        ("'stride': 16", "param_str has stride, which is not known"),
        ("'feat_stride': 0", "feat_stride, scales and ratios must be above 0"),
        ("'feat_stride': 16, 'ratios': [1, -1]", "feat_stride, scales and ratios must be"),
        ("'feat_stride': 16, 'ratios': [1]", "3 anchors need scores of (1, 6, 4, 5)"),
        ("'feat_stride': 16, 'scales': [8]", "3 anchors need scores of (1, 6, 4, 5)"),
    ],
)
def test_what_it_does_not_understand_is_located(param_str: str, message: str) -> None:
    with pytest.raises(NetError) as caught:
        python_net(param_str, pb.TEST)
    (diagnostic,) = caught.value.diagnostics
    assert message in diagnostic.message
    assert diagnostic.location is not None
    assert diagnostic.location.source.strip() == "python_param {"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("'feat_stride': 16", {"feat_stride": [16]}),
        ("feat_stride: 16.5\nscales: [8]", {"feat_stride": [16.5], "scales": [8]}),
        (
            "'feat_stride': 16 \n'scales': !!python/tuple [4, 8, 16, 32]",
            {"feat_stride": [16], "scales": [4, 8, 16, 32]},
        ),
        ("{'feat_stride': 16, 'scales': (1,\n 2)}", {"feat_stride": [16], "scales": [1, 2]}),
    ],
)
def test_settings_are_read_as_they_are_written(text: str, settings: dict[str, Any]) -> None:
    assert read_settings(text) == settings
