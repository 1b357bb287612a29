"""The plan of a net: shapes, parameters, gradients. Nothing is allocated.

``plan`` turns a net that has been kept and split (see ``graph``) into a :class:`Plan`; ``reshape``
gives the same plan for other input shapes. What memory it takes is said in ``memory``. Who needs a
gradient is decided as in Caffe's ``Net::Init``: forward from whatever learns, then back from the
loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netdef import graph
from netdef.blob import Array, Shape, shape_text
from netdef.errors import Location, NetError
from netdef.layer import MOST_VALUES, Arity, Layer, Param, create
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Positions

TOO_MANY = "more than 2^31 - 1 values"

#: What Caffe calls the top of a loss layer that names none. No layer can read it.
AUTOMATIC = "(automatic)"


@dataclass(frozen=True)
class BlobPlan:
    """A blob, with its last shape; whether backward computes its gradient."""

    name: str
    shape: Shape
    needs_gradient: bool


@dataclass(frozen=True)
class ParamPlan:
    """A parameter blob. ``owner`` is the index of the parameter whose memory it uses."""

    layer: str
    index: int
    name: str  # as Caffe's logs call it: the shared name, or the index within the layer
    shape: Shape
    filler: pb.FillerParameter | Array
    owner: int
    lr_mult: float
    decay_mult: float
    learns: bool = True  # false where its layer keeps it up to date


@dataclass(frozen=True)
class LayerPlan:
    """A layer and what it is connected to. Tuples run over its bottoms, tops or parameters."""

    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    in_place: tuple[bool, ...]
    loss_weights: tuple[float, ...]
    params: tuple[int, ...]
    learn: tuple[bool, ...]
    needs_backward: bool
    propagate: tuple[bool, ...]

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def type(self) -> str:
        return self.layer.type


@dataclass(frozen=True)
class Plan:
    """A net, ready to be allocated: layers in order, blobs by name, all parameters."""

    net: pb.NetParameter
    layers: tuple[LayerPlan, ...]
    blobs: Mapping[str, BlobPlan]
    params: tuple[ParamPlan, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.net.name

    @property
    def state(self) -> pb.NetState:
        return self.net.state

    @property
    def learnable(self) -> list[ParamPlan]:
        """The parameters that own their memory, in order."""
        return [param for i, param in enumerate(self.params) if param.owner == i]


def plan(net: pb.NetParameter, positions: Positions | None = None) -> Plan:
    """Plan a net that has been kept and split.

    Raises NetError, located where ``positions`` are given.
    """
    if not net.layer:
        phase = pb.Phase.Name(net.state.phase)
        raise NetError(
            f'the net "{net.name}" has no layers in phase {phase}',
            code="E112",
            location=positions.at() if positions is not None else None,
        )
    layers = [_create(message, net.state.phase, positions) for message in net.layer]
    unnamed = [layer for layer in layers if layer.loss and not layer.message.top]
    for number, layer in enumerate(unnamed, 1):
        add_top(layer, AUTOMATIC if number == 1 else f"{AUTOMATIC} {number}")
    automatic = {layer.message.top[0] for layer in unnamed}
    drafts, shapes = _connect(layers)
    params, owned = _share(drafts)
    gradients = _gradients(net, drafts, params, owned)
    return _assemble(net, drafts, shapes, params, owned, gradients, automatic)


def reshape(
    old: Plan, wanted: Mapping[str, Shape], first: int = 0, stop: int | None = None
) -> Plan:
    """The same plan with other shapes for some tops of layers that choose their own: inputs, data.

    Only layers ``first`` to ``stop - 1`` are planned again; by default all. Raises NetError where a
    layer cannot take its new bottoms, or a parameter would change its shape.
    """
    shapes = {name: blob.shape for name, blob in old.blobs.items()}
    layers = list(old.layers)
    for number, planned in list(enumerate(old.layers))[first:stop]:
        bottoms = [shapes[name] for name in planned.bottoms]
        # What a dynamic layer announced holds for as long as its bottoms keep their shapes.
        kept = planned.layer.dynamic and tuple(bottoms) == planned.bottom_shapes
        if kept or not bottoms:
            tops = [
                wanted.get(name, shape)
                for name, shape in zip(planned.tops, planned.top_shapes, strict=True)
            ]
        else:
            tops = _shapes_of(planned.layer, bottoms)
        shapes.update(zip(planned.tops, tops, strict=True))
        held = [old.params[i].shape for i in planned.params]
        for param, shape in zip(planned.layer.params(*bottoms), held, strict=True):
            if param.shape != shape:
                raise planned.layer.error(
                    f"the new input shapes would need a {param.name} of {shape_text(param.shape)}, "
                    f"but it is {shape_text(shape)}"
                )
        layers[number] = replace(
            planned, bottom_shapes=tuple(bottoms), top_shapes=tuple(map(tuple, tops))
        )
    blobs = {name: replace(blob, shape=shapes[name]) for name, blob in old.blobs.items()}
    return replace(old, layers=tuple(layers), blobs=blobs)


@dataclass
class _Draft:
    """What is known of a layer while a plan is made."""

    layer: Layer
    bottom_shapes: list[Shape]
    top_shapes: list[Shape]
    loss_weights: list[float]
    need_backward: bool = False

    @property
    def bottoms(self) -> Sequence[str]:
        return self.layer.message.bottom

    @property
    def tops(self) -> Sequence[str]:
        return self.layer.message.top

    def in_place(self, top: int) -> bool:
        return top < len(self.bottoms) and self.bottoms[top] == self.tops[top]


def _create(message: pb.LayerParameter, phase: int, positions: Positions | None) -> Layer:
    def locate(*path: str | int) -> Location | None:
        return graph.locate(positions, message, *path)

    return create(message, message.phase if message.HasField("phase") else phase, locate)


def add_top(layer: Layer, name: str) -> None:
    """Give a layer a top that its net does not know of."""
    message = pb.LayerParameter()
    message.CopyFrom(layer.message)
    message.top.append(name)
    layer.message = message


def _connect(layers: list[Layer]) -> tuple[list[_Draft], dict[str, Shape]]:
    """Check names and counts, and compute every shape."""
    shapes: dict[str, Shape] = {}
    maker: dict[str, Layer] = {}
    drafts = []
    for layer in layers:
        message = layer.message
        check_arity(layer)
        for i, name in enumerate(message.bottom):
            if name not in shapes:
                raise layer.error(f'unknown bottom blob "{name}"', "bottom", i)
        for j, name in enumerate(message.top):
            in_place = j < len(message.bottom) and message.bottom[j] == name
            if in_place and not layer.in_place:
                raise layer.error(
                    f'cannot work in place on "{name}"', "top", j, hint="give the top another name"
                )
            if name in message.top[:j]:
                raise layer.error(
                    f'Top blob "{name}" is produced by multiple sources: twice by this layer',
                    "top",
                    j,
                    hint="give each top a name of its own",
                )
            if not in_place and name in maker:
                raise layer.error(
                    f'Top blob "{name}" is produced by multiple sources: '
                    f'layer "{maker[name].name}" makes it too',
                    "top",
                    j,
                    hint="working in place needs a blob that no other layer reads"
                    if any(bottom.startswith(f"{name}_") for bottom in message.bottom)
                    else "give the top another name",
                )
        bottoms = [shapes[name] for name in message.bottom]
        tops = _shapes_of(layer, bottoms, maker)
        for name, shape in zip(message.top, tops, strict=True):
            shapes[name] = shape
            maker[name] = layer
        drafts.append(_Draft(layer, bottoms, tops, _loss_weights(layer)))
    return drafts, shapes


def _shapes_of(
    layer: Layer, bottoms: list[Shape], maker: Mapping[str, Layer] | None = None
) -> list[Shape]:
    try:
        tops = [tuple(int(n) for n in shape) for shape in layer.shapes(*bottoms)]
    except NetError as error:
        if not maker or not bottoms:
            raise
        given = ", ".join(
            f'"{(blob := _written(name, maker))}" is {shape_text(shape)} '
            f'from layer "{maker[blob].name}"'
            for name, shape in zip(layer.message.bottom, bottoms, strict=True)
        )
        first = error.diagnostics[0]
        raise NetError(
            code=first.code, diagnostics=[replace(first, message=f"{first.message} ({given})")]
        ) from error
    for name, shape in zip(layer.message.top, tops, strict=True):
        if wrong := _too_large(shape):
            raise layer.error(f'top "{name}" would be {shape_text(shape)}: {wrong}')
    return tops


def _too_large(shape: Shape) -> str:
    """What makes a shape too large for a blob, or nothing: an empty axis excuses no other."""
    if math.prod(n for n in shape if n) <= MOST_VALUES:
        return ""
    return f"{TOO_MANY} along its other axes" if 0 in shape else TOO_MANY


def _written(name: str, maker: Mapping[str, Layer]) -> str:
    """The name in the user's file of a blob that comes from a Split which netdef put in."""
    while maker[name].type == "Split" and name.startswith(f"{maker[name].name}_"):
        name = maker[name].message.bottom[0]
    return name


def check_arity(layer: Layer) -> None:
    """Raise NetError for a layer with too few or too many bottoms or tops."""
    given = len(layer.message.bottom), len(layer.message.top)
    for what, allowed, count in (
        ("bottom", layer.bottoms, given[0]),
        ("top", layer.tops, given[1]),
    ):
        least, most = (allowed, allowed) if isinstance(allowed, int) else allowed
        if count < least or (most is not None and count > most):
            # Point at the first blob too many, or at the layer where some are missing.
            path = (what, most) if most is not None and count > most else ()
            raise layer.error(f"takes {_arity(allowed, what)}, but {count} given", *path)
    if layer.same_number and given[0] != given[1]:
        raise layer.error(f"needs as many tops as bottoms, but has {given[1]} and {given[0]}")


def _arity(allowed: Arity, what: str) -> str:
    if isinstance(allowed, int):
        return f"{allowed or 'no'} {what} blob{'' if allowed == 1 else 's'}"
    least, most = allowed
    if most is None:
        return f"{least} or more {what} blobs"
    return f"{least} to {most} {what} blobs"


def _loss_weights(layer: Layer) -> list[float]:
    given = list(layer.message.loss_weight)
    tops = len(layer.message.top)
    if given and len(given) != tops:
        raise layer.error(
            f"has {tops} tops but {len(given)} loss_weight: give one per top, or none",
            "loss_weight",
            0,
        )
    if given:
        return given
    return [1.0 if layer.loss and j == 0 else 0.0 for j in range(tops)]


def _share(drafts: list[_Draft]) -> tuple[list[ParamPlan], list[tuple[int, ...]]]:
    """List all parameters; those with the same name share memory with the first of that name.

    The owner learns at the rate that any of its sharers states; two that state different ones are
    an error.
    """
    params: list[ParamPlan] = []
    owned: list[tuple[int, ...]] = []
    owners: dict[str, int] = {}
    stated: dict[tuple[int, str], float] = {}
    for draft in drafts:
        layer = draft.layer
        specs = layer.message.param
        wanted = _with_values(layer, list(layer.params(*draft.bottom_shapes)))
        if len(specs) > len(wanted):
            raise layer.error(
                f"has {len(specs)} param entries, but only {len(wanted)} parameters",
                "param",
                len(wanted),
            )
        first = len(params)
        for i, param in enumerate(wanted):
            if wrong := _too_large(param.shape):
                raise layer.error(f"its {param.name} would be {shape_text(param.shape)}: {wrong}")
            spec = specs[i] if i < len(specs) else pb.ParamSpec()
            number = len(params)
            owner = owners.setdefault(spec.name, number) if spec.name else number
            params.append(
                ParamPlan(
                    layer.name,
                    i,
                    spec.name or str(i),
                    param.shape,
                    param.filler,
                    owner,
                    spec.lr_mult,
                    spec.decay_mult,
                    param.learns,
                )
            )
            if owner != number:
                _check_shared_shape(layer, i, spec, param, params[owner])
            if not param.learns:
                if not param.overrules:
                    _check_kept_by_layer(layer, i, spec, param)
                params[owner] = replace(params[owner], lr_mult=0.0)
                continue
            for name in ("lr_mult", "decay_mult"):
                if not spec.HasField(name):
                    continue
                value = getattr(spec, name)
                if stated.setdefault((owner, name), value) != value:
                    raise layer.error(
                        f'shared parameter "{spec.name}" has {name} {value:g} here, but '
                        f'{stated[owner, name]:g} before (layer "{params[owner].layer}" owns it)',
                        "param",
                        i,
                        name,
                    )
                params[owner] = replace(params[owner], **{name: value})
        owned.append(tuple(range(first, len(params))))
    return params, owned


def _with_values(layer: Layer, params: list[Param]) -> list[Param]:
    """The parameters of a layer, which start from the values that stand in the net, if any do."""
    given = layer.message.blobs
    if given and len(given) != len(params):
        raise layer.error(
            f"has {len(params)} parameters, but values of {len(given)} in blobs: give those of "
            "all, or none",
            "blobs",
            min(len(params), len(given) - 1),
        )
    return [
        param._replace(filler=_values(layer, i, param, given[i])) if given else param
        for i, param in enumerate(params)
    ]


def _values(layer: Layer, index: int, param: Param, blob: pb.BlobProto) -> Array:
    older = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else older
    if _without_leading_ones(shape) != _without_leading_ones(param.shape):
        raise layer.error(
            f"its {param.name} is {shape_text(param.shape)}, but the values in blobs are "
            f"{shape_text(shape)}",
            "blobs",
            index,
        )
    values = np.array(blob.double_data or blob.data, np.float64)
    if values.size != math.prod(shape):
        raise layer.error(
            f"its {param.name} is {shape_text(param.shape)}, but there are {values.size} values "
            "in blobs",
            "blobs",
            index,
        )
    return values.reshape(param.shape)


def _without_leading_ones(shape: Shape) -> Shape:
    """A shape as Caffe compares those that once all had 4 axes."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return shape[first:]


def _check_kept_by_layer(layer: Layer, index: int, spec: pb.ParamSpec, param: Param) -> None:
    if spec.HasField("lr_mult") and spec.lr_mult != 0:
        raise layer.error(
            f"its {param.name} is kept up to date by the layer itself, so lr_mult "
            f"{spec.lr_mult:g} is not possible",
            "param",
            index,
            "lr_mult",
            hint="say lr_mult: 0, or leave the param out",
        )


def _check_shared_shape(
    layer: Layer, index: int, spec: pb.ParamSpec, param: Param, owner: ParamPlan
) -> None:
    strict = spec.share_mode != pb.ParamSpec.PERMISSIVE
    if strict and param.shape == owner.shape:
        return
    if not strict and math.prod(param.shape) == math.prod(owner.shape):
        return
    raise layer.error(
        f'cannot share parameter "{spec.name}" with layer "{owner.layer}": its shape there is '
        f"{shape_text(owner.shape)}, here {shape_text(param.shape)}",
        "param",
        index,
        hint="share_mode: PERMISSIVE asks only for the same count" if strict else "",
    )


@dataclass
class _Gradients:
    """Per layer: whether it runs backward, into which bottoms, and which parameters it learns."""

    backward: list[bool]
    propagate: list[list[bool]]
    learn: list[list[bool]]


def _gradients(
    net: pb.NetParameter,
    drafts: list[_Draft],
    params: list[ParamPlan],
    owned: list[tuple[int, ...]],
) -> _Gradients:
    """Who needs a gradient, as Caffe's ``Net::Init`` decides it."""
    blob_needs: dict[str, bool] = {}
    result = _Gradients([], [], [])
    for draft, own in zip(drafts, owned, strict=True):
        asked = draft.layer.message.propagate_down
        if asked and len(asked) != len(draft.bottoms):
            raise draft.layer.error(
                f"has {len(draft.bottoms)} bottoms but {len(asked)} propagate_down: "
                "give one per bottom, or none",
                "propagate_down",
                0,
            )
        needs = [blob_needs.get(name, False) for name in draft.bottoms]
        # Each layer goes by its own lr_mult here, also where it shares a parameter.
        specs = draft.layer.message.param
        learns = [params[number].learns for number in own]
        learn = [learns[k] and (k >= len(specs) or specs[k].lr_mult != 0) for k in range(len(own))]
        backward = any(needs) or any(learn)
        result.propagate.append(list(asked) if asked else needs)
        result.learn.append(learn)
        result.backward.append(backward)
        for name in draft.tops:
            blob_needs[name] = backward or (name in draft.bottoms and blob_needs.get(name, False))

    under_loss: set[str] = set()
    skipped: set[str] = set()
    for i in reversed(range(len(drafts))):
        draft = drafts[i]
        contributes = any(draft.loss_weights) or any(t in under_loss for t in draft.tops)
        if result.backward[i] and all(t in skipped for t in draft.tops):
            result.backward[i] = False
            result.propagate[i] = [False] * len(draft.bottoms)
        if contributes:
            under_loss.update(draft.bottoms)
        else:
            result.backward[i] = False
            result.propagate[i] = [False] * len(draft.bottoms)
        for name, wanted in zip(draft.bottoms, result.propagate[i], strict=True):
            if not wanted:
                skipped.add(name)

    if net.force_backward:
        for i, draft in enumerate(drafts):
            result.backward[i] = True
            result.learn[i] = [params[number].learns for number in owned[i]]
            result.propagate[i] = [
                wanted or index not in draft.layer.no_gradient
                for index, wanted in enumerate(result.propagate[i])
            ]
    for i, draft in enumerate(drafts):
        if not result.backward[i]:
            continue
        for index in sorted(draft.layer.no_gradient):
            if index >= len(draft.bottoms) or not result.propagate[i][index]:
                continue
            if net.state.phase != pb.TRAIN:
                # Such a net mostly runs forward alone; where it does not, this layer is left out.
                result.propagate[i][index] = False
            else:
                allowed = ", ".join(
                    f"propagate_down: {'false' if k in draft.layer.no_gradient else 'true'}"
                    for k in range(len(draft.bottoms))
                )
                asked = draft.layer.message.propagate_down
                why = "propagate_down asks for one" if asked else "something before it learns"
                raise draft.layer.error(
                    f'has no gradient for its bottom "{draft.bottoms[index]}", but {why}',
                    "propagate_down" if asked else "bottom",
                    index,
                    hint=f"say so with  {allowed.replace(', ', '  ')}",
                )
    return result


def _assemble(
    net: pb.NetParameter,
    drafts: list[_Draft],
    shapes: dict[str, Shape],
    params: list[ParamPlan],
    owned: list[tuple[int, ...]],
    gradients: _Gradients,
    automatic: set[str],
) -> Plan:
    outputs: dict[str, None] = {}
    for draft in drafts:
        for name in draft.bottoms:
            outputs.pop(name, None)
        for name in draft.tops:
            if name not in automatic:
                outputs[name] = None

    needs_gradient = dict.fromkeys(shapes, False)
    for i, draft in enumerate(drafts):
        if gradients.backward[i]:
            for name, wanted in zip(draft.bottoms, gradients.propagate[i], strict=True):
                needs_gradient[name] |= wanted
            for name in draft.tops:
                needs_gradient[name] = True

    layers = [
        LayerPlan(
            layer=draft.layer,
            bottoms=tuple(draft.bottoms),
            tops=tuple(draft.tops),
            bottom_shapes=tuple(draft.bottom_shapes),
            top_shapes=tuple(draft.top_shapes),
            in_place=tuple(draft.in_place(j) for j in range(len(draft.tops))),
            loss_weights=tuple(draft.loss_weights),
            params=owned[i],
            learn=tuple(gradients.learn[i]),
            needs_backward=gradients.backward[i],
            propagate=tuple(gradients.propagate[i]),
        )
        for i, draft in enumerate(drafts)
    ]
    blobs = {name: BlobPlan(name, shape, needs_gradient[name]) for name, shape in shapes.items()}
    inputs = [name for draft in drafts if draft.layer.type == "Input" for name in draft.tops]
    # Caffe keeps its outputs in a sorted set: "output #0" in a log is the first by name.
    return Plan(net, tuple(layers), blobs, tuple(params), tuple(inputs), tuple(sorted(outputs)))
