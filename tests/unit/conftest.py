"""A unit test has no I/O and no reason for much memory: what runs away fails, and does not take the machine along."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:  # `tests.unit` is imported by name, however pytest was started
    sys.path.insert(0, _ROOT)

from tests.unit.thorough import cases  # noqa: E402

# of a property that does not say how many cases it wants
settings.register_profile("everywhere", cases(100))
settings.load_profile("everywhere")

LIMIT = 3 << 30  # bytes of address space; the whole layer needs about a third of it


@pytest.fixture(autouse=True, scope="session")
def bounded_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
