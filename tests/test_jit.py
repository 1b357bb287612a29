"""How kernels are compiled, cached and threaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import netdef
from netdef import jit
from netdef.jit import inline, kernel, prange, serial

TWO_CORES = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="there is one core")


@inline
def _twice(x: Any) -> Any:
    return x + x


@kernel
def _double(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = _twice(x[i])


@serial
def _sum(x: Any, out: Any) -> None:
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    out[0] = total


@kernel
def _threads_used(used: Any) -> None:
    for i in prange(used.size):
        used[i] = numba.get_thread_id()


@serial
def _threads_used_by_serial(used: Any) -> None:
    for i in prange(used.size):
        used[i] = numba.get_thread_id()


@kernel
def _divide(x: Any, y: Any) -> None:
    for i in prange(x.size):
        y[i] = x[i] / (x[i] - x[i])


@pytest.fixture
def threads() -> Iterator[None]:
    before = jit.num_threads()
    yield
    jit.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kernel_computes_in_the_type_of_its_arrays(dtype: type[Any]) -> None:
    x = np.arange(1000, dtype=dtype)
    y = np.empty_like(x)
    _double(x, y)
    assert np.array_equal(y, x + x)


def test_a_sum_has_one_order() -> None:
    """Not vectorised into partial sums: bit for bit the sum from left to right."""
    x = np.random.default_rng(0).standard_normal(10_001).astype(np.float32)
    out = np.empty(1, np.float32)
    _sum(x, out)
    assert out[0] == np.add.accumulate(x)[-1]
    assert out[0] != x.sum(), "this data would not tell the difference"


def test_division_by_zero_is_arithmetic() -> None:
    y = np.empty(2, np.float32)
    _divide(np.array([1, 0], np.float32), y)
    assert np.isinf(y[0])
    assert np.isnan(y[1])


@TWO_CORES
def test_alone(threads: None) -> None:
    jit.set_num_threads(2)
    used = np.empty(1000, np.int64)
    for wanted, count in ((True, 1), (False, 2)):
        with suppress(KeyError), jit.alone(wanted):
            _threads_used(used)
            assert len(np.unique(used)) == count
            raise KeyError
        assert jit.num_threads() == 2


@TWO_CORES
def test_threads(threads: None) -> None:
    used = np.empty(1000, np.int64)
    for count in (1, 2):
        jit.set_num_threads(count)
        assert jit.num_threads() == count
        _threads_used(used)
        assert len(np.unique(used)) == count
        _threads_used_by_serial(used)
        assert len(np.unique(used)) == 1


def test_the_number_of_threads_stays_within_the_machine(threads: None) -> None:
    jit.set_num_threads(10_000)
    assert jit.num_threads() == numba.config.NUMBA_NUM_THREADS
    jit.set_num_threads(0)
    assert jit.num_threads() == 1


def test_kernels_run_without_pythons_lock() -> None:
    for function in (_double, _sum, _twice):
        assert function.targetoptions["nogil"]  # type: ignore[attr-defined]
        assert function.targetoptions["nopython"]  # type: ignore[attr-defined]


def test_kernels_are_cached_in_netdefs_folder_and_leave_numbas_alone() -> None:
    y = np.empty(3, np.float32)
    _double(np.ones(3, np.float32), y)
    files = [path.name for path in Path(jit.CACHE_DIR).rglob("test_jit._double*")]
    assert any(name.endswith(".nbi") for name in files)
    assert any(name.endswith(".nbc") for name in files)
    assert jit.CACHE_DIR != numba.config.CACHE_DIR


def test_workspace() -> None:
    first = jit.workspace(100, np.float32)
    assert first.size >= 100
    assert first.dtype == np.float32
    assert jit.workspace(50, np.float32) is first
    assert jit.workspace(first.size, "f4") is first
    assert jit.workspace(10, np.float64).dtype == np.float64
    larger = jit.workspace(first.size + 1, np.float32)
    assert larger.size >= first.size + 1
    assert jit.workspace(1, np.float32) is larger
    assert jit.workspace(0, np.int8).size == 1


def test_workspace_is_of_one_thread() -> None:
    mine = jit.workspace(10, np.float32)
    theirs: list[Any] = []
    worker = threading.Thread(target=lambda: theirs.append(jit.workspace(10, np.float32)))
    worker.start()
    worker.join()
    assert not np.shares_memory(mine, theirs[0])


# --- in a process of its own ----------------------------------------------------------------------

KERNELS = """
import sys
import numpy as np
from netdef import jit
from netdef.kernels import elementwise
from netdef.kernels.elementwise import add
compiled = []
stop = jit.on_compile(compiled.append)
add(np.ones(4, np.float32), np.ones(4, np.float32))
stop()
add(np.ones(4, np.float64), np.ones(4, np.float64))
print(jit.cache_folder(elementwise.__file__), jit.num_threads(), *compiled)
"""


def run(script: str = KERNELS, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NETDEF_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**kept, **environment},
        # Python would find netdef in the current folder before it looked into PYTHONPATH.
        cwd=Path(sys.executable).parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    first = run(NETDEF_CACHE_DIR=str(tmp_path))
    assert first[2:] == ["add"], "it was told once, and not after it had said stop"
    assert Path(first[0]).parent == tmp_path / "netdef-kernels"
    second = run(NETDEF_CACHE_DIR=str(tmp_path))
    assert second == first[:2]


def test_the_cache_of_other_sources_is_another_folder(tmp_path: Path) -> None:
    """A kernel is compiled anew where its file or one it imports has changed, and only then."""
    copy = tmp_path / "copy" / "netdef"
    shutil.copytree(Path(netdef.__file__).parent, copy)
    script = (
        "from netdef import jit\n"
        "from netdef.kernels import elementwise, gemm\n"
        "from netdef.layers.common import windows\n"
        "print(*(jit.cache_folder(m.__file__) for m in (elementwise, gemm, windows)))"
    )

    def folders() -> list[str]:
        return run(script, NETDEF_CACHE_DIR=str(tmp_path), PYTHONPATH=str(copy.parent))

    def change(*path: str) -> list[bool]:
        before = folders()
        with copy.joinpath(*path).open("a") as source:
            source.write("# another comment\n")
        return [a != b for a, b in zip(before, folders(), strict=True)]

    assert folders() == folders()
    assert change("layers", "relu.py") == [False, False, False]
    assert change("kernels", "gemm.py") == [False, True, False]
    assert change("kernels", "microkernel.py") == [False, True, True]
    assert change("kernels", "pooling.py") == [False, False, True], "the second name in its line"
    assert change("jit.py") == [True, True, True]


def test_caches_that_nobody_used_for_long_are_removed(tmp_path: Path) -> None:
    parent = tmp_path / "netdef-kernels"
    old, young, foreign = "0123456789abcdef", "fedcba9876543210", "thesis"
    for name, age in ((old, 31), (young, 29), (foreign, 400)):
        (parent / name).mkdir(parents=True)
        then = time.time() - age * 24 * 3600
        os.utime(parent / name, (then, then))
    run("import netdef.jit", NETDEF_CACHE_DIR=str(tmp_path))
    left = {path.name for path in parent.iterdir()}
    assert {young, foreign} <= left
    assert old not in left


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    script = "from netdef import jit; print(jit.CACHE_DIR)"
    (found,) = run(
        script, NETDEF_CACHE_DIR=str(tmp_path / "file"), XDG_CACHE_HOME=str(tmp_path / "xdg")
    )
    assert Path(found) == tmp_path / "xdg" / "netdef-kernels"
    (found,) = run(
        script,
        NETDEF_CACHE_DIR=str(tmp_path / "file"),
        XDG_CACHE_HOME=str(tmp_path / "file"),
        HOME=str(tmp_path / "file"),
        TMPDIR=str(tmp_path),
    )
    assert Path(found).parent == tmp_path


@pytest.mark.parametrize(
    ("value", "expected"), [("1", "1"), ("100000", None), ("many", None), ("0", None), ("-1", None)]
)
def test_threads_from_the_environment(value: str, expected: str | None) -> None:
    script = "from netdef import jit; print(jit.num_threads())"
    (found,) = run(script, NETDEF_NUM_THREADS=value)
    assert found == (expected or str(numba.config.NUMBA_NUM_THREADS))


def test_the_threading_layer_is_a_quick_one() -> None:
    (layer,) = run(
        "import numpy as np, numba\n"
        "from netdef.kernels.elementwise import add\n"
        "add(np.ones(4, np.float32), np.ones(4, np.float32))\n"
        "print(numba.threading_layer())"
    )
    assert layer in ("omp", "tbb")
