"""What belongs to a database as a whole: its settings, those of roles in it, grants on it, its comment. An archive has
them in statements that name the database that was dumped; here they are sent for the one that was restored into, and
only where that has none of its own, since nothing is overwritten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgtend.backups.jobs.choosing import entries
from pgtend.backups.jobs.creating import read_front
from pgtend.backups.jobs.programs import Programs
from pgtend.backups.jobs.session import Access, Connection
from pgtend.postgres.locks import LOCK_CLASS, Lock

_NAME = rb'(?:"(?:[^"]|"")*"|[^\s;"]+)'
_ABOUT = re.compile(rb"^(DATABASE PROPERTIES - |(ACL|COMMENT|SECURITY LABEL) - DATABASE )")
# one statement: quoted text and quoted names may hold a semicolon, comments and psql's own lines are none
_STATEMENT = re.compile(
    rb"""(?:--[^\n]*\n|\\[^\n]*\n|\s)*((?:[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|[^;'"])+);""",
    re.DOTALL,
)
_ENCODING = re.compile(rb"^SET client_encoding = '([A-Za-z0-9_]+)'$")
_ACTING = re.compile(rb"^SET SESSION AUTHORIZATION " + _NAME + rb"$")
# before the name of the database, and after it; what has none of these forms is not sent
_FORMS = tuple(
    re.compile(rb"^(" + before + rb")" + _NAME + rb"(" + after + rb".*)$", re.DOTALL)
    for before, after in (
        (rb"ALTER DATABASE ", rb" SET "),
        (rb"ALTER DATABASE ", rb" CONNECTION LIMIT = "),
        (rb"ALTER ROLE " + _NAME + rb" IN DATABASE ", rb" SET "),
        (rb"(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE ", rb" (?:TO|FROM) "),
        (rb"COMMENT ON DATABASE ", rb" IS "),
        (rb"SECURITY LABEL FOR " + _NAME + rb" ON DATABASE ", rb" IS "),
    )
)
_OWN = sql.SQL("""
SELECT d.datacl IS NOT NULL OR d.datconnlimit <> -1
       OR pg_catalog.shobj_description(d.oid, 'pg_database') IS NOT NULL
       OR d.oid IN (SELECT setdatabase FROM pg_catalog.pg_db_role_setting),
       pg_catalog.pg_get_userbyid(d.datdba), r.rolsuper
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r WHERE d.datname = {} AND r.rolname = CURRENT_USER
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement, in the archive's encoding, before and after the name of the database. `grantor`, where it is not
    the owner's, as the archive quotes it."""

    before: bytes
    after: bytes
    grantor: bytes | None = None

    @property
    def shown(self) -> str:
        """For people; without the value, which may be a secret."""
        after = re.split(rb" TO [eE]?'| IS ", self.after)[0]
        return (self.before + b"..." + after).decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What a database had. `encoding` is that of the statements."""

    encoding: str
    statements: tuple[Statement, ...]


def read_whole(programs: Programs, access: Access, blocks: Iterator[bytes]) -> tuple[Whole, list[bytes]]:
    """What the archive has of it, and the blocks that were read for that, to be fed again. Raises
    PgtendError(ArchiveUnreadable)."""
    listing, read = read_front(programs, blocks, ["--create", "--list"])
    wanted = [line for _, line, what in entries(listing) if _ABOUT.match(what)]
    if not wanted:
        return Whole(encoding="UTF8", statements=()), read
    with access.file("whole", b"".join(line + b"\n" for line in wanted)) as path:
        text, _ = read_front(programs, iter(read), ["--create", f"--use-list={path}", "--file=-"])
    return parse(text), read


def parse(text: bytes) -> Whole:
    """What of a script of pg_restore is about the database."""
    encoding, grantor, found = "UTF8", None, []
    for match in _STATEMENT.finditer(text):
        statement = match[1].strip()
        if (named := _ENCODING.match(statement)) is not None:
            encoding = named[1].decode()
        elif _ACTING.match(statement):
            grantor = statement.rpartition(b"AUTHORIZATION ")[2]
        elif statement == b"RESET SESSION AUTHORIZATION":
            grantor = None
        else:
            for form in _FORMS:
                if (parts := form.match(statement)) is not None:
                    found.append(Statement(before=parts[1], after=parts[2], grantor=grantor))
                    break
    return Whole(encoding=encoding, statements=tuple(found))


def give_back(connection: Connection, *, database: str, whole: Whole) -> tuple[int, tuple[str, ...]]:
    """How many were given to the database, and which the server refused. `connection` is one of the maintenance
    database. Gives (0, ()) where the database has something of this kind already."""
    take = sql.SQL("SELECT pg_catalog.pg_advisory_xact_lock({}, {})").format(LOCK_CLASS, Lock.SHARED.value)
    given, refused = 0, []
    with connection.transaction():
        connection.execute(take)
        row = connection.execute(_OWN.format(database)).fetchone()
        if row is None or row[0]:
            return 0, ()
        _, owner, superuser = row
        if whole.encoding != "SQL_ASCII":  # which converts nothing, and has no word for a name beyond ASCII
            connection.execute(sql.SQL("SET LOCAL client_encoding = {}").format(whole.encoding))
        for statement in whole.statements:
            # a grant is its grantor's; of all else but roles the owner disposes, whose member the restoring role is
            who = sql.Identifier(owner).as_bytes(connection) if statement.grantor is None else statement.grantor
            theirs = statement.grantor is not None or not (superuser or statement.before.startswith(b"ALTER ROLE"))
            try:
                with connection.transaction():
                    if theirs:
                        connection.execute(b"SET LOCAL ROLE " + who)
                    # the archive's own words, in its encoding, as pg_restore sends them: only the name is another
                    name = sql.Identifier(database).as_bytes(connection)
                    connection.execute(statement.before + name + statement.after)
                    if theirs:
                        connection.execute("RESET ROLE")
                given += 1
            except psycopg.Error:
                if connection.closed:
                    raise
                refused.append(statement.shown)
    return given, tuple(refused)
