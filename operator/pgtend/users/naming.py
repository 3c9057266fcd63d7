"""How GRANT and REVOKE name what they are about. Only a routine's arguments are SQL that comes from outside, and the
server itself has written and quoted them (oidvectortypes)."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pgtend.api.privileges import OF_FUTURE
from pgtend.users.actions import PrivilegeAction
from pgtend.users.words import KINDS, WORDS


def on(action: PrivilegeAction) -> sql.Composed:
    """`SELECT ON TABLE shop.items, shop.lines`."""
    if action.kind in OF_FUTURE:
        words = sql.SQL(", ").join(sql.SQL(WORDS[word]) for word in sorted(action.privileges))
        return sql.SQL("{} ON {}").format(words, sql.SQL(KINDS[action.kind]))
    columns = sql.SQL(" ({})").format(_list(action.columns)) if action.columns else sql.SQL("")
    words = sql.SQL(", ").join(sql.SQL("{}{}").format(sql.SQL(WORDS[w]), columns) for w in sorted(action.privileges))
    arguments = action.arguments or ("",) * len(action.names)
    named = (_object(action, name, given) for name, given in zip(action.names, arguments, strict=True))
    return sql.SQL("{} ON {} {}").format(words, sql.SQL(KINDS[action.kind]), sql.SQL(", ").join(named))


def before(action: PrivilegeAction) -> sql.Composable:
    """What stands before GRANT or REVOKE."""
    if action.kind not in OF_FUTURE:
        return sql.SQL("")
    where = sql.SQL(" IN SCHEMA {}").format(sql.Identifier(action.schema)) if action.schema is not None else sql.SQL("")
    return sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}{} ").format(_list(action.names), where)


def _object(action: PrivilegeAction, name: str, arguments: str) -> sql.Composable:
    if action.kind == "LargeObject":
        return sql.Literal(int(name))
    if action.kind == "Parameter":
        return sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    path = (name.removesuffix(arguments),) if action.schema is None else (action.schema, name.removesuffix(arguments))
    return sql.SQL("{}{}").format(sql.Identifier(*path), sql.SQL(arguments))


def _list(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
