"""What pg_restore says of an archive, read as a stream: which tables have data in it, and how many rows.

`pg_restore --list` alone proves nothing: it accepts an archive that is cut anywhere behind its table of contents. So
the data itself is made to pass through pg_restore, and the rows are counted where they come out. `--data-only` keeps
function bodies out of the text, which could look like anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_IDENTIFIER = rb'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_COPY = re.compile(rb"COPY (" + _IDENTIFIER + rb")\.(" + _IDENTIFIER + rb") .*?FROM stdin;\n", re.DOTALL)
_TOC_DATA = re.compile(rb"^[0-9]+; [0-9]+ [0-9]+ TABLE DATA ", re.MULTILINE)
_END = b"\n\\.\n"
_LONGEST_STATEMENT = 1 << 24


def count_toc_data(listing: bytes) -> int:
    """How many tables have data, by `pg_restore --list`."""
    return len(_TOC_DATA.findall(listing))


@dataclass
class ArchiveRows:
    """Feed it the output of `pg_restore --data-only`; `rows` is then (schema, table) -> rows. Memory stays bounded
    whatever the width of a row: only what could be the end of a table's data is kept from one block to the next."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    _table: tuple[str, str] | None = None
    _rest: bytes = b""

    def feed(self, block: bytes) -> None:
        """Raises ValueError where the text is not what pg_restore writes."""
        data, self._rest = self._rest + block, b""
        while data:
            data = self._statements(data) if self._table is None else self._copied(data, self._table)

    def finish(self) -> None:
        """Raises ValueError where a table's data has no end."""
        if self._table is not None:
            raise ValueError(f"the data of {'.'.join(self._table)} does not end")

    def _statements(self, data: bytes) -> bytes:
        """Skip to the next COPY; returns what follows its line. `data` begins with a line."""
        if not data.startswith(b"COPY "):
            start = data.find(b"\nCOPY ")
            if start >= 0:
                return data[start + 1 :]
            self._keep(data[data.rfind(b"\n") + 1 :])
            return b""
        match = _COPY.match(data)
        if match is None:
            self._keep(data)
            return b""
        self._table = (_name(match[1]), _name(match[2]))
        # The data gets a line end in front, so that the mark of the end always stands between two of them.
        self.rows[self._table] = self.rows.get(self._table, 0) - 1
        return b"\n" + data[match.end() :]

    def _copied(self, data: bytes, table: tuple[str, str]) -> bytes:
        """Count line ends up to the mark; returns what follows it. A line end within a value is written as `\\n`."""
        end = data.find(_END)
        if end >= 0:
            self.rows[table] += data.count(b"\n", 0, end + 1)
            self._table = None
            return data[end + len(_END) :]
        kept = next((n for n in (3, 2, 1) if data.endswith(_END[:n])), 0)
        self.rows[table] += data.count(b"\n", 0, len(data) - kept)
        self._rest = data[len(data) - kept :]
        return b""

    def _keep(self, data: bytes) -> None:
        if len(data) > _LONGEST_STATEMENT:
            raise ValueError(f"a statement of more than {_LONGEST_STATEMENT} bytes")
        self._rest = data


def _name(identifier: bytes) -> str:
    if identifier.startswith(b'"'):
        identifier = identifier[1:-1].replace(b'""', b'"')
    return identifier.decode(errors="surrogateescape")
