"""A record as tables, for the terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yardstick.engines import ENGINES, FORMATS
from yardstick.nets import NETS
from yardstick.record import Record, Row

#: Between these lines of a document the tables stand.
BEGIN, END = "<!-- begin of what scripts/bench measured -->", "<!-- end -->"

TITLES = {
    "train": "Training step",
    "infer": "Inference",
    "infer1": "Inference of one image",
}

#: A row is marked where other processes used more than this share of the machine.
DISTURBED = 0.03
MARK = " (*)"
MARKED = " (*): other processes used the machine, too."

#: Where to look for the fastest of PyTorch, and for its smallest memory.
TORCH = (*FORMATS, "torch-fused")


class ReportError(Exception):
    """A document without the lines between which tables stand."""


@dataclass
class Table:
    """A title, a sentence on how to read it, and cells."""

    title: str
    note: str
    heading: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)


def tables(record: Record) -> Iterator[Table]:
    """Everything that a record holds, for each number of threads."""
    races = record.values["races"]
    for threads in sorted({row["threads"] for row in races}, reverse=True):
        for what in TITLES:
            rows = sorted(record.rows("races", what=what, threads=threads), key=_place)
            if rows:
                yield _race_table(record, what, threads, rows)
    if record.values["starts"]:
        yield _start_table(sorted(record.values["starts"], key=_place))
    if record.values["scaling"]:
        yield _scaling_table(record.values["scaling"])


def _place(row: Row) -> int:
    """Where the net of a row stands in the list of nets."""
    return list(NETS).index(row["net"])


def _race_table(record: Record, what: str, threads: int, rows: list[Row]) -> Table:
    training = what == "train"
    columns = [name for name in ENGINES if any(name in row["engines"] for row in rows)]
    caffe = any(row.get("caffe") for row in rows)
    peak = record.peak(threads)
    heading = ["net", "batch", *(ENGINES[name].title for name in columns)]
    heading += ["Caffe"] if caffe else []
    heading += ["PyTorch / netdef"]
    heading += ["with fused SGD"] if "torch-fused" in columns else []
    heading += ["ONNX Runtime / netdef"] if "onnxruntime" in columns else []
    heading += ["Caffe / netdef"] if caffe else []
    heading += ["of FMA peak"] if peak else []
    heading += ["memory", "of PyTorch"] if training else []
    table = Table(
        f"{TITLES[what]}, {_threads(threads)}",
        "Milliseconds, medians. "
        + ("One step is forward, backward and update. " if training else "")
        + "Ratios above 1 say that netdef is faster; PyTorch counts in its better memory format."
        + _marked(rows),
        heading,
    )
    for row in rows:
        engines = row["engines"]
        own = engines.get("netdef", {}).get("median")
        cells = [NETS[row["net"]].title + _mark(row), str(row["batch"])]
        cells += [_ms(engines.get(name, {}).get("median")) for name in columns]
        cells += [_ms(row.get("caffe"))] if caffe else []
        cells.append(_ratio(_least(engines, FORMATS), own))
        if "torch-fused" in columns:
            cells.append(_ratio(_least(engines, TORCH), own))
        if "onnxruntime" in columns:
            cells.append(_ratio(_least(engines, ["onnxruntime"]), own))
        cells += [_ratio(row.get("caffe"), own)] if caffe else []
        if peak:
            cells.append(f"{100 * row['flops'] / own / peak:.0f} %" if own else "-")
        if training:
            cells.append(_mib(engines.get("netdef", {}).get("memory")))
            cells.append(_mib(_least(engines, TORCH, "memory")))
        table.rows.append(cells)
    return table


def _start_table(rows: Iterable[Row]) -> Table:
    table = Table(
        "First training step",
        "Seconds from the start of Python to the end of the first step: on a machine that has not "
        "compiled netdef's kernels yet, and on one that has.",
        ["net", "batch", "netdef, nothing compiled", "netdef", "PyTorch"],
    )
    for row in rows:
        seconds = [_seconds(row[name]) for name in ("cold", "warm", "torch")]
        table.rows.append([NETS[row["net"]].title, str(NETS[row["net"]].batch), *seconds])
    return table


def _scaling_table(rows: list[Row]) -> Table:
    table = Table(
        "Scaling of CaffeNet's training step",
        "Each row took turns with batch 64 on all threads, to whose time for an image the last "
        "column is the ratio." + _marked(rows),
        ["batch", "threads", "ms", "ms an image", "images/s", "time for an image"],
    )
    for row in sorted(rows, key=lambda row: (-row["threads"], row["batch"])):
        image = row["median"] / row["batch"]
        table.rows.append(
            [
                str(row["batch"]) + _mark(row),
                str(row["threads"]),
                _ms(row["median"]),
                _ms(image),
                f"{1 / image:.0f}",
                f"{image / (row['reference'] / NETS['caffenet'].batch):.2f}",
            ]
        )
    return table


def _mark(row: Row) -> str:
    return MARK if row["others"] > DISTURBED else ""


def _marked(rows: Iterable[Row]) -> str:
    return MARKED if any(map(_mark, rows)) else ""


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else _digits(1e3 * seconds)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _mib(count: float | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(other: float | None, own: float | None) -> str:
    return f"{other / own:.2f}" if other and own else "-"


def _least(engines: Row, names: Iterable[str], what: str = "median") -> float | None:
    return min((engines[name][what] for name in names if name in engines), default=None)


# -- forms ---------------------------------------------------------------------------------------


def text(table: Table) -> str:
    """A table for the terminal."""
    cells = [table.heading, *table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"{table.title}. {table.note}"]
    for row in cells:
        words = [row[0].ljust(widths[0])]
        words += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(words))
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> str:
    """A table for a document."""
    lines = [f"### {table.title}", "", table.note, ""]
    rule = ["---", *["---:"] * (len(table.heading) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in (table.heading, rule, *table.rows)]
    return "\n".join(lines) + "\n"


def machine_text(record: Record) -> str:
    """The machine and the versions in one paragraph."""
    machine: dict[str, Any] = record.values["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peaks = [
        f"{value / 1e9:.0f} GFLOP/s on {_threads(int(threads))}"
        for threads, value in sorted(record.values["peak"].items())
    ]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['features'])})",
        f"{machine['memory_gib']} GiB, {machine['system']}",
        f"Python {machine['python']}, {versions}",
        *([f"measured FMA peak {', '.join(peaks)}"] if peaks else []),
        record.values["date"],
    ]
    return "; ".join(parts) + "."


def write_into(document: Path, record: Record) -> None:
    """Put the tables between the lines of ``document`` that are meant for them.

    Raises ReportError where it has none.
    """
    old = document.read_text("utf-8")
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ReportError(f"{document} has no lines  {BEGIN}  and  {END}")
    parts = [machine_text(record), *map(markdown, tables(record))]
    body = "\n".join(f"{part.rstrip()}\n" for part in parts)
    document.write_text(f"{head}{BEGIN}\n\n{body}\n{END}{tail}", "utf-8")
