"""Files from the web: fetched from one of several mirrors, gone on with after an interruption."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from netdef.data.writer import Progress
from netdef.errors import DataError
from netdef.files import output_error

#: Seconds without a byte after which a mirror counts as down.
TIMEOUT = 20.0
TRIES_PER_MIRROR = 3
CHUNK = 1 << 18


class _MirrorError(Exception):
    """A mirror did not deliver."""


def check_mirrors(mirrors: Sequence[str]) -> None:
    """Raise ``DataError`` for what is no address of a folder on the web."""
    for mirror in mirrors:
        if urlsplit(mirror).scheme not in ("http", "https"):
            raise DataError(
                f'"{mirror}" is not the http or https address of a folder',
                code="E363",
                hint="files that are already here are taken with --from FOLDER",
            )


def series(names: Sequence[str]) -> str:
    """Names, as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def fetch(
    name: str,
    folder: Path,
    mirrors: Sequence[str],
    is_whole: Callable[[Path], bool],
    *,
    most_bytes: int,
    what: str,
    advice: str,
    progress: Progress,
) -> str:
    """Fetch the file ``name`` of ``what`` from the first of ``mirrors`` that has it.

    It is kept in ``folder`` if ``is_whole`` says so of it. Returns the mirror. Raises
    ``DataError``, with the hint ``advice``, where none delivers, ``OutputError`` where ``folder``
    cannot be written.
    """
    reasons = []
    for mirror in mirrors:
        try:
            _from_mirror(name, folder, mirror, is_whole, most_bytes, progress)
            return mirror
        except _MirrorError as error:
            reasons.append(f"{urlsplit(mirror).netloc}: {error}")
    raise DataError(
        f"cannot download {name} of {what} ({'; '.join(reasons) or 'no mirror given'})",
        code="E363",
        hint=advice,
    )


def _from_mirror(
    name: str,
    folder: Path,
    mirror: str,
    is_whole: Callable[[Path], bool],
    most_bytes: int,
    progress: Progress,
) -> None:
    part = folder / f"{name}.part"
    for _ in range(TRIES_PER_MIRROR):
        before = _size(part)
        try:
            _fetch(f"{mirror.rstrip('/')}/{name}", part, name, most_bytes, progress)
        except _MirrorError:
            # A connection that was lost on the way is worth another try, one never made is not.
            if _size(part) <= before:
                raise
            continue
        if is_whole(part):
            _keep(part, folder / name)
            return
        _remove(part)
        # What an earlier try left may be what was wrong; then all of it is fetched anew.
        if before == 0:
            raise _MirrorError("it delivers something else")
    raise _MirrorError(f"{TRIES_PER_MIRROR} tries failed")


def _fetch(url: str, part: Path, name: str, most_bytes: int, progress: Progress) -> None:
    """Append the rest of ``url`` to ``part``, or all of it where the server knows no ranges."""
    have = _size(part)
    headers = {"User-Agent": "netdef", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            span = response.headers.get("Content-Range", "")
            if response.status != 206 or not span.startswith(f"bytes {have}-"):
                have = 0
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isdigit() else 0
            with _open_part(part, "ab" if have else "wb") as out:
                done = have
                while chunk := response.read(CHUNK):
                    done += len(chunk)
                    if done > most_bytes:
                        raise _MirrorError("it delivers something else")
                    _append(out, chunk, part)
                    progress(name, done, total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return  # nothing is left to fetch, or the digest will tell
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _MirrorError(getattr(error.reason, "strerror", None) or str(error.reason)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _MirrorError(str(error) or type(error).__name__) from error
    if done < total:
        raise _MirrorError(f"connection lost after {done} of {total} bytes")


# Files of ours: a failure here is the disk's, not the mirror's.


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _open_part(part: Path, mode: str) -> IO[bytes]:
    try:
        return part.open(mode, buffering=0)
    except OSError as error:
        raise output_error(part, error) from error


def _append(out: IO[bytes], chunk: bytes, part: Path) -> None:
    try:
        while chunk:
            chunk = chunk[out.write(chunk) :]
    except OSError as error:
        raise output_error(part, error) from error


def _keep(part: Path, path: Path) -> None:
    try:
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error


def _remove(part: Path) -> None:
    try:
        part.unlink()
    except OSError as error:
        raise output_error(part, error) from error
