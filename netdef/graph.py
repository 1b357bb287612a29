"""From the net as written to the net that runs: keep this phase's layers, split shared blobs.

Both stages take a ``NetParameter`` and return a new one; neither allocates, prints or looks at a
file.
"""

from __future__ import annotations

from collections.abc import Sequence

from netdef.errors import Location, NetError, did_you_mean
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Positions

#: A top: (index of the layer, index among its tops).
Top = tuple[int, int]


def locate(
    positions: Positions | None, layer: pb.LayerParameter, *path: str | int
) -> Location | None:
    """Where ``path`` inside ``layer`` stands in the text it was read from, if it was."""
    if positions is None or not layer.HasField("origin"):
        return None
    return positions.layer(layer.origin, *path)


def keep(
    net: pb.NetParameter, state: pb.NetState, positions: Positions | None = None
) -> pb.NetParameter:
    """The net with only the layers whose include and exclude rules ``state`` meets.

    A layer with ``include`` rules stays if any of them is met; one with ``exclude`` rules goes if
    any is. The result carries ``state``. Raises NetError for a layer that has both kinds of rules.
    """
    kept = pb.NetParameter()
    kept.CopyFrom(net)
    del kept.layer[:]
    kept.state.CopyFrom(state)
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise NetError(
                f'layer "{layer.name}" has both include and exclude rules',
                code="E110",
                location=locate(positions, layer, "exclude", 0),
                hint="give one kind or the other",
            )
        if is_kept(layer, state):
            kept.layer.add().CopyFrom(layer)
    return kept


def is_kept(layer: pb.LayerParameter, state: pb.NetState) -> bool:
    """Whether the rules of ``layer`` let it stand in a net of this ``state``."""
    if layer.include:
        return any(not unmet(rule, state) for rule in layer.include)
    return all(unmet(rule, state) for rule in layer.exclude)


def unmet(rule: pb.NetStateRule, state: pb.NetState) -> str:
    """What ``state`` lacks for ``rule``, as Caffe's log puts it; empty where nothing."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return (
            f"The NetState phase ({state.phase}) differed from the phase ({rule.phase}) "
            "specified by a rule in layer "
        )
    if rule.HasField("min_level") and state.level < rule.min_level:
        return (
            f"The NetState level ({state.level}) is above the min_level ({rule.min_level}) "
            "specified by a rule in layer "
        )
    if rule.HasField("max_level") and state.level > rule.max_level:
        return (
            f"The NetState level ({state.level}) is above the max_level ({rule.max_level}) "
            "specified by a rule in layer "
        )
    for stage in rule.stage:
        if stage not in state.stage:
            return f"The NetState did not contain stage '{stage}' specified by a rule in layer "
    for stage in rule.not_stage:
        if stage in state.stage:
            return f"The NetState contained a not_stage '{stage}' specified by a rule in layer "
    return ""


def unmet_rules(net: pb.NetParameter, state: pb.NetState) -> list[str]:
    """A line for each rule that ``state`` was found not to meet, in order, as Caffe logs them.

    The first rule of a layer that is met decides, so those after it are not looked at.
    """
    lines = []
    for layer in net.layer:
        for rule in (*layer.exclude, *layer.include):
            reason = unmet(rule, state)
            if not reason:
                break
            lines.append(reason + layer.name)
    return lines


def split_name(layer: str, blob: str, top: int) -> str:
    """The name of the layer that splits top number ``top`` of ``layer``."""
    return f"{blob}_{layer}_{top}_split"


def split(net: pb.NetParameter, positions: Positions | None = None) -> pb.NetParameter:
    """The net with a Split layer behind every top that more than one layer reads.

    Afterwards each blob has one reader, so gradients add up in one place. A loss weight counts as a
    reader and moves to the Split's first top, as in Caffe. Raises NetError for a bottom that no
    earlier layer makes.
    """
    source: dict[tuple[int, int], Top] = {}
    readers: dict[Top, int] = {}
    weight: dict[Top, float] = {}
    latest: dict[str, Top] = {}
    for i, layer in enumerate(net.layer):
        for j, name in enumerate(layer.bottom):
            if name not in latest:
                raise unknown_bottom(net, i, j, positions)
            source[i, j] = latest[name]
            readers[latest[name]] = readers.get(latest[name], 0) + 1
        for j, name in enumerate(layer.top):
            latest[name] = (i, j)
        for j, value in enumerate(layer.loss_weight[: len(layer.top)]):
            if value:
                weight[i, j] = value
                readers[i, j] = readers.get((i, j), 0) + 1

    result = pb.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    used: dict[Top, int] = {}
    for i, layer in enumerate(net.layer):
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for j, name in enumerate(layer.bottom):
            top = source[i, j]
            if readers[top] > 1:
                number = used.get(top, 1 if top in weight else 0)
                used[top] = number + 1
                base = split_name(net.layer[top[0]].name, name, top[1])
                copy.bottom[j] = f"{base}_{number}"
        for j in range(len(layer.top)):
            count = readers.get((i, j), 0)
            if count > 1:
                _add_split(result, layer, j, count, weight.get((i, j), 0.0))
                if (i, j) in weight:
                    # Caffe clears the whole list here, after which a loss layer's default weight of
                    # 1 comes back and the loss is reported twice.
                    copy.loss_weight[j] = 0.0
    return result


def _add_split(
    net: pb.NetParameter, layer: pb.LayerParameter, top: int, count: int, loss_weight: float
) -> None:
    added = net.layer.add()
    added.name = split_name(layer.name, layer.top[top], top)
    added.type = "Split"
    added.bottom.append(layer.top[top])
    added.top.extend(f"{added.name}_{k}" for k in range(count))
    if loss_weight:
        added.loss_weight.extend([loss_weight] + [0.0] * (count - 1))
    if layer.HasField("origin"):
        added.origin = layer.origin


def unknown_bottom(
    net: pb.NetParameter, layer: int, bottom: int, positions: Positions | None
) -> NetError:
    """The mistake of a bottom, by its layer's index and its own, that no earlier layer makes."""
    message = net.layer[layer]
    name = message.bottom[bottom]
    earlier: Sequence[str] = [t for other in net.layer[:layer] for t in other.top]
    later = [other.name for other in net.layer[layer + 1 :] if name in other.top]
    if later:
        hint = f'layer "{later[0]}" makes it, but stands further down: move it up'
    elif name in message.top:
        hint = "no earlier layer makes this blob, so there is nothing to work on in place"
    else:
        hint = did_you_mean(name, earlier) or (
            f"blobs made so far: {', '.join(dict.fromkeys(earlier))}" if earlier else ""
        )
    return NetError(
        f"Unknown bottom blob '{name}' (layer '{message.name}', bottom index {bottom})",
        code="E111",
        location=locate(positions, message, "bottom", bottom),
        hint=hint,
    )
