"""How many cases a property is tried on: a quarter in every run, all of them in `make matrix`."""

from __future__ import annotations

import os

from hypothesis import settings

THOROUGH = bool(os.environ.get("PGTEND_THOROUGH"))


def cases(number: int) -> settings:
    """For a property that wants so many; machines are shared, so no time decides."""
    return settings(max_examples=number if THOROUGH else max(number // 4, 10), deadline=None)
