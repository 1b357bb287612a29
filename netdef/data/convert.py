"""From a list of images to a database of Datums, as Caffe's convert_imageset makes it.

Images are read, decoded, resized and encoded on several threads, and written in the order of the
list, or in a random one that a seed decides. The key of a record is its number in that order, eight
digits, and the path: ``00000000_cat.jpg``.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netdef.data.header import channels_of, is_cut_short
from netdef.data.image_list import shuffle_order
from netdef.data.images import decode, image_name, opencv, read_image, resize, size_of
from netdef.data.listing import FAULTY_LINE, Listing
from netdef.data.source import RecordError
from netdef.data.workers import default_threads
from netdef.data.writer import (
    LONGEST_LMDB_KEY,
    Database,
    DatabaseWriter,
    LMDBWriter,
    Progress,
    ignore,
)
from netdef.errors import DataError, Diagnostic, Location
from netdef.proto import netdef_pb2 as pb

#: Of mistakes of one kind, so many are shown.
MOST_SHOWN = 20
#: Images that each thread may be ahead of what is written.
AHEAD = 32
#: How often whoever waits is told.
REPORT_EVERY = 50

#: Codes of diagnostics.
BAD_LINE, NO_IMAGE, OTHER_SIZE = "E310", "E311", "E312"

#: channels, height, width
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Options:
    """What becomes of images; the names are those of the flags of convert_imageset.

    ``resize_height`` and ``resize_width`` are both 0, for images as they are, or neither. With
    ``encoded``, records are image files: those there are, where nothing is to be changed, else
    new ones of the type ``encode_type``; if that is empty, of the type the path ends with.
    ``skip_unreadable`` leaves out images that cannot be read, as Caffe does; else it is an error.
    """

    gray: bool = False
    shuffle: bool = False
    seed: int = 0
    resize_height: int = 0
    resize_width: int = 0
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""
    skip_unreadable: bool = False


@dataclass
class Report:
    """What was found, and what should be told of it.

    ``labels``   of the images that can be used: how many have each label
    ``sizes``    how many have each size
    ``skipped``  what cannot be used, and why
    ``cut``      files that end too early, and are used all the same
    ``doubts``   what is allowed, and probably not meant
    """

    images: int = 0
    labels: dict[int, int] = field(default_factory=dict)
    sizes: dict[Size, int] = field(default_factory=dict)
    skipped: list[Diagnostic] = field(default_factory=list)
    cut: list[Diagnostic] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


class ImageSet:
    """The images of a list, and how to make records of them.

    ``root`` is put before each path as it is. Raises ``DataError`` where the list cannot be read,
    where any line of it makes no sense, or where images are missing and may not be skipped: all of
    them at once, each with its line.
    """

    def __init__(self, root: str, path: str, options: Options, progress: Progress = ignore) -> None:
        self.options = options
        self._root = root
        try:
            self._listing = Listing(path)
        except RecordError as error:
            raise DataError(error.text, hint=error.hint, code=BAD_LINE) from None
        _raise([self._bad_line(fault) for fault in range(len(self._listing.faults))])
        if not len(self._listing):
            raise DataError(f'the list "{path}" names no images', code=BAD_LINE)
        self._order = np.arange(len(self._listing))
        if options.shuffle:
            shuffle_order(np.uint64(options.seed), np.uint64(0), self._order)
        #: The line of each entry.
        self._lines = self._listing.lines()
        self.missing = self._find_missing(progress)
        if len(self.missing) == len(self):
            raise self._none_is_there()
        if self.missing and not options.skip_unreadable:
            _raise(list(self.missing.values()), "; --skip-unreadable leaves them out")

    def __len__(self) -> int:
        return len(self._listing)

    def check_keys(self) -> None:
        """Raise ``DataError`` for paths that are too long for the keys of an LMDB."""
        room = LONGEST_LMDB_KEY - len(self.key(0)) + len(self._listing.path_of(int(self._order[0])))
        long = np.flatnonzero(self._listing.path_sizes > room)
        _raise(
            [
                self._of(
                    entry,
                    f"the path has more than {room} bytes, which is what a key of LMDB can hold",
                    "write a LevelDB, or rename files",
                )
                for entry in long.tolist()
            ]
        )

    def key(self, number: int) -> bytes:
        """The key of record ``number`` of the database."""
        return b"%08d_" % number + self._listing.path_of(int(self._order[number]))

    def records(
        self, threads: int, report: Report, progress: Progress, what: str
    ) -> Iterator[tuple[int, bytes]]:
        """Numbers and values of all records that can be made, in order; ``report`` is filled."""
        mixed = 0
        first: tuple[int, Size] | None = None
        for number, made in enumerate(_ahead(self._make, len(self), threads)):
            entry = int(self._order[number])
            if isinstance(made, Diagnostic):
                report.skipped.append(made)
            else:
                if first is None:
                    first = entry, made.size
                if self.options.check_size and made.size != first[1]:
                    raise DataError(
                        diagnostics=[
                            self._of(
                                entry,
                                f"is {_text(made.size)}, but that of line {self._lines[first[0]]} "
                                f"is {_text(first[1])}",
                                "resize_height and resize_width make all images the same size",
                                OTHER_SIZE,
                            )
                        ]
                    )
                report.images += 1
                label = int(self._listing.labels[entry])
                report.labels[label] = report.labels.get(label, 0) + 1
                report.sizes[made.size] = report.sizes.get(made.size, 0) + 1
                mixed += made.other_channels
                if made.cut:
                    text = "is cut short: what is missing of the image is gray"
                    report.cut.append(self._of(entry, text, "was it copied whole?", NO_IMAGE))
                yield number, made.value
            if (number + 1) % REPORT_EVERY == 0 or number + 1 == len(self):
                progress(what, number + 1, len(self))
        report.doubts += self._doubts(report, mixed)

    def _make(self, number: int) -> _Made | Diagnostic:
        entry = int(self._order[number])
        if entry in self.missing:
            return self.missing[entry]
        listed = self._listing.path_of(entry)
        options = self.options
        try:
            file = read_image(self._root, listed)
            image = decode(file, not options.gray)
            if options.resize_height:
                image = resize(image, options.resize_height, options.resize_width)
            datum = pb.Datum(label=int(self._listing.labels[entry]))
            other = False
            if options.encoded:
                copied = not options.resize_height and self._is_of_type(listed)
                datum.data = file.tobytes() if copied else _encode(image, self._type_of(listed))
                datum.encoded = True
                if copied:
                    own = channels_of(file)
                    other = own is not None and own != (1 if options.gray else 3)
            else:
                _fill(datum, image)
        except RecordError as error:
            return self._of(entry, error.text, error.hint)
        return _Made(datum.SerializeToString(), size_of(image), other, is_cut_short(file))

    def _is_of_type(self, listed: bytes) -> bool:
        """Whether a file is of the type that is wanted, by its name."""
        ending = _ending(listed)
        wanted = self._type_of(listed)
        return ending == wanted or (ending == "jpeg" and wanted == "jpg")

    def _type_of(self, listed: bytes) -> str:
        return self.options.encode_type.lower() or _ending(listed)

    def _doubts(self, report: Report, mixed: int) -> list[str]:
        doubts = []
        options = self.options
        if len(report.sizes) > 1 and not options.check_size:
            doubts.append(
                f"the images are of {len(report.sizes)} sizes, but a batch takes one: "
                "give --resize_height and --resize_width, or a crop_size in the net"
            )
        if mixed:
            kind, other = ("gray", "in colour") if options.gray else ("colour", "gray")
            doubts.append(
                f"{mixed} image files are {other} and stay so, as they are copied: "
                f"give force_{'gray' if options.gray else 'color'} in the net's transform_param, "
                f"or an --encode_type that is not theirs to have them {kind}"
            )
        labels = sorted(report.labels)
        if labels and labels[0] == 1:
            doubts.append("labels start at 1: a classifier with num_output N takes 0 to N - 1")
        if labels and labels[0] < 0:
            doubts.append(f"there are labels below 0, such as {labels[0]}: give ignore_label")
        ordered = self._listing.labels[self._order]
        if len(labels) > 1 and len(ordered) > 2 * len(labels) and (np.diff(ordered) >= 0).all():
            doubts.append("images come sorted by label, so a batch has few of them: give --shuffle")
        return doubts

    def _find_missing(self, progress: Progress) -> dict[int, Diagnostic]:
        """The files that are not there: known at once, not after hours of decoding."""
        missing = {}
        root = os.fsencode(self._root)
        for entry in range(len(self._listing)):
            listed = self._listing.path_of(entry)
            try:
                found = os.path.exists(root + listed)
            except ValueError:
                found = False
            if not found:
                try:
                    read_image(self._root, listed)
                except RecordError as error:
                    hint = error.hint.replace("root_folder", "ROOT")
                    missing[entry] = self._of(entry, error.text, hint)
        return missing

    def _none_is_there(self) -> DataError:
        """All are missing, so it is no matter of single files."""
        first = self.missing[min(self.missing)]
        hint = f'ROOT is put before each path as it is; here it is "{self._root}"'
        if self._root and not self._root.endswith("/") and os.path.isdir(self._root):
            hint = f'"{self._root}" is put before each path as it is: end it with a slash'
        return DataError(
            f"none of the {len(self)} images is there; the first would be "
            f"{image_name(self._root, self._listing.path_of(min(self.missing)))}",
            location=first.location,
            hint=hint,
            code=NO_IMAGE,
        )

    def _of(self, entry: int, text: str, hint: str, code: str = NO_IMAGE) -> Diagnostic:
        """What is wrong with an image: ``text`` is a predicate."""
        name = image_name(self._root, self._listing.path_of(entry))
        size = int(self._listing.path_sizes[entry])
        where = Location(
            self._listing.path, int(self._lines[entry]), 1, size, self._listing.text_of(entry)
        )
        return Diagnostic(code, f"{name} {text}", where, hint)

    def _bad_line(self, fault: int) -> Diagnostic:
        complaint, hint = self._listing.complaint(fault)
        line = int(self._listing.faults[fault, FAULTY_LINE])
        shown = self._listing.shown(fault)
        # What should be the label is at the end.
        column = shown.rfind(" ") + 2
        where = Location(self._listing.path, line, column, len(shown) - column + 1, shown)
        return Diagnostic(BAD_LINE, f"the line {complaint}", where, hint)


class _Made(NamedTuple):
    """A record. The file it is of has ``other_channels`` than wanted, or is ``cut`` short."""

    value: bytes
    size: Size
    other_channels: bool
    cut: bool


def convert(
    images: ImageSet,
    writer: DatabaseWriter,
    *,
    threads: int | None = None,
    progress: Progress = ignore,
) -> tuple[Database, Report]:
    """Write a database of ``images``.

    Raises ``DataError`` where there are images that cannot be read, unless these may be skipped;
    where none is left; or where sizes differ and must not. Then there is no database.
    """
    if isinstance(writer, LMDBWriter):
        images.check_keys()
    report = Report()
    with writer:
        for number, value in images.records(
            threads or default_threads(), report, progress, writer.path.name
        ):
            # Nothing is kept if one is unreadable, but the others are looked at, to name them all.
            if not report.skipped or images.options.skip_unreadable:
                writer.put(images.key(number), value)
        _check(images, report)
    return Database(writer.path, report.images), report


def try_out(images: ImageSet, *, threads: int | None = None, progress: Progress = ignore) -> Report:
    """What ``convert`` would find; nothing is written."""
    report = Report()
    for _ in images.records(threads or default_threads(), report, progress, "looking"):
        pass
    return report


def _check(images: ImageSet, report: Report) -> None:
    if report.skipped and (not images.options.skip_unreadable or not report.images):
        _raise(report.skipped, "; --skip-unreadable leaves them out")


def _raise(diagnostics: list[Diagnostic], advice: str = "") -> None:
    """Raise ``DataError`` for these, if there are any; those beyond MOST_SHOWN are counted."""
    if diagnostics:
        raise DataError(diagnostics=abridged(diagnostics, advice))


def abridged(diagnostics: list[Diagnostic], advice: str = "") -> list[Diagnostic]:
    """The first of these, and how many there are in all."""
    shown = diagnostics[:MOST_SHOWN]
    code, severity = shown[-1].code, shown[-1].severity
    if len(diagnostics) > MOST_SHOWN or advice:
        more = f"{len(diagnostics) - MOST_SHOWN} more" if len(diagnostics) > MOST_SHOWN else ""
        what = "lines" if code == BAD_LINE else "images"
        count = f"{len(diagnostics)} {what if len(diagnostics) > 1 else what[:-1]}"
        text = f"{count} cannot be used{f', {more} than shown' if more else ''}{advice}"
        shown = [*shown, Diagnostic(code, text, severity=severity)]
    return shown


def _ahead(make: Callable[[int], Any], count: int, threads: int) -> Iterator[Any]:
    """``make(0)`` to ``make(count - 1)``, in order, made by threads that are a little ahead."""
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(threads, "convert") as pool:
        try:
            for number in range(count):
                waiting.append(pool.submit(make, number))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # After Ctrl-C nobody should wait for what nobody wants.
            pool.shutdown(wait=False, cancel_futures=True)


def _fill(datum: pb.Datum, image: NDArray[np.uint8]) -> None:
    """Put a decoded image into a record: channel after channel, as Caffe has it."""
    channels, height, width = size_of(image)
    planes = np.empty((channels, height, width), np.uint8)
    for channel in range(channels):
        # By OpenCV, which lets other threads work meanwhile.
        opencv().extractChannel(image, channel, planes[channel])
    datum.channels, datum.height, datum.width = channels, height, width
    datum.data = planes.tobytes()
    datum.encoded = False


def _encode(image: NDArray[np.uint8], kind: str) -> bytes:
    cv2 = opencv()
    done = False
    with contextlib.suppress(cv2.error):
        done, encoded = cv2.imencode(f".{kind}", image)
    if not done:
        raise RecordError(
            f'cannot be written as an image of type "{kind}"', hint="give --encode_type png or jpg"
        )
    content: bytes = encoded.tobytes()
    return content


def _ending(listed: bytes) -> str:
    """What follows the last dot of a path, in small letters; all of it where there is none."""
    return os.fsdecode(listed.rpartition(b".")[2]).lower()


def _text(size: Size) -> str:
    return " x ".join(map(str, size))
