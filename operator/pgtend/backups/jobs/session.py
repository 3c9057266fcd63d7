"""Sessions of a job that dumps or restores: on the primary, with the password kept out of sight, and only on the server
that was meant.

Synchronous psycopg: a job does one thing after another. The programs get the same connection string, and the
password by a file in memory. `require_auth` stands in the string: a libpq before 16, which could be made to send the
password in clear text, does not know it and refuses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from pgtend.api.reasons import TargetReason
from pgtend.backups.jobs.config import DumpConfig, JobReason, RestoreConfig, ServerAccess
from pgtend.core.errors import PgtendError
from pgtend.core.names import application_name
from pgtend.core.redaction import Sensitive
from pgtend.postgres.errors import connect_error

MINIMUM_LIBPQ = 160000
Connection = psycopg.Connection[TupleRow]

# Works on 14 to 18. The timeline comes from the WAL position: the control file stays behind after a promotion.
_IDENTITY = sql.SQL("""
SELECT s.system_identifier::text,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
       current_setting('server_version'), current_setting('server_version_num')::int
FROM pg_control_system() AS s
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """The server that was reached: where it is, so that every further session goes to the very same, and what it is."""

    host: str
    address: str
    port: int
    system_identifier: str
    timeline: int
    version: str
    major: int


class Access:
    """Opens sessions with one credential. Holds the password; nothing prints it."""

    def __init__(self, config: DumpConfig | RestoreConfig) -> None:
        self._server: ServerAccess = config.server
        self._application = application_name(
            installation=config.installation_id,
            purpose=config.kind.lower(),
            namespace=config.holder.namespace,
            name=config.holder.name,
        )
        self._undone = "nothing was dumped" if config.kind == "Dump" else "nothing was restored"
        self._scratch = config.scratch_folder
        self.password: Sensitive | None = None
        if self._server.password_file is not None:
            try:
                text = self._server.password_file.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise PgtendError(JobReason.SECRET_MISSING, f"password file: {error}", transient=False) from None
            self.password = Sensitive(text)

    @property
    def secrets(self) -> tuple[Sensitive, ...]:
        return () if self.password is None else (self.password,)

    @property
    def user(self) -> str:
        return self._server.user

    @property
    def maintenance_database(self) -> str:
        return self._server.maintenance_database

    def find_primary(self) -> Primary:
        """Connect to the member that is the primary and compare it with what was expected. Raises PgtendError."""
        if pq.version() < MINIMUM_LIBPQ:
            raise PgtendError(JobReason.CLIENT_TOO_OLD, f"libpq is {pq.version()}", transient=False)
        hosts = ",".join(h.host for h in self._server.hosts)
        ports = ",".join(str(h.port) for h in self._server.hosts)
        where = ", ".join(f"{h.host}:{h.port}" for h in self._server.hosts)
        try:
            with self._open(host=hosts, port=ports, database=self._server.maintenance_database) as connection:
                row = connection.execute(_IDENTITY).fetchone()
                info = connection.info
                assert row is not None  # noqa: S101 - the query always gives one row
                identifier, timeline, version, number = row
                found = Primary(
                    host=info.host,
                    address=info.hostaddr,
                    port=info.port,
                    system_identifier=identifier,
                    timeline=timeline,
                    version=version.split(" ")[0],
                    major=number // 10000,
                )
        except psycopg.Error as error:
            if "read-only" in str(error) or "in hot standby mode" in str(error) or "server is not" in str(error):
                raise PgtendError(TargetReason.NO_PRIMARY, f"none of {where} is a primary") from None
            raise connect_error(error, where=where, secrets=self.secrets) from None
        self._compare(found)
        return found

    def _compare(self, found: Primary) -> None:
        if found.system_identifier != self._server.system_identifier:
            raise PgtendError(
                TargetReason.IDENTITY_CHANGED,
                f"{found.host}:{found.port} is server {found.system_identifier}, expected "
                f"{self._server.system_identifier}: {self._undone}",
                transient=False,
            )
        if found.timeline < self._server.minimum_timeline:
            raise PgtendError(
                TargetReason.STALE_MEMBER,
                f"{found.host}:{found.port} is on timeline {found.timeline}, {self._server.minimum_timeline} was seen "
                f"before: a former primary, {self._undone}",
                transient=False,
            )

    @contextmanager
    def session(self, primary: Primary, database: str, *, writes: bool = False) -> Iterator[Connection]:
        """A session on that very server, for the length of a `with`. Raises PgtendError where it does not connect."""
        try:
            connection = self._open(
                host=primary.host, hostaddr=primary.address, port=str(primary.port), database=database, writes=writes
            )
        except psycopg.Error as error:
            raise connect_error(
                error, where=f"{primary.host}:{primary.port}/{database}", secrets=self.secrets
            ) from None
        with connection:
            yield connection

    def program_conninfo(self, primary: Primary, *, database: str, passfile: Path | None, options: str = "") -> str:
        """The connection string for a program. Holds no secret: it is seen in the process list. `options` are the
        session's; the server was seen to be no pooler."""
        keywords = self._keywords() | {
            "options": options,
            "host": primary.host,
            "hostaddr": primary.address,
            "port": str(primary.port),
            "dbname": database,
        }
        if passfile is not None:
            keywords["passfile"] = str(passfile)
        return make_conninfo("", **keywords)

    @contextmanager
    def passfile(self) -> Iterator[Path | None]:
        """The password as libpq reads it from a file, mode 0600, gone afterwards."""
        if self.password is None:
            yield None
            return
        escaped = self.password.reveal().replace("\\", "\\\\").replace(":", "\\:")
        with self.file("pgpass", f"*:*:*:*:{escaped}\n".encode()) as path:
            yield path

    @contextmanager
    def file(self, name: str, content: bytes) -> Iterator[Path]:
        """A file for a program, mode 0600, gone afterwards."""
        path = self._scratch / f"{name}-{os.getpid()}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _keywords(self) -> dict[str, str]:
        server = self._server
        keywords = {
            "user": server.user,
            "sslmode": server.sslmode,
            "sslrootcert": str(server.ca_file) if server.ca_file is not None else "",
            "application_name": self._application,
            "connect_timeout": "10",
            "keepalives_idle": "30",
            "keepalives_interval": "10",
            "keepalives_count": "6",
            "gssencmode": "disable",
            "target_session_attrs": "primary",
            # Nothing that lies about in the image: no options, no service files, no other password file.
            "options": "",
            "passfile": os.devnull,
        }
        if server.password_file is not None:
            methods = "scram-sha-256,md5" if server.allow_md5 else "scram-sha-256"
            keywords |= {"require_auth": methods, "sslcertmode": "disable"}
            if not server.allow_md5:
                # the proof is good on this very connection, whoever hands it on to the real server
                keywords["channel_binding"] = "require"
        else:
            keywords |= {
                "sslcert": str(server.certificate_file),
                "sslkey": str(server.key_file),
                "sslcertmode": "require",
                "require_auth": "none",
            }
        return keywords

    def _open(self, *, database: str, writes: bool = False, **where: str) -> Connection:
        password = {} if self.password is None else {"password": self.password.reveal()}
        keywords: dict[str, Any] = self._keywords() | where | {"dbname": database} | password
        connection = psycopg.connect(**keywords, autocommit=True, prepare_threshold=None)
        try:
            # Before anything is set: a pooler would hand these settings on to others.
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            if row is None or row[0] != connection.info.backend_pid:
                raise PgtendError(
                    TargetReason.POOLER_NOT_ALLOWED,
                    f"{where['host']}:{where['port']} is a connection pooler: name the server itself in spec.members",
                    transient=False,
                )
            settle(connection, writes=writes)
        except BaseException:
            connection.close()
            raise
        return connection


def settle(connection: Connection, *, writes: bool = False) -> None:
    """Timeouts of safety.md for an exporter: none, since an idle timeout would kill it; set, and read back. Without
    `writes` the session can only read.

    `row_security` is off, so that a query that it would filter fails instead of giving fewer rows.
    """
    wanted = {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "client_connection_check_interval": "10000",
        "search_path": "pg_catalog",
        "row_security": "off",
        "default_transaction_read_only": "off" if writes else "on",
    }
    if connection.info.server_version >= 170000:
        wanted["transaction_timeout"] = "0"
    connection.execute(
        sql.SQL("SELECT {}").format(
            sql.SQL(", ").join(
                sql.SQL("set_config({}, {}, false)").format(sql.Literal(k), sql.Literal(v)) for k, v in wanted.items()
            )
        )
    )
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
    stands: dict[str, str] = dict(connection.execute(query, (list(wanted),)).fetchall())
    differing = sorted(k for k, v in wanted.items() if stands.get(k) != v)
    if differing:
        raise PgtendError(
            TargetReason.CONNECTION_FAILED, f"the server does not take the settings {', '.join(differing)}"
        )
