"""MultiBoxLoss: matching, mining, both kinds of both losses, and images without objects.

The reference goes through priors, objects and classes one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdef.blob import Array, Shape
from netdef.errors import DataError
from netdef.testing import Case, Draw, Mistake, Trial, normal, values

N, P, C, G = 3, 10, 3, 6


def size(box: Any) -> float:
    return float(max(0, box[2] - box[0]) * max(0, box[3] - box[1]))


def overlap(a: Any, b: Any) -> float:
    both = size([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
    return both / (size(a) + size(b) - both) if both else 0.0


def centre(box: Any) -> Any:
    """(x, y, width, height)"""
    return np.array(
        [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]
    )


def encode(code: str, prior: Any, box: Any) -> Any:
    p, b = centre(prior), centre(box)
    if code == "CENTER_SIZE":
        return np.array([*(b[:2] - p[:2]) / p[2:], *np.log(b[2:] / p[2:])])
    return (box - prior) / (1 if code == "CORNER" else np.array([*p[2:], *p[2:]]))


def decode(code: str, prior: Any, told: Any) -> Any:
    x, y, width, height = centre(prior)
    if code == "CENTER_SIZE":
        x, y = x + told[0] * width, y + told[1] * height
        w, h = np.exp(told[2]) * width, np.exp(told[3]) * height
        return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return prior + told * (1 if code == "CORNER" else np.array([width, height, width, height]))


def match(boxes: Any, objects: Any, rule: str, threshold: float, within: bool) -> tuple[Any, Any]:
    """For each box the object it is matched with, -1 or -2, and how far it overlaps one at most."""
    found = np.full(len(boxes), -1)
    if within:
        found[(boxes.min(1) < 0) | (boxes.max(1) > 1)] = -2
    table = np.array([[overlap(box, thing) for thing in objects] for box in boxes])
    table = table.reshape(len(boxes), len(objects))
    table[(table <= 1e-6) | (found == -2)[:, None]] = 0
    most = table.max(1, initial=0)
    left = table.copy()
    while left.max(initial=0) > 0:
        p, g = np.unravel_index(np.argmax(left), left.shape)
        found[p], most[p] = g, left[p, g]
        left[p], left[:, g] = 0, 0
    if rule == "PER_PREDICTION":
        for p in np.flatnonzero((found == -1) & (most > 0) & (most >= threshold)):
            found[p] = np.argmax(table[p])
    return found, most


def suppressed(boxes: Any, order: Any, threshold: float) -> list[int]:
    kept: list[int] = []
    for p in order:
        if size(boxes[p]) >= 1e-5 and all(overlap(boxes[p], boxes[q]) <= threshold for q in kept):
            kept.append(p)
    return kept


def multi_box(
    code: str = "CORNER",
    loc_loss: str = "SMOOTH_L1",
    logistic: bool = False,
    loc_weight: float = 1,
    shared: bool = True,
    rule: str = "PER_PREDICTION",
    threshold: float = 0.5,
    by_prior: bool = True,
    background: int = 0,
    difficult: bool = True,
    mining: str = "MAX_NEGATIVE",
    ratio: float = 3,
    neg_overlap: float = 0.5,
    scaled: bool = False,
    agnostic: bool = False,
    within: bool = False,
    inside: bool = False,
    sample: int = 64,
    nms: float | None = None,
    top_k: int | None = None,
    nms_by_prior: bool = False,
    normalization: str = "VALID",
    parts: tuple[bool, bool] = (True, True),
) -> Callable[..., Any]:
    def conf_loss(scores: Any, labels: list[int]) -> float:
        if logistic:
            wanted = np.isin(np.arange(len(scores)), labels)
            return float((np.logaddexp(0, scores) - scores * wanted).sum())
        label = labels[-1] if labels else background
        return float(np.logaddexp.reduce(scores) - scores[label])

    def loc_losses(prior: Any, variance: Any, told: Any, box: Any, used: Any) -> float:
        d = (told / variance if scaled else told) - encode(code, prior, box) / variance
        if inside:
            d = np.where((used < 0) | (used > 1), 0, d)
        if loc_loss == "L2":
            return float((d**2).sum() / 2)
        return float(np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5).sum())

    def image(loc: Any, conf: Any, boxes: Any, variances: Any, mine: Any) -> tuple[float, int]:
        """The sum of the losses of one image, and how many matches there are."""
        count = len(boxes)
        classes = [-1] if shared else [c for c in range(C) if c != background]
        mine = [row for row in mine if difficult or not row[7]]
        objects = np.array([row[3:7] for row in mine]).reshape(-1, 4)
        labels = [background + 1 if agnostic else int(row[1]) for row in mine]
        factors = np.ones_like(variances) if scaled else variances
        predicted = {
            c: np.array(
                [decode(code, boxes[p], loc[p, max(c, 0)] * factors[p]) for p in range(count)]
            )
            for c in classes
        }
        found = {}
        for c in classes:
            own = [g for g, label in enumerate(labels) if c in (-1, label)]
            if by_prior:
                found[c], most = match(boxes, objects, rule, threshold, within)
                if c >= 0:
                    found[c] = np.array([g if g in own else -1 for g in found[c]])
            else:
                local, most = match(predicted[c], objects[own], rule, threshold, within)
                found[c] = np.array([own[g] if g >= 0 else g for g in local])
        used = {c: boxes if by_prior else predicted[c] for c in classes}

        def loc_of(p: int) -> float:
            return sum(
                loc_losses(
                    boxes[p], variances[p], loc[p, max(c, 0)], objects[found[c][p]], used[c][p]
                )
                for c in classes
                if found[c][p] >= 0
            )

        def conf_of(p: int) -> float:
            seen = [labels[found[c][p]] for c in classes if found[c][p] >= 0]
            if not seen and mining != "NONE":
                seen = [background]
            return conf_loss(conf[p], seen)

        chosen = set(range(count))
        if mining != "NONE":
            chosen = set()
            if mine:
                (only,) = found.values()
                hard = mining == "HARD_EXAMPLE"
                key = {p: conf_of(p) + (loc_of(p) if hard else 0) for p in range(count)}
                able = [p for p in key if hard or (only[p] == -1 and most[p] < neg_overlap)]
                wanted = min(sample if hard else int((only >= 0).sum() * ratio), len(able))
                order = sorted(able, key=lambda p: -key[p])
                if nms is not None:
                    around = boxes if nms_by_prior else predicted[-1]
                    order = suppressed(around, order[:top_k], nms)
                picked = set(order[:wanted])
                for p in range(count):
                    if only[p] >= 0 and hard and p not in picked:
                        only[p] = -1
                    elif only[p] >= 0 or (only[p] == -1 and p in picked):
                        chosen.add(p)
        total = loc_weight * sum(loc_of(p) for p in range(count)) if parts[0] else 0.0
        total += sum(conf_of(p) for p in chosen) if parts[1] else 0.0
        return total, sum(int((found[c] >= 0).sum()) for c in classes)

    def expected(loc: Any, conf: Any, priors: Any, truth: Any) -> Any:
        boxes, variances = priors.reshape(2, -1, 4)
        images, count = len(loc), len(boxes)
        loc, conf = loc.reshape(images, count, -1, 4), conf.reshape(images, count, -1)
        rows = truth.reshape(-1, 8)
        each = [
            image(loc[n], conf[n], boxes, variances, [row for row in rows if int(row[0]) == n])
            for n in range(images)
        ]
        matches = sum(matches for _, matches in each)
        divisor = {"VALID": matches, "FULL": images * count, "BATCH_SIZE": images, "NONE": 1}
        return np.array(sum(loss for loss, _ in each) / max(1, divisor[normalization]))

    return expected


def some_priors(random: np.random.Generator, shape: Shape) -> Array:
    """Boxes of which some reach beyond the image, and variances."""
    count = shape[2] // 4
    corner = random.uniform(-0.15, 0.6, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.3, 0.5, (count, 2))], axis=1)
    return np.stack([boxes, np.tile([0.125, 0.125, 0.25, 0.25], (count, 1))]).reshape(shape)


def objects(images: list[int], classes: list[int], difficult: list[int] | None = None) -> Draw:
    """Objects of these images and classes, somewhere."""

    def draw(random: np.random.Generator, shape: Shape) -> Array:
        corner = random.uniform(0, 0.5, (len(images), 2))
        rows = np.zeros((len(images), 8))
        rows[:, 0], rows[:, 1] = images, classes
        rows[:, 3:5] = corner
        rows[:, 5:7] = corner + random.uniform(0.3, 0.5, (len(images), 2))
        rows[:, 7] = 0 if difficult is None else difficult
        return rows.reshape(shape)

    return draw


#: One image with three, one with two, none in the last; and a row that is none.
SOME = objects([0, 1, 0, -1, 1, 0], [1, 2, 2, -1, 1, 1], [0, 0, 1, 0, 1, 0])
#: All of one class.
ONES = objects([0, 1, 0, -1, 1, 0], [1] * 6)


def case(
    options: str,
    expected: Callable[..., Any],
    rest: str = "",
    classes: int = C,
    locations: int = 1,
    truth: Draw = SOME,
    rows: int = G,
) -> Case:
    text = f'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: {classes} {options} }} {rest}'
    others = (N, 4 * locations * P), (N, classes * P), (1, 2, 4 * P), (1, 1, rows, 8)
    return Case(
        text,
        others,
        expected,
        [normal, normal, some_priors, truth],
        other=[(N + 2, 4 * locations * P), (N + 2, classes * P), *others[2:]],
    )


NONE = "mining_type: NONE"
HARD = "mining_type: HARD_EXAMPLE"

CASES = [
    case("", multi_box()),
    *(
        case(f"code_type: {code}", multi_box(code))
        for code in ("CORNER", "CENTER_SIZE", "CORNER_SIZE")
    ),
    case("loc_loss_type: L2 loc_weight: 2", multi_box(loc_loss="L2", loc_weight=2)),
    case("conf_loss_type: LOGISTIC", multi_box(logistic=True)),
    case(f"conf_loss_type: LOGISTIC {NONE}", multi_box(logistic=True, mining="NONE")),
    case(
        "conf_loss_type: LOGISTIC background_label_id: -1",
        multi_box(logistic=True, background=-1),
    ),
    case("match_type: BIPARTITE", multi_box(rule="BIPARTITE")),
    case("overlap_threshold: 0.25", multi_box(threshold=0.25)),
    case("overlap_threshold: 0", multi_box(threshold=0)),
    case("use_prior_for_matching: false", multi_box(by_prior=False)),
    case(
        "use_prior_for_matching: false code_type: CENTER_SIZE",
        multi_box("CENTER_SIZE", by_prior=False),
    ),
    case("background_label_id: 2", multi_box(background=2), truth=ONES),
    case("use_difficult_gt: false", multi_box(difficult=False)),
    case(
        "encode_variance_in_target: true code_type: CENTER_SIZE",
        multi_box("CENTER_SIZE", scaled=True),
    ),
    case(
        "encode_variance_in_target: true use_prior_for_matching: false",
        multi_box(scaled=True, by_prior=False),
    ),
    case(
        "map_object_to_agnostic: true",
        multi_box(agnostic=True),
        classes=2,
        truth=objects([0, 1, 0, -1, 1, 0], [1, 20, 7, 0, 3, 1]),
    ),
    case("ignore_cross_boundary_bbox: true", multi_box(within=True)),
    case(f"ignore_cross_boundary_bbox: true {NONE}", multi_box(within=True, mining="NONE")),
    case(f"ignore_cross_boundary_bbox: true {HARD}", multi_box(within=True, mining="HARD_EXAMPLE")),
    case("bp_inside: true", multi_box(inside=True)),
    case("bp_inside: true use_prior_for_matching: false", multi_box(inside=True, by_prior=False)),
    # Each class with a location of its own.
    case(f"share_location: false {NONE}", multi_box(shared=False, mining="NONE"), locations=C),
    case(
        f"share_location: false use_prior_for_matching: false {NONE}",
        multi_box(shared=False, by_prior=False, mining="NONE"),
        locations=C,
    ),
    case(
        f"share_location: false use_prior_for_matching: false conf_loss_type: LOGISTIC {NONE}",
        multi_box(shared=False, by_prior=False, logistic=True, mining="NONE"),
        locations=C,
    ),
    # Mining.
    case(NONE, multi_box(mining="NONE")),
    case("do_neg_mining: false", multi_box(mining="NONE")),
    case("neg_pos_ratio: 0.5", multi_box(ratio=0.5)),
    case("neg_pos_ratio: 1.5 neg_overlap: 0.25", multi_box(ratio=1.5, neg_overlap=0.25)),
    case("neg_overlap: 0", multi_box(neg_overlap=0)),
    case(HARD, multi_box(mining="HARD_EXAMPLE")),
    case(f"{HARD} sample_size: 4", multi_box(mining="HARD_EXAMPLE", sample=4)),
    case(
        "nms_param { nms_threshold: 0.25 }",
        multi_box(nms=0.25),
    ),
    case(
        f"{HARD} sample_size: 5 use_prior_for_nms: true"
        " nms_param { nms_threshold: 0.25 top_k: 8 }",
        multi_box(mining="HARD_EXAMPLE", sample=5, nms=0.25, top_k=8, nms_by_prior=True),
    ),
    case(
        "code_type: CENTER_SIZE nms_param { nms_threshold: 0.125 top_k: -1 }",
        multi_box("CENTER_SIZE", nms=0.125),
    ),
    # What the sum is divided by, and which part of it counts.
    *(
        case("", multi_box(normalization=mode), f"loss_param {{ normalization: {mode} }}")
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    case("", multi_box(normalization="BATCH_SIZE"), "loss_param { normalize: false }"),
    case("", multi_box(), "loss_weight: 0.5"),
    # No object at all, no row at all, and none in the last image.
    case("", multi_box(), truth=values(-1)),
    case(NONE, multi_box(mining="NONE"), truth=values(-1)),
    case("", multi_box(), truth=objects([], []), rows=0),
    case(NONE, multi_box(mining="NONE"), truth=objects([], []), rows=0),
    case(
        "use_difficult_gt: false",
        multi_box(difficult=False),
        truth=objects([0, 1, 0, 2, 1, 0], [1] * 6, [1] * 6),
    ),
]


def mistake(
    options: str, message: str, at: str, bottoms: dict[int, Shape] | None = None, **more: Any
) -> Mistake:
    shapes = [(N, 4 * P), (N, C * P), (1, 2, 4 * P), (1, 1, G, 8)]
    for i, shape in (bottoms or {}).items():
        shapes[i] = shape
    text = f'type: "MultiBoxLoss" multibox_loss_param {{ {options} }}'
    return Mistake(text, shapes, message, at, **more)


CLASSES = f"num_classes: {C}"


def truth(row: Any, message: str, options: str = "") -> Mistake:
    rows = np.full((G, 8), -1.0)
    rows[2] = row
    draw = [normal, normal, some_priors, values(rows.reshape(1, 1, G, 8))]
    return mistake(f"{CLASSES} {options}", message, '"x3"', draw=draw, error=DataError)


BOX = [0, 0.1, 0.1, 0.5, 0.5, 0]

MISTAKES = [
    mistake("share_location: true", "num_classes is missing", "multibox_loss_param"),
    mistake(CLASSES, "needs four numbers for each of 10 priors", '"x0"', {0: (N, 4)}),
    mistake(CLASSES, "needs one score for each of 10 priors", '"x1"', {1: (N, 4)}),
    mistake(CLASSES, "the third bottom holds priors", '"x2"', {2: (2, 4 * P)}),
    mistake(CLASSES, "bottom 3 has 8 numbers for each object", '"x3"', {3: (G, 7)}),
    mistake(
        f"{CLASSES} background_label_id: 3", "background_label_id is 3, but SOFTMAX needs one", "3"
    ),
    mistake(f"{CLASSES} background_label_id: -1", "but SOFTMAX needs one of the 3 classes", "-1"),
    mistake(
        f"{CLASSES} map_object_to_agnostic: true",
        "num_classes is 3, but map_object_to_agnostic leaves 2: background and object",
        "3",
    ),
    mistake(
        f"{CLASSES} share_location: false",
        "mining needs share_location: true",
        "false",
        {0: (N, 4 * C * P)},
    ),
    mistake(
        f"{CLASSES} do_neg_mining: true mining_type: NONE",
        "do_neg_mining, the older field, contradicts mining_type",
        "true",
    ),
    mistake(f"{CLASSES} neg_pos_ratio: 0", "neg_pos_ratio is 0, but must be above 0", "0"),
    mistake(f"{CLASSES} {HARD} sample_size: 0", "sample_size is 0, but must be at least 1", "0"),
    truth([3, 1, *BOX], "object 2 (counted from 0) is in image 3, but the batch has 3"),
    truth([-2, 1, *BOX], "object 2 (counted from 0) is in image -2"),
    truth([0, 0, *BOX], "object 2 (counted from 0) is of class 0, the background"),
    truth([0, 3, *BOX], "is of class 3, none of the classes 0 to 2"),
    truth([0, -1, *BOX], "is of class -1, none of the classes 0 to 2"),
    truth([0, 1, 0, np.nan, *BOX[2:]], "object 2 (counted from 0) has 0, 1, 0, nan, 0.1"),
    truth([np.nan, 1, *BOX], "object 2 (counted from 0) has nan, 1"),
    mistake(
        f"{CLASSES} code_type: CENTER_SIZE",
        "prior 0 (counted from 0) has no width or no height: 0, 0, 0, 0",
        '"x2"',
        draw=[normal, normal, values(0), values(-1)],
        error=DataError,
    ),
    mistake(
        CLASSES,
        "the variances of prior 0 (counted from 0) must be above 0: 0, 0, 0, 0",
        '"x2"',
        draw=[normal, normal, values(0), values(-1)],
        error=DataError,
    ),
]


def test_parts_that_need_no_gradient_are_left_out() -> None:
    for flags, parts in (
        ("true false false false", (True, False)),
        ("false true false false", (False, True)),
    ):
        rest = " ".join(f"propagate_down: {flag}" for flag in flags.split())
        one = case("", multi_box(parts=parts), rest)
        with Trial(one) as trial:
            trial.forward()
            wanted = one.expected(*(blob.data for blob in trial.bottom))
            np.testing.assert_allclose(trial.top[0].data, wanted, rtol=1e-12)


def test_only_what_was_matched_or_mined_has_a_gradient() -> None:
    with Trial(case("neg_pos_ratio: 1", multi_box(ratio=1))) as trial:
        trial.run()
        matched = (trial.bottom[0].diff.reshape(N, P, 4) != 0).any(2)
        counted = (trial.bottom[1].diff.reshape(N, P, C) != 0).any(2)
        assert 0 < matched.sum() < counted.sum() <= 2 * matched.sum()
        assert (counted >= matched).all()
        assert not counted[2].any(), "an image without objects adds nothing"


def test_an_object_without_extent_matches_nothing() -> None:
    rows = np.full((G, 8), -1.0)
    rows[0] = [0, 1, 0, 0.5, 0.5, 0.5, 0.5, 0]
    one = case("code_type: CENTER_SIZE", multi_box("CENTER_SIZE"), truth=values(rows[None, None]))
    with Trial(one) as trial:
        trial.run()
        assert trial.top[0].data == 0
        assert not trial.bottom[0].diff.any()


def test_an_object_whose_prior_is_taken_gets_the_next() -> None:
    """Both overlap the first prior most; the one it is taken from has a second, by little."""
    with Trial(case(f"match_type: BIPARTITE {NONE}", multi_box())) as trial:
        boxes = trial.bottom[2].data.reshape(2, P, 4)[0]
        boxes[:] = [0.875, 0.875, 1, 1]
        boxes[:3] = [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.125], [0, 0, 0.5, 0.0625]]
        rows = np.full((G, 8), -1.0)
        rows[0] = [0, 1, 0, 0, 0, 0.5, 0.375, 0]
        rows[1] = [0, 2, 0, 0, 0, 0.5, 0.4375, 0]
        trial.bottom[3].data[...] = rows
        trial.bottom[0].data.fill(0)
        trial.forward()
        trial.top[0].diff.fill(1)
        trial.backward()
        matched = (trial.bottom[0].diff.reshape(N, P, 4) != 0).any(2)
        assert np.argwhere(matched).tolist() == [[0, 0], [0, 1]]
        # The first prior belongs to the second object, which overlaps it more.
        wanted = -trial.bottom[1].diff.reshape(N, P, C)[0, :2]
        assert wanted.argmax(axis=1).tolist() == [2, 1]


def test_equal_losses_are_mined_in_the_order_of_priors() -> None:
    with Trial(case("neg_pos_ratio: 1 match_type: BIPARTITE", multi_box())) as trial:
        trial.bottom[0].data.fill(0)
        trial.bottom[1].data.fill(0)
        rows = np.full((G, 8), -1.0)
        boxes = trial.bottom[2].data.reshape(2, P, 4)[0]
        boxes[:] = [0.0, 0.0, 0.25, 0.25]
        boxes[4] = [0.5, 0.5, 1, 1]
        rows[0] = [0, 1, 0, 0.5, 0.5, 1, 1, 0]
        trial.bottom[3].data[...] = rows
        trial.run()
        counted = (trial.bottom[1].diff.reshape(N, P, C) != 0).any(2)
        assert np.argwhere(counted).tolist() == [[0, 0], [0, 4]]


@pytest.mark.parametrize("options", ["", NONE, HARD])
def test_a_diverged_net_says_so(options: str) -> None:
    with Trial(case(options, multi_box())) as trial:
        trial.bottom[1].data[0].fill(np.nan)
        trial.forward()
        assert np.isnan(trial.top[0].data)


def test_a_hopeless_prediction_costs_no_more_than_softmax_says() -> None:
    with Trial(case(NONE, multi_box(), truth=values(-1))) as trial:
        trial.bottom[1].data.reshape(N, P, C)[...] = [-1e4, 1e4, 0]
        trial.forward()
        assert trial.top[0].data == pytest.approx(N * P * 87.33654, rel=1e-6)
