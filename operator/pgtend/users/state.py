"""What was observed on a server, as values: roles, and the objects on which they have or want privileges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from pgtend.api.conditions import Reason
from pgtend.api.privileges import OF_FUTURE, WORDS, Privilege
from pgtend.core.patterns import pattern
from pgtend.core.redaction import Sensitive

AS_SUPERUSER = frozenset({"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"})
"""Who is a member of these can make itself a superuser."""
OF_PROVIDERS = frozenset({"rds_superuser", "cloudsqlsuperuser", "azure_pg_admin", "alloydbsuperuser"})
"""What managed services have in place of superusers."""
BITS: dict[Privilege, int] = {word: 1 << place for place, word in enumerate(WORDS)}
"""How a query packs privileges into a number."""
SERVER = ""
"""In place of a database: what belongs to the server. No database has an empty name."""
OPTIONS_SINCE = 16
"""The major from which on a membership has options beside ADMIN."""
NEVER = -1
"""valid_until of a role whose password is never accepted (-infinity)."""

Privileges = frozenset[Privilege]
NONE: Privileges = frozenset()


@lru_cache(maxsize=4096)
def unpack(mask: int | None) -> Privileges:
    """The same set for the same number: there are few, and a hundred thousand objects may hold them."""
    return frozenset(word for word, bit in BITS.items() if (mask or 0) & bit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What stands in the way: `reason` for a condition, `message` with object and next step. `transient` where trying
    again may help; `of_role` where it concerns the role itself and not its privileges; `sessions` where it is these."""

    reason: Reason
    message: str
    object: str | None = None
    transient: bool = False
    of_role: bool = False
    sessions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """What a login whose grace is over has come to: without login, with `sessions` that began before; `now` are those
    that were switched off in this pass. Otherwise `problem` tells why not; neither where the role is not this object's.
    """

    off: bool = False
    now: tuple[str, ...] = ()
    sessions: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """In one role, as one grantor gave it; before 16 there is one of each, and `inherit` and `set_` mean nothing.
    `ours` where it stands in the name that our GRANTs bear; `revocable` where we may end another's. `automatic` is what
    the server itself gave to a role that made another."""

    role: str
    admin: bool = False
    inherit: bool = True
    set_: bool = True
    ours: bool = False
    grantor: str = ""
    revocable: bool = False
    automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """A role that others are to be members of, and whether we may grant it. `powerful` where it is a superuser, or a
    member of one or of what amounts to one: then so would its members be. What amounts to one by its own name is not,
    since that is asked for and admitted by name."""

    name: str
    powerful: bool = False
    grantable: bool = True


Settings = Mapping[str | None, Mapping[str, str]]
"""By database (None: all) and name, as the catalog keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """One role. `valid_until` is in microseconds since 1970, None for never. `elevated` are its attributes, in SQL's
    words; `alterable` is whether we may change the role at all; `powerful` whether it is a superuser, or a member of
    one or of what amounts to one. `databases` are those in which it has entries in ACLs; `owns` counts what belongs to
    it, everywhere."""

    name: str
    login: bool = True
    inherit: bool = True
    connection_limit: int = -1
    valid_until: int | None = None
    elevated: frozenset[str] = frozenset()
    alterable: bool = True
    powerful: bool = False
    comment: str | None = None
    verifier: Sensitive | None = None
    sessions: int = 0
    databases: frozenset[str] = frozenset()
    owns: int = 0
    settings: Settings = field(default_factory=dict)
    memberships: tuple[Membership, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """What one grantor has given; `revocable` where we may act as that role."""

    grantor: str
    words: Privileges
    revocable: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Privileges of one role on one object: all of them, those it may hand on, those that a REVOKE of ours ends, and
    what others granted."""

    all: Privileges
    grantable: Privileges = NONE
    ours: Privileges = NONE
    others: tuple[Given, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectState:
    """One object, or a column of one. `grantable` is what we may grant on it, `direct` what of that in our own name and
    not the owner's, `public` what everybody has. A routine's name ends with its `arguments`, `(integer, text)`, as SQL
    that the server has written. Default privileges are an object per schema and creator, whose name it has; `auto`
    where it may make objects there by itself."""

    kind: str
    database: str
    name: str
    schema: str | None = None
    column: str | None = None
    arguments: str = ""
    auto: bool = False
    owner: str = ""
    owner_is_superuser: bool = False
    grantable: Privileges = NONE
    direct: Privileges = NONE
    public: Privileges = NONE
    held: Mapping[str, Held] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.kind, self.schema, self.name, self.column

    @property
    def shown(self) -> str:
        """As people read it: `table orders:shop.items`."""
        if self.kind == "Database":
            return f"database {self.name}"
        if self.kind in OF_FUTURE:
            where = f" in schema {self.schema}" if self.schema is not None else ""
            return f"{spoken(OF_FUTURE[self.kind])}s to come of {self.name}{where} of database {self.database}"
        path = f"{self.schema}.{self.name}" if self.schema else self.name
        part = f"column {self.column} of " if self.column is not None else ""
        where = f" of database {self.database}" if self.database != SERVER else ""
        return f"{part}{spoken(self.kind)} {path}{where}"


def spoken(kind: str) -> str:
    """`ForeignServer` as people say it."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in kind).strip()


Key = tuple[str, str | None, str, str | None]
"""Kind, schema, name and column of an object within its database."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many privileges are in effect: given to the role itself (or as owner), to roles that it inherits from and not
    to itself, and to everybody alone."""

    direct: int = 0
    via_roles: int = 0
    via_public: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.direct + other.direct, self.via_roles + other.via_roles, self.via_public + other.via_public)


EVERYBODY = ""
"""In place of a role, in counts: one that has nothing but what everybody has."""


@dataclass(frozen=True, kw_only=True)
class DatabaseView:
    """One database: itself as an object, and what was read inside. `problem` is why it was not read."""

    itself: ObjectState
    connectable: bool = True
    schemas: Mapping[str, ObjectState] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, ObjectState]] = field(default_factory=dict)
    """By schema, then by name; complete for every schema that was asked for."""
    others: tuple[ObjectState, ...] = ()
    """Of all other kinds, and columns."""
    problem: Problem | None = None
    outside: Mapping[str, Counts] = field(default_factory=dict)
    """By role: on the database itself. Roles that have no more than EVERYBODY are left out."""
    inside: Mapping[str, Counts] | None = None
    """The same inside of it; None where nobody looked."""

    @cached_property
    def by_role(self) -> Mapping[str, tuple[ObjectState, ...]]:
        """The objects on which each role has an entry of its own."""
        found: dict[str, list[ObjectState]] = {}
        for item in self.objects():
            for role in item.held:
                found.setdefault(role, []).append(item)
        return {role: tuple(items) for role, items in found.items()}

    def objects(self) -> Iterable[ObjectState]:
        yield self.itself
        yield from self.schemas.values()
        for tables in self.tables.values():
            yield from tables.values()
        yield from self.others

    @cached_property
    def by_place(self) -> Mapping[tuple[str, str | None], Mapping[str, ObjectState]]:
        """Whole objects by kind and schema, then by name."""
        found: dict[tuple[str, str | None], dict[str, ObjectState]] = {}
        for item in self.objects():
            if item.column is None:
                found.setdefault((item.kind, item.schema), {})[item.name] = item
        return found

    @cached_property
    def by_key(self) -> Mapping[Key, ObjectState]:
        return {item.key: item for item in self.objects()}

    def schemas_of(self, wanted: str, *, loose: bool) -> list[str]:
        """The schemas that a name or (`loose`) a pattern means."""
        if not loose:
            return [wanted] if wanted in self.schemas else []
        form = pattern(wanted)
        return [name for name in self.schemas if form.fullmatch(name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A server as it was seen for some roles; its database SERVER holds what belongs to no database. `grantor` is the
    role that would change it, `settable` the attributes that it may give and take; `settings` says of names, in small
    letters, whether it may set them on a role; `sees_verifiers` is whether passwords could be compared. `version` is
    the major's number."""

    roles: Mapping[str, RoleState] = field(default_factory=dict)
    databases: Mapping[str, DatabaseView] = field(default_factory=dict)
    groups: Mapping[str, GroupState] = field(default_factory=dict)
    settings: Mapping[str, bool] = field(default_factory=dict)
    settable: frozenset[str] = frozenset()
    version: int = 18
    grantor: str = "pgtend_users"
    sees_verifiers: bool = False
    logging: Mapping[str, str] = field(default_factory=dict)
    """What decides, in our sessions, whether a statement is recorded: settings by name, those that exist."""
    altered: str | None = None
    """Another text whenever a role has been altered, whoever did it; None where the server does not tell."""
