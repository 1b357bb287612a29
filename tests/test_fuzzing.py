"""Damaged files are read or refused, in no time and little memory: a sample of ``scripts/fuzz``."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fuzzing
from fuzzing import targets
from fuzzing.child import find, mutant
from fuzzing.mutations import Node, parsed, serialised, spoil_message
from fuzzing.parent import fuzz
from netdef.proto import netdef_pb2 as pb

TARGETS = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    outcome = fuzz(name, seed=1, count=200)
    assert not outcome.failures, outcome.failures[0]
    assert outcome.counts["read"] + outcome.counts["refused"] == 200
    # Neither are all of them whole, nor is all of them lost.
    assert 10 < outcome.counts["read"] < 190


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutant_is_a_function_of_its_number(name: str) -> None:
    target = find(name)
    mutants = [mutant(target, 0, index) for index in range(20)]
    assert mutants == [mutant(target, 0, index) for index in range(20)]
    assert mutants != [mutant(target, 1, index) for index in range(20)]
    assert len(set(mutants)) > 10


#: A target whose first mutants do what must not happen.
BAD = """
import ctypes, os, sys, time
import numpy as np
from netdef.errors import WeightsError

def originals():
    return []

def mutant(random):
    return b""

def read(content, folder):
    note = int(sys.argv[-1])
    match int.from_bytes(os.pread(note, 8, 0), "little"):
        case 0: raise KeyError("ours")
        case 1: raise WeightsError("theirs")
        case 2: ctypes.string_at(8)
        case 3: pass
        case 4:
            end = time.process_time() + 1.1
            while time.process_time() < end: pass
        case 5: np.ones(1 << 28, np.float32)
        case 6: np.ones(1 << 40, np.float32)
        case 7: raise WeightsError("x" * 10_000)
"""


def test_what_must_not_happen_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process dies, another goes on with the next mutant."""
    (tmp_path / "bad.py").write_text(BAD)
    code = f"import fuzzing.targets\nfuzzing.targets.__path__.append({str(tmp_path)!r})\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    scripts = Path(fuzzing.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(scripts)]))
    outcome = fuzz("bad", seed=0, count=8)
    assert [(failure.index, failure.kind) for failure in outcome.failures] == [
        (0, "traceback"),
        (2, "crash"),
        (4, "slow"),
        (5, "large"),
        (6, "traceback"),
        (7, "wordy"),
    ]
    assert "KeyError" in outcome.failures[0].text
    assert "SIGSEGV" in outcome.failures[1].text
    assert "MemoryError" in outcome.failures[4].text
    assert (outcome.counts["refused"], outcome.counts["read"]) == (1, 1)


def test_messages_survive_being_taken_apart(golden: Path) -> None:
    for path in (golden / "solvers").glob("*.caffemodel"):
        content = path.read_bytes()
        nodes = parsed(content)
        assert nodes is not None
        assert len(nodes) > 3
        assert serialised(nodes) == content


def test_a_lie_lies_deep(golden: Path) -> None:
    """Most mutants of a message are messages still, so that what is inside them is looked at."""
    content = (golden / "solvers" / "sgd_fixed.caffemodel").read_bytes()
    whole = 0
    for index in range(200):
        changed = spoil_message(np.random.default_rng(index), content)
        whole += parsed(changed) is not None and changed != content
    assert whole > 100


def test_a_stated_length_may_be_another() -> None:
    inner: Any = [Node(1, 0, 5), Node(2, 2, b"ab", claim=9)]
    assert serialised([Node(7, 2, inner)]) == b"\x3a\x06\x08\x05\x12\x09ab"
    assert pb.BlobShape.FromString(serialised([Node(1, 0, 2), Node(1, 0, 3)])).dim == [2, 3]
