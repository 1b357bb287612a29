"""How ``netdef data`` says what is in a list or in a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netdef.data.convert import Report
    from netdef.data.inspect import Summary

#: Labels are listed up to this many, others are summed up.
MOST_LABELS = 30
#: The longest bar.
BAR = 40
#: So many gaps, or sizes, are listed.
MOST_LISTED = 10


def count(number: int, what: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def sizes(found: Mapping[tuple[int, int, int], int]) -> str:
    """The sizes of images, the most frequent first."""
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        " x ".join(map(str, size)) + (f" ({number})" if len(ordered) > 1 else "")
        for size, number in ordered[:MOST_LISTED]
    ]
    return ", ".join(shown) + _more(len(ordered))


def histogram(labels: Mapping[int, int], everything: bool = False) -> Iterator[str]:
    """Lines that say how many records have each label, and which labels between them none has."""
    from netdef.data.inspect import gaps

    if not labels:
        return
    known = sorted(labels)
    fewest, most = min(labels.values()), max(labels.values())
    each = count(most, "record") if fewest == most else f"{fewest} to {count(most, 'record')}"
    yield f"labels   {len(known)} different, from {known[0]} to {known[-1]}; {each} each"
    if everything or len(known) <= MOST_LABELS:
        width = max(len(str(label)) for label in known)
        for label in known:
            bar = "#" * max(1, round(BAR * labels[label] / most))
            yield f"  {label:{width}}  {bar} {labels[label]}"
    missing = gaps(labels)
    if missing:
        shown = [f"{a}" if a == b else f"{a} to {b}" for a, b in missing[:MOST_LISTED]]
        yield f"gaps     no image has label {', '.join(shown)}{_more(len(missing))}"


def _more(number: int) -> str:
    return f" and {number - MOST_LISTED} more" if number > MOST_LISTED else ""


def report(found: Report, total: int, everything: bool) -> Iterator[str]:
    """What a dry run found."""
    unusable = len(found.skipped)
    yield f"images   {found.images} of {total} can be used; {unusable} cannot"
    if found.sizes:
        yield f"sizes    {sizes(found.sizes)}"
    yield from histogram(found.labels, everything)


def summary(found: Summary, path: str, everything: bool) -> Iterator[str]:
    """What is in a database."""
    yield f"{path}: {found.kind}, {count(found.records, 'record')}, {_bytes(found.bytes)}"
    yield f"keys     {found.first_key} to {found.last_key}"
    if found.kinds:
        kinds = ", ".join(f"{number} {kind}" for kind, number in found.kinds.most_common())
        yield f"values   {kinds}"
    if found.sizes:
        yield f"sizes    {sizes(found.sizes)}  (channels x height x width)"
    yield from histogram(found.labels, everything)


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def first_of(lines: Iterable[str], most: int = 20) -> Iterator[str]:
    """The first of these, and how many there are more."""
    listed = list(lines)
    yield from listed[:most]
    if len(listed) > most:
        yield f"and {len(listed) - most} more"
