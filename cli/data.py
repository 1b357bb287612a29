"""``netdef data``: make the databases that data layers read. One subcommand per set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from netdef.data.writer import Database, Progress

# The library is imported inside the commands: ``netdef --help`` must not wait for it.

F = TypeVar("F", bound=Callable[..., Any])

#: As many as netdef.data.digits makes; a test compares the two.
MOST_DIGITS = 1_000_000
LARGEST_SEED = 2**64 - 1


@click.group()
def data() -> None:
    """Make databases to train from."""


def _makes_databases(function: F) -> F:
    """What every subcommand takes: the folder to write in, and whether to replace."""
    function = click.option("--force", is_flag=True, help="Replace databases that exist already.")(
        function
    )
    return click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))(function)


@data.command()
@_makes_databases
@click.option(
    "--train",
    type=click.IntRange(1, MOST_DIGITS),
    default=10_000,
    show_default=True,
    help="Images to train from.",
)
@click.option(
    "--test",
    type=click.IntRange(1, MOST_DIGITS),
    default=2_000,
    show_default=True,
    help="Images to test with.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    help="Another seed, another set.",
)
def digits(folder: Path, train: int, test: int, seed: int, force: bool) -> None:
    """Draw digits as people write them: no download, the same on every machine.

    Writes DIR/digits_train_lmdb and DIR/digits_test_lmdb: 28x28 grey images in ten classes, in
    the format of MNIST.
    """
    from netdef.data import digits as made

    with _progress() as progress:
        databases = made.write(
            folder, train=train, test=test, seed=seed, force=force, progress=progress
        )
    _tell(databases)


@data.command()
@_makes_databases
@click.option(
    "--from",
    "source",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Take the four files from here, gzipped or not, instead of downloading them.",
)
@click.option(
    "--url",
    "urls",
    metavar="URL",
    multiple=True,
    help="Address of a folder with the four files, tried before the usual mirrors. Repeatable.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Take any set in the format of MNIST from --from, such as Fashion-MNIST.",
)
def mnist(
    folder: Path, source: Path | None, urls: tuple[str, ...], no_verify: bool, force: bool
) -> None:
    """Convert MNIST, downloading it where --from is not given.

    Writes DIR/mnist_train_lmdb and DIR/mnist_test_lmdb, as Caffe's convert_mnist_data does.
    Downloaded files stay in DIR/mnist_idx.
    """
    if source is not None and urls:
        raise click.UsageError("give --from or --url, not both")
    if no_verify and source is None:
        raise click.UsageError("--no-verify needs --from: downloads are always verified")
    from netdef.data import mnist as original

    with _progress() as progress:
        databases = original.write(
            folder,
            source=source,
            mirrors=(*urls, *original.MIRRORS),
            verify=not no_verify,
            force=force,
            progress=progress,
        )
    _tell(databases)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar per database or download on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield report


def _tell(databases: tuple[Database, Database]) -> None:
    train, test = databases
    click.echo(
        f"wrote {train.records} images to {train.path} and {test.records} to {test.path}\n"
        "next: name them as the source of your net's Data layers (backend: LMDB), then run\n"
        "  netdef train --solver SOLVER.prototxt"
    )
