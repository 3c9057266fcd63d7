"""What libpq must be, what it must not see, and what it reads from files only."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from psycopg import pq

MINIMUM_LIBPQ = 180000


def check_libpq() -> None:
    """Refuse a libpq that would ignore require_auth and answer a request for a clear-text password (before 16), or that
    takes no ready SCRAM keys (before 18, see keys.py).

    Raises RuntimeError. psycopg's wheels carry a libpq of 18.
    """
    if pq.version() < MINIMUM_LIBPQ:
        raise RuntimeError(f"libpq {pq.version()} is too old: 18 or later is needed for require_auth and SCRAM keys")


def fence_environment() -> tuple[str, ...]:
    """Take from the environment what libpq would take up unasked (PGSERVICE, PGSSLMODE, PGOPTIONS, ...): a connection
    is what the target says. Returns the names. Call before anything connects."""
    names = tuple(sorted(name for name in os.environ if name.startswith("PG") and not name.startswith("PGTEND_")))
    for name in names:
        del os.environ[name]
    return names


class Files:
    """libpq reads certificates from files only: kept in a private directory, one per content, mode 0600."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pgtend-"))
        self.nothing = str(self._folder / "nothing")

    def keep(self, text: str) -> str:
        path = self._folder / hashlib.sha256(text.encode()).hexdigest()
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}")
            part.touch(mode=0o600)
            part.write_text(text, encoding="utf-8")
            part.rename(path)
        return str(path)


_kept: Files | None = None


def kept_files() -> Files:
    global _kept  # noqa: PLW0603 - one private directory per process
    if _kept is None:
        _kept = Files()
    return _kept
