"""Writing files so that a crash, a kill or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

from netdef.errors import Location, OutputError

#: Longest file name most file systems take, in bytes.
LONGEST_NAME = 255


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that appears under ``path``, whole, when the block ends without an exception.

    The bytes go to a hidden file in the same folder, are flushed to the disk and renamed; until
    then an older file of that name stays as it is. A symbolic link is followed, so the link
    survives. A device or a pipe (``/dev/stdout``) cannot be replaced and is written directly.

    Raises:
        OutputError: the file cannot be written; nothing is left behind.
    """
    check_path(path)
    target = os.path.realpath(path)
    temporary = _hidden_sibling(target)
    try:
        if _is_special(target):
            with open(target, "wb") as file:
                yield file
            return
        try:
            with open(temporary, "x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(os.path.dirname(target))
    except OSError as error:
        # Writing raises an OSError without a name; one that names another file is not ours.
        if error.filename not in (None, target, temporary):
            raise
        raise output_error(path, error) from error


def probe_folder(path: str | os.PathLike[str], *, location: Location | None = None) -> None:
    """Check that ``atomic_write(path)`` will find a folder it can write to. Leaves no file.

    Raises:
        OutputError: the folder is missing or not writable; ``location`` is where ``path`` is.
    """
    check_path(path, location=location)
    temporary = _hidden_sibling(os.path.realpath(path))
    try:
        with open(temporary, "xb"):
            pass
        os.unlink(temporary)
    except OSError as error:
        raise output_error(path, error, location=location) from error


def probe_file(path: str | os.PathLike[str]) -> None:
    """Check that ``atomic_write(path)`` will find a folder, and none of this name. Leaves no file.

    Raises:
        OutputError: it will not.
    """
    probe_folder(path)
    try:
        _is_special(os.path.realpath(path))
    except OSError as error:
        raise output_error(path, error) from error


def check_path(path: str | os.PathLike[str], *, location: Location | None = None) -> None:
    """Raise OutputError for a path no file system can hold, which Python reports as ValueError."""
    if "\0" in os.fspath(path):
        raise OutputError(
            f"cannot write {os.fspath(path)!r}: a path must not hold a NUL character",
            location=location,
        )


def output_error(
    path: str | os.PathLike[str], error: OSError, *, location: Location | None = None
) -> OutputError:
    """What ``error``, met while writing ``path``, means for the user."""
    folder = os.path.dirname(os.path.abspath(path))
    hint = ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            code, reason = "E501", "no space left on the disk"
            hint = f'free some space in "{folder}" or write elsewhere'
        case errno.EFBIG:
            code, reason = "E501", "the file would be larger than allowed"
            hint = "see `ulimit -f`; some file systems hold no file above 4 GiB"
        case errno.EACCES | errno.EPERM:
            code, reason = "E502", "permission denied"
            hint = f'check who may write to "{folder}"'
        case errno.EROFS:
            code, reason = "E502", "the file system is read-only"
        case errno.ENOENT:
            code, reason = "E503", f'there is no folder "{folder}"'
            hint = f'create it below "{_nearest_folder(folder)}", the nearest folder that exists'
        case errno.ENOTDIR:
            code, reason = "E503", f'"{folder}" is not a folder'
            hint = f'the nearest folder that exists is "{_nearest_folder(folder)}"'
        case errno.EISDIR:
            code, reason = "E503", "it is a folder"
            hint = "name a file in it"
        case errno.ENAMETOOLONG:
            code, reason = "E503", "the name is too long for the file system"
        case _:
            code, reason = "E500", error.strerror or str(error)
    return OutputError(
        f"cannot write {os.fspath(path)}: {reason}", location=location, hint=hint, code=code
    )


def _is_special(path: str) -> bool:
    """Whether ``path`` is there and cannot be replaced by renaming: a device or a pipe."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return not stat.S_ISREG(mode)


def _hidden_sibling(path: str) -> str:
    """A new name in the folder of ``path`` that says which file it was meant to become."""
    folder, name = os.path.split(path)
    suffix = f".{secrets.token_hex(4)}.tmp"
    room = LONGEST_NAME - len(suffix) - 1
    kept = os.fsdecode(os.fsencode(name)[:room])
    return os.path.join(folder, f".{kept}{suffix}")


def _nearest_folder(path: str) -> str:
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _sync_folder(path: str) -> None:
    """Make the rename survive a power cut."""
    # The file is in place already, and not every file system lets a folder be opened or synced.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
