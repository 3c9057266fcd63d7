"""Values of PostgreSQL's settings as people write them and as the catalog keeps them, so that both can be compared.

A setting is kept on a role as it was given, but for the few that are lists of names: those are taken apart, folded and
quoted anew (GUC_LIST_QUOTE in guc.c), so that `shop,  Public` reads back as `shop, public`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
"""Settings of sessions that are lists of names, in every major from 14 to 18."""
_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s,"]+))\s*(,|$)')


def elements(name: str, value: str) -> tuple[str, ...]:
    """What `SET name TO` is given: the names of a list, or the value itself. Raises ValueError for a list with a quote
    that does not end, or without a name between two commas."""
    return tuple(_names(value)) if name.lower() in LISTS else (value,)


def _names(value: str) -> Iterator[str]:
    if not value.strip():
        yield ""
        return
    position = 0
    while True:
        found = _ITEM.match(value, position)
        if found is None:
            raise ValueError(f"{value!r} is no list of names: write them with commas between, as in shop, public")
        quoted, plain, comma = found.groups()
        yield quoted.replace('""', '"') if quoted is not None else plain.lower()
        if not comma:
            return
        position = found.end()
