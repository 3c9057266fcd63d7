"""Whether a target has a finalizer: users that are to be undone on its server need it until they are. Pure.

It is held for a bounded time only. Users that are being deleted come to an end by themselves (users/finalize.py); for
those that are not, a target that is deleted waits a moment, since with a namespace all go one after another.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgtend.kube.index import Record

FINALIZER = "pgtend.dev/target"
LIVING_SECONDS = 20.0
MOST_SECONDS = 900.0
"""More than any user waits; nothing is held for ever."""


def holds(dependents: Iterable[Record], *, waited: float) -> bool:
    """Whether a target whose deletion was seen `waited` seconds ago stays for these, who have a finalizer each."""
    if waited >= MOST_SECONDS:
        return False
    return any(record.deleting or waited < LIVING_SECONDS for record in dependents)


def finalizers(record: Record, dependents: Iterable[Record]) -> tuple[str, ...]:
    """Those that a target that lives is to have; others' stay."""
    needed, there = any(True for _ in dependents), FINALIZER in record.finalizers
    if needed:
        return record.finalizers if there else (*record.finalizers, FINALIZER)
    return without(record)


def without(record: Record) -> tuple[str, ...]:
    return tuple(name for name in record.finalizers if name != FINALIZER)
