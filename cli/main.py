"""``netdef``: finds the subcommands and reports what goes wrong."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

import click

import netdef
from netdef.errors import NetdefError

_FOLDER = [str(Path(__file__).parent)]

#: Files of this folder that are no subcommand.
_NOT_COMMANDS = {"data_text", "main", "running"}

#: Tools of Caffe, by their own names, and the group that has them. They are installed
#: under these names as well: see ``tool``.
_TOOLS = {
    "compute_image_mean": "data",
    "convert_cifar_data": "data",
    "convert_imageset": "data",
    "convert_mnist_data": "data",
    "extract_features": "data",
    "upgrade_net_proto_binary": "upgrade",
    "upgrade_net_proto_text": "upgrade",
    "upgrade_solver_proto_text": "upgrade",
}

#: What a shell reports of a process that Ctrl-C ended.
INTERRUPTED = 128 + 2


class Commands(click.Group):
    """The subcommands. The user's mistake is one message and status 1; ours is a traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        _open_closed_streams()
        return super().main(*args, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (module.name for module in pkgutil.iter_modules(_FOLDER))
        return sorted(name for name in names if name not in _NOT_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        part = _TOOLS.get(name)
        if part is None and name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__package__}.{part or name}")
        command = getattr(module, part or name)
        if part is not None:
            command = command.get_command(ctx, name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = [*self.list_commands(ctx), *_TOOLS]
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f'did you mean "{close[0]}"?'
                if close
                else f"there are {', '.join(known[: -len(_TOOLS)])}"
            )
            raise click.UsageError(f'there is no command "{name}"; {hint}', ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NetdefError as error:
            # Diagnostics are laid out already: click would put "Error: " before the first.
            click.echo(str(error), err=True)
            ctx.exit(1)
        except MemoryError as error:
            # Numpy says how much it asked for.
            text = f"not enough memory: {error}" if str(error) else "not enough memory"
            click.echo(str(NetdefError(text)), err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Aborted!", err=True)
            ctx.exit(INTERRUPTED)


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed (``netdef ... 2>&-``).

    Otherwise the next file opened, a snapshot perhaps, would get what is meant for that stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free: that of the stream.
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help", "-help"]})
@click.version_option(netdef.__version__, "-V", "--version", "-version", prog_name="netdef")
def main() -> None:
    """Train and run networks written as Caffe prototxt.

    Caffe's own spellings work too:  netdef train -solver solver.prototxt
    """


def tool() -> None:
    """One of Caffe's tools, called by its own name: what pyproject.toml installs as that."""
    main([Path(sys.argv[0]).stem, *sys.argv[1:]], prog_name="netdef")


if __name__ == "__main__":
    main()
