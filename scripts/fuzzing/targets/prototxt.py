"""Nets and solvers as text: .prototxt of all generations and many forks."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fuzzing.mutations import EDGES, Random, spoil_bytes
from netdef.check import check
from netdef.errors import NetdefError

COUNT = 100_000

REPOSITORY = Path(__file__).parents[3]

#: Real files, where they are at hand: many forks, all generations.
COLLECTION = Path(os.environ.get("NETDEF_SHARED", REPOSITORY.parent / "shared")) / "prototxt"

#: Longer files are left out: their mutants tell the same, in more time.
LONGEST = 30_000

TOKEN = re.compile(rb"\"[^\"\n]*\"|'[^'\n]*'|#[^\n]*|[A-Za-z_]\w*|-?[0-9][\w.+-]*|\s+|.", re.DOTALL)

#: Words and marks at which readers of text have stumbled.
ODD = [
    b"", b"{", b"}", b"<", b">", b"[", b"]", b":", b",", b";", b"'", b'"', b"#", b"\\", b"\0",
    b"\xff", b"\xef\xbb\xbf", b"\r\n", b"-", b"+", b"nan", b"inf", b"-0", b"1e400", b"0x", b"07",
    b"1.5", b"true", b"TRUE", b"'a' 'b'", b"[1, 2]", b"[[1]]", b"{}", b"layer", b"layers {",
    b"layer { layer {", b"convolution_param", b"include { phase: TEST }", b"type: 'Convolution'",
    b"type: RELU", b"dim: -1", b"dim: 0", b"shape { dim: 2147483647 dim: 2147483647 }",
    b"input: 'x' input_dim: 1", b"[type.googleapis.com/x] { }", b"\xe2\x80\x9c", b"param { }",
]  # fmt: skip


@functools.cache
def originals() -> Sequence[bytes]:
    own = [*REPOSITORY.glob("models/*/*.prototxt"), *REPOSITORY.glob("tests/golden/*/*.prototxt")]
    real = [path for path in sorted(COLLECTION.rglob("*")) if path.is_file()]
    files = (path for path in (*sorted(own), *real[::5]) if path.stat().st_size < LONGEST)
    return [path.read_bytes() for path in files if check(str(path)).ok]


def mutant(random: Random) -> bytes:
    content = originals()[int(random.integers(len(originals())))]
    for _ in range(int(2 ** random.integers(0, 4))):
        blind = random.random() < 0.15
        content = spoil_bytes(random, content) if blind else _spoil_tokens(random, content)
    return content


def _spoil_tokens(random: Random, content: bytes) -> bytes:
    """One change between the words: one lost, doubled, moved, replaced, or many of them."""
    tokens = TOKEN.findall(content) or [b""]
    at = int(random.integers(len(tokens)))
    other = int(random.integers(len(tokens)))
    length = int(2 ** random.integers(0, 8))
    match int(random.integers(9)):
        case 0:
            del tokens[at]
        case 1:
            tokens[at:at] = [tokens[at], b" "]
        case 2:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        case 3:
            tokens[at] = tokens[other]
        case 4:
            tokens[at] = ODD[int(random.integers(len(ODD)))]
        case 5:
            tokens[at : at + length] = []
        case 6:
            tokens[at:at] = tokens[other : other + length]
        case 7:
            numbers = [n for n, token in enumerate(tokens) if token[:1].isdigit()]
            number = str(EDGES[int(random.integers(len(EDGES)))] - int(random.integers(2)))
            if numbers:
                tokens[numbers[int(random.integers(len(numbers)))]] = number.encode()
        case _:
            tokens[at] = tokens[at].strip(b"\"'")
    return b"".join(tokens)


def read(content: bytes, folder: Path) -> None:
    """As ``netdef check`` reads a file."""
    path = folder / "net.prototxt"
    path.write_bytes(content)
    report = check(str(path))
    for each in (*report.errors, *report.warnings):
        str(each)
    if report.errors:
        raise NetdefError(diagnostics=report.errors[:1])
