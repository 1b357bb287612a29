"""MultiBoxLoss: what SSD learns from, where objects are and what they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdef.blob import Array, Blob, Shape
from netdef.errors import DataError
from netdef.jit import inline, kernel, prange
from netdef.kernels.boxes import decode, encode, gather_heap, overlap, pop, suppress
from netdef.layer import register
from netdef.layers.common.arrays import scratch, set_scalar
from netdef.layers.common.forks import refuse_fields
from netdef.layers.common.loss import normalization, normalizer
from netdef.layers.common.priors import Priors
from netdef.layers.common.truth import Objects, check_truth, read_truth
from netdef.layers.smooth_l1_loss import smooth_l1, smooth_l1_slope
from netdef.proto import netdef_pb2 as pb

#: What a prediction is matched with where that is no object: nothing, or it is left out.
NOTHING, LEFT_OUT = -1, -2

#: An overlap below this is none.
LEAST_OVERLAP = 1e-6

#: Boxes that are smaller take no part in non-maximum suppression while mining.
LEAST_AREA = 1e-5

#: The smallest normal float32: how improbable a prediction can be, as in SoftmaxWithLoss.
LEAST_PROBABILITY = 1.1754943508222875e-38

#: What of the predictions enters the confidence loss.
NO_MINING, MAX_NEGATIVE, HARD_EXAMPLE = 0, 1, 2


@register("MultiBoxLoss", config="multibox_loss_param")
class MultiBoxLoss(Priors):
    """The loss of a detector that predicts, for each prior box, an object's box and its class.

        loss = (loc_weight * sum of location losses + sum of confidence losses) / normalizer

        bottom  loc     [N, 4 L P]: four numbers for each of P priors and of L classes; L is 1 with
                        ``share_location``
                conf    [N, C P]: a score for each prior and class
                priors  [1, 2, 4 P], as PriorBox makes them
                truth   [1, 1, G, 8]: image, class, instance, x1, y1, x2, y2, difficult of each
                        object; a row with image -1 is none
        top     loss    scalar

    *Matching.* The prior and the object that overlap most (intersection over union) are matched,
    then the next of those still alone, until no object is left that overlaps a free prior. With
    PER_PREDICTION each prior left is matched with the object it overlaps most, if by at least
    ``overlap_threshold``. Without ``use_prior_for_matching`` a predicted box stands for its prior.
    ``ignore_cross_boundary_bbox`` leaves out boxes that reach beyond the image, and
    ``use_difficult_gt: false`` objects marked as difficult.

    *Mining.* Most priors match nothing, so MAX_NEGATIVE takes those of the highest confidence loss,
    ``neg_pos_ratio`` for each match of the image, from those that overlap every object by less than
    ``neg_overlap``. HARD_EXAMPLE takes the ``sample_size`` priors of the highest loss of both
    kinds, matched or not. With ``nms_param`` overlapping ones are first left out. An image without
    objects then adds nothing. NONE takes all priors of all images.

    *Losses.* SMOOTH_L1 (as in SmoothL1Loss) or L2, halved squares, of what was predicted minus what
    ``code_type`` makes of the matched object; SOFTMAX or LOGISTIC of the scores against the class
    of the object, or ``background_label_id``. ``loss_param`` counts: VALID, the default, the
    matches, FULL all priors, BATCH_SIZE the images; the divisor is at least 1.

    A loss whose ``propagate_down`` is false is left out.

    Deviations: with ``encode_variance_in_target`` the gradient is that of the loss; SSD's fork
    leaves the variances out of it. LOGISTIC without mining wants 0 of every class that a prior does
    not match, where SSD's fork wants ``background_label_id``, and is right in batches of more than
    one. ``nms_param`` without ``top_k`` sets no limit.

    Example::

        layer {
          name: "mbox_loss"
          type: "MultiBoxLoss"
          bottom: "mbox_loc"       # 32x34928
          bottom: "mbox_conf"      # 32x183372
          bottom: "mbox_priorbox"  # 1x2x34928
          bottom: "label"          # 1x1x75x8
          top: "mbox_loss"
          multibox_loss_param {
            num_classes: 21
            code_type: CENTER_SIZE
          }
        }

    Source: Liu et al., "SSD: single shot multibox detector", ECCV 2016.
    """

    bottoms = 4
    no_gradient = frozenset({2, 3})
    loss = True
    backward_reads = ("bottom",)
    also_reads = ("loss_param",)

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        *predictions, truth = bottoms
        c, field = self.config, "multibox_loss_param"
        refuse_fields(self, field, "RefineDet", "objectness_score")
        self.check_predictions(*predictions)
        check_truth(self, truth, 3)
        background = c.background_label_id
        softmax = c.conf_loss_type == pb.MultiBoxLossParameter.SOFTMAX
        if softmax and not 0 <= background < c.num_classes:
            raise self.error(
                f"background_label_id is {background}, but SOFTMAX needs one of the "
                f"{c.num_classes} classes 0 to {c.num_classes - 1}",
                field,
                "background_label_id",
            )
        if c.map_object_to_agnostic and c.num_classes != (2 if background >= 0 else 1):
            raise self.error(
                f"num_classes is {c.num_classes}, but map_object_to_agnostic leaves "
                + ("2: background and object" if background >= 0 else "1: object"),
                field,
                "num_classes",
            )
        if self._mining() and not c.share_location:
            raise self.error(
                "mining needs share_location: true",
                field,
                "share_location",
                hint="or say mining_type: NONE",
            )
        self._check_limits()
        return [()]

    def _check_limits(self) -> None:
        c = self.config
        if self._mining() == MAX_NEGATIVE and not c.neg_pos_ratio > 0:
            raise self.error(
                f"neg_pos_ratio is {c.neg_pos_ratio:g}, but must be above 0",
                "multibox_loss_param",
                "neg_pos_ratio",
            )
        if self._mining() == HARD_EXAMPLE and c.sample_size < 1:
            raise self.error(
                f"sample_size is {c.sample_size}, but must be at least 1",
                "multibox_loss_param",
                "sample_size",
            )

    def _mining(self) -> int:
        """What enters the confidence loss: NO_MINING, MAX_NEGATIVE or HARD_EXAMPLE."""
        c = self.config
        if not c.HasField("do_neg_mining"):
            return int(c.mining_type)
        if c.HasField("mining_type") and c.do_neg_mining == (c.mining_type == NO_MINING):
            raise self.error(
                "do_neg_mining, the older field, contradicts mining_type",
                "multibox_loss_param",
                "do_neg_mining",
            )
        return int(c.mining_type) if c.do_neg_mining else NO_MINING

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        c, images, priors = self.config, bottom[0].shape[0], bottom[2].count // 8
        self._loc = images, priors, self.locations, 4
        self._conf = images, priors, c.num_classes
        objects = bottom[3].count // 8
        matched = (images, self.locations, priors)
        self._matches = scratch(matched, np.int32)
        self._overlaps = scratch(matched, np.float64)
        self._candidates = scratch(matched, np.int32)
        self._best_prior = scratch((objects,), np.int64)
        self._best_overlap = scratch((objects,), np.float64)
        self._first = scratch((images + 1,), np.int64)
        self._chosen = scratch((images, priors), np.bool_)
        self._losses = scratch((2, images, priors), np.float64)
        self._keys = scratch((images, priors), np.float64)
        self._order = scratch((images, priors), np.int32)
        needs = not c.use_prior_for_matching or (self._suppresses and not c.use_prior_for_nms)
        decoded = (images, self.locations, priors, 4) if needs else (0, 0, 0, 4)
        self._boxes = scratch(decoded, np.float64)
        counts = list(self.message.propagate_down) or [True, True]
        self._counts_loc, self._counts_conf = counts[0], counts[1]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        c = self.config
        loc, conf = bottom[0].data.reshape(self._loc), bottom[1].data.reshape(self._conf)
        self._priors = self.read_priors(bottom[2])
        self._check_variances()
        self._read_truth(bottom[3])
        scaled = bool(c.encode_variance_in_target)
        if self._boxes.size:
            _decode(loc, self._priors, int(c.code_type), scaled, self._boxes)
        self._match()
        mining = self._mining()
        if mining == NO_MINING:
            self._chosen.fill(True)
        else:
            self._measure(loc, conf, mining == HARD_EXAMPLE)
            self._mine(mining)
        self._measure(loc, conf, True)
        self._losses[1][~self._chosen] = 0
        loc_loss, conf_loss = (float(losses.sum()) for losses in self._losses)
        mode = normalization(self.message.loss_param)
        matches = int(np.count_nonzero(self._matches >= 0))
        self._normalizer = normalizer(mode, *self._conf[:2], matches)
        total = c.loc_weight * loc_loss if self._counts_loc else 0.0
        total += conf_loss if self._counts_conf else 0.0
        set_scalar(top[0], total / self._normalizer)

    def _check_variances(self) -> None:
        strange = ~(self._priors[1] > 0).all(axis=1)
        if strange.any():
            index = int(np.argmax(strange))
            given = ", ".join(f"{value:g}" for value in self._priors[1, index])
            raise self.error(
                f"the variances of prior {index} (counted from 0) must be above 0: {given}",
                "bottom",
                2,
                kind=DataError,
            )

    def _read_truth(self, truth: Blob) -> None:
        """The objects that count, in the order of their images."""
        c, images = self.config, self._loc[0]
        classes = math.inf if c.map_object_to_agnostic else c.num_classes
        found = read_truth(self, truth, 3, images, classes, c.background_label_id)
        if not c.use_difficult_gt:
            easy = found.rows[:, 7] == 0
            found = Objects(*(values[easy] for values in found))
        self._truth, image, self._labels = found
        if c.map_object_to_agnostic:
            self._labels[:] = c.background_label_id + 1
        self._first[:] = np.searchsorted(image, np.arange(images + 1))

    def _match(self) -> None:
        """Find the object of each prior and class of locations, or NOTHING."""
        c = self.config
        by_prior, background = bool(c.use_prior_for_matching), int(c.background_label_id)
        boxes = self._priors[:1, None] if by_prior else self._boxes
        rule = (
            float(c.overlap_threshold),
            c.match_type == pb.MultiBoxLossParameter.PER_PREDICTION,
            bool(c.ignore_cross_boundary_bbox),
        )
        distributes = by_prior and not c.share_location
        # Priors are matched once for all classes, then each match goes to the class of its object.
        matches = self._candidates[:, :1] if distributes else self._matches
        candidates = self._matches if distributes else self._candidates
        of_class = not by_prior and not c.share_location
        objects = self._truth, self._labels, self._first
        best = self._best_prior, self._best_overlap
        _match(
            boxes, *objects, of_class, background, *rule, *best, candidates, matches, self._overlaps
        )
        if distributes:
            _distribute(matches.copy(), self._labels, background, self._matches)

    def _measure(self, loc: Array, conf: Array, locations: bool) -> None:
        """The losses of all priors: of the location where it is matched, of the confidence."""
        if locations:
            known = self._priors, self._matches, self._truth
            _location_losses(loc, *known, *self._code, self._losses[0])
        else:
            self._losses[0].fill(0)
        _confidence_losses(conf, self._matches, self._labels, *self._kind, self._losses[1])

    @property
    def _code(self) -> tuple[int, bool, bool, bool, Array]:
        """How locations are told, and what of them counts, as kernels take it."""
        c = self.config
        squares = c.loc_loss_type == pb.MultiBoxLossParameter.L2
        boxes = self._priors[:1, None] if c.use_prior_for_matching else self._boxes
        scaled = bool(c.encode_variance_in_target)
        return int(c.code_type), scaled, bool(squares), bool(c.bp_inside), boxes

    @property
    def _kind(self) -> tuple[bool, int, bool]:
        """Whether confidence is logistic, what the background is, and whether that is wanted."""
        c = self.config
        logistic = c.conf_loss_type == pb.MultiBoxLossParameter.LOGISTIC
        return bool(logistic), int(c.background_label_id), self._mining() != NO_MINING

    @property
    def _suppresses(self) -> bool:
        """Whether, while mining, those that overlap are left out."""
        c = self.config
        return bool(self._mining() and c.HasField("nms_param") and c.nms_param.nms_threshold > 0)

    def _mine(self, mining: int) -> None:
        """Choose the priors whose confidence counts; matches that are not chosen are given up."""
        c, nms = self.config, self.config.nms_param
        looks = nms.top_k if nms.HasField("top_k") and nms.top_k >= 0 else self._conf[1]
        boxes = self._priors[:1, None] if c.use_prior_for_nms else self._boxes
        _mine(
            mining,
            self._losses,
            self._overlaps,
            self._first,
            float(c.neg_overlap),
            float(c.neg_pos_ratio),
            int(c.sample_size),
            boxes,
            float(nms.nms_threshold) if self._suppresses else 0.0,
            int(looks),
            self._keys,
            self._order,
            self._matches,
            self._chosen,
        )

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        loc, conf = bottom[0].data.reshape(self._loc), bottom[1].data.reshape(self._conf)
        scale = top[0].diff.item() / self._normalizer
        if bottom[0].diff is not None:
            dloc = bottom[0].diff.reshape(self._loc)
            factor = scale * self.config.loc_weight
            known = self._priors, self._matches, self._truth
            _location_slopes(loc, *known, *self._code, factor, dloc)
        if bottom[1].diff is not None:
            dconf = bottom[1].diff.reshape(self._conf)
            _confidence_slopes(
                conf, self._matches, self._labels, *self._kind, self._chosen, scale, dconf
            )


# -- matching --------------------------------------------------------------------------------------


@kernel
def _decode(loc: Any, priors: Any, code: Any, scaled: Any, boxes: Any) -> None:
    count = priors.shape[1]
    for job in prange(loc.shape[0] * count):
        n = job // count
        p = job % count
        for k in range(loc.shape[2]):
            decode(code, priors[0, p], priors[1, p], scaled, loc[n, p, k], boxes[n, k, p])


@inline
def _reaches_out(box: Any) -> Any:
    """Whether a box is not within the image."""
    return min(box[0], box[1], box[2], box[3]) < 0 or max(box[0], box[1], box[2], box[3]) > 1


@kernel
def _match(
    boxes: Any,
    truth: Any,
    labels: Any,
    first: Any,
    of_class: Any,
    background: Any,
    threshold: Any,
    per_prediction: Any,
    within: Any,
    best_prior: Any,
    best_overlap: Any,
    candidates: Any,
    matches: Any,
    overlaps: Any,
) -> None:
    """matches[n, k, p] = the object of prior p of image n, among all or among those of class k."""
    classes, count = matches.shape[1], matches.shape[2]
    for job in prange(matches.shape[0] * classes):
        n = job // classes
        k = job % classes
        mine = boxes[min(n, boxes.shape[0] - 1), min(k, boxes.shape[1] - 1)]
        match, candidate, most = matches[n, k], candidates[n, k], overlaps[n, k]
        begin, end = first[n], first[n + 1]
        # An object belongs to one image and one class, so no other job has its place in ``best``.
        for p in range(count):
            match[p], candidate[p], most[p] = NOTHING, NOTHING, 0.0
        if of_class and k == background:
            continue
        for g in range(begin, end):
            if not of_class or labels[g] == k:
                best_prior[g], best_overlap[g] = NOTHING, 0.0
        for p in range(count):
            if within and _reaches_out(mine[p]):
                match[p] = LEFT_OUT
                continue
            for g in range(begin, end):
                if of_class and labels[g] != k:
                    continue
                shared = overlap(mine[p], truth[g, 3:7], 0.0)
                if shared > LEAST_OVERLAP:
                    if shared > most[p]:
                        most[p], candidate[p] = shared, g
                    if shared > best_overlap[g]:
                        best_overlap[g], best_prior[g] = shared, p
        while True:
            chosen = -1
            for g in range(begin, end):
                if (of_class and labels[g] != k) or best_prior[g] < 0:
                    continue
                if (
                    chosen < 0
                    or best_overlap[g] > best_overlap[chosen]
                    or (
                        best_overlap[g] == best_overlap[chosen]
                        and best_prior[g] < best_prior[chosen]
                    )
                ):
                    chosen = g
            if chosen < 0:
                break
            taken = best_prior[chosen]
            match[taken], most[taken] = chosen, best_overlap[chosen]
            best_prior[chosen] = LEFT_OUT
            for g in range(begin, end):
                if (of_class and labels[g] != k) or best_prior[g] != taken:
                    continue
                best_prior[g], best_overlap[g] = NOTHING, LEAST_OVERLAP
                for p in range(count):
                    if match[p] == NOTHING:
                        shared = overlap(mine[p], truth[g, 3:7], 0.0)
                        if shared > best_overlap[g]:
                            best_overlap[g], best_prior[g] = shared, p
        if per_prediction:
            for p in range(count):
                if match[p] == NOTHING and candidate[p] >= 0 and most[p] >= threshold:
                    match[p] = candidate[p]


@kernel
def _distribute(found: Any, labels: Any, background: Any, matches: Any) -> None:
    """matches[n, k, p] = found[n, 0, p] where that is an object of class k"""
    for n in prange(matches.shape[0]):
        for k in range(matches.shape[1]):
            for p in range(matches.shape[2]):
                g = found[n, 0, p]
                own = g >= 0 and k != background and labels[g] == k
                matches[n, k, p] = g if own else NOTHING


# -- mining ----------------------------------------------------------------------------------------


@kernel
def _mine(
    mining: Any,
    losses: Any,
    overlaps: Any,
    first: Any,
    neg_overlap: Any,
    ratio: Any,
    sample: Any,
    boxes: Any,
    threshold: Any,
    looks: Any,
    keys: Any,
    order: Any,
    matches: Any,
    chosen: Any,
) -> None:
    count = matches.shape[2]
    for n in prange(matches.shape[0]):
        match, key, picked = matches[n, 0], keys[n], chosen[n]
        picked[:] = False
        if first[n] == first[n + 1]:
            continue
        positives = 0
        eligible = 0
        for p in range(count):
            positives += match[p] >= 0
            key[p] = -np.inf
            hard = mining == HARD_EXAMPLE
            if hard or (match[p] == NOTHING and overlaps[n, 0, p] < neg_overlap):
                loss = losses[0, n, p] + losses[1, n, p]
                # A net that diverged shows it: its NaN is chosen.
                key[p] = loss if loss == loss else np.inf
                eligible += 1
        wanted = sample if mining == HARD_EXAMPLE else np.int64(positives * ratio)
        wanted = min(wanted, eligible)
        if threshold > 0:
            mine = boxes[min(np.int64(n), boxes.shape[0] - 1), 0]
            kept = suppress(
                mine, key, -np.inf, looks, wanted, threshold, 1.0, 0.0, LEAST_AREA, order[n]
            )
            for i in range(kept):
                picked[order[n, count - 1 - i]] = True
        else:
            size = gather_heap(key, -np.inf, order[n])
            for _ in range(wanted):
                picked[pop(key, order[n], size)] = True
                size -= 1
        for p in range(count):
            if match[p] >= 0:
                if mining == HARD_EXAMPLE and not picked[p]:
                    match[p] = NOTHING
                else:
                    picked[p] = True
            elif match[p] == LEFT_OUT:
                picked[p] = False


# -- losses ----------------------------------------------------------------------------------------


@inline
def _distance(told: Any, wanted: Any, variance: Any, scaled: Any, counts: Any) -> Any:
    """How far a number that was predicted is from what it should be; 0 where it does not count."""
    if not counts:
        return 0.0
    return (np.float64(told) / variance if scaled else np.float64(told)) - wanted


@inline
def _within(place: Any) -> Any:
    return place >= 0 and place <= 1


@kernel
def _location_losses(
    loc: Any,
    priors: Any,
    matches: Any,
    truth: Any,
    code: Any,
    scaled: Any,
    squares: Any,
    inside: Any,
    boxes: Any,
    losses: Any,
) -> None:
    """losses[n, p] = the sum over classes of the loss of each location that is matched"""
    count = loc.shape[1]
    for job in prange(loc.shape[0] * count):
        n = job // count
        p = job % count
        total = 0.0
        for k in range(loc.shape[2]):
            g = matches[n, k, p]
            if g < 0:
                continue
            wanted = encode(code, priors[0, p], priors[1, p], truth[g, 3:7])
            where = boxes[min(n, boxes.shape[0] - 1), min(k, boxes.shape[1] - 1), p]
            for e in range(4):
                counts = not inside or _within(where[e])
                d = _distance(loc[n, p, k, e], wanted[e], priors[1, p, e], scaled, counts)
                total += 0.5 * d * d if squares else smooth_l1(d, 1.0)
        losses[n, p] = total


@kernel
def _location_slopes(
    loc: Any,
    priors: Any,
    matches: Any,
    truth: Any,
    code: Any,
    scaled: Any,
    squares: Any,
    inside: Any,
    boxes: Any,
    factor: Any,
    dloc: Any,
) -> None:
    count = loc.shape[1]
    for job in prange(loc.shape[0] * count):
        n = job // count
        p = job % count
        for k in range(loc.shape[2]):
            g = matches[n, k, p]
            if g < 0:
                dloc[n, p, k] = 0
                continue
            wanted = encode(code, priors[0, p], priors[1, p], truth[g, 3:7])
            where = boxes[min(n, boxes.shape[0] - 1), min(k, boxes.shape[1] - 1), p]
            for e in range(4):
                counts = not inside or _within(where[e])
                d = _distance(loc[n, p, k, e], wanted[e], priors[1, p, e], scaled, counts)
                slope = factor * (d if squares else smooth_l1_slope(d, 1.0))
                dloc[n, p, k, e] = slope / priors[1, p, e] if scaled else slope


@inline
def _class_of(matches: Any, n: Any, p: Any, labels: Any, background: Any) -> Any:
    """The class that prior p of image n should see: of several the last."""
    label = background
    for k in range(matches.shape[1]):
        if matches[n, k, p] >= 0:
            label = labels[matches[n, k, p]]
    return label


@inline
def _wanted(matches: Any, n: Any, p: Any, labels: Any, c: Any, background: Any, marks: Any) -> Any:
    """Whether prior p of image n should see class c."""
    found = False
    for k in range(matches.shape[1]):
        if matches[n, k, p] >= 0:
            found = True
            if labels[matches[n, k, p]] == c:
                return 1.0
    return 1.0 if marks and not found and c == background else 0.0


@inline
def _exponents(scores: Any) -> Any:
    """The largest score, and the sum of exp(score - largest)."""
    largest = np.float64(scores[0])
    for c in range(1, scores.size):
        largest = max(largest, np.float64(scores[c]))
    total = 0.0
    for c in range(scores.size):
        total += np.exp(np.float64(scores[c]) - largest)
    return largest, total


@kernel
def _confidence_losses(
    conf: Any, matches: Any, labels: Any, logistic: Any, background: Any, marks: Any, losses: Any
) -> None:
    count = conf.shape[1]
    for job in prange(conf.shape[0] * count):
        n = job // count
        p = job % count
        if logistic:
            total = 0.0
            for c in range(conf.shape[2]):
                x = np.float64(conf[n, p, c])
                # log(1 + exp(x)) - x where it is wanted, without exp of a large number
                total += max(x, 0.0) + np.log1p(np.exp(-abs(x)))
                total -= x * _wanted(matches, n, p, labels, c, background, marks)
            losses[n, p] = total
        else:
            largest, total = _exponents(conf[n, p])
            label = _class_of(matches, n, p, labels, background)
            prob = np.exp(np.float64(conf[n, p, label]) - largest) / total
            # A NaN stays one, so that a net that diverged says so.
            losses[n, p] = -np.log(LEAST_PROBABILITY if prob < LEAST_PROBABILITY else prob)


@kernel
def _confidence_slopes(
    conf: Any,
    matches: Any,
    labels: Any,
    logistic: Any,
    background: Any,
    marks: Any,
    chosen: Any,
    scale: Any,
    dconf: Any,
) -> None:
    count = conf.shape[1]
    for job in prange(conf.shape[0] * count):
        n = job // count
        p = job % count
        if not chosen[n, p]:
            dconf[n, p] = 0
        elif logistic:
            for c in range(conf.shape[2]):
                wanted = _wanted(matches, n, p, labels, c, background, marks)
                x = np.float64(conf[n, p, c])
                dconf[n, p, c] = scale * (1 / (1 + np.exp(-x)) - wanted)
        else:
            largest, total = _exponents(conf[n, p])
            label = _class_of(matches, n, p, labels, background)
            for c in range(conf.shape[2]):
                prob = np.exp(np.float64(conf[n, p, c]) - largest) / total
                dconf[n, p, c] = scale * (prob - (1.0 if c == label else 0.0))
