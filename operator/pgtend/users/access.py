"""Who may do what on a server, and what of that an administrator should look at: the access report's content. Pure.

What PUBLIC has is told once, for the role PUBLIC: else each role would repeat it. What is waived stays in the report,
marked, until the waiver's end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from pgtend.api.postgrestarget import Waiver
from pgtend.api.privileges import PRIVILEGES
from pgtend.core.clock import parse_rfc3339, rfc3339
from pgtend.core.names import read_mark
from pgtend.users.state import SERVER, Counts, Privileges, spoken

PUBLIC = "PUBLIC"
Via = Literal["Direct", "Owner", "Role", "Public", "Superuser"]
FINDINGS: Mapping[str, str] = {
    "Superuser": "may do everything, and runs programs as the server's account",
    "RoleWithoutExpiry": "logs in with a password that never expires",
    "UnusedLogin": "may log in, and nothing says that it does",
    "NonScramVerifier": "has a password that is not kept as a SCRAM verifier",
    "PublicGrant": "everybody may do it, present and future roles",
    "SecurityDefinerWithoutSearchPath": "runs with its owner's rights and finds names by the caller's search_path",
    "UndeclaredRole": "no DatabaseUser declares it",
}
"""In the order in which they are told, with what each means."""
QUIET = frozenset({"Function", "Procedure", "Type", "Language"})
"""Kinds on which PUBLIC has something by PostgreSQL's own default; that alone is no finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A role that is not predefined. `verifier` is how its password is kept; `used` whether statements of it are on
    record (None: there is no record)."""

    name: str
    login: bool = True
    bootstrap: bool = False
    superuser: bool = False
    attributes: tuple[str, ...] = ()
    connection_limit: int = -1
    valid_until: str | None = None
    comment: str | None = None
    verifier: Literal["Scram", "Md5", "None", "Unknown"] = "Unknown"
    sessions: int = 0
    used: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """`inherits`: has the group's privileges without SET ROLE."""

    member: str
    role: str
    admin: bool = False
    inherits: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one grantee (PUBLIC, or a role) has on one object by its ACL. `by_default` where nobody ever granted."""

    database: str
    kind: str
    name: str
    owner: str
    grantee: str
    privileges: Privileges
    grantable: Privileges = frozenset()
    schema: str | None = None
    column: str | None = None
    by_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Routine:
    """A SECURITY DEFINER function that sets no search_path."""

    database: str
    schema: str
    name: str
    owner: str
    owner_is_superuser: bool = False
    public: bool = False


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A server as it was seen. `blind` says of findings that could not be looked for why; `unread` of databases."""

    version: str
    now: datetime
    people: tuple[Person, ...]
    memberships: tuple[Membership, ...] = ()
    entries: tuple[Entry, ...] = ()
    routines: tuple[Routine, ...] = ()
    blind: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    used_since: str | None = None

    @cached_property
    def by_grantee(self) -> Mapping[str, tuple[Entry, ...]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.grantee, []).append(entry)
        return {name: tuple(entries) for name, entries in found.items()}

    @cached_property
    def _groups(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for one in self.memberships:
            if one.inherits:
                found.setdefault(one.member, []).append(one.role)
        return {name: tuple(groups) for name, groups in found.items()}

    def inherited(self, role: str) -> tuple[str, ...]:
        """Whose privileges it has besides its own, the nearest first."""
        found: dict[str, None] = {}
        waiting = [role]
        while waiting:
            for group in self._groups.get(waiting.pop(0), ()):
                if group not in found and group != role:
                    found[group] = None
                    waiting.append(group)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a role may do this on that object, by this. `role_via` is the role that it comes by."""

    role: str
    via: Via
    database: str
    kind: str
    name: str
    schema: str | None = None
    column: str | None = None
    privileges: tuple[str, ...] = ()
    grantable: tuple[str, ...] = ()
    role_via: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`waiver` is the one that covers it now, `expired` one that did."""

    finding: str
    role: str
    object: str
    message: str
    waiver: Waiver | None = None
    expired: Waiver | None = None


def rows(seen: Snapshot, roles: Collection[str] | None = None) -> Iterator[Row]:
    """The table, role by role, PUBLIC first; with `roles` theirs alone, and what each has by PUBLIC."""
    if roles is None:
        yield from _granted(seen, PUBLIC, PUBLIC, "Public")
    for person in seen.people:
        if roles is not None and person.name not in roles:
            continue
        name = person.name
        if person.superuser:
            yield Row(role=name, via="Superuser", database=SERVER, kind="Server", name="", privileges=("All",))
        for one in seen.memberships:
            if one.member == name:
                words = ("Member",) if one.inherits else ("SetRole",)
                handed = words if one.admin else ()
                yield Row(
                    role=name,
                    via="Direct",
                    database=SERVER,
                    kind="Role",
                    name=one.role,
                    privileges=words,
                    grantable=handed,
                )
        yield from _granted(seen, name, name, "Direct")
        for group in seen.inherited(name):
            yield from _granted(seen, name, group, "Role")
        if roles is not None:
            yield from _granted(seen, name, PUBLIC, "Public")


def _granted(seen: Snapshot, role: str, grantee: str, via: Via) -> Iterator[Row]:
    for entry in seen.by_grantee.get(grantee, ()):
        yield Row(
            role=role,
            via="Owner" if via == "Direct" and entry.owner == grantee else via,
            role_via=grantee if via == "Role" else None,
            database=entry.database,
            kind=entry.kind,
            schema=entry.schema,
            name=entry.name,
            column=entry.column,
            privileges=ordered(entry.kind, entry.privileges),
            grantable=ordered(entry.kind, entry.grantable),
        )


def ordered(kind: str, words: Privileges) -> tuple[str, ...]:
    return tuple(word for word in PRIVILEGES[kind] if word in words)


def counts(seen: Snapshot, role: str) -> Counts:
    """As in a DatabaseUser's status, over everything that was read."""
    own = _pairs(seen, (role,))
    roles = _pairs(seen, seen.inherited(role)) - own
    return Counts(len(own), len(roles), len(_pairs(seen, (PUBLIC,)) - own - roles))


def _pairs(seen: Snapshot, grantees: Iterable[str]) -> set[tuple[object, ...]]:
    return {
        (e.database, e.kind, e.schema, e.name, e.column, word)
        for grantee in grantees
        for e in seen.by_grantee.get(grantee, ())
        for word in e.privileges
    }


def findings(seen: Snapshot, *, declared: Collection[str], waivers: Sequence[Waiver]) -> list[Finding]:
    """What to look at. `declared` are roles that somebody answers for: DatabaseUsers', and pgtend's own logins."""
    order = list(FINDINGS)
    found = [
        *(one for person in seen.people for one in _of_person(person, seen, declared)),
        *_public(seen),
        *(
            Finding(
                finding="SecurityDefinerWithoutSearchPath",
                role=routine.owner,
                object=f"{routine.schema}.{routine.name} of database {routine.database}",
                message=_definer(routine),
            )
            for routine in seen.routines
        ),
    ]
    found.sort(key=lambda one: (order.index(one.finding), one.role, one.object))
    return [_waived(one, waivers, seen.now) for one in found]


def _definer(routine: Routine) -> str:
    owner = f"{routine.owner}, a superuser," if routine.owner_is_superuser else routine.owner
    public = ", and everybody may call it" if routine.public else ""
    what = f"function {routine.schema}.{routine.name} of database {routine.database}"
    return f"{what} runs as {owner} with the caller's search_path{public}: ALTER FUNCTION … SET search_path"


def _of_person(person: Person, seen: Snapshot, declared: Collection[str]) -> Iterator[Finding]:
    def told(finding: str, message: str) -> Finding:
        return Finding(finding=finding, role=person.name, object=f"role {person.name}", message=message)

    name = person.name
    if person.superuser:
        yield told("Superuser", f"{name} is a superuser{'' if person.login else ', without login'}")
    # a role without a password logs in by other means, which do not expire here
    if person.login and person.valid_until is None and person.verifier != "None":
        yield told("RoleWithoutExpiry", f"{name} may log in and its password has no end: set validUntil")
    if person.login and person.used is False and not person.sessions:
        yield told("UnusedLogin", f"{name} may log in, has no session and ran no statement since {seen.used_since}")
    if person.verifier == "Md5":
        yield told("NonScramVerifier", f"the password of {name} is kept as md5: set it anew under scram-sha-256")
    if name not in declared and read_mark(person.comment) is None and not person.bootstrap:
        yield told("UndeclaredRole", f"{name} is declared by no DatabaseUser: pgtend user import writes one")


def _public(seen: Snapshot) -> Iterator[Finding]:
    """Alike ones together: by database, kind, schema and words."""
    alike: dict[tuple[str, str, str | None, tuple[str, ...]], list[Entry]] = {}
    for entry in seen.by_grantee.get(PUBLIC, ()):
        words = entry.privileges
        if entry.kind in QUIET and entry.by_default:
            continue
        if entry.kind == "Schema" and entry.name == "public":
            words -= {"Usage"}  # as every database is made
        if words:
            alike.setdefault((entry.database, entry.kind, entry.schema, ordered(entry.kind, words)), []).append(entry)
    for (database, kind, schema, told), entries in alike.items():
        names = [f"{e.name}.{e.column}" if e.column is not None else e.name for e in entries]
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        where = f" in schema {schema}" if schema is not None else ""
        of = f" of database {database}" if database != SERVER and kind != "Database" else ""
        count = spoken(kind) if len(names) == 1 else f"{len(names)} {spoken(kind)}s"
        about = f"{count} {shown}{where}{of}"
        default = " by PostgreSQL's default" if all(e.by_default for e in entries) else ""
        yield Finding(
            finding="PublicGrant",
            role=PUBLIC,
            object=about,
            message=f"PUBLIC has {', '.join(told)} on {about}{default}",
        )


def _waived(one: Finding, waivers: Sequence[Waiver], now: datetime) -> Finding:
    """By the waiver that lasts longest."""
    mine = [w for w in waivers if w.finding == one.finding and w.role == one.role]
    if not mine:
        return one
    last = max(mine, key=lambda w: parse_rfc3339(w.until))
    stands = parse_rfc3339(last.until) > now
    return Finding(
        finding=one.finding,
        role=one.role,
        object=one.object,
        message=one.message,
        waiver=last if stands else None,
        expired=None if stands else last,
    )


def document(
    seen: Snapshot, *, target: str, declared: Mapping[str, str], found: Sequence[Finding]
) -> dict[str, object]:
    """The report without its table, as JSON has it (docs/reference/access-report.schema.json)."""
    return {
        "schema": "pgtend.dev/access-report/v1",
        "target": target,
        "at": rfc3339(seen.now),
        "serverVersion": seen.version,
        "roles": [
            {
                "name": one.name,
                "login": one.login,
                "superuser": one.superuser,
                "attributes": list(one.attributes),
                "connectionLimit": None if one.connection_limit < 0 else one.connection_limit,
                "validUntil": one.valid_until,
                "verifier": one.verifier,
                "declaredBy": declared.get(one.name),
                "sessions": one.sessions,
                "effective": _counted(counts(seen, one.name)),
            }
            for one in seen.people
        ],
        "findings": [
            {
                "finding": one.finding,
                "role": one.role,
                "object": one.object,
                "message": one.message,
                "waived": one.waiver is not None,
                "waiver": _waiver(one.waiver or one.expired),
            }
            for one in found
        ],
        "checks": [
            {
                "finding": name,
                "state": "Unknown" if name in seen.blind else "Checked",
                "meaning": meaning,
                "message": seen.blind.get(name, ""),
            }
            for name, meaning in FINDINGS.items()
        ],
        "unread": [{"database": name, "message": why} for name, why in seen.unread.items()],
    }


def row_document(row: Row) -> dict[str, object]:
    return {
        "role": row.role,
        "via": row.via,
        "viaRole": row.role_via,
        "database": row.database or None,
        "kind": row.kind,
        "schema": row.schema,
        "object": row.name,
        "column": row.column,
        "privileges": list(row.privileges),
        "grantOption": list(row.grantable),
    }


def _counted(found: Counts) -> dict[str, int]:
    return {"direct": found.direct, "viaRoles": found.via_roles, "viaPublic": found.via_public}


def _waiver(waiver: Waiver | None) -> dict[str, str] | None:
    return None if waiver is None else {"name": waiver.name, "until": waiver.until, "reason": waiver.reason}
