"""Who is ended by TerminateQueries, and who is spared although the selector fits. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgtend.server.consent import matches
from pgtend.tasks.relations import fits

STATES: dict[str, tuple[str, ...]] = {
    "Active": ("active", "fastpath function call"),
    "IdleInTransaction": ("idle in transaction", "idle in transaction (aborted)"),
    "Idle": ("idle",),
}
"""The words of a spec, and pg_stat_activity's."""
DUMPS = ("pg_dump*", "pg_restore*", "pg_basebackup*", "pg_receivewal*", "pgbackrest*", "barman*", "wal-g*", "pgtend-*")
OURS = "pgtend/*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Who. Empty tuples mean all; patterns know `*` only. `longer_than` in seconds counts since the query began, or
    since the session became idle."""

    states: tuple[str, ...] = ("Active",)
    longer_than: float = 300.0
    databases: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    applications: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One client backend as pg_stat_activity shows it; moments are aware, `seconds` since query or idleness began."""

    member: str
    pid: int
    user: str
    database: str
    application: str
    state: str
    seconds: float
    backend_start: datetime
    query_start: datetime | None
    building_index: bool


def chosen(
    backends: Sequence[Backend], selector: Selector, *, own: Collection[str]
) -> tuple[list[Backend], dict[str, int]]:
    """The victims, longest first, and how many were spared by why; `own` are the roles of pgtend itself. Pure."""
    words = {word for state in selector.states for word in STATES[state]}
    victims: list[Backend] = []
    spared: dict[str, int] = {}
    for backend in backends:
        if not _selected(backend, selector, words):
            continue
        why = _spared(backend, selector, own)
        if why is None:
            victims.append(backend)
        else:
            spared[why] = spared.get(why, 0) + 1
    return sorted(victims, key=lambda b: (-b.seconds, b.member, b.pid)), spared


def _selected(backend: Backend, selector: Selector, words: set[str]) -> bool:
    return (
        backend.state in words
        and backend.seconds >= selector.longer_than
        and (not selector.pids or backend.pid in selector.pids)
        and fits(selector.databases, backend.database)
        and fits(selector.users, backend.user)
        and fits(selector.applications, backend.application)
    )


def _spared(backend: Backend, selector: Selector, own: Collection[str]) -> str | None:
    """Why a session that the selector fits is left alone, or None."""
    # by role too: anybody may call his application what he likes
    if backend.user in own and matches(OURS, backend.application):
        return "pgtend's own"
    if backend.pid in selector.pids:
        return None
    if backend.building_index:
        return "index builds"
    if any(matches(pattern, backend.application) for pattern in DUMPS):
        # a pattern of stars alone names nobody
        named = any(p.strip("*") and matches(p, backend.application) for p in selector.applications)
        return None if named else "dumps and backups"
    return None
