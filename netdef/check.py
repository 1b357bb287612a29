"""Whether the nets and solvers in files make sense, without data, weights or memory.

::

    report = check("train_val.prototxt")
    report.ok, report.errors, report.warnings

A net is upgraded and looked at in every state it is meant for: TRAIN and TEST, or TEST alone where
it has inputs in place of data; stages that its rules name are added one by one. Every layer whose
bottoms are known is created and asked for its shapes, so all mistakes of a file are found at once;
a net without mistakes is then planned as it would be for running.

No file but the one named is opened. What a data layer would bring is read off its options. Where
they do not say how large the images are, some sizes are tried, and a warning says which one was
taken. What only data or the user's Python code decides has no shape, and layers behind it are
checked as far as that goes. The same holds for layers of forks that netdef does not compute: they
are warnings here, and errors to whoever runs the net.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from netdef import forks, graph, prototxt, schedule
from netdef.blob import Shape
from netdef.errors import Diagnostic, Location, NetdefError, did_you_mean
from netdef.layer import Layer, create, layer_types
from netdef.plan import AUTOMATIC, add_top, check_arity, plan
from netdef.proto import netdef_pb2 as pb
from netdef.prototxt import Positions
from netdef.solver import check_definition
from netdef.solvers import rule
from netdef.upgrade import upgrade_net, upgrade_solver

M = TypeVar("M", bound=Message)

#: Channels, rows and columns of images that are tried in turn where a net does not say them.
SIZES = (
    (3, 224, 224),
    (3, 32, 32),
    (1, 28, 28),
    (3, 300, 300),
    (3, 360, 480),
    (2, 28, 28),
    (1, 32, 32),
    (1, 224, 224),
    (3, 360, 480),
)

#: Layers that are looked at in one state of a net, all sizes together.
MOST_LAYERS_WALKED = 600

#: Boxes in the stead of as many as an image has.
BOXES = 8


@dataclass
class Report:
    """What was found in one file; ``kind`` is "net", "solver" or "label map", or empty."""

    file: str
    kind: str = ""
    errors: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.errors

    def add(self, found: Iterable[Diagnostic]) -> None:
        """Take each of ``found`` once, whatever number of states it was found in."""
        for each in found:
            into = self.errors if each.severity == "error" else self.warnings
            if each not in into:
                into.append(each)


def check(file: str) -> Report:
    """Check the net or the solver in ``file``; what is wrong with it is in the report."""
    report = Report(file)
    try:
        document = prototxt.read(file, pb.NetParameter)
    except NetdefError as error:
        first = error.diagnostics[0]
        if first.code != "E011":
            report.add(error.diagnostics)
        elif "label map" in first.message:
            report.kind = "label map"
            _read(report, pb.LabelMap)
        else:
            report.kind = "solver"
            solver = _read(report, pb.SolverParameter)
            if solver is not None:
                _check_solver(report, *solver)
        return report
    report.kind = "net"
    _check_net(report, document.message, document.positions)
    return report


def _read(report: Report, kind: type[M]) -> tuple[M, Positions] | None:
    try:
        document = prototxt.read(report.file, kind)
    except NetdefError as error:
        report.add(error.diagnostics)
        return None
    report.add(document.positions.take_warnings())
    return document.message, document.positions


# -- solvers ---------------------------------------------------------------------------------------


def _check_solver(report: Report, solver: pb.SolverParameter, positions: Positions) -> None:
    try:
        solver = upgrade_solver(solver, positions)
    except NetdefError as error:
        report.add(error.diagnostics)
        return
    for path in forks.unread_options(solver):
        if not str(path[0]).endswith("net_param"):
            report.add([_unread("the solver", path, positions.at(*path))])
    steps: tuple[Callable[[], object], ...] = (
        lambda: report.add(schedule.check(solver, positions)),
        lambda: check_definition(solver, positions),
        lambda: rule.find(solver, positions),
    )
    for step in steps:
        try:
            step()
        except NetdefError as error:
            report.add(error.diagnostics)
    inline = [(solver.net_param, True), (solver.train_net_param, True)]
    inline += [(net, False) for net in solver.test_net_param]
    for net, trains in inline:
        if not net.layer and not net.layers:
            continue
        states = [_state(pb.TRAIN, net.state, solver.train_state)] if trains else []
        states += [_state(pb.TEST, net.state, each) for each in solver.test_state]
        if not solver.test_state and (not trains or solver.HasField("net_param")):
            states.append(_state(pb.TEST, net.state))
        _check_net(report, net, positions, states)


# -- nets ------------------------------------------------------------------------------------------


def _check_net(
    report: Report,
    net: pb.NetParameter,
    positions: Positions,
    states: Sequence[pb.NetState] = (),
) -> None:
    try:
        warnings: list[Diagnostic] = []
        net = upgrade_net(net, positions, warnings)
        report.add(warnings)
        views = [graph.keep(net, state, positions) for state in states or _states(net)]
    except NetdefError as error:
        report.add(error.diagnostics)
        return
    views = _worth_checking(views)
    if not views:
        text = f'the net "{net.name}" has no layers'
        report.add([Diagnostic("E112", text, positions.at())])
    for view in views:
        report.add(_check_view(view, positions))


def _state(phase: pb.Phase, *parts: pb.NetState) -> pb.NetState:
    state = pb.NetState()
    for part in parts:
        state.MergeFrom(part)
    state.phase = phase
    return state


def _states(net: pb.NetParameter) -> list[pb.NetState]:
    """The states a net is meant for: both phases, alone and with each stage that it names."""
    rules = [each for layer in net.layer for each in (*layer.include, *layer.exclude)]
    stages = dict.fromkeys(s for each in rules for s in (*each.stage, *each.not_stage))
    phases: list[pb.Phase] = [pb.TRAIN, pb.TEST]
    trains = any(each.HasField("phase") and each.phase == pb.TRAIN for each in rules)
    if not trains and any(layer.type == "Input" for layer in net.layer):
        phases = [pb.TEST]
    plain = [_state(phase, net.state) for phase in phases]
    staged = [
        _state(phase, net.state, pb.NetState(stage=[stage])) for phase in phases for stage in stages
    ]
    return plain + staged


def _worth_checking(views: list[pb.NetParameter]) -> list[pb.NetParameter]:
    """Those that something enters; the rest belong to a state the net is not meant for."""
    different: list[pb.NetParameter] = []
    for view in views:
        if view.layer and not any(
            list(view.layer) == list(other.layer) and view.state.phase == other.state.phase
            for other in different
        ):
            different.append(view)
    fed = [view for view in different if any(_is_fed(layer) for layer in view.layer)]
    return fed or different


def _is_fed(layer: pb.LayerParameter) -> bool:
    return not layer.bottom and bool(layer.top) and layer.type != "Parameter"


def _check_view(net: pb.NetParameter, positions: Positions) -> list[Diagnostic]:
    """What is wrong with a net in one state, under the assumption that lets it stand, if any."""
    guesses = [_Guess(layer) for layer in net.layer if _brings_records(layer)]
    open_ones = [guess for guess in guesses if guess.is_open]
    sizes: Sequence[Shape | None] = (None,)
    if open_ones:
        # A long net costs more to walk, and its author has said more about it.
        tries = max(2, MOST_LAYERS_WALKED // len(net.layer))
        sizes = _likely_first(open_ones[0].layer)[:tries]
    tried = []
    for size in sizes:
        found = list(_walk(net, positions, {g.layer.name: g.shapes(size) for g in guesses}))
        tried.append(found)
        if not any(each.severity == "error" for each in found):
            if size is not None:
                found += [guess.warning(size, positions) for guess in open_ones]
            return found
    # No size helps: the fewest errors are those that do not come from the assumption.
    return min(tried, key=lambda found: sum(each.severity == "error" for each in found))


def _walk(
    net: pb.NetParameter, positions: Positions, given: dict[str, list[Shape | None]]
) -> Iterator[Diagnostic]:
    """Every mistake of a net whose data layers bring what ``given`` says."""
    shapes: dict[str, Shape | None] = {}
    complete = True
    wrong = False
    stand_ins = pb.NetParameter()
    stand_ins.CopyFrom(net)
    for index, message in enumerate(net.layer):
        for found in _unknown_bottoms(net, index, shapes, positions):
            wrong = True
            yield found
            shapes[found.message.split("'")[1]] = None
        bottoms = [shapes[name] for name in message.bottom]
        tops: list[Shape | None]
        if message.name in given and _brings_records(message):
            tops = given[message.name]
            tops += [None] * (len(message.top) - len(tops))
            _replace_by_input(stand_ins.layer[index], tops)
            if message.type not in layer_types():
                yield _not_computed(message, positions)
            for path in forks.unread_options(message):
                yield _unread_in(message, path, positions)
        elif _is_computed(message):
            unread = list(forks.unread_options(message))
            yield from (_unread_in(message, path, positions) for path in unread)
            tops = [None] * len(message.top)
            if not _CHANGES_SHAPE.isdisjoint(path[-1] for path in unread):
                complete = False
            else:
                try:
                    tops = _tops(message, net.state.phase, bottoms, positions)
                except NetdefError as error:
                    wrong = True
                    yield error.diagnostics[0]
        elif message.type == "Python" or message.type in forks.LAYERS:
            complete = False
            tops = _foreign_tops(message, bottoms)
            if message.type != "Python":
                yield _not_computed(message, positions)
        else:
            wrong = True
            yield _unknown_type(message, positions)
            tops = [None] * len(message.top)
        complete &= None not in tops
        shapes.update(zip(message.top, tops, strict=False))
    if complete and not wrong:
        try:
            plan(graph.split(stand_ins, positions), positions)
        except NetdefError as error:
            yield from error.diagnostics


def _is_computed(message: pb.LayerParameter) -> bool:
    known = message.type in layer_types() and message.type != "Python"
    return known and not forks.other_meaning(message)


def _unknown_bottoms(
    net: pb.NetParameter, index: int, known: dict[str, Shape | None], positions: Positions
) -> Iterator[Diagnostic]:
    for number, name in enumerate(net.layer[index].bottom):
        if name not in known:
            yield graph.unknown_bottom(net, index, number, positions).diagnostics[0]


def _tops(
    message: pb.LayerParameter, phase: int, bottoms: list[Shape | None], positions: Positions
) -> list[Shape | None]:
    """The shapes that a layer gives its tops; None where those of its bottoms are not known."""
    layer = _create(message, phase, positions)
    if layer.loss and not message.top:
        add_top(layer, AUTOMATIC)
    check_arity(layer)
    known = [shape for shape in bottoms if shape is not None]
    if len(known) == len(bottoms):
        shapes = [tuple(int(n) for n in shape) for shape in layer.shapes(*known)]
        list(layer.params(*known))
        return [*shapes]
    tops: list[Shape | None] = [None] * len(message.top)
    if layer.loss and tops:
        tops[0] = ()
    return tops


def _create(message: pb.LayerParameter, phase: int, positions: Positions) -> Layer:
    def locate(*path: str | int) -> Location | None:
        return graph.locate(positions, message, *path)

    return create(message, message.phase if message.HasField("phase") else phase, locate)


def _foreign_tops(message: pb.LayerParameter, bottoms: list[Shape | None]) -> list[Shape | None]:
    """What is known of the tops of a layer that netdef does not compute."""
    kept = message.type in _KEEPS_SHAPE or message.type.endswith("Ristretto")
    tops: list[Shape | None] = [None] * len(message.top)
    if kept and len(bottoms) >= 1 and tops:
        tops[0] = bottoms[0]
    elif message.type.endswith("Loss") and tops:
        tops[0] = ()
    return tops


#: Options of forks that a layer of Caffe's gives other shapes with.
_CHANGES_SHAPE = frozenset(
    ("kernel_depth", "kernel_shape", "pad_b", "pad_l", "pad_r", "pad_shape", "pad_t", "pad_type",
     "per_fla_fuse", "pixelshuffler", "stride_shape", "temporal_pad", "temporal_stride")
)  # fmt: skip

#: Layers of forks whose first top has the shape of the first bottom.
_KEEPS_SHAPE = frozenset(
    ("AssistedExcitation", "ChannelNorm", "ChannelScale", "DenseCRF", "Flip", "HardSigmoid",
     "Mish", "MultiStageMeanfield", "SeLu", "SeLuDropout", "SpatialDropout")
)  # fmt: skip


# -- what data layers bring ------------------------------------------------------------------------

#: The options that hold the batch size, by the layer types that bring records from files.
_RECORDS = {
    "AnnotatedData": "data_param",
    "BoxData": "data_param",
    "Data": "data_param",
    "DataTemporal": "data_param",
    "DenseImageData": "dense_image_data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "ImageLabelmapData": "image_data_param",
    "ImageSegData": "image_data_param",
    "LaneData": "data_param",
    "SegData": "video_data_param",
    "SparseData": "data_param",
    "TokenizedData": "tokenized_data_param",
    "VideoData": "video_data_param",
    "VideoSegmentationData": "image_data_param",
    "VideoWithVoxelTruthData": "image_data_param",
    "WindowData": "window_data_param",
}

#: Those of them whose second top has a label for each pixel.
_LABEL_IMAGES = ("DenseImageData", "ImageLabelmapData", "ImageSegData", "SegData")


def _brings_records(layer: pb.LayerParameter) -> bool:
    return layer.type in _RECORDS


class _Guess:
    """What a data layer would bring, as far as its options say."""

    def __init__(self, layer: pb.LayerParameter) -> None:
        self.layer = layer
        self._config = getattr(layer, _RECORDS[layer.type])
        if layer.type == "VideoData" and layer.HasField("image_data_param"):
            self._config = layer.image_data_param
        self._batch = self._config.batch_size or layer.data_param.batch_size or 1
        transform = layer.transform_param
        self._size = self._crop(transform)
        self._channels = 0
        color = getattr(self._config, "is_color", True)
        if len(transform.mean_value) > 1:
            self._channels = len(transform.mean_value)
        elif transform.force_gray or not color:
            self._channels = 1
        elif transform.force_color or layer.type in ("ImageData", "WindowData", "AnnotatedData"):
            self._channels = 3

    def _crop(self, transform: pb.TransformationParameter) -> tuple[int, int]:
        """Rows and columns, or zeros."""
        own = self._config
        sizes = [
            (transform.crop_size, transform.crop_size),
            (transform.crop_h, transform.crop_w),
            (transform.crop_height, transform.crop_width),
            (getattr(own, "crop_size", 0),) * 2,
            (getattr(own, "crop_height", 0), getattr(own, "crop_width", 0)),
            *((each.height, each.width) for each in transform.resize_param),
            (getattr(own, "new_height", 0), getattr(own, "new_width", 0)),
        ]
        return next(((h, w) for h, w in sizes if h and w), (0, 0))

    @property
    def is_open(self) -> bool:
        """Whether something has to be assumed."""
        images = self.layer.type not in ("HDF5Data", "TokenizedData", "SparseData")
        return images and not (self._size[0] and self._channels)

    def shapes(self, size: Shape | None) -> list[Shape | None]:
        """The shapes of the tops, where images that the options do not tell have this size."""
        if self.layer.type in ("HDF5Data", "TokenizedData", "SparseData"):
            return [None] * len(self.layer.top)
        channels, height, width = size or (3, 224, 224)
        height, width = self._size if self._size[0] else (height, width)
        images: Shape = (self._batch, self._channels or channels, height, width)
        frames = getattr(self._config, "new_length", 0)
        if self.layer.type.startswith("Video") and self.layer.HasField("image_data_param"):
            images = (*images[:2], frames or 1, *images[2:])
        tops: list[Shape | None] = [images]
        if self.layer.type in _LABEL_IMAGES:
            divisor = getattr(self._config, "label_divide_factor", 1) or 1
            tops += [(self._batch, 1, height // divisor, width // divisor), (self._batch, 1, 1, 2)]
        elif self.layer.type == "AnnotatedData":
            tops.append((1, 1, BOXES, 8))
        elif self.layer.type in ("Data", "ImageData", "WindowData"):
            tops.append((self._batch,))
        return tops[: len(self.layer.top)]

    def warning(self, size: Shape, positions: Positions) -> Diagnostic:
        """What was assumed."""
        channels, height, width = size
        height, width = self._size if self._size[0] else (height, width)
        text = (
            f'layer "{self.layer.name}" ({self.layer.type}): it does not say how large its images '
            f"are; assumed {self._channels or channels}x{height}x{width}"
        )
        where = graph.locate(positions, self.layer, "type")
        return Diagnostic("E130", text, where, severity="warning")


def _likely_first(layer: pb.LayerParameter) -> list[Shape]:
    """SIZES in an order that begins with what the name of the source suggests."""
    source = getattr(getattr(layer, _RECORDS[layer.type]), "source", "").lower()
    named = {"mnist": (1, 28, 28), "cifar": (3, 32, 32), "lenet": (1, 28, 28)}
    first = [size for name, size in named.items() if name in source]
    return list(dict.fromkeys(itertools.chain(first, SIZES)))


def _replace_by_input(layer: pb.LayerParameter, tops: Sequence[Shape | None]) -> None:
    """Make a data layer an Input of these shapes, which opens no file."""
    if None in tops:
        return
    for name in (_RECORDS[layer.type], "transform_param", "data_param"):
        layer.ClearField(name)
    layer.type = "Input"
    for shape in tops:
        assert shape is not None
        layer.input_param.shape.add(dim=shape)


# -- sentences -------------------------------------------------------------------------------------


def _not_computed(message: pb.LayerParameter, positions: Positions) -> Diagnostic:
    fork = forks.other_meaning(message) or forks.LAYERS.get(message.type, "a fork")
    return Diagnostic(
        "E131",
        f'layer "{message.name}": {message.type} comes from {fork}; netdef does not compute it',
        graph.locate(positions, message, "type"),
        severity="warning",
    )


def _unknown_type(message: pb.LayerParameter, positions: Positions) -> Diagnostic:
    given = f'unknown layer type "{message.type}"' if message.type else "no type is given"
    return Diagnostic(
        "E101",
        f'layer "{message.name}": {given}',
        graph.locate(positions, message, "type"),
        did_you_mean(message.type, [*layer_types(), *forks.LAYERS]),
    )


def _unread_in(
    message: pb.LayerParameter, path: tuple[str | int, ...], positions: Positions
) -> Diagnostic:
    owner = f'layer "{message.name}" ({message.type})'
    return _unread(owner, path, graph.locate(positions, message, *path))


def _unread(owner: str, path: tuple[str | int, ...], where: Location | None) -> Diagnostic:
    option = forks.option_name(path)
    text = f"{owner}: {option} comes from a fork of Caffe; netdef does not compute it"
    return Diagnostic("E132", text, where, severity="warning")
