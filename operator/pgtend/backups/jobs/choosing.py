"""A part of an archive, as the list that `pg_restore --use-list` follows. pg_restore itself says what belongs to a
schema; the schema, its grants and its comment, which are in none, are added by name. No line is written here, lines are
chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pgtend.backups.jobs.config import JobReason, RestoreReason
from pgtend.backups.jobs.creating import read_front
from pgtend.backups.jobs.programs import Programs
from pgtend.core.errors import PgtendError

_ENTRY = re.compile(rb"^([0-9]+); [0-9]+ [0-9]+ ")
_ITSELF = ("SCHEMA - {} ", "ACL - SCHEMA {} ", "COMMENT - SCHEMA {} ", "SECURITY LABEL - SCHEMA {} ")


def choose(programs: Programs, blocks: Iterator[bytes], *, schemas: Sequence[str]) -> tuple[bytes, list[bytes]]:
    """The list of what these schemas are and hold, and the blocks that were read for it, to be fed again. Raises
    PgtendError(SchemaNotInBackup) where one of them is not there."""
    everything, read = read_front(programs, blocks, ["--list"])
    inside, _ = read_front(programs, iter(read), ["--list", *(f"--schema={name}" for name in schemas)])
    wanted = {number for number, _, _ in entries(inside)}
    for name in schemas:
        wanted |= _itself(everything, name)
    return b"".join(line + b"\n" for number, line, _ in entries(everything) if number in wanted), read


def _itself(everything: bytes, schema: str) -> set[bytes]:
    """What stands outside the schema and is about it."""
    found: set[bytes] = set()
    for place, form in enumerate(_ITSELF):
        begins = form.format(schema).encode(errors="surrogateescape")
        mine = [number for number, _, what in entries(everything) if what.startswith(begins)]
        if not mine and not place and schema != "public":  # which every database has, and no archive makes
            text = f"the backup holds no schema {schema} of that database"
            raise PgtendError(RestoreReason.SCHEMA_NOT_IN_BACKUP, text, object=schema, transient=False)
        if len(mine) > 1:  # a list does not quote: with a schema "a b" there, "a" cannot be told from it
            text = f"the list of the archive does not tell schema {schema} from another whose name begins like it"
            raise PgtendError(JobReason.ARCHIVE_UNREADABLE, text, object=schema, transient=False)
        found |= set(mine)
    return found


def entries(listing: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The number of each entry, its line, and what of that says what it is."""
    for line in listing.split(b"\n"):
        match = _ENTRY.match(line)
        if match is not None:
            yield match[1], line, line[match.end() :]
