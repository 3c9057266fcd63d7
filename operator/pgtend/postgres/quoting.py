"""Names in statements that people are told to run: quoted only where SQL needs it, so that they stay readable.

What we run ourselves is quoted by psycopg.sql.
"""

from __future__ import annotations

import re

# Words that PostgreSQL does not take as a role's, schema's or table's name without quotes (14 to 18, appendix C).
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
        collation column concurrently constraint create cross current_catalog current_date current_role current_schema
        current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for
        foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral
        leading left like limit localtime localtimestamp natural none not notnull null offset on only or order outer
        overlaps placing primary public references returning right select session_user similar some symmetric
        system_user table tablesample then to trailing true union unique user using variadic verbose when where window
        with""",
    )
)


def identifier(name: str) -> str:
    """A name as it is written in SQL."""
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a literal, under standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"
