"""The one way a kernel is compiled, cached and threaded.

``kernel``     a function called from Python that computes on arrays; ``prange`` runs on all threads
``serial``     the same for prefetch threads: never starts threads of its own
``inline``     a helper called by kernels

All are compiled without Python objects and release the GIL. Machine code is cached on disk, in a
folder for each module whose name is a hash of its source and of what it imports, so an edit never
meets a stale kernel. Kernels must
stand at module level: one made by a closure is never found in the cache again.

Floating point: multiply-add contraction is allowed, reassociation is not. A reduction therefore has
one fixed order, and results do not depend on how a loop was vectorised or shared among threads.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba import prange
from numba.core import config, event

__all__ = [
    "alone",
    "inline",
    "kernel",
    "num_threads",
    "on_compile",
    "prange",
    "serial",
    "set_num_threads",
    "workspace",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Cache folders that nobody used for this long are removed.
STALE_CACHE_SECONDS = 30 * 24 * 3600


#: How a cache folder is called: by a hash.
_CACHE_NAME = re.compile(r"[0-9a-f]{16}")

#: Code of ours that a module's kernels may be made of.
_IMPORT = re.compile(r"^from (netdef[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


def _cache_dir() -> str:
    """Where the cache folders of all modules lie; made if need be."""
    roots = [os.environ.get("NETDEF_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"), "~/.cache"]
    for root in roots:
        if not root:
            continue
        folder = Path(root).expanduser() / "netdef-kernels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                _remove_stale(folder)
                return str(folder)
        except OSError:
            continue
    return _temporary_cache_dir()


def _temporary_cache_dir() -> str:
    """A folder for those who have no writable home.

    Everyone may make folders there, and a cache is code that will be run: so it must be ours and
    closed to others, or else it is a new one, for this process alone.
    """
    folder = Path(tempfile.gettempdir()) / f"netdef-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if mine and not found.st_mode & 0o022:
            return str(folder)
    own = tempfile.mkdtemp(prefix="netdef-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _remove_stale(parent: Path) -> None:
    oldest = time.time() - STALE_CACHE_SECONDS
    # Another process may be doing the same.
    with suppress(OSError):
        for folder in parent.iterdir():
            # Only what this module made: the folder above may be anybody's.
            if _CACHE_NAME.fullmatch(folder.name) and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


@cache
def cache_folder(source: str) -> str:
    """The cache folder for the kernels of one source file, on this kind of machine.

    Its name is a hash of that file and of all of netdef that it imports, directly or not. Numba
    itself looks at the file alone, and would run old code where a helper in another one changed.
    """
    digest = hashlib.sha256(f"{numba.__version__} {sys.version} {platform.machine()}".encode())
    for path in sorted(_behind(Path(source))):
        digest.update(_read(path).digest)
    folder = Path(CACHE_DIR) / digest.hexdigest()[:16]
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
    return str(folder)


def _behind(source: Path) -> set[Path]:
    """A source file, this one, and those of netdef that they import."""
    found: set[Path] = set()
    waiting = [source, Path(__file__)]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        waiting += _read(path).imported
    return found


class _Source(NamedTuple):
    digest: bytes
    imported: list[Path]


@cache
def _read(source: Path) -> _Source:
    """Each file is read once, however many modules stand on it."""
    content = source.read_bytes()
    package = Path(__file__).parent
    paths = []
    for module, names in _IMPORT.findall(content.decode("utf-8")):
        base = package.joinpath(*module.split(".")[1:])
        # ``from netdef.kernels import convolution`` names a module, ``from netdef.jit import
        # kernel`` what stands in one.
        paths += [base.with_suffix(".py"), base / "__init__.py"]
        paths += [base / f"{name}.py" for name in re.findall(r"\w+", names)]
    return _Source(hashlib.sha256(content).digest(), paths)


CACHE_DIR = _cache_dir()

_COMMON: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}
#: Only explicit ``prange`` loops are threaded; whole-array expressions stay serial, compile fast.
_PRANGE_ONLY = {
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
    "prange": True,
}


def _compile(function: F, **options: Any) -> F:
    # Numba reads its cache folder when a function is decorated; other users of Numba in this
    # process keep theirs.
    other = config.CACHE_DIR
    config.CACHE_DIR = cache_folder(function.__code__.co_filename)
    try:
        compiled: F = numba.njit(**_COMMON, **options)(function)
    finally:
        config.CACHE_DIR = other
    return compiled


def kernel(function: F) -> F:
    """Compile a module-level function whose ``prange`` loops run on all threads."""
    return _compile(function, parallel=_PRANGE_ONLY)


def serial(function: F) -> F:
    """Compile a module-level function that runs on the calling thread alone."""
    return _compile(function)


def inline(function: F) -> F:
    """Compile a helper that kernels of the same or another module call."""
    return _compile(function, forceinline=True)


def _choose_threading_layer() -> None:
    # A launch costs about 1 us on OpenMP or TBB, and about 95 us on Numba's own work queue.
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
    # GNU OpenMP lets a thread that waits spin for about a millisecond. Where another process wants
    # the core, every launch then waits for a time slice: two trainings side by side would take
    # seven times as long. It is read when the library loads, at the first launch.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    wanted = os.environ.get("NETDEF_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        set_num_threads(int(wanted))


def set_num_threads(count: int) -> None:
    """Run kernels on ``count`` threads from now on; more than the machine has is taken as all."""
    numba.set_num_threads(max(1, min(count, config.NUMBA_NUM_THREADS)))


def num_threads() -> int:
    """The number of threads kernels run on."""
    return int(numba.get_num_threads())


@contextmanager
def alone(wanted: bool = True) -> Iterator[None]:
    """Run kernels on the calling thread in this block: many small ones, which would wait longer for
    other threads than these could save. Does nothing unless ``wanted``."""
    before = num_threads()
    if wanted:
        numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


class _CompileListener(event.Listener):  # type: ignore[misc]
    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report

    def on_start(self, happened: Any) -> None:
        dispatcher = happened.data["dispatcher"]
        self.report(dispatcher.py_func.__qualname__)

    def on_end(self, happened: Any) -> None:
        pass


def on_compile(report: Callable[[str], None]) -> Callable[[], None]:
    """Call ``report(name)`` whenever a kernel has to be compiled; returns the call that ends it."""
    listener = _CompileListener(report)
    event.register("numba:compile", listener)
    return lambda: event.unregister("numba:compile", listener)


_scratch = threading.local()


def workspace(size: int, dtype: Any) -> np.ndarray:
    """Scratch memory of ``size`` elements, reused from call to call; contents undefined.

    Never hand it out: the next kernel that asks gets the same memory.
    """
    arrays: dict[Any, np.ndarray] = _scratch.__dict__.setdefault("arrays", {})
    key = np.dtype(dtype)
    held = arrays.get(key)
    if held is None or held.size < size:
        held = arrays[key] = np.empty(max(size, 1), key)
    return held


_choose_threading_layer()
