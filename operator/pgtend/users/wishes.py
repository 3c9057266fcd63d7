"""The grants of a spec with presets expanded: what consent, the look at the server and the plan all go by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgtend.api.databaseuser import MemberOf
from pgtend.api.grants import DefaultPrivilege, Grant
from pgtend.api.privileges import IN_SCHEMAS, MEMBER_OF, PRESETS, SINCE, Privilege, words_of
from pgtend.users.state import SERVER, Privileges


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One kind in one database (SERVER: of the server). `schema` and `names` are patterns where `loose`; else a schema
    and a name without `*` must exist. `names` None are all. `everything` says that the words were All."""

    kind: str
    database: str
    words: frozenset[Privilege]
    schema: str | None = None
    names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    option: bool = False
    loose: bool = False
    everything: bool = False

    def of(self, major: int) -> tuple[Privileges, Privileges]:
        """The words on this major, and those asked for that it does not know."""
        known = frozenset(word for word in self.words if SINCE.get((self.kind, word), 0) <= major)
        return known, frozenset() if self.everything and known else self.words - known


def expand(grants: Iterable[Grant], defaults: Iterable[DefaultPrivilege] = ()) -> tuple[Wish, ...]:
    """Of default privileges the kind begins with Default, and `names` are the creators (None: auto)."""
    return (*(wish for grant in grants for wish in _wishes(grant)), *(_future(one) for one in defaults))


def _future(one: DefaultPrivilege) -> Wish:
    kind, everything = f"Default{one.kind}", "All" in one.privileges
    return Wish(
        kind=kind,
        database=one.database,
        schema=one.schema_,
        names=one.creators.names,
        words=frozenset(word for word in words_of(kind) if everything or word in one.privileges),
        everything=everything,
    )


def member_of(given: Iterable[MemberOf], grants: Iterable[Grant]) -> tuple[MemberOf, ...]:
    """The memberships of a spec, with those that presets bring and it does not name itself."""
    found = {one.role: one for one in given}
    for grant in grants:
        if (role := MEMBER_OF.get(grant.preset or "")) is not None:
            found.setdefault(role, MemberOf(role=role))
    return tuple(found.values())


def _wishes(grant: Grant) -> Iterator[Wish]:
    database = grant.database if grant.database is not None else SERVER
    if grant.preset is None:
        kind, everything = str(grant.kind), "All" in grant.privileges
        every = words_of(kind, columns=grant.columns is not None)
        yield Wish(
            kind=kind,
            database=database,
            schema=grant.schema_,
            names=grant.names,
            columns=grant.columns,
            words=frozenset(word for word in every if everything or word in grant.privileges),
            option=grant.grant_option,
            everything=everything,
        )
        return
    for part in PRESETS[grant.preset]:
        words = frozenset(part.words)
        if part.kind == "Database":
            yield Wish(kind=part.kind, database=database, words=words)
            continue
        for schema in grant.schemas or ("*",):
            # a schema that is named must be there, as in any grant
            loose, rest = "*" in schema, {"words": words, "everything": True}
            if part.kind == "Schema":
                yield Wish(kind=part.kind, database=database, names=(schema,), loose=loose, **rest)  # type: ignore[arg-type]
            elif part.kind in IN_SCHEMAS:
                yield Wish(kind=part.kind, database=database, schema=schema, loose=loose, **rest)  # type: ignore[arg-type]
