"""The machine that is measured: what it is, and how fast it multiplies at most."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from typing import Any

#: What of a processor's features decides about speed here.
FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")

PACKAGES = ("netdef", "numpy", "numba", "llvmlite", "torch", "onnxruntime")


def describe() -> dict[str, Any]:
    """Processor, memory, system and the versions of libraries."""
    lines = [line.partition(":") for line in _read("/proc/cpuinfo").splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    features = set((facts.get("flags") or facts.get("Features") or "").split())
    memory = _read("/proc/meminfo").partition("MemTotal:")[2].split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "features": [name for name in FLAGS if name in features],
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def fma_peak(threads: int, seconds: float = 1.0) -> float:
    """FLOP/s of fused multiply-adds on ``threads`` threads: the best of many rounds of netdef's own
    micro-kernel, on panels that stay in the first-level cache.

    To be called in a process of its own: it imports netdef.
    """
    from netdef import jit
    from yardstick.peak import run, tiles

    jit.set_num_threads(threads)
    a, b, c = tiles(threads)
    flops = 2.0 * a.shape[1] * c.size
    best, repeats = 0.0, 1
    run(a, b, c, repeats)
    end = time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        run(a, b, c, repeats)
        now = time.perf_counter()
        if now - begun < 0.01:
            # Too short to be told from the start of the threads.
            repeats *= 2
            continue
        best = max(best, repeats * flops / (now - begun))
        if now > end:
            return float(best)
