"""From rows to values: one round trip in the maintenance database, one in each other that matters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import psycopg

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive, redact
from pgtend.postgres.flood import all_rows
from pgtend.postgres.session import Query, Row, Session
from pgtend.telemetry.metrics import METRICS
from pgtend.users.observe import objects as objects_of
from pgtend.users.observe import queries
from pgtend.users.state import (
    AS_SUPERUSER,
    OF_PROVIDERS,
    SERVER,
    Counts,
    DatabaseView,
    Given,
    GroupState,
    Held,
    Membership,
    ObjectState,
    RoleState,
    unpack,
)

# pg_roles' column, SQL's word
ELEVATED = {
    "rolsuper": "SUPERUSER",
    "rolcreatedb": "CREATEDB",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
_ALL = frozenset({"UTF8", "SQL_ASCII"})
"""Encodings that take any name."""
COUNTED = "Effective"
"""In place of a kind: rows that count (effective.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What matters of one database: by kind the schemas to see all of it in (`*`: every one); columns by name, and in
    which schemas; large objects by OID; of default privileges the creators and schemas, and where they are `auto`."""

    tables: frozenset[str] = frozenset()
    sequences: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    procedures: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    column_schemas: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    large_objects: frozenset[str] = frozenset()
    default_schemas: frozenset[str] = frozenset()
    default_creators: frozenset[str] = frozenset()
    default_auto: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What to look at: roles, databases, and what matters inside of those to look into (all of `databases` need not
    be); parameters and tablespaces; roles that others are to be members of; names of settings in small letters; and
    which of the roles might be adopted."""

    roles: frozenset[str]
    databases: frozenset[str] = frozenset()
    inside: Mapping[str, Inside] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    tablespaces: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    adopted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the maintenance database tells, as in `Observed`. `sees_verifiers` is whether pg_authid may be read."""

    roles: Mapping[str, RoleState]
    databases: Mapping[str, DatabaseView]
    groups: Mapping[str, GroupState]
    settings: Mapping[str, bool]
    settable: frozenset[str]
    version: int
    sees_verifiers: bool
    logging: Mapping[str, str]
    altered: str | None


async def read_shared(session: Session, *, ask: Ask, grantor: str, sees_verifiers: bool) -> Shared:
    """Roles and databases, in the maintenance database, in one round trip.

    `sees_verifiers` is what is known of the session's rights; where the answer says that it may see them and was not
    asked to, the caller asks again. Raises PgtendError.
    """
    params = {"grantor": grantor, "powers": sorted(AS_SUPERUSER | OF_PROVIDERS)} | {
        name: _sayable(session, getattr(ask, name))
        for name in ("roles", "databases", "groups", "settings", "parameters", "tablespaces")
    }
    major = session.server_version // 10000
    with as_reason(session):
        roles, objects = await _both(
            session, (queries.roles(major=major, verifiers=sees_verifiers), objects_of.shared(major)), params
        )
    first = roles[0]
    databases = [row for row in objects if row["kind"] == "Database"]
    rest = tuple(_object(row, SERVER) for row in objects if row["kind"] not in ("Database", COUNTED))
    counts = {row["name"]: _counts(row) for row in objects if row["kind"] == COUNTED}
    return Shared(
        roles={row["name"]: _role(row) for row in roles if row["name"] is not None},
        groups={
            name: GroupState(name=name, powerful=powerful, grantable=grantable)
            for name, powerful, grantable in first["groups"] or ()
        },
        settings=first["settable"] or {},
        settable=_settable(first, major),
        version=major,
        databases={
            row["name"]: DatabaseView(
                itself=_object(row, row["name"]),
                connectable=row["connectable"],
                outside=counts.get(row["name"], {}),
            )
            for row in databases
        }
        | {
            SERVER: DatabaseView(
                itself=ObjectState(kind="Server", database=SERVER, name=SERVER),
                others=rest,
                outside=counts.get(SERVER, {}),
            )
        },
        sees_verifiers=first["sees_verifiers"],
        logging=first["logging"] or {},
        altered=first["altered"],
    )


async def read_database(
    session: Session, *, view: DatabaseView, roles: frozenset[str], inside: Inside, grantor: str
) -> DatabaseView:
    """The same database with what lies inside: all schemas, what is asked for, and whatever else the roles have
    privileges on. Raises PgtendError."""
    name = view.itself.name
    params = {"roles": _sayable(session, roles), "grantor": grantor} | {
        part.name: _sayable(session, getattr(inside, part.name)) for part in fields(inside)
    }
    found_schemas: dict[str, ObjectState] = {}
    tables: dict[str, dict[str, ObjectState]] = {}
    others: list[ObjectState] = []
    with as_reason(session):
        rows = await session.fetch(objects_of.local(session.server_version // 10000), params)
    inner: Mapping[str, Counts] = {}
    for row in rows:
        if row["kind"] == COUNTED:
            inner = _counts(row)
            continue
        item = _object(row, name)
        if item.kind == "Schema":
            found_schemas[item.name] = item
        elif item.kind == "Table" and item.column is None:
            tables.setdefault(str(item.schema), {})[item.name] = item
        else:
            others.append(item)
    return DatabaseView(
        itself=view.itself,
        connectable=True,
        schemas=found_schemas,
        tables=tables,
        others=tuple(others),
        outside=view.outside,
        inside=inner,
    )


def _sayable(session: Session, names: Iterable[str]) -> list[str]:
    """Those that can be in this database at all: what its encoding does not have would be an error, and the look is
    many users'."""
    encoding = session.connection.info.parameter_status("server_encoding") or ""
    return sorted(name for name in names if encoding in _ALL or name.isascii() or _has(encoding, name))


def _has(encoding: str, name: str) -> bool:
    """False too of an encoding that Python does not know."""
    try:
        name.encode(re.sub("^WIN", "cp", encoding).replace("KOI8", "koi8_"))
    except (LookupError, UnicodeEncodeError):
        return False
    return True


@contextmanager
def as_reason(session: Session) -> Iterator[None]:
    """A failed reading as a reason that a condition can give."""
    where = f"{session.address.where}, database {session.connection.info.dbname}" if session.usable else "the primary"
    try:
        yield
    except (psycopg.Error, TimeoutError, UnicodeError) as error:
        text = redact(" ".join(str(error).split()))[:200] or "no answer within the deadline"
        raise PgtendError(TargetReason.PROBE_FAILED, f"{where} could not be read: {text}") from error


async def _both(session: Session, queries: Sequence[Query], params: Mapping[str, Any]) -> list[list[Row]]:
    """Several statements in one round trip, under the purpose's deadline."""
    METRICS.statements.labels(session.purpose.value).inc()
    async with session.bounded(), session.connection.pipeline():
        cursors = [await session.connection.execute(query, params, prepare=False) for query in queries]
        return [await all_rows(cursor) for cursor in cursors]


def _settable(row: Row, major: int) -> frozenset[str]:
    """Which attributes our role may give and take: until 15 what CREATEROLE covers, then what it has itself."""
    if row["all_powerful"]:
        return frozenset(ELEVATED.values())
    if major < 16:
        return frozenset({"CREATEDB", "CREATEROLE"})
    own = {"CREATEDB": "may_createdb", "REPLICATION": "may_replication", "BYPASSRLS": "may_bypassrls"}
    return frozenset({"CREATEROLE", *(word for word, column in own.items() if row[column])})


def _role(row: Row) -> RoleState:
    settings: dict[str | None, dict[str, str]] = {}
    for database, name, value in row["settings"] or ():
        settings.setdefault(database, {})[name] = value
    return RoleState(
        name=row["name"],
        login=row["rolcanlogin"],
        inherit=row["rolinherit"],
        connection_limit=row["rolconnlimit"],
        valid_until=row["valid_until"],
        elevated=_words(tuple(word for column, word in ELEVATED.items() if row[column])),
        alterable=row["alterable"],
        powerful=row["powerful"],
        comment=row["comment"],
        verifier=None if row["verifier"] is None else Sensitive(row["verifier"]),
        sessions=row["sessions"],
        databases=_words(tuple(row["databases"])),
        owns=row["owns"],
        settings=settings,
        memberships=tuple(
            Membership(
                role=group,
                admin=admin,
                inherit=inherit,
                set_=set_,
                ours=bool(ours),
                grantor=grantor,
                revocable=bool(revocable),
                automatic=automatic,
            )
            for group, admin, inherit, set_, ours, grantor, revocable, automatic in row["memberships"] or ()
        ),
    )


@lru_cache(maxsize=256)
def _words(words: tuple[str, ...]) -> frozenset[str]:
    """The same set for the same words: a thousand roles are much alike."""
    return frozenset(words)


@lru_cache(maxsize=1024)
def _held(mask: int | None, grantable: int | None, ours: int | None, others: tuple[Given, ...]) -> Held:
    return Held(unpack(mask), unpack(grantable), unpack(ours), others)


def _counts(row: Row) -> dict[str, Counts]:
    return {name: Counts(direct, roles, public) for name, direct, roles, public in row["held"]}


def _others(rows: Sequence[tuple[str, int, bool]] | None) -> tuple[Given, ...]:
    """One for each grantor, of one privilege each."""
    found: dict[tuple[str, bool], int] = {}
    for grantor, bit, revocable in rows or ():
        found[grantor, revocable] = found.get((grantor, revocable), 0) | bit
    return tuple(Given(grantor, unpack(mask), revocable) for (grantor, revocable), mask in sorted(found.items()))


def _object(row: Row, database: str) -> ObjectState:
    held = {
        name: _held(mask, grantable, ours, _others(others)) for name, mask, grantable, ours, others in row["held"] or ()
    }
    return ObjectState(
        kind=row["kind"],
        database=database,
        schema=row["schema"],
        name=row["name"],
        column=row["column"],
        arguments=row["arguments"],
        auto=row["auto"],
        owner=row["owner"],
        owner_is_superuser=row["owner_is_superuser"],
        grantable=unpack(row["grantable"]),
        direct=unpack(row["direct"]),
        public=unpack(row["public"]),
        held=held,
    )
