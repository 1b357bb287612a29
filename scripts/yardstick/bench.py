"""``scripts/bench``: what is measured, in which order, and the options."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from yardstick import machine, report
from yardstick.caffe import CaffeError, caffe_seconds
from yardstick.engines import ENGINES, WHAT, Job
from yardstick.nets import NETS
from yardstick.race import Result, race
from yardstick.record import Record, RecordError
from yardstick.workers import Worker, WorkerError, in_new_process

#: Batch sizes of CaffeNet at which scaling is measured.
BATCHES = (8, 16, 32, 64, 128, 256)

#: How often a start is measured once kernels are compiled.
STARTS = 3

Options = argparse.Namespace


def main(arguments: list[str]) -> None:
    """Run ``scripts/bench``; exits with a sentence where something is missing."""
    try:
        run(parse(arguments))
    except (WorkerError, CaffeError, RecordError, report.ReportError) as error:
        sys.exit(f"scripts/bench: {error}")


def run(options: Options) -> None:
    if options.source:
        record = Record.read(options.source)
        show(record, options.markdown)
        return
    record = Record(machine.describe())
    if options.json and Path(options.json).exists():
        record = Record.read(options.json)
        record.grow(machine.describe())
    for measure in wanted(options):
        for _ in measure(record, options):
            if options.json:
                record.write(options.json)
    show(record, options.markdown)


def wanted(options: Options) -> Iterable[Callable[[Record, Options], Iterable[None]]]:
    """What is to be measured: what was asked for, or else everything but single layers."""
    everything = not (options.what or options.start or options.scaling or options.layers)
    if everything:
        options.what = list(WHAT)
    if options.what:
        yield measure_races
    if options.start or everything:
        yield measure_starts
    if options.scaling or everything:
        yield measure_scaling
    if options.layers:
        yield measure_layers


def show(record: Record, document: str | None) -> None:
    for table in report.tables(record):
        print(report.text(table))
    if document:
        report.write_into(Path(document), record)


# -- measuring: each yields whenever there is something new in the record ------------------------


def measure_races(record: Record, options: Options) -> Iterable[None]:
    tell(f"FMA peak: {find_peak(record, options.threads) / 1e9:.0f} GFLOP/s")
    engines = installed(options.engines)
    for what in options.what:
        for net in options.nets:
            batch = 1 if what == "infer1" else NETS[net].batch
            base = Job("netdef", net, what, batch, options.threads)
            jobs = [replace(base, engine=name) for name in engines if what in ENGINES[name].does]
            tell(f"{what} {net}: {', '.join(job.engine for job in jobs)}")
            raced = race(jobs, options.seconds, options.iterations)
            tell_of_others(raced.others)
            caffe = None
            if options.caffe:
                caffe = caffe_seconds(options.caffe, base, options.iterations or 10)
            record.put(
                "races",
                {
                    "what": what,
                    "net": net,
                    "batch": batch,
                    "threads": options.threads,
                    "flops": in_new_process(flops, base),
                    "engines": {result.job.engine: summary(result) for result in raced.results},
                    "caffe": caffe,
                    "others": raced.others,
                },
            )
            yield


def find_peak(record: Record, threads: int) -> float:
    """The most FLOP/s that were ever reached on this machine: others may have used it, too."""
    peaks: dict[str, float] = record.values["peak"]
    found = in_new_process(machine.fma_peak, threads)
    peaks[str(threads)] = max(found, peaks.get(str(threads), 0.0))
    return peaks[str(threads)]


def installed(names: Iterable[str]) -> list[str]:
    """Those engines whose packages are here."""
    found = []
    for name in names:
        if missing := ENGINES[name].missing:
            tell(f"without {ENGINES[name].title}: pip install {' '.join(missing)}  adds it")
        else:
            found.append(name)
    return found


def tell_of_others(share: float) -> None:
    if share > report.DISTURBED:
        tell(f"  other processes used {100 * share:.0f} % of the machine: measure again")


def summary(result: Result) -> dict[str, Any]:
    return {
        "median": result.median,
        "fastest": min(result.seconds),
        "steps": len(result.seconds),
        "memory": result.memory,
    }


def flops(job: Job) -> int:
    """Floating-point operations of a step, those of matrix products. In a process of its own."""
    from netdef import cost
    from netdef.memory import arrange

    plan = job.plan()
    total = 0
    for layer, ends in zip(plan.layers, arrange(plan).layers, strict=True):
        total += cost.forward(plan, layer, ends).flops
        if job.training:
            total += cost.backward(plan, layer, ends).flops
    return total


def measure_starts(record: Record, options: Options) -> Iterable[None]:
    engines = installed(["torch"])
    for net in options.nets:
        job = Job("netdef", net, "train", NETS[net].batch, options.threads)
        tell(f"start {net}")
        with tempfile.TemporaryDirectory() as cache:
            own = replace(job, cache=cache)
            cold = start(own)
            warm = statistics.median(start(own) for _ in range(STARTS))
        torch = None
        if engines:
            torch = statistics.median(start(replace(job, engine="torch")) for _ in range(STARTS))
        record.put(
            "starts",
            {"net": net, "threads": options.threads, "cold": cold, "warm": warm, "torch": torch},
        )
        yield


def start(job: Job) -> float:
    """Seconds from the start of Python to the end of the first step."""
    with Worker(job) as worker:
        return worker.started.seconds


def measure_scaling(record: Record, options: Options) -> Iterable[None]:
    reference = Job("netdef", "caffenet", "train", NETS["caffenet"].batch, options.threads)
    jobs = [replace(reference, batch=batch) for batch in BATCHES]
    if options.threads > 1:
        jobs.append(replace(reference, threads=1))
    for job in jobs:
        tell(f"scaling: batch {job.batch}, threads {job.threads}")
        raced = race([reference, job], options.seconds, options.iterations)
        tell_of_others(raced.others)
        theirs, own = raced.results
        record.put(
            "scaling",
            {
                "batch": job.batch,
                "threads": job.threads,
                "median": own.median,
                "reference": theirs.median,
                "others": raced.others,
            },
        )
        yield


def measure_layers(record: Record, options: Options) -> Iterable[None]:
    for net in options.layers:
        batch = NETS[net].batch
        job = Job("netdef", net, "train", batch, options.threads)
        layers, lines = in_new_process(layer_times, job, options.iterations or 5)
        print("\n".join([f"{NETS[net].title}, batch {batch}, training", *lines, ""]))
        row = {"net": net, "batch": batch, "threads": options.threads, "layers": layers}
        record.put("layers", row)
        yield


def layer_times(job: Job, iterations: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The time of each layer, and the same as a table. In a process of its own."""
    import netdef
    from netdef import jit
    from netdef.sinks.text import timing_lines
    from netdef.timing import time_net

    jit.set_num_threads(job.threads)
    net = netdef.Net.from_text(job.text, netdef.TRAIN, seed=1, keep=())
    net.blobs["data"].data[...] = job.images()
    net.blobs["label"].data[...] = job.labels()
    timed = time_net(net, iterations, lambda event: None)
    return [asdict(layer) for layer in timed.layers], list(timing_lines(timed))


# -- the command line ----------------------------------------------------------------------------


def tell(line: str) -> None:
    """Say on stderr what is going on."""
    print(line, file=sys.stderr, flush=True)


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads a comma-separated list of some of the ``known`` names."""

    def read(given: str) -> list[str]:
        names = given.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f'"{name}" is none of {", ".join(known)}')
        return names

    return read


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Train and infer six nets with netdef, PyTorch and ONNX Runtime, which take "
        "turns on the same cores. Without options everything is measured.",
    )
    nets = ", ".join(NETS)
    parser.add_argument(
        "--nets", type=some_of(NETS), default=list(NETS), metavar="NET,...", help=f"of {nets}"
    )
    parser.add_argument(
        "--what",
        type=some_of(WHAT),
        metavar="WHAT,...",
        help="train, infer (a batch), infer1 (one image)",
    )
    parser.add_argument("--start", action="store_true", help="time to the first training step")
    parser.add_argument(
        "--scaling", action="store_true", help="CaffeNet at batch 8 to 256, and on one thread"
    )
    parser.add_argument(
        "--layers", type=some_of(NETS), metavar="NET,...", help="netdef's time layer by layer"
    )
    parser.add_argument(
        "--engines",
        type=some_of(ENGINES),
        default=list(ENGINES),
        metavar="ENGINE,...",
        help=f"of {', '.join(ENGINES)}",
    )
    parser.add_argument("--caffe", metavar="PATH", help="a caffe binary to time as well")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help=f"by default all: {cores}")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="for each engine and net (default 5)"
    )
    parser.add_argument("--iterations", type=int, help="at most, for each engine and net")
    parser.add_argument(
        "--json", metavar="FILE", help="the record; what stands there already is kept"
    )
    parser.add_argument(
        "--markdown", metavar="FILE", help="put the tables into this document, between its marks"
    )
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="measure nothing: show this record"
    )
    return parser.parse_args(arguments)
