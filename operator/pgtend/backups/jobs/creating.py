"""A database that is made to take a restore, as the one that was dumped: encoding, locale, owner. The archive knows
them, in the statements that `pg_restore --create` would send, and it has them at its front."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgtend.backups.jobs.config import JobReason, RestoreReason
from pgtend.backups.jobs.programs import Child, Programs
from pgtend.backups.jobs.session import Connection
from pgtend.backups.jobs.stream import Background
from pgtend.core.errors import PgtendError

_NAME = rb'("(?:[^"]|"")*"|[^\s;"]+)'
_CREATE = re.compile(rb"^CREATE DATABASE " + _NAME + rb" WITH (.*);$", re.MULTILINE)
_OWNER = re.compile(rb"^ALTER DATABASE " + _NAME + rb" OWNER TO " + _NAME + rb";$", re.MULTILINE)
# what makes text compare and sort; a tablespace is the other server's business
_OPTION = re.compile(
    rb"\b(ENCODING|LOCALE_PROVIDER|LOCALE|LC_COLLATE|LC_CTYPE|ICU_LOCALE|ICU_RULES|BUILTIN_LOCALE)"
    rb" = ('(?:[^']|'')*'|[a-z]+)"
)
_SINCE_14 = frozenset({"ENCODING", "LOCALE", "LC_COLLATE", "LC_CTYPE"})
_MOST = 256 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How the database was made that was dumped. `options` are words and values of CREATE DATABASE."""

    owner: str | None
    options: tuple[tuple[str, str], ...]


def read_source(programs: Programs, blocks: Iterator[bytes]) -> tuple[Source, list[bytes]]:
    """Read as much of an archive as its table of contents takes; gives what was read, to be fed again."""
    statements, read = read_front(programs, blocks, ["--create", "--section=pre-data", "--file=-"], keep=_BLOCK)
    return _parse(statements), read


def read_front(
    programs: Programs, blocks: Iterator[bytes], arguments: Sequence[str], *, keep: int = _MOST
) -> tuple[bytes, list[bytes]]:
    """What pg_restore says of an archive by its table of contents, the first `keep` bytes of that, and the blocks that
    it took. Raises PgtendError(ArchiveUnreadable)."""
    read: list[bytes] = []
    with programs.run("pg_restore", arguments, stdin=True) as child:
        said = Background(lambda: _read(child, keep), name="contents")
        for block in blocks:
            read.append(block)
            if sum(map(len, read)) > _MOST:
                text = f"the table of contents takes more than {_MOST} bytes"
                raise PgtendError(JobReason.ARCHIVE_UNREADABLE, text, transient=False)
            if not give(child, block):
                break
        with suppress(OSError):
            child.stdin.close()
        status = child.wait()
        statements = said.result()
        if status != 0:
            why = " | ".join(child.errors[-3:]) or f"status {status}"
            raise PgtendError(JobReason.ARCHIVE_UNREADABLE, f"pg_restore: {why}", transient=False)
    return statements, read


def create(connection: Connection, *, name: str, owner: str | None, source: Source) -> None:
    """Raises PgtendError."""
    words = [sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))]
    if (who := owner or source.owner) is not None:
        words.append(sql.SQL("OWNER {}").format(sql.Identifier(who)))
    # an archive of 14 that a client of 15 wrote names the provider, which 14 has no word for: there is one only
    every = connection.info.server_version >= 150000
    options = [(word, value) for word, value in source.options if every or word in _SINCE_14]
    words += [sql.SQL(f"{word} {{}}").format(sql.Literal(value)) for word, value in options]
    try:
        connection.execute(sql.SQL(" ").join(words))
    except psycopg.errors.InsufficientPrivilege as error:
        text = f"database {name} could not be created: {_first(error)}. Run ALTER ROLE {connection.info.user} CREATEDB"
        if who is not None:
            text += f"; GRANT {sql.Identifier(who).as_string(None)} TO {connection.info.user}"
        raise PgtendError(JobReason.PERMISSION_DENIED, text, object=name, transient=False) from None
    except psycopg.errors.UndefinedObject as error:
        text = f"database {name} could not be created: {_first(error)}"
        raise PgtendError(RestoreReason.ROLE_MISSING, text, object=who, transient=False) from None
    except psycopg.Error as error:
        text = f"database {name} could not be created: {_first(error)}"
        raise PgtendError(RestoreReason.RESTORE_FAILED, text, object=name, transient=False) from None


def give(child: Child, block: bytes) -> bool:
    """Whether the program took all of the block; one that has ended takes nothing."""
    try:
        view = memoryview(block)
        while view:
            view = view[child.stdin.write(view) :]
    except OSError:
        return False
    return True


def _read(child: Child, keep: int) -> bytes:
    """Its output to the end; of a long one what follows the first part is not kept."""
    kept = bytearray()
    while block := child.stdout.read(_BLOCK):
        if len(kept) < keep:
            kept += block
    return bytes(kept)


def _parse(text: bytes) -> Source:
    made, owned = _CREATE.search(text), _OWNER.search(text)
    options = _OPTION.findall(made[2]) if made is not None else []
    return Source(
        owner=_unquoted(owned[2], b'"') if owned is not None else None,
        options=tuple((word.decode(), _unquoted(value, b"'")) for word, value in options),
    )


def _unquoted(text: bytes, quote: bytes) -> str:
    if text.startswith(quote):
        text = text[1:-1].replace(quote * 2, quote)
    return text.decode(errors="surrogateescape")


def _first(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip()
