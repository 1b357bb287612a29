"""``python -m fuzzing``, which ``scripts/fuzz`` runs."""

from __future__ import annotations

import argparse
import pkgutil
import sys
import time
from pathlib import Path

from fuzzing import targets
from fuzzing.child import find, mutant
from fuzzing.parent import GOOD, fuzz

#: So many failures of a target are shown whole.
MOST_SHOWN = 5


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Read damaged files.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)}: all")
    parser.add_argument("--count", type=int, help="mutants of each; else as many as it asks for")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other mutants")
    parser.add_argument("--first", type=int, default=0, help="the first mutant, counted from 0")
    parser.add_argument("--write", type=Path, help="only write the mutant --first to this file")
    options = parser.parse_args()
    for name in options.targets:
        if name not in names:
            parser.error(f'there is no target "{name}": they are {", ".join(names)}')
    if options.write is not None:
        if len(options.targets) != 1:
            parser.error("--write takes one target")
        target = find(options.targets[0])
        options.write.write_bytes(mutant(target, options.seed, options.first))
        return 0
    failed = False
    for name in options.targets or names:
        failed |= report(name, options.seed, options.count or find(name).COUNT, options.first)
    return int(failed)


def report(name: str, seed: int, count: int, first: int) -> bool:
    """Fuzz one target and print what came of it. Returns whether anything failed."""
    began = time.monotonic()

    def progress(index: int) -> None:
        if sys.stderr.isatty() and index % 100 == 0:
            print(f"\r{name}: {index - first} of {count}", end="\r", file=sys.stderr)

    outcome = fuzz(name, seed, count, first, progress)
    told = ", ".join(f"{outcome.counts[kind]} {kind}" for kind in GOOD)
    bad = {kind: n for kind, n in outcome.counts.items() if kind not in GOOD}
    told += "".join(f", {n} {kind}" for kind, n in bad.items())
    print(
        f"{name}: {count} mutants in {time.monotonic() - began:.0f} s: {told}; the slowest took "
        f"{1000 * outcome.seconds:.0f} ms; memory rose by {outcome.peak >> 20} MiB",
        flush=True,
    )
    for failure in outcome.failures[:MOST_SHOWN]:
        print(
            f"\n{failure.kind}: --seed {seed} --first {failure.index} --count 1\n{failure.text}",
            flush=True,
        )
    return bool(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
