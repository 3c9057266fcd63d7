"""One look at a server for a batch: the maintenance database first, then each database that matters.

Roles and privileges are read with the credential that would change them; where nothing may be changed, with `monitor`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import Credential, Member
from pgtend.api.privileges import OF_FUTURE
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.errors import PgtendError
from pgtend.core.names import read_mark
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.quoting import identifier
from pgtend.postgres.session import Session
from pgtend.server.server import Server
from pgtend.users.observe.depends import (
    Dependents,
    ForeignPolicy,
    read_dependents,
    read_foreign_policy,
    read_named,
)
from pgtend.users.observe.read import Ask, Inside, Shared, read_database, read_shared
from pgtend.users.state import SERVER, DatabaseView, Observed, Problem
from pgtend.users.wishes import Wish, expand, member_of

T = TypeVar("T")
PLACES = 3
"""In how many databases objects are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    role: str
    credential: Credential
    purpose: Purpose

    @property
    def user(self) -> str:
        return self.credential.username or f"pgtend_{self.role}"


class Looker:
    """Of one server; remembers whether its roles' passwords can be compared."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sees_verifiers = False

    async def look(self, ask: Ask) -> Observed:
        """Raises PgtendError where the maintenance database cannot be read; the failure of another database is a
        Problem of its view."""
        member = self._primary()
        users = self._server.spec.credentials.users
        grantor = (users.username if users else None) or "pgtend_users"
        shared = await self._shared(member, ask, grantor)
        return await inside_of(
            shared, ask, grantor=grantor, who=self._reader().user, reading=partial(self._reading, member)
        )

    async def dependents(self, role: str, heir: str | None) -> Dependents:
        """What depends on a role, everywhere. Raises PgtendError."""
        return await self._reading(
            self._primary(), None, lambda session: read_dependents(session, role=role, heir=heir)
        )

    async def named(self, role: str, found: Dependents, *, owned: bool) -> list[str]:
        """The first few objects that depend on it (`owned`: that it owns), with their databases. Raises PgtendError."""
        member = self._primary()
        names: list[str] = []
        for place in [p for p in found.places if p.owned or not owned][:PLACES]:
            where = f" in database {place.database}" if place.database else ""
            read = partial(read_named, role=role, shared=place.database is None, owned=owned)
            try:
                names += [f"{item}{where}" for item in await self._reading(member, place.database, read)]
            except PgtendError:
                names.append(f"{place.owned if owned else place.owned + place.others} objects{where}")
        return names

    async def foreign_policy(self, role: str, database: str) -> ForeignPolicy | None:
        """A policy there that names the role and is not ours to change. Raises PgtendError."""
        return await self._reading(self._primary(), database, lambda session: read_foreign_policy(session, role=role))

    def _primary(self) -> Member:
        standing = self._server.standing
        if standing is None or standing.primary is None:
            raise PgtendError(TargetReason.NO_PRIMARY, f"target {self._server.key} has no primary")
        return self._server.member(standing.primary)

    async def _shared(self, member: Member, ask: Ask, grantor: str) -> Shared:
        async def read(session: Session) -> Shared:
            shared = await read_shared(session, ask=ask, grantor=grantor, sees_verifiers=self._sees_verifiers)
            if shared.sees_verifiers and not self._sees_verifiers:
                shared = await read_shared(session, ask=ask, grantor=grantor, sees_verifiers=True)
                self._sees_verifiers = True
            return shared

        try:
            return await self._reading(member, None, read)
        except PgtendError:
            self._sees_verifiers = False  # the right to pg_authid may be what was lost
            raise

    async def _reading(self, member: Member, database: str | None, read: Callable[[Session], Awaitable[T]]) -> T:
        """With a warm session if there is one; one that turns out to be dead is replaced once."""
        reader = self._reader()
        for last in (False, True):
            async with self._server.session(
                member, purpose=reader.purpose, role=reader.role, credential=reader.credential, database=database
            ) as session:
                try:
                    return await read(session)
                except PgtendError:
                    if last or session.usable:
                        raise
        raise AssertionError("unreachable")

    def _reader(self) -> _Reader:
        spec = self._server.spec
        if spec.mode == "Observe" or spec.credentials.users is None:
            return _Reader(role="monitor", credential=spec.credentials.monitor, purpose=Purpose.CATALOG)
        # the purpose of writes, so that reading and writing share one connection per database
        return _Reader(role="users", credential=spec.credentials.users, purpose=Purpose.DDL)


class Reading(Protocol):
    """Reads by a session in a database. Raises PgtendError."""

    async def __call__(self, database: str | None, read: Callable[[Session], Awaitable[T]]) -> T: ...


async def inside_of(shared: Shared, ask: Ask, *, grantor: str, who: str, reading: Reading) -> Observed:
    """What the maintenance database told, with the inside of each database that matters. `who` reads; the failure of a
    database is a Problem of its view."""
    # where our own roles, and those to come, have something, be it in the spec or not
    ours = {
        name
        for role in shared.roles.values()
        if read_mark(role.comment) or role.name in ask.adopted
        for name in role.databases
    }
    databases: dict[str, DatabaseView] = {}
    for name, view in sorted(shared.databases.items()):
        if name in ours or name in ask.inside:
            databases[name] = await _inside_of(view, ask, grantor=grantor, who=who, reading=reading)
        else:
            databases[name] = view
    return Observed(
        roles=shared.roles,
        databases=databases,
        groups=shared.groups,
        settings=shared.settings,
        settable=shared.settable,
        version=shared.version,
        grantor=grantor,
        sees_verifiers=shared.sees_verifiers,
        logging=shared.logging,
        altered=shared.altered,
    )


async def _inside_of(view: DatabaseView, ask: Ask, *, grantor: str, who: str, reading: Reading) -> DatabaseView:
    name = view.itself.name
    if not view.connectable:
        who = identifier(who)
        sql = f"GRANT CONNECT ON DATABASE {identifier(name)} TO {who}"
        text = f"{who} may not connect to database {name}: as an administrator run {sql}"
        return replace(view, problem=Problem(reason=R.MISSING_PRIVILEGE, object=f"database {name}", message=text))
    inside = ask.inside.get(name, Inside())
    try:
        return await reading(
            name,
            lambda session: read_database(session, view=view, roles=ask.roles, inside=inside, grantor=grantor),
        )
    except PgtendError as error:
        problem = Problem(
            reason=error.reason, message=error.message, object=f"database {name}", transient=error.transient
        )
        return replace(view, problem=problem)


_PARTS = {
    "Table": "tables",
    "Sequence": "sequences",
    "Function": "functions",
    "Procedure": "procedures",
    "Type": "types",
    "LargeObject": "large_objects",
}


def _inside(wish: Wish, parts: dict[str, set[str]]) -> None:
    """What of a database to see for a wish; of other kinds all is seen."""
    schema = "*" if wish.loose else str(wish.schema)
    if wish.columns is not None:
        parts.setdefault("columns", set()).update(wish.columns)
        parts.setdefault("column_schemas", set()).add(schema)
    if wish.kind in OF_FUTURE:
        if wish.schema is not None:
            parts.setdefault("default_schemas" if wish.names is not None else "default_auto", set()).add(wish.schema)
        parts.setdefault("default_creators", set()).update(wish.names or ())
    elif wish.kind == "LargeObject":
        parts.setdefault("large_objects", set()).update(wish.names or ())
    elif wish.kind in _PARTS:
        parts.setdefault(_PARTS[wish.kind], set()).add(schema)


def ask_for(users: Iterable[tuple[str, UserSpec]], *, families: Iterable[Sequence[str]] = ()) -> Ask:
    """What to look at for these roles with their specs; of `families` the first has the others as logins."""
    roles: set[str] = set()
    adopted: set[str] = set()
    databases: set[str] = set()
    groups: set[str] = set()
    settings: set[str] = set()
    inside: dict[str, dict[str, set[str]]] = {}
    server: dict[str, set[str]] = {"Parameter": set(), "Tablespace": set()}
    for role, spec in users:
        roles.add(role)
        if spec.adoption != "Never":
            adopted.add(role)
        groups.update(one.role for one in member_of(spec.member_of, spec.grants))
        databases.update(one.database for one in spec.database_settings)
        for given in (spec.settings, *(one.settings for one in spec.database_settings)):
            settings.update(name.lower() for name in given)
        for wish in expand(spec.grants, spec.default_privileges):
            if wish.database == SERVER:
                server[wish.kind].update("*" if "*" in name else name for name in wish.names or ())
                continue
            databases.add(wish.database)
            if wish.kind != "Database":
                _inside(wish, inside.setdefault(wish.database, {}))
    for family in families:
        roles.update(family)
        groups.update(family[:1])
    return Ask(
        roles=frozenset(roles),
        databases=frozenset(databases),
        inside={name: Inside(**{n: frozenset(of) for n, of in parts.items()}) for name, parts in inside.items()},
        parameters=frozenset(server["Parameter"]),
        tablespaces=frozenset(server["Tablespace"]),
        groups=frozenset(groups),
        settings=frozenset(settings),
        adopted=frozenset(adopted),
    )
