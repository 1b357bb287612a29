"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large reference data: ``NETDEF_SHARED``, else ``../shared``."""
    folder = Path(os.environ.get("NETDEF_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set NETDEF_SHARED")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The reference numbers of real Caffe that are part of the repository."""
    return REPOSITORY / "tests" / "golden"
