"""Which privileges are beyond the spec and which are missing, object by object. Pure, a part of plan.py.

Privileges are taken away where this object could have given them: granted in the name that our GRANTs bear. What
others granted is left alone, unless pruning is All: then it is revoked as who granted it, where we may. One statement
acts in one name, so that what is granted in our own and what in the owner's comes apart; and a table's REVOKE takes the
same from its columns, which are given it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pgtend.api.privileges import OF_COLUMNS, OF_FUTURE, PRIVILEGES, SERVER_WIDE
from pgtend.api.reasons import UserReason as R
from pgtend.core.patterns import pattern
from pgtend.postgres.quoting import identifier
from pgtend.users.actions import GrantPrivileges, RevokePrivileges
from pgtend.users.plan_role import Step
from pgtend.users.state import NONE, SERVER, DatabaseView, Held, Key, ObjectState, Observed, Privileges, Problem, spoken
from pgtend.users.wanted import Wanted
from pgtend.users.wishes import Wish, expand
from pgtend.users.words import default_shown as in_sql_default
from pgtend.users.words import shown as in_sql

SHOWN = 3
_Group = tuple[str, str | None, str | None, Privileges, bool, str | None]
"""Kind, schema, table (of columns), words, grant option, and who granted: what one statement is about."""


@dataclass(slots=True)
class Want:
    """Of one object: what, and what with the right to hand it on."""

    words: Privileges = NONE
    option: Privileges = NONE


@dataclass(slots=True)
class Asked:
    """What a spec asks for, by database and object."""

    objects: dict[str, dict[Key, Want]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(want.words) for objects in self.objects.values() for want in objects.values())


def asked(wanted: Wanted, observed: Observed, problems: list[Problem]) -> Asked:
    """The objects that the grants mean; what does not exist, or is not known to this major, is a problem."""
    found = Asked()
    for wish in expand(wanted.grants, wanted.default_privileges):
        view = observed.databases.get(wish.database)
        words, unknown = wish.of(observed.version)
        if unknown:
            text = f"PostgreSQL {observed.version} knows no {_words(unknown)} on a {spoken(wish.kind)}"
            note(
                problems, Problem(reason=R.NOT_SUPPORTED, object=wish.kind, message=f"{text}: take it out of the spec")
            )
        if not words:
            continue
        if view is None:
            note(problems, _missing("database", wish.database, f"database {wish.database} does not exist"))
            continue
        if wish.kind != "Database" and view.problem is not None:
            note(problems, view.problem)
            continue
        objects = found.objects.setdefault(wish.database, {})
        for key in _named(wish, view, problems):
            want = objects.setdefault(key, Want())
            want.words |= words
            want.option |= words if wish.option else NONE
    # where the role has something that the spec does not name, and nobody could look
    role = observed.roles.get(wanted.role)
    for database in sorted(role.databases - wanted.databases) if role else ():
        view = observed.databases.get(database)
        if view is not None and view.problem is not None and view.problem.transient:
            note(problems, view.problem)
    return found


def _named(wish: Wish, view: DatabaseView, problems: list[Problem]) -> Iterator[Key]:
    """The objects of one wish; patterns and `all` take what exists, a plain name must exist."""
    if wish.kind == "Database":
        yield "Database", None, wish.database, None
        return
    if wish.kind in OF_FUTURE and wish.names is None:
        there = view.by_place.get((wish.kind, wish.schema), {})
        yield from (item.key for item in there.values() if item.auto)
        return
    schemas: list[str | None] = [None]
    if wish.schema is not None:
        schemas = list(view.schemas_of(wish.schema, loose=wish.loose))
        if not schemas and not wish.loose:
            text = f"schema {wish.schema} does not exist in database {wish.database}"
            note(problems, _missing("schema", wish.schema, text))
    for schema in schemas:
        there = view.by_place.get((wish.kind, schema), {})
        for name in wish.names or ("*",):
            low = name.lower() if wish.kind == "Parameter" else name
            if "*" in low and wish.kind not in OF_FUTURE:
                found = [one for one in there if pattern(low).fullmatch(one)]
            else:
                found = [low] if low in there else []
            if not found and wish.kind in OF_FUTURE:
                note(problems, _missing("role", name, f"role {name} does not exist"))
            elif not found and "*" not in low:
                path = f"{schema}.{name}" if schema is not None else name
                text = f"{spoken(wish.kind)} {path} does not exist{_in(wish.database)}"
                note(problems, _missing(spoken(wish.kind), path, text))
            for one in found:
                yield from _columns(wish, view, (wish.kind, schema, one), problems, exact="*" not in low)


def _columns(
    wish: Wish, view: DatabaseView, table: tuple[str, str | None, str], problems: list[Problem], *, exact: bool
) -> Iterator[Key]:
    """The object itself, or its columns; one that a table of a pattern does not have is not missed."""
    if wish.columns is None:
        yield (*table, None)
        return
    for column in wish.columns:
        key: Key = (*table, column)
        if key in view.by_key:
            yield key
        elif exact and wish.names is not None:
            path = f"{table[1]}.{table[2]}.{column}"
            note(problems, _missing("column", path, f"column {path} does not exist{_in(wish.database)}"))


def privileges(wanted: Wanted, observed: Observed, wishes: Asked, problems: list[Problem]) -> Iterator[Step]:
    """Revokes before grants, database by database; objects with the same need in one action."""
    for database, view in sorted(observed.databases.items()):
        yield from _in_database(wanted, view, wishes.objects.get(database, {}), observed, problems)


def _in_database(
    wanted: Wanted, view: DatabaseView, objects: dict[Key, Want], observed: Observed, problems: list[Problem]
) -> Iterator[Step]:
    role = wanted.role
    excess: dict[_Group, list[ObjectState]] = {}
    lacking: dict[_Group, list[ObjectState]] = {}
    lost: dict[tuple[str | None, str], tuple[Privileges, Privileges]] = {}
    nothing = Want()
    for item in view.by_role.get(role, ()) if wanted.prunes else ():
        held, want = item.held[role], objects.get(item.key, nothing)
        beyond, handed = (
            held.ours - want.words - _as_made(item, objects),
            held.ours & held.grantable & want.words - want.option,
        )
        for part in _apart(item, beyond):
            excess.setdefault(_group(item, part, option=False), []).append(item)
        for part in _apart(item, handed):
            excess.setdefault(_group(item, part, option=True), []).append(item)
        for given in held.others if wanted.prunes_others else ():
            too_much = given.words - want.words - _as_made(item, objects)
            if too_much and given.revocable:
                excess.setdefault(_group(item, too_much, option=False, grantor=given.grantor), []).append(item)
                beyond |= too_much
            elif too_much:
                note(problems, _of_another(item, too_much, role, given.grantor, observed.grantor))
                yield None, f"{_words(too_much)} on {item.shown}, granted by {given.grantor}, is beyond the spec"
        if item.kind == "Table" and item.column is None and (beyond or handed):
            lost[(item.schema, item.name)] = (beyond, beyond | handed)
    for key, want in objects.items():
        item = view.by_key[key]
        gone, gone_option = lost.get((item.schema, item.name), (NONE, NONE)) if item.column else (NONE, NONE)
        plain, option = _lack(item, role, want, (gone, gone_option), observed, problems)
        for part in _apart(item, plain):
            lacking.setdefault(_group(item, part, option=False), []).append(item)
        for part in _apart(item, option):
            lacking.setdefault(_group(item, part, option=True), []).append(item)
    for group, items in excess.items():
        what = "may be handed on, which the spec does not say" if group[4] else "is beyond the spec"
        by = f", granted by {group[5]}," if group[5] is not None else ""
        text, about = f"{_words(group[3])} on {_shown(items)}{by} {what}", _about(group, items)
        yield RevokePrivileges(verb="revoke on", role=role, option_only=group[4], grantor=group[5], **about), text  # type: ignore[arg-type]
    for group, items in lacking.items():
        text = f"{_words(group[3])} on {_shown(items)} {'may not be handed on' if group[4] else 'is missing'}"
        yield GrantPrivileges(verb="grant on", role=role, option=group[4], **_about(group, items)), text  # type: ignore[arg-type]


def _as_made(item: ObjectState, objects: dict[Key, Want]) -> Privileges:
    """What its creator's default privileges gave, while the spec asks for these: that is not beyond it."""
    kind = "DefaultFunction" if item.kind == "Procedure" else f"Default{item.kind}"
    wants = (objects.get((kind, schema, item.owner, None)) for schema in {item.schema, None})
    return NONE.union(*(want.words for want in wants if want is not None))


def _group(item: ObjectState, words: Privileges, *, option: bool, grantor: str | None = None) -> _Group:
    return item.kind, item.schema, item.name if item.column is not None else None, words, option, grantor


def _about(group: _Group, items: list[ObjectState]) -> dict[str, object]:
    kind, schema, table, words, _, _ = group
    ordered = sorted(items, key=lambda item: (item.name, item.column or ""))
    return {
        "object": _shown(items),
        "kind": kind,
        "database": items[0].database,
        "schema": schema,
        "privileges": words,
        "names": (table,) if table is not None else tuple(item.name for item in ordered),
        "columns": tuple(item.column for item in ordered) if table is not None else (),
        "arguments": tuple(item.arguments for item in ordered) if any(item.arguments for item in items) else (),
    }


def _lack(
    item: ObjectState,
    role: str,
    want: Want,
    lost: tuple[Privileges, Privileges],
    observed: Observed,
    problems: list[Problem],
) -> tuple[Privileges, Privileges]:
    """What to grant, without and with the option. The owner needs none; what everybody has and we may not grant is in
    force as it is. `lost` is what a REVOKE before takes away."""
    if item.owner == role:
        return NONE, NONE
    held = item.held.get(role, Held(NONE))
    option = want.option - (held.grantable - lost[1])
    plain = want.words - want.option - (held.all - lost[0])
    denied = (plain - item.grantable - item.public) | (option - item.grantable)
    if denied:
        note(problems, _denied(item, denied, role, observed.grantor))
    return plain & item.grantable, option & item.grantable


def _apart(item: ObjectState, words: Privileges) -> Iterator[Privileges]:
    """What is granted in our own name and what in the owner's, since one statement acts in one name."""
    for part in (words & item.direct, words - item.direct):
        if part:
            yield part


def _denied(item: ObjectState, words: Privileges, role: str, grantor: str) -> Problem:
    who = identifier(grantor)
    sql = f"GRANT {identifier(item.owner)} TO {who}"
    if item.kind in OF_FUTURE and item.owner_is_superuser:
        sql = in_sql_default(item, _ordered(words), role)
    elif item.owner_is_superuser or item.kind == "Database" or item.kind in SERVER_WIDE:
        sql = f"GRANT {in_sql(item, _ordered(words))} TO {who} WITH GRANT OPTION"
    where = "" if item.kind == "Database" else _in(item.database)
    return Problem(
        reason=R.MISSING_PRIVILEGE,
        object=item.shown,
        message=f"{grantor} may not grant {_words(words)} on {item.shown}: as an administrator run {sql}{where}",
    )


def _of_another(item: ObjectState, words: Privileges, role: str, grantor: str, who: str) -> Problem:
    as_them = identifier(grantor)
    sql = f"SET ROLE {as_them}; REVOKE {in_sql(item, _ordered(words))} FROM {identifier(role)}; RESET ROLE"
    if item.kind in OF_FUTURE:
        sql = in_sql_default(item, _ordered(words), role, revoke=True)
    text = f"{_words(words)} on {item.shown} was granted by {grantor}, as whom {who} may not act"
    where = "" if item.kind == "Database" else _in(item.database)
    message = f"{text}: as an administrator run {sql}{where}"
    return Problem(reason=R.MISSING_PRIVILEGE, object=item.shown, message=message)


def _missing(kind: str, name: str, text: str) -> Problem:
    message = f"{text}: create the {kind}, or correct the name in spec.grants"
    return Problem(reason=R.OBJECT_MISSING, object=name, message=message)


def note(problems: list[Problem], problem: Problem) -> None:
    if problem not in problems:
        problems.append(problem)


def _in(database: str) -> str:
    return f" in database {database}" if database != SERVER else ""


def _shown(items: list[ObjectState]) -> str:
    """One object by name, several by number with the first few names."""
    first = items[0]
    if len(items) == 1:
        return first.shown
    names = ", ".join(item.column or item.name for item in items[:SHOWN]) + (", …" if len(items) > SHOWN else "")
    if first.column is not None:
        return f"{len(items)} columns of table {first.schema}.{first.name} of database {first.database} ({names})"
    where = f" of schema {first.schema}" if first.schema else ""
    if first.kind in OF_FUTURE:
        return f"{spoken(OF_FUTURE[first.kind])}s to come of {len(items)} roles{where} of {first.database} ({names})"
    of = f" of database {first.database}" if first.database != SERVER else ""
    return f"{len(items)} {spoken(first.kind)}s{where}{of} ({names})"


def _ordered(words: Privileges) -> list[str]:
    order = [word for kind in PRIVILEGES.values() for word in kind]
    return [word for word in dict.fromkeys((*order, *OF_COLUMNS)) if word in words]


def _words(words: Privileges) -> str:
    return ", ".join(_ordered(words))
