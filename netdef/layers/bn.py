"""BN: batch normalization with a learned scale and shift, in the dialects of three forks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import Enum
from functools import cached_property

import numpy as np

from netdef.blob import Array, Blob, Shape, shape_text
from netdef.layer import Layer, Param, register
from netdef.layers.common.standardize import Standardize
from netdef.proto import netdef_pb2 as pb

#: SegNet adds it to the variance, whatever the file says.
SEGNET_EPS = 1e-9


class Dialect(Enum):
    """The forks that have a layer of this name, and the fields by which each is known."""

    SEGNET = ("bn_mode",)
    PSPNET = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")
    PARSENET = ("var_eps", "decay", "moving_average")


#: Fields that two dialects have.
SHARED = ("scale_filler", "shift_filler")

#: How many ``param`` a layer of SegNet can have: more say that it keeps statistics, too.
SEGNET_PARAMS = 2


@register("BN", config="bn_param")
class BN(Layer):
    """Batch normalization with a learned scale and shift: one name for a layer of several forks.

        y = scale * (x - mean) / sqrt(variance + eps) + shift
        y = scale * x + shift                                  in SegNet's INFERENCE

        bottom  x         [N, C, ...]
        top     y         shape of x; may be x itself
                mean      optional, only SegNet: of the batch, [1, C, 1, 1]
                variance  optional, only SegNet: of the batch, [1, C, 1, 1]
        params  scale [1, C, 1, 1]; shift [1, C, 1, 1]; but for SegNet also mean [1, C, 1, 1];
                variance [1, C, 1, 1]

    Which fork a layer is written for is told by its fields:

    - **SegNet** has ``bn_mode``, or nothing but ``scale_filler`` and ``shift_filler``. It keeps no
      statistics. LEARN, the default, takes those of the batch, in TEST too; for INFERENCE they
      have been worked into scale and shift. eps is 1e-9.
    - **PSPNet**, ICNet and TSN have ``slope_filler``, ``bias_filler``, ``momentum``, ``eps`` or
      ``frozen``, or no field at all. TRAIN takes the statistics of the batch and stores
      ``stored = momentum * stored + (1 - momentum) * batch``; TEST takes what is stored.
      ``frozen`` takes it in TRAIN, too, and nothing learns.
    - **ParseNet** and CTPN have ``var_eps``, ``decay`` or ``moving_average``, or ``scale_filler``
      and ``shift_filler`` with three ``param`` or more. TRAIN stores
      ``stored = (1 - decay) * stored + decay * batch``; TEST takes what is stored, or with
      ``moving_average: false`` the statistics of the batch.

    Variances are biased: divided by the number of values. The layer keeps mean and variance up to
    date itself: their ``lr_mult`` is 0, and so is that of all that is frozen, whatever a net says.
    Without a filler the scale begins at 1 and the shift at 0. SegNet's second and third top have
    no gradient. ``engine`` and ``icnet`` change nothing.

    Example::

        layer {
          name: "conv1_1/bn"
          type: "BN"
          bottom: "conv1_1"  # 4x64x57x57
          top: "conv1_1"
          bn_param {
            slope_filler {
              type: "constant"
              value: 1
            }
            momentum: 0.95
          }
        }

    Deviations: a gradient of a layer with stored statistics is that of stored statistics; PSPNet's
    fork computes it so only if ``frozen``. Fillers that are left out make a scale of 0 in the
    forks, with which nothing is learned.

    Source: Ioffe & Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015; SegNet's, PSPNet's and ParseNet's Caffe.
    """

    in_place = True
    tops = (1, 3)

    @cached_property
    def _dialect(self) -> Dialect:
        given = {d: [f for f in d.value if self.config.HasField(f)] for d in Dialect}
        known = [d for d in Dialect if given[d]]
        shared = [field for field in SHARED if self.config.HasField(field)]
        if known == [Dialect.PSPNET] and shared:
            self._clash(shared[0], given[Dialect.PSPNET][0])
        if len(known) > 1:
            self._clash(given[known[0]][0], given[known[1]][0])
        if known:
            return known[0]
        if not shared:
            return Dialect.PSPNET
        return Dialect.PARSENET if len(self.message.param) > SEGNET_PARAMS else Dialect.SEGNET

    def _clash(self, one: str, other: str) -> None:
        raise self.error(
            f"{one} and {other} belong to different layers of this name, which compute different "
            "things",
            "bn_param",
            other,
            hint="SegNet: bn_mode, scale_filler, shift_filler; PSPNet: slope_filler, bias_filler, "
            "momentum, eps, frozen; ParseNet: scale_filler, shift_filler, var_eps, decay, "
            "moving_average",
        )

    def shapes(self, *bottoms: Shape) -> list[Shape]:
        (x,) = bottoms
        if len(x) < 2:
            raise self.error(
                f"needs a bottom of at least 2 axes (N, C, ...), but it is {shape_text(x)}",
                "bottom",
                0,
            )
        if x[1] == 0:
            raise self.error(f"the bottom {shape_text(x)} has no channels", "bottom", 0)
        tops = len(self.message.top)
        if tops > 1 and (self._dialect is not Dialect.SEGNET or self._folded):
            raise self.error(
                "only SegNet's BN in the mode LEARN has further tops: mean and variance", "top", 1
            )
        return [x, *[(1, x[1], 1, 1)] * (tops - 1)]

    def params(self, *bottoms: Shape) -> Iterator[Param]:
        c, shape = self.config, (1, bottoms[0][1], 1, 1)
        learns = not self._frozen
        for name, value in (("scale", 1), ("shift", 0)):
            field = {"scale": "slope_filler", "shift": "bias_filler"}[name]
            field = field if self._dialect is Dialect.PSPNET else f"{name}_filler"
            constant = pb.FillerParameter(type="constant", value=value)
            filler = getattr(c, field) if c.HasField(field) else constant
            yield Param(name, shape, filler, learns, overrules=True)
        if self._dialect is not Dialect.SEGNET:
            for name, value in (("mean", 0), ("variance", int(self._frozen))):
                constant = pb.FillerParameter(type="constant", value=value)
                yield Param(name, shape, constant, learns=False, overrules=True)

    @property
    def backward_reads(self) -> Collection[str]:
        return () if self._frozen else ("bottom",)

    @property
    def _folded(self) -> bool:
        """Whether the statistics are already in scale and shift."""
        infers = self.config.bn_mode == pb.BNParameter.INFERENCE
        return self._dialect is Dialect.SEGNET and infers

    @property
    def _frozen(self) -> bool:
        return self._dialect is Dialect.PSPNET and bool(self.config.frozen)

    @property
    def _measures(self) -> bool:
        """Whether the statistics are those of the batch."""
        if self._dialect is Dialect.SEGNET:
            return not self._folded
        if self.phase == pb.TRAIN:
            return not self._frozen
        return self._dialect is Dialect.PARSENET and not self.config.moving_average

    @property
    def _eps(self) -> float:
        if self._folded:
            return 0.0
        return {
            Dialect.SEGNET: SEGNET_EPS,
            Dialect.PSPNET: float(self.config.eps),
            Dialect.PARSENET: float(self.config.var_eps),
        }[self._dialect]

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        through = self._measures and bottom[0].diff is not None
        self._standardize = Standardize(bottom[0], top[0], through or bool(self.learn[0]))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        use = self._standardize
        use.keep()
        if self._measures:
            use.measure(bottom[0].data)
            for blob, statistic in zip(top[1:], (use.mean, use.variance), strict=False):
                blob.flat[...] = statistic
            if self._dialect is not Dialect.SEGNET and self.phase == pb.TRAIN and use.count:
                self._store(use.mean, self.blobs[2].flat)
                self._store(use.variance, self.blobs[3].flat)
        elif self._folded:
            use.mean.fill(0)
            use.variance.fill(1)
        else:
            np.copyto(use.mean, self.blobs[2].flat)
            np.copyto(use.variance, self.blobs[3].flat)
        scale, shift = self.blobs[0].flat, self.blobs[1].flat
        use.apply(bottom[0].data, use.factor(self._eps), scale, shift, top[0].data)

    def _store(self, batch: Array, stored: Array) -> None:
        c = self.config
        kept = 1 - float(c.decay) if self._dialect is Dialect.PARSENET else float(c.momentum)
        stored[...] = kept * stored + (1 - kept) * batch

    def backward(self, top: list[Blob], bottom: list[Blob]) -> None:
        learned = [
            blob.flat_diff if learns else None
            for blob, learns in zip(self.blobs[:2], self.learn[:2], strict=True)
        ]
        self._standardize.backward(top[0].diff, self._measures, bottom[0].diff, *learned)
