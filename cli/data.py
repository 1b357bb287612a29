"""``netdef data``: make databases that data layers read, and look at what they hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .running import Command, caffe_option, say, split_list

if TYPE_CHECKING:
    from netdef.data.convert import Report
    from netdef.data.source import Source
    from netdef.data.writer import Database, Progress
    from netdef.errors import Diagnostic

# The library is imported inside the commands: ``netdef --help`` must not wait for it.

F = TypeVar("F", bound=Callable[..., Any])

#: As many as netdef.data.digits makes; a test compares the two.
MOST_DIGITS = 1_000_000
LARGEST_SEED = 2**64 - 1
#: As netdef.data.writer has them; a test compares the two.
BACKENDS = ("lmdb", "leveldb")
#: What ``--encode_type`` takes, beside nothing.
ENCODINGS = ("png", "jpg", "jpeg", "bmp")
#: No image is larger.
LARGEST_SIDE = 1 << 15

#: The tools of Caffe, by their names, and what does the same here.
TOOLS = {
    "compute_image_mean": "mean",
    "convert_imageset": "images",
    "extract_features": "features",
}


class Tools(click.Group):
    """The subcommands; also under the names of Caffe's tools, which ``--help`` does not list."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, TOOLS.get(name, name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(name, [*known, *TOOLS], n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(known)}"
            raise click.UsageError(f'there is no command "{name}"; {hint}', ctx)
        return super().resolve_command(ctx, args)


class Flags(Command):
    """A command whose flags may be given as gflags takes them: ``--gray=true``, ``--nogray``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name.lstrip("-"): option.opts[0]
            for option in self.params
            if isinstance(option, click.Option) and option.is_flag
            for name in option.opts
        }
        parsed: list[str] = []
        rest = False
        for arg in args:
            rest |= arg == "--"
            match = re.fullmatch(r"--?(no)?([a-z_-]+?)(?:=(\w+))?", arg)
            option = flags.get(match[2]) if match and not rest else None
            if match is None or option is None or (match[1] is None and match[3] is None):
                parsed.append(arg)
                continue
            value = (match[3] or "true").lower()
            if value not in ("true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"):
                raise click.BadParameter(
                    f'"{value}" is neither true nor false', ctx, param_hint=arg
                )
            if value[0] in "ty1" and match[1] is None:
                parsed.append(option)
        return super().parse_args(ctx, parsed)


@click.group(cls=Tools)
def data() -> None:
    """Make databases to train from, and look at what they hold.

    Caffe's own names work too: convert_imageset, compute_image_mean, extract_features,
    convert_mnist_data, convert_cifar_data.
    """


def _backend(function: F) -> F:
    return caffe_option(
        "backend",
        type=click.Choice(BACKENDS, case_sensitive=False),
        default="lmdb",
        show_default=True,
        help="Kind of database.",
    )(function)


def _threads(function: F) -> F:
    return caffe_option(
        "threads",
        type=click.IntRange(1, 1024),
        envvar="NETDEF_DATA_THREADS",
        show_envvar=True,
        help="Threads that decode images: all cores.",
    )(function)


def _force(function: F) -> F:
    return click.option("--force", is_flag=True, help="Replace a database that exists already.")(
        function
    )


def _makes_databases(function: F) -> F:
    """What every subcommand takes that makes a known set: the folder to write in, and how."""
    function = _backend(_force(function))
    return click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))(function)


_FILE = click.Path(path_type=Path)


@data.command(cls=Flags, no_args_is_help=True)
@click.argument("root", metavar="ROOT/")
@click.argument("listing", metavar="LIST")
@click.argument("database", metavar="DB", required=False, type=_FILE)
@caffe_option("gray", is_flag=True, help="Make images gray.")
@caffe_option("shuffle", is_flag=True, help="Put them in a random order.")
@caffe_option(
    "seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    help="Another seed, another order.",
)
@_backend
@caffe_option(
    "resize_height", type=click.IntRange(0, LARGEST_SIDE), default=0, help="Height to resize to."
)
@caffe_option(
    "resize_width", type=click.IntRange(0, LARGEST_SIDE), default=0, help="Width to resize to."
)
@caffe_option("check_size", is_flag=True, help="End if not all images are of the same size.")
@caffe_option("encoded", is_flag=True, help="Keep them as image files, not as pixels.")
@caffe_option(
    "encode_type", default="", metavar="png|jpg", help="Of which type; implies --encoded."
)
@caffe_option("skip_unreadable", is_flag=True, help="Leave out images that cannot be read.")
@caffe_option("dry_run", is_flag=True, help="Read all of it, report, and write nothing.")
@click.option("--all-labels", is_flag=True, help="List every label in the report.")
@_threads
@_force
def images(
    root: str, listing: str, database: Path | None, backend: str, force: bool, **options: Any
) -> None:
    """Make a database of the images that LIST names.

    A line of LIST is a path, a space, and an integer label; ROOT/ is put before the path as it is,
    so a folder ends with a slash.

    \b
    netdef data images photos/ train.txt train_lmdb --resize_height 256 --resize_width 256 --shuffle
    netdef data images photos/ train.txt --dry-run
    """
    threads, dry_run = options.pop("threads"), options.pop("dry_run")
    everything = options.pop("all_labels")
    if database is None and not dry_run:
        raise click.UsageError("where to? give DB, or --dry-run")
    if bool(options["resize_height"]) != bool(options["resize_width"]):
        raise click.UsageError("give both --resize_height and --resize_width, or neither")
    if options["encode_type"].lower() not in ("", *ENCODINGS):
        raise click.UsageError(
            f'--encode_type "{options["encode_type"]}" is none of {", ".join(ENCODINGS)}'
        )
    options["encoded"] |= bool(options["encode_type"])
    from netdef.data import convert
    from netdef.data.writer import open_writer

    # Made now, so that a database in the way is found before anything is read.
    writer = open_writer(database, backend, force=force) if database and not dry_run else None
    with _progress() as progress:
        found = convert.ImageSet(root, listing, convert.Options(**options), progress)
        if writer is None:
            report = convert.try_out(found, threads=threads, progress=progress)
        else:
            written, report = convert.convert(found, writer, threads=threads, progress=progress)
    if writer is None:
        _tell_report(report, len(found), everything)
        return
    _warn_of(report)
    from .data_text import count, sizes

    labels = sorted(report.labels)
    say(
        f"wrote {count(written.records, 'image')} to {written.path} ({_NAMES[backend]}): "
        f"{sizes(report.sizes)}; {count(len(labels), 'label')}, {labels[0]} to {labels[-1]}"
    )
    if report.skipped:
        say(f"left out {count(len(report.skipped), 'image')}")
    say(f"look at it:  netdef data show {written.path} -o sheet.png")


_NAMES = {"lmdb": "LMDB", "leveldb": "LevelDB"}


def _tell_report(report: Report, total: int, everything: bool) -> None:
    from .data_text import report as lines

    for line in lines(report, total, everything):
        say(line)
    _warn_of(report)
    if report.skipped:
        click.get_current_context().exit(1)


def _warn_of(report: Report) -> None:
    from dataclasses import replace

    from netdef.data.convert import abridged

    for found in (report.skipped, report.cut):
        if found:
            _warn(abridged([replace(one, severity="warning") for one in found]))
    for doubt in report.doubts:
        click.echo(f"warning: {doubt}", err=True)


def _warn(diagnostics: list[Diagnostic]) -> None:
    for diagnostic in diagnostics:
        click.echo(f"{diagnostic}\n", err=True)


@data.command(cls=Flags, no_args_is_help=True)
@click.argument("database", metavar="DB")
@click.argument("out", metavar="[OUT.binaryproto]", required=False, type=_FILE)
@caffe_option("backend", default="", hidden=True, help="Accepted: the folder says what it is.")
@_threads
def mean(database: str, out: Path | None, backend: str, threads: int | None) -> None:
    """Compute the mean of all images of a database.

    Prints the mean of each channel, for mean_value in transform_param, and writes the mean image,
    for mean_file, to OUT.binaryproto.
    """
    from netdef.data.mean import mean_image, write_mean
    from netdef.files import probe_file

    if out is not None:
        probe_file(out)
    source = _open(database)
    with _progress() as progress:
        image = mean_image(source, threads=threads, progress=progress)
    for channel in image.astype("float64").mean(axis=(1, 2)):
        say(f"mean_value: {channel:.6g}")
    if out is not None:
        write_mean(image, out)
        shape = " x ".join(map(str, image.shape))
        say(f"wrote the mean of {source.size} images, {shape}, to {out}")


@data.command(no_args_is_help=True)
@click.argument("database", metavar="DB")
@click.option("--all-labels", is_flag=True, help="List every label.")
@_threads
def info(database: str, all_labels: bool, threads: int | None) -> None:
    """Tell what a database holds: records, sizes, labels."""
    from netdef.data.inspect import look_through

    from .data_text import count, first_of, summary

    with _progress() as progress:
        found = look_through(_open(database), threads=threads, progress=progress)
    for line in summary(found, database, all_labels):
        say(line)
    if found.faults or found.doubts:
        damaged = [f"damaged  {fault.text}" for fault in found.faults]
        for line in first_of([*damaged, *(f"doubtful {doubt}" for doubt in found.doubts)]):
            say(line)
        say(f"{count(len(found.faults), 'record')} damaged: netdef data verify {database}")


@data.command(no_args_is_help=True)
@click.argument("database", metavar="DB")
@_threads
def verify(database: str, threads: int | None) -> None:
    """Read and decode every record of a database; fail if one is damaged.

    Each that is damaged is named by its key. So are images that are cut short, which decode with
    gray where the rest should be.
    """
    from netdef.data.inspect import look_through

    from .data_text import count, first_of

    with _progress() as progress:
        found = look_through(_open(database), threads=threads, progress=progress)
    wrong = [*(fault.text for fault in found.faults), *found.doubts]
    for line in first_of(wrong):
        click.echo(f"error[E300]: {line}", err=True)
    if len(found.sizes) > 1:
        click.echo(
            f"warning: the images are of {len(found.sizes)} sizes: a net needs a crop_size",
            err=True,
        )
    if any(label < 0 for label in found.labels):
        click.echo("warning: there are labels below 0", err=True)
    if wrong:
        say(f"{database}: {count(len(wrong), 'record')} of {found.records} damaged")
        click.get_current_context().exit(1)
    say(f"{database}: all {count(found.records, 'record')} are sound")


@data.command(no_args_is_help=True)
@click.argument("database", metavar="DB")
@click.option("-o", "--out", required=True, metavar="SHEET.png", type=_FILE, help="Where to.")
@click.option(
    "-n", "--count", type=click.IntRange(1, 2_000), default=64, show_default=True, help="Images."
)
@click.option("--first", type=click.IntRange(0), default=0, help="Begin with this record.")
@click.option("--label", type=int, help="Only images of this label.")
@click.option("--columns", type=click.IntRange(1, 1000), help="Images side by side.")
def show(
    database: str, out: Path, count: int, first: int, label: int | None, columns: int | None
) -> None:
    """Draw the images of a database on a sheet, each above its label."""
    from netdef.data.inspect import draw_sheet, pictures
    from netdef.errors import DataError
    from netdef.files import atomic_write, probe_file

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise click.UsageError(f"-o {out}: a sheet is a .png or a .jpg")
    probe_file(out)
    source = _open(database)
    if first >= source.size:
        raise DataError(f'"{database}" has {source.size} records, so there is no record {first}')
    shown = list(pictures(source, count, first, label))
    if not shown:
        raise DataError(
            f'no record of "{database}" has label {label}', hint=f"netdef data info {database}"
        )
    columns = columns or max(1, round(len(shown) ** 0.5))
    with atomic_write(out) as file:
        file.write(draw_sheet(shown, min(columns, len(shown)), out.suffix))
    say(f"drew {len(shown)} of {source.size} images: {out}")


@data.command(cls=Flags, no_args_is_help=True)
@click.argument("weights", metavar="WEIGHTS")
@click.argument("model", metavar="NET")
@click.argument("blobs", metavar="BLOB,...")
@click.argument("databases", metavar="DB,...")
@click.argument("batches", metavar="[BATCHES]", required=False, type=click.IntRange(1))
@click.argument("backend", metavar="[lmdb|leveldb]", default="lmdb", required=False)
@click.argument("device", metavar="[CPU|GPU]", required=False, type=click.Choice(("CPU", "GPU")))
@click.argument("device_id", metavar="[DEVICE]", required=False)
@_force
def features(
    weights: str,
    model: str,
    blobs: str,
    databases: str,
    batches: int | None,
    backend: str,
    device: str | None,
    device_id: str | None,
    force: bool,
) -> None:
    """Run a net over its records and write blobs of it as databases.

    Each BLOB goes to the DB at the same place of the other list: records of floats. NET has a data
    layer in phase TEST; BATCHES of it are run, or without BATCHES every record once. That it all
    runs on the CPU is no matter of the arguments behind; scripts give them.

    \b
    netdef data features lenet.caffemodel lenet.prototxt ip1,prob ip1_lmdb,prob_lmdb
    """
    names, paths = split_list(blobs), split_list(databases)
    if len(names) != len(paths) or not names:
        raise click.UsageError(
            f"to each blob its database: {len(names)} blobs are given, and {len(paths)} databases"
        )
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise click.UsageError("one database cannot take two blobs")
    if backend.lower() not in BACKENDS:
        raise click.UsageError(f'there is no database "{backend}"; there are {", ".join(BACKENDS)}')
    if device == "GPU":
        click.echo("warning: GPU is ignored: netdef computes on the CPU", err=True)
    from netdef import features
    from netdef.data.writer import open_writer
    from netdef.events import Warned

    writers = [open_writer(path, backend.lower(), force=force) for path in paths]

    def tell(event: object) -> None:
        if isinstance(event, Warned):
            click.echo(f"warning: {event.text}", err=True)

    with _progress() as progress:
        written = features.extract(
            model,
            split_list(weights),
            names,
            writers,
            batches,
            progress=progress,
            emit=tell,
        )
    for name, database in zip(names, written, strict=True):
        say(f"wrote {database.records} records of {name} to {database.path}")


@data.command("convert_mnist_data", cls=Flags, no_args_is_help=True, hidden=True)
@click.argument("images", metavar="IMAGES", type=_FILE)
@click.argument("labels", metavar="LABELS", type=_FILE)
@click.argument("database", metavar="DB", type=_FILE)
@_backend
@_force
def convert_mnist_data(
    images: Path, labels: Path, database: Path, backend: str, force: bool
) -> None:
    """Make one database of two idx files; netdef data mnist makes both, and downloads them."""
    from netdef.data import mnist as original
    from netdef.data.writer import open_writer

    writer = open_writer(database, backend, force=force)
    with _progress() as progress:
        written = original.write_pair(images, labels, writer, progress)
    say(f"wrote {written.records} images to {written.path} ({_NAMES[backend]})")


@data.command("convert_cifar_data", cls=Flags, no_args_is_help=True, hidden=True)
@click.argument("source", metavar="IN_DIR", type=_FILE)
@click.argument("folder", metavar="OUT_DIR", type=_FILE)
@click.argument("backend", metavar="lmdb|leveldb", type=click.Choice(BACKENDS), default="lmdb")
@_force
def convert_cifar_data(source: Path, folder: Path, backend: str, force: bool) -> None:
    """Make the two databases of CIFAR-10; netdef data cifar10 does, and downloads it."""
    _make_cifar10(folder, source, backend, force)


@data.command()
@_makes_databases
@click.option(
    "--from",
    "source",
    metavar="FOLDER",
    type=_FILE,
    help="Take the six .bin files, or the .tar.gz they come in, from here; else download it.",
)
def cifar10(folder: Path, source: Path | None, backend: str, force: bool) -> None:
    """Convert CIFAR-10, downloading it where --from is not given.

    Writes DIR/cifar10_train_lmdb and DIR/cifar10_test_lmdb, as Caffe's convert_cifar_data does.
    What is downloaded stays in DIR/cifar10_binary.
    """
    _make_cifar10(folder, source, backend, force)


def _make_cifar10(folder: Path, source: Path | None, backend: str, force: bool) -> None:
    from netdef.data import cifar10 as original

    with _progress() as progress:
        databases = original.write(
            folder, source=source, backend=backend, force=force, progress=progress
        )
    _tell(databases)


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
def digits(folder: Path, train: int, test: int, seed: int, backend: str, force: bool) -> None:
    """Draw digits as people write them: no download, the same on every machine.

    Writes DIR/digits_train_lmdb and DIR/digits_test_lmdb: 28x28 grey images in ten classes, in
    the format of MNIST.
    """
    from netdef.data import digits as made

    with _progress() as progress:
        databases = made.write(
            folder,
            train=train,
            test=test,
            seed=seed,
            backend=backend,
            force=force,
            progress=progress,
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
    folder: Path,
    source: Path | None,
    urls: tuple[str, ...],
    no_verify: bool,
    backend: str,
    force: bool,
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
            backend=backend,
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
    from netdef.data.source import kind_of

    say(
        f"wrote {train.records} images to {train.path} and {test.records} to {test.path}\n"
        f"next: name them as the source of your net's Data layers (backend: "
        f"{kind_of(train.path).upper()}), then run\n"
        "  netdef train --solver SOLVER.prototxt"
    )


def _open(database: str) -> Source:
    from netdef.data.source import open_source
    from netdef.proto import netdef_pb2 as pb

    return open_source(pb.DataParameter(source=database))
