"""Fixtures for tests of kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netdef.testing import threads


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests of threads start more; to start and stop them takes longer than most kernels here."""
    with threads(1):
        yield
