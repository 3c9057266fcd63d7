"""What of a deletion is still to be undone, and where that can be done. Pure.

A server is known by its system identifier: a target that was deleted may come back under another name, and one of the
same name may be another server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pgtend.api.databaseuser import UserSpec
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Record
from pgtend.postgres.quoting import identifier
from pgtend.server.ledger import Abandoned
from pgtend.users.wanted import role_name, target_key

FINALIZER = "pgtend.dev/user"
NEEDS_CREDENTIAL = "NeedsCredential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A target, or (`kept`) what is in memory of one that is gone. `system` is None where it is not known yet; `open`
    where it lets pgtend act on the role."""

    key: ObjectKey
    system: str | None
    open: bool = True
    kept: bool = False


def is_undoable(record: Record | None, entry: Abandoned | None) -> bool:
    """Whether a user needs its target's server still: its object has the finalizer, or is gone and was not undone."""
    if record is not None:
        return FINALIZER in record.finalizers
    return entry is not None and entry.retry


def abandoned(
    key: ObjectKey, spec: UserSpec, *, system: str | None, reason: str, since: str, retry: bool, lived: bool = False
) -> Abandoned:
    """What a user whose object goes leaves behind."""
    role, target = role_name(key, spec), target_key(key, spec)
    name = identifier(role)
    return Abandoned(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        target=str(target),
        role=role,
        policy=spec.deletion_policy,
        remains=f"role {role} of target {target}",
        sql=f"DROP ROLE {name}" if spec.deletion_policy == "Drop" else f"ALTER ROLE {name} NOLOGIN",
        reason=reason[:512],
        since=since,
        retry=retry,
        heir=spec.drop.reassign_owned_to,
        sessions=spec.drop.sessions,
        system=system,
        lived=lived,
    )


def place_for(entry: Abandoned, places: Iterable[Place]) -> Place | None:
    """Where to undo what is left: best at the target it was made by, else at another of that very server."""
    fit = [p for p in places if p.open and _is_there(entry, p)]
    return min(fit, key=lambda p: (p.kept, p.key != entry.target_key, p.key), default=None)


def lacks_credential(entry: Abandoned, places: Iterable[Place]) -> bool:
    """Whether nothing that pgtend knows leads to that server. A target that is still to be probed may."""
    return entry.retry and not any(_is_there(entry, p) or _may_be(entry, p) for p in places)


def lacking(entry: Abandoned) -> Abandoned:
    """The same, saying what it waits for."""
    server = f"the server with system identifier {entry.system}" if entry.system else "its server"
    text = f"no PostgresTarget leads to {server} any more: create one, or run the SQL there as an administrator"
    return replace(entry, reason=f"{NEEDS_CREDENTIAL}: {text}")


def _is_there(entry: Abandoned, place: Place) -> bool:
    return place.key == entry.target_key if entry.system is None else place.system == entry.system


def _may_be(entry: Abandoned, place: Place) -> bool:
    return place.system is None and place.key == entry.target_key
