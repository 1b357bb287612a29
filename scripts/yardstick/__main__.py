"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable

from yardstick.engines import ENGINES, WHAT, Job
from yardstick.nets import NETS
from yardstick.race import Result, race, tell
from yardstick.workers import WorkerError

HEADINGS = {
    "train": "Training step (forward, backward, update)",
    "infer": "Inference",
    "infer1": "Inference of one image",
}


def main() -> int:
    options = parse(sys.argv[1:])
    engines = [name for name in options.engines if ENGINES[name].installed]
    for name in options.engines:
        if name not in engines:
            package = ENGINES[name].package
            tell(
                f"without {ENGINES[name].title}: {package} is not installed (pip install {package})"
            )
    for what in options.what:
        print(f"{HEADINGS[what]}, {options.threads} threads: median (fastest) in ms")
        taking = [name for name in engines if what in ENGINES[name].does]
        row("net", "batch", *(ENGINES[name].title for name in taking), "ratio")
        for net in options.nets:
            batch = 1 if what == "infer1" else NETS[net].batch
            jobs = [Job(name, net, what, batch, options.threads) for name in taking]
            results = race(jobs, options.seconds, options.iterations)
            row(NETS[net].title, batch, *map(milliseconds, results), ratio(results))
        print()
    return 0


def row(net: str, batch: object, *cells: str) -> None:
    print(f"{net:<15} {batch:>5}" + "".join(f"  {cell:>22}" for cell in cells), flush=True)


def milliseconds(result: Result) -> str:
    return f"{1e3 * result.median:.4g} ({1e3 * result.fastest:.4g})"


def ratio(results: list[Result]) -> str:
    """How much longer the best of PyTorch takes than netdef."""
    own = [r.median for r in results if r.job.engine == "netdef"]
    others = [r.median for r in results if r.job.engine.startswith("torch")]
    return f"{min(others) / own[0]:.2f}" if own and others else "-"


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads a comma-separated list of some of the ``known`` names."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f'"{name}" is none of {", ".join(known)}')
        return names

    return read


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Train and infer six nets with netdef and PyTorch, taking turns.",
    )

    parser.add_argument("--nets", type=some_of(NETS), default=list(NETS), metavar="NET,...")
    parser.add_argument("--what", type=some_of(WHAT), default=list(WHAT), metavar="WHAT,...")
    parser.add_argument("--engines", type=some_of(ENGINES), default=list(ENGINES))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=5.0, help="for each engine and row")
    parser.add_argument("--iterations", type=int, help="at most, for each engine and row")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WorkerError as error:
        sys.exit(f"scripts/bench: {error}")
