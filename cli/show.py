"""``netdef show``: print a net at any stage between its text and its memory."""

from __future__ import annotations

import click

from .running import Command, caffe_option, lenient_option, say, split_list

STAGES = ("parsed", "upgraded", "kept", "split", "plan", "memory")


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@click.option(
    "--stage",
    "what",
    type=click.Choice(STAGES),
    default="plan",
    show_default=True,
    help="How far to take the net before printing it.",
)
@click.option(
    "--phase",
    "-phase",
    type=click.Choice(["TRAIN", "TEST"], case_sensitive=False),
    default="TRAIN",
    show_default=True,
)
@caffe_option("level", type=int, default=0, help="Level of the net's state.")
@click.option("--stages", default="", help="Stages of the net's state, comma-separated.")
@lenient_option
def show(file: str, what: str, phase: str, level: int, stages: str, lenient: bool) -> None:
    """Print the net in FILE at a stage between its text and its memory.

    \b
    parsed    as read
    upgraded  in the layer syntax of Caffe 1.0
    kept      with only the layers of the phase
    split     with a Split behind every blob that several layers read
    plan      shapes, parameters, and who needs a gradient
    memory    what shares memory, where it lies, and from when to when it is needed
    """
    from netdef import graph, prototxt
    from netdef.describe import describe_memory, describe_plan
    from netdef.errors import Diagnostic
    from netdef.fusion import groups
    from netdef.memory import arrange
    from netdef.plan import plan
    from netdef.proto import netdef_pb2 as pb
    from netdef.upgrade import upgrade_net

    with prototxt.lenient(lenient):
        document = prototxt.read(file, pb.NetParameter)
    net, positions = document.message, document.positions
    if what == "parsed":
        say(prototxt.to_text(net), newline=False)
        return
    doubts: list[Diagnostic] = []
    net = upgrade_net(net, positions, doubts)
    for doubt in doubts:
        click.echo(str(doubt), err=True)
    if what == "upgraded":
        say(prototxt.to_text(net), newline=False)
        return
    state = pb.NetState()
    state.CopyFrom(net.state)
    state.phase = pb.TRAIN if phase.upper() == "TRAIN" else pb.TEST
    if level:
        state.level = level
    state.stage.extend(split_list(stages))
    net = graph.keep(net, state, positions)
    if what == "kept":
        say(prototxt.to_text(net), newline=False)
        return
    net = graph.split(net, positions)
    if what == "split":
        say(prototxt.to_text(net), newline=False)
        return
    planned = plan(net, positions)
    # As the commands that run a net arrange it.
    backward = state.phase == pb.TRAIN
    if net.debug_info:
        memory = arrange(planned, apart=True)
    else:
        found = groups(planned, keep=(), backward=backward)
        memory = arrange(planned, found, keep=(), backward=backward)
    say(describe_plan(planned, memory) if what == "plan" else describe_memory(planned, memory))
