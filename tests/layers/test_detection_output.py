"""DetectionOutput: codes, classes, limits, ties, nothing found, and a layer behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.errors import DataError
from netdef.net import Net
from netdef.testing import Case, Mistake, Trial, normal, threads, values

N, P, C = 2, 12, 3

CORNER, CENTER_SIZE, CORNER_SIZE = "CORNER", "CENTER_SIZE", "CORNER_SIZE"


def decode(code: str, prior: Any, variance: Any, loc: Any) -> Any:
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    told = variance * loc
    if code == CORNER:
        return prior + told
    if code == CORNER_SIZE:
        return prior + told * [width, height, width, height]
    x = told[0] * width + (prior[0] + prior[2]) / 2
    y = told[1] * height + (prior[1] + prior[3]) / 2
    w, h = np.exp(told[2]) * width, np.exp(told[3]) * height
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def size(box: Any) -> float:
    return float(max(0, box[2] - box[0]) * max(0, box[3] - box[1]))


def overlap(a: Any, b: Any) -> float:
    both = size([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
    return both / (size(a) + size(b) - both) if both else 0.0


def detected(
    code: str = CORNER,
    shared: bool = True,
    background: int = 0,
    least: float = -np.inf,
    threshold: float = 0.3,
    eta: float = 1,
    top_k: int | None = None,
    keep: int | None = None,
    scaled: bool = False,
) -> Callable[..., Any]:
    """Looks at one box after the other."""

    def expected(loc: Any, conf: Any, priors: Any) -> Any:
        images = len(loc)
        boxes, variances = priors.reshape(2, -1, 4)
        count = len(boxes)
        loc = loc.reshape(images, count, 1 if shared else C, 4)
        conf = conf.reshape(images, count, C)
        if scaled:
            variances = np.ones_like(variances)
        rows = []
        for n in range(images):
            found = []
            for c in range(conf.shape[2]):
                if c == background:
                    continue
                order = [
                    p for p in np.argsort(-conf[n, :, c], kind="stable") if conf[n, p, c] > least
                ]
                kept: list[Any] = []
                limit = threshold
                for p in order[:top_k]:
                    box = decode(code, boxes[p], variances[p], loc[n, p, 0 if shared else c])
                    if all(overlap(box, other) <= limit for other in kept):
                        kept.append(box)
                        found.append([n, c, conf[n, p, c], *box])
                        if eta < 1 and limit > 0.5:
                            limit *= eta
            best = sorted(range(len(found)), key=lambda i: -found[i][2])[:keep]
            rows += [found[i] for i in sorted(best)]
        if not rows:
            rows = [[n, *[-1] * 6] for n in range(images)]
        return np.reshape(rows, (1, 1, -1, 7))

    return expected


def some_priors(random: np.random.Generator, shape: Shape) -> Array:
    """Boxes that overlap here and there, and variances."""
    count = shape[2] // 4
    corner = random.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.2, 0.4, (count, 2))], axis=1)
    return np.stack([boxes, np.tile([0.1, 0.1, 0.2, 0.2], (count, 1))]).reshape(shape)


def probabilities(random: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(random.uniform(0, 1, shape))


def only_the_second(random: np.random.Generator, shape: Shape) -> Array:
    """Scores of 1 in one image, and 0 in all others."""
    scores = np.zeros(shape)
    scores[1] = 1
    return scores


def case(
    options: str,
    expected: Callable[..., Any],
    loc: Shape = (N, 4 * P),
    conf: Shape = (N, C * P),
    priors: Shape = (1, 2, 4 * P),
    draw: Any = probabilities,
) -> Case:
    text = f'type: "DetectionOutput" detection_output_param {{ num_classes: {C} {options} }}'
    return Case(
        text,
        [loc, conf, priors],
        expected,
        [normal, draw, some_priors],
        other=[(N + 1, *loc[1:]), (N + 1, *conf[1:]), priors],
    )


CASES = [
    case("", detected()),
    *(case(f"code_type: {code}", detected(code)) for code in (CORNER, CENTER_SIZE, CORNER_SIZE)),
    case(
        "code_type: CENTER_SIZE variance_encoded_in_target: true",
        detected(CENTER_SIZE, scaled=True),
    ),
    case(
        "code_type: CENTER_SIZE share_location: false",
        detected(CENTER_SIZE, shared=False),
        loc=(N, 4 * C * P),
    ),
    case("background_label_id: -1", detected(background=-1)),
    case("background_label_id: 2", detected(background=2)),
    case("confidence_threshold: 0.75", detected(least=0.75)),
    case("keep_top_k: 4", detected(keep=4)),
    case("keep_top_k: 0", detected(keep=0)),
    case("keep_top_k: 1000", detected()),
    case("nms_param { top_k: 5 nms_threshold: 0.1 }", detected(top_k=5, threshold=0.1)),
    case("nms_param { top_k: -1 nms_threshold: 0 }", detected(threshold=0)),
    case("nms_param { top_k: 0 }", detected(top_k=0)),
    # What older files say beside nms_param.
    case("top_k: 5 nms_threshold: 0.125", detected(top_k=5, threshold=0.125)),
    case(
        "nms_param { nms_threshold: 0.9375 eta: 0.5 top_k: 10 }",
        detected(threshold=0.9375, eta=0.5, top_k=10),
    ),
    # Nothing at all: a row for each image.
    case("confidence_threshold: 2", detected(least=2)),
    # Images without detections beside one that has some.
    case(
        "confidence_threshold: 0.5",
        detected(least=0.5),
        draw=only_the_second,
    ),
    # Equal scores: the first prior, and the first class.
    case("keep_top_k: 3", detected(keep=3), draw=values(0.5)),
    case("nms_param { top_k: 3 }", detected(top_k=3), draw=values(0.5)),
    # Further axes of length 1, and others of the same count.
    case("", detected(), loc=(N, P, 4), conf=(N, P, C), priors=(1, 2, 4 * P, 1)),
    case("", detected(), loc=(N, 0), conf=(N, 0), priors=(1, 2, 0)),
]


def mistake(
    options: str,
    message: str,
    at: str,
    loc: Shape = (N, 4 * P),
    conf: Shape = (N, C * P),
    priors: Shape = (1, 2, 4 * P),
    draw: Any = None,
) -> Mistake:
    text = f'type: "DetectionOutput" detection_output_param {{ {options} }}'
    bottoms = [loc, conf, priors]
    if draw is None:
        return Mistake(text, bottoms, message, at)
    return Mistake(text, bottoms, message, at, [normal, normal, draw], error=DataError)


CLASSES = f"num_classes: {C}"

CASES.append(
    # The images, which SSD can show.
    Case(
        CASES[0].prototxt,
        [*CASES[0].bottoms, (N, 3, 4, 4)],
        lambda loc, conf, priors, images: detected()(loc, conf, priors),
        [normal, probabilities, some_priors, normal],
        other=[*CASES[0].other, (N, 3, 4, 4)],
    )
)

MISTAKES = [
    mistake("share_location: true", "num_classes is missing", "detection_output_param"),
    mistake("num_classes: 0", "num_classes is 0, but must be at least 1", "0"),
    mistake(
        CLASSES,
        "needs four numbers for each of 12 priors, 48 per image, but bottom 0 is 2x40",
        '"x0"',
        loc=(N, 40),
    ),
    mistake(
        f"{CLASSES} share_location: false",
        "needs four numbers for each of 12 priors and 3 classes, 144 per image",
        '"x0"',
    ),
    mistake(CLASSES, "needs one score for each of 12 priors and 3 classes", '"x1"', conf=(N, 12)),
    mistake(CLASSES, "bottom 0 has 2 images, but bottom 1 has 3", '"x1"', conf=(3, C * P)),
    mistake(CLASSES, "the third bottom holds priors", '"x2"', priors=(2, 2, 4 * P)),
    mistake(CLASSES, "the third bottom holds priors", '"x2"', priors=(1, 2, 4 * P + 1)),
    mistake(
        f"{CLASSES} nms_param {{ nms_threshold: -1 }}", "nms_threshold is -1, but must be", "-1"
    ),
    mistake(f"{CLASSES} nms_param {{ eta: 0 }}", "eta is 0, but must be above 0", "0"),
    mistake(f"{CLASSES} eta: 2", "eta is 2, but must be above 0 and at most 1", "2"),
    # YOLO's layer of this name.
    Mistake(
        f'type: "DetectionOutput" detection_output_param {{ {CLASSES} coords: 5 biases: 0.7 }}',
        [(N, 3, 4, 5)],
        "coords is of YOLO's forks, whose DetectionOutput is another",
        "5",
    ),
    mistake(f"{CLASSES} side: 7", "side is of YOLO's forks, whose DetectionOutput is another", "7"),
    mistake(
        f"{CLASSES} code_type: CENTER_SIZE",
        "prior 0 (counted from 0) has no width or no height: 0.1, 0.1, 0.1, 0.1",
        '"x2"',
        draw=values(0.1),
    ),
    mistake(f"{CLASSES} code_type: CORNER_SIZE", "prior 0", '"x2"', draw=values(np.nan)),
    Mistake(
        f'type: "DetectionOutput" detection_output_param {{ {CLASSES} }}',
        [(N, 4 * P)],
        "takes 3 or 4 bottom blobs, but 1 given",
        "layer",
    ),
]


def found(trial: Trial) -> Array:
    trial.forward()
    rows: Array = trial.top[0].data[0, 0]
    return rows


def test_nan_is_never_detected() -> None:
    with Trial(case("", detected())) as trial:
        everything = found(trial)
        trial.bottom[0].data[0, 8] = np.nan
        trial.bottom[1].data[1, : 3 * C] = np.nan
        rows = found(trial)
        assert 0 < len(rows) < len(everything)
        assert np.isfinite(rows).all()


def test_boxes_without_extent_are_detected_each_for_itself() -> None:
    """They overlap nothing, themselves included."""
    with Trial(case("background_label_id: -1", detected())) as trial:
        trial.bottom[0].data.fill(0)
        trial.bottom[2].data[0, 0] = 0.5
        assert len(found(trial)) == N * C * P


def net(options: str = "confidence_threshold: 0.5") -> Net:
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }"
        for name, shape in (("loc", (N, 4 * P)), ("conf", (N, C * P)), ("prior", (1, 2, 4 * P)))
    )
    return Net.from_text(
        inputs
        + 'layer { name: "out" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior"'
        + f' top: "out" detection_output_param {{ num_classes: {C} {options} }} }}'
        + 'layer { name: "twice" type: "Power" bottom: "out" top: "twice"'
        + " power_param { scale: 2 } }"
    )


def test_what_follows_takes_the_rows_that_are_there() -> None:
    made = net()
    random = np.random.default_rng(1)
    made.blobs["prior"].data[...] = some_priors(random, (1, 2, 4 * P))
    counts = []
    for most in (1.0, 0.4, 0.6, 1.0):
        made.blobs["conf"].data[...] = random.uniform(0, most, (N, C * P))
        made.forward()
        rows = made.blobs["out"].data
        counts.append(rows.shape[2])
        assert made.blobs["twice"].shape == rows.shape
        np.testing.assert_array_equal(made.blobs["twice"].data, 2 * rows)
    assert len(set(counts)) > 2


def test_files_that_are_not_written_are_told_of() -> None:
    told: list[Any] = []
    layer = case('save_output_param { output_directory: "results" }', detected()).layer()
    layer.emit = told.append
    with Trial(case("", detected())) as trial:
        layer.dtype = np.float64
        layer.setup(trial.bottom, trial.top)
        layer.setup(trial.bottom, trial.top)
    assert [event.text for event in told] == [
        'layer "layer": save_output_param is not obeyed, nothing is written'
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_thousands_of_boxes(count: int) -> None:
    """The reference is the same, one box after the other."""
    options = f"num_classes: {C} code_type: CENTER_SIZE confidence_threshold: 0.5 keep_top_k: 50"
    nms = "nms_param { nms_threshold: 0.375 top_k: 100 }"
    reference = detected(CENTER_SIZE, least=0.5, threshold=0.375, top_k=100, keep=50)
    many = Case(
        f'type: "DetectionOutput" detection_output_param {{ {options} {nms} }}',
        [(1, 4 * 2000), (1, C * 2000), (1, 2, 4 * 2000)],
        reference,
        [normal, probabilities, some_priors],
    )
    with threads(count), Trial(many) as trial:
        trial.forward()
        expected = reference(*(blob.data for blob in trial.bottom))
        np.testing.assert_allclose(trial.top[0].data, expected, rtol=1e-12)
