"""``netdef upgrade``: rewrite an old net or solver in today's words, as text or binary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .running import Command, lenient_option

if TYPE_CHECKING:
    from google.protobuf.message import Message


def _takes_two_files(command: Any) -> Any:
    for each in (
        lenient_option,
        click.argument("out", metavar="OUT", type=click.Path()),
        click.argument("source", metavar="IN", type=click.Path()),
    ):
        command = each(command)
    return command


@click.group()
def upgrade() -> None:
    """Rewrite a net or a solver of any generation as Caffe 1.0 writes it.

    The names of Caffe's own tools work too: upgrade_net_proto_text, upgrade_net_proto_binary and
    upgrade_solver_proto_text.
    """


@upgrade.command(cls=Command)
@_takes_two_files
def net(source: str, out: str, lenient: bool) -> None:
    """Rewrite the net IN, a prototxt or a .caffemodel, as OUT, of the same format."""
    _upgrade_net(source, out, _is_binary(source), lenient)


@upgrade.command(cls=Command)
@_takes_two_files
def solver(source: str, out: str, lenient: bool) -> None:
    """Rewrite the solver IN, a prototxt, as OUT."""
    _upgrade_solver(source, out, lenient)


@upgrade.command("upgrade_net_proto_text", cls=Command, hidden=True)
@_takes_two_files
def upgrade_net_proto_text(source: str, out: str, lenient: bool) -> None:
    """Rewrite the net IN, a prototxt, as OUT: netdef upgrade net."""
    _upgrade_net(source, out, binary=False, lenient=lenient)


@upgrade.command("upgrade_net_proto_binary", cls=Command, hidden=True)
@_takes_two_files
def upgrade_net_proto_binary(source: str, out: str, lenient: bool) -> None:
    """Rewrite the net IN, a .caffemodel, as OUT: netdef upgrade net."""
    _upgrade_net(source, out, binary=True, lenient=lenient)


@upgrade.command("upgrade_solver_proto_text", cls=Command, hidden=True)
@_takes_two_files
def upgrade_solver_proto_text(source: str, out: str, lenient: bool) -> None:
    """Rewrite the solver IN, a prototxt, as OUT: netdef upgrade solver."""
    _upgrade_solver(source, out, lenient)


def _upgrade_solver(source: str, out: str, lenient: bool) -> None:
    from netdef import prototxt
    from netdef.proto import netdef_pb2 as pb
    from netdef.upgrade import upgrade_solver

    with prototxt.lenient(lenient):
        document = prototxt.read(source, pb.SolverParameter)
    _warn(document.warnings)
    _write(out, upgrade_solver(document.message, document.positions), binary=False)


def _upgrade_net(source: str, out: str, binary: bool, lenient: bool) -> None:
    from netdef import prototxt
    from netdef.errors import Diagnostic
    from netdef.proto import netdef_pb2 as pb
    from netdef.upgrade import upgrade_net

    warnings: list[Diagnostic] = []
    if binary:
        upgraded = upgrade_net(_read_binary(source), None, warnings)
        for layer in upgraded.layer:
            layer.ClearField("origin")
    else:
        with prototxt.lenient(lenient):
            document = prototxt.read(source, pb.NetParameter)
        upgraded = upgrade_net(document.message, document.positions, warnings)
    _warn(warnings)
    _write(out, upgraded, binary)


def _is_binary(path: str) -> bool:
    """Whether the file at ``path`` is a binary net; what cannot be read is no such file."""
    from netdef.errors import PrototxtError
    from netdef.prototxt_tokens import decode

    try:
        with open(path, "rb") as file:
            head = file.read(65536)
        decode(head, path)
    except PrototxtError as error:
        return "binary" in error.diagnostics[0].message
    except (OSError, ValueError):
        pass  # reading it as text says what is wrong
    return False


def _read_binary(path: str) -> Any:
    from google.protobuf.message import DecodeError

    from netdef.errors import WeightsError
    from netdef.proto import netdef_pb2 as pb

    try:
        return pb.NetParameter.FromString(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WeightsError(f"{path} cannot be read: {reason}") from None
    except DecodeError:
        raise WeightsError(
            f"{path} is no net in Caffe's binary format",
            hint="a prototxt is upgraded by  netdef upgrade net",
        ) from None


def _warn(warnings: Any) -> None:
    for each in warnings:
        click.echo(str(each), err=True)


def _write(path: str, message: Message, binary: bool) -> None:
    from netdef import prototxt
    from netdef.files import atomic_write

    data = message.SerializeToString() if binary else prototxt.to_text(message).encode()
    with atomic_write(path) as file:
        file.write(data)
