"""Kinds and privileges as SQL spells them, and how an administrator would type a grant. Pure: the plan tells people
what to run; what runs by itself is composed in naming.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

from pgtend.postgres.quoting import identifier
from pgtend.users.state import ObjectState

KINDS: dict[str, LiteralString] = {
    "Database": "DATABASE",
    "Schema": "SCHEMA",
    "Table": "TABLE",
    "Sequence": "SEQUENCE",
    "Function": "FUNCTION",
    "Procedure": "PROCEDURE",
    "Type": "TYPE",
    "Language": "LANGUAGE",
    "ForeignServer": "FOREIGN SERVER",
    "LargeObject": "LARGE OBJECT",
    "Parameter": "PARAMETER",
    "Tablespace": "TABLESPACE",
    "DefaultSchema": "SCHEMAS",
    "DefaultTable": "TABLES",
    "DefaultSequence": "SEQUENCES",
    "DefaultFunction": "ROUTINES",
    "DefaultType": "TYPES",
}
WORDS: dict[str, LiteralString] = {
    "Connect": "CONNECT",
    "Create": "CREATE",
    "Temporary": "TEMPORARY",
    "Usage": "USAGE",
    "Select": "SELECT",
    "Insert": "INSERT",
    "Update": "UPDATE",
    "Delete": "DELETE",
    "Truncate": "TRUNCATE",
    "References": "REFERENCES",
    "Trigger": "TRIGGER",
    "Maintain": "MAINTAIN",
    "Execute": "EXECUTE",
    "Set": "SET",
    "AlterSystem": "ALTER SYSTEM",
}


def default_shown(item: ObjectState, words: Iterable[str], role: str, *, revoke: bool = False) -> str:
    """ALTER DEFAULT PRIVILEGES for an administrator to type."""
    where = f" IN SCHEMA {identifier(item.schema)}" if item.schema is not None else ""
    listed = ", ".join(WORDS[word] for word in words)
    start = f"ALTER DEFAULT PRIVILEGES FOR ROLE {identifier(item.name)}{where}"
    does, to = ("REVOKE", "FROM") if revoke else ("GRANT", "TO")
    return f"{start} {does} {listed} ON {KINDS[item.kind]} {to} {identifier(role)}"


def shown(item: ObjectState, words: Iterable[str]) -> str:
    """The same for an administrator to type."""
    name = identifier(item.name.removesuffix(item.arguments)) + item.arguments
    if item.kind in ("LargeObject", "Parameter"):
        name = item.name
    path = name if item.schema is None else f"{identifier(item.schema)}.{name}"
    column = f" ({identifier(item.column)})" if item.column is not None else ""
    return f"{', '.join(WORDS[word] + column for word in words)} ON {KINDS[item.kind]} {path}"
