"""`job restore`: one database of a backup, or schemas of it, into one database of a server, whole or not at all.

Download, decryption, decompression and pg_restore run as one stream; nothing lies on a disk. pg_restore works in a
single transaction and is not given the last bytes of the archive before everything was read, decrypted, and found to be
what was written: what is damaged, cut, or interrupted leaves the database as it was. Nothing is ever dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain
from pathlib import Path

import psycopg
from psycopg import sql

from pgtend.backups.jobs.choosing import choose
from pgtend.backups.jobs.config import DatabaseFigures, JobReason, RestoreConfig, RestoreReason, Size
from pgtend.backups.jobs.creating import create, give, read_source
from pgtend.backups.jobs.destination import open_store
from pgtend.backups.jobs.opening import compare_raw, compare_stored, matching_key, read_identities, read_manifest
from pgtend.backups.jobs.programs import Child, Programs
from pgtend.backups.jobs.report import Report, conclude, format_names
from pgtend.backups.jobs.session import Access, Primary
from pgtend.backups.jobs.snapshot import first_line
from pgtend.backups.jobs.whole import Whole, give_back, read_whole
from pgtend.backups.manifest import DatabaseContents, Manifest, StoredData, TableRows
from pgtend.backups.plan import major_of
from pgtend.core.clock import Clock, SystemClock
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.objectstore.errors import NotFound, StoreError
from pgtend.objectstore.pipe import unseal
from pgtend.objectstore.reading import ObjectReader
from pgtend.postgres import contents as held

# a statement dies with its client, where it would else go on: building an index takes hours
SESSION = "-c client_connection_check_interval=10000 -c idle_session_timeout=0"
_THERE = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = ANY(%(schemas)s)"
_REASONS: tuple[tuple[str, JobReason | RestoreReason], ...] = (
    (r"extension .* is not available|extension control file|permission denied to create extension",
     RestoreReason.EXTENSION_UNAVAILABLE),
    (r"role .* does not exist", RestoreReason.ROLE_MISSING),
    (r"permission denied|must be (?:owner|superuser|able to)|only superuser|Must be superuser",
     JobReason.PERMISSION_DENIED),
    (r"max_locks_per_transaction|out of shared memory", RestoreReason.LOCKS_EXHAUSTED),
    (r"already exists", RestoreReason.OBJECT_CLASH),
    (r"No space left on device", RestoreReason.DISK_FULL),
)  # fmt: skip


def run(config: RestoreConfig, *, clock: Clock | None = None) -> int:
    """Restore as `config` says. Exit status 0 when all of it is in the database, else 1 and nothing of it is, unless
    the reason is NotCompared or RowCountMismatch; a termination message in both cases."""
    report = Report(kind="Restore", path=config.termination_log)
    report.values |= {"manifest": config.manifest}

    def work() -> str:
        try:
            return _Restore(config, report, clock or SystemClock()).execute()
        except psycopg.Error as error:
            text = f"the server failed in phase {report.current}: {first_line(error)}"
            raise PgtendError(RestoreReason.RESTORE_FAILED, text, object=config.database) from error

    return conclude(report, work)


def chosen(manifest: Manifest, name: str) -> tuple[DatabaseContents, StoredData]:
    """A database of the backup, with the object that holds it. Raises PgtendError(DatabaseNotInBackup)."""
    for contents in manifest.databases:
        for data in manifest.objects:
            if contents.name == name == data.database and data.kind == "Dump":
                return contents, data
    names = format_names([contents.name for contents in manifest.databases])
    raise PgtendError(
        RestoreReason.DATABASE_NOT_IN_BACKUP,
        f"{manifest.backup_name} holds {names}, not {name}",
        object=name,
        transient=False,
    )


class _Restore:
    """One run. Attributes are what its phases hand on."""

    def __init__(self, config: RestoreConfig, report: Report, clock: Clock) -> None:
        self._config, self._report, self._clock = config, report, clock

    def execute(self) -> str:
        config, report = self._config, self._report
        report.values["started_at"] = self._clock.now()
        with report.phase("connect"):
            self._identities = read_identities(config.identity_file, report)
            self._store = open_store(config.destination, report)
            self._access = Access(config)
            report.secrets.extend(self._access.secrets)
            self._programs = Programs(folder=config.programs_folder)
            program = self._programs.version("pg_restore")
            manifest, _ = read_manifest(self._store, config.manifest)
            matching_key(manifest, self._identities)
            contents, data = chosen(manifest, config.source)
            primary = self._access.find_primary()
            _compare_versions(manifest, primary, program)
            there, beside = self._look(primary)
        report.values |= {
            "backup_name": manifest.backup_name,
            "system_identifier": primary.system_identifier,
            "timeline": primary.timeline,
            "server_version": primary.version,
        }
        reader = ObjectReader(store=self._store, key=data.key)
        try:
            with closing(iter(unseal(source=reader, identities=self._identities))) as unsealed:
                blocks: Iterator[bytes] = unsealed
                chosen_list = None
                if config.schemas:
                    with report.phase("choose"):
                        chosen_list, read = choose(self._programs, blocks, schemas=config.schemas)
                        blocks = chain(read, blocks)
                whole = None
                if not config.schemas and not beside:
                    with report.phase("choose"):
                        whole, read = read_whole(self._programs, self._access, blocks)
                        blocks = chain(read, blocks)
                if not there:
                    with report.phase("create"):
                        blocks = self._create(primary, blocks)
                with report.phase("restore"):
                    self._stream(primary, data, reader, blocks, chosen_list)
        except NotFound as error:
            raise PgtendError(error.reason, error.message, object=data.key, transient=False) from error
        finally:
            reader.close()
        failpoint("backups.restore.restored")
        wanted = [table for table in contents.tables if table.schema_name in (config.schemas or {table.schema_name})]
        with self._committed():
            # counted first: a connection limit or a grant that is given back may keep us out
            with report.phase("check"):
                known = (False, "it was not empty before") if beside else self._compare(primary, contents, wanted)
            with report.phase("database"):
                lacks = self._give_back(primary, whole)
        compared, why = known
        rows = sum(table.rows or 0 for table in wanted) if compared else None
        report.values |= {
            "finished_at": self._clock.now(),
            "size": Size(raw=data.raw_size, stored=data.size),
            "databases": (DatabaseFigures(name=config.database, tables=len(wanted), rows=rows),),
            "databases_total": 1,
            "rows_compared": compared,
        }
        counted = f"{rows} rows counted and compared" if compared else f"rows not compared: {why}"
        part = f"{format_names(config.schemas)} in {config.source}" if config.schemas else config.source
        return f"{part} of {manifest.backup_name} is in {config.database}{lacks}: {len(wanted)} tables, {counted}"

    @contextmanager
    def _committed(self) -> Iterator[None]:
        """What fails from here on fails with everything in the database, which must not be told as if nothing were."""
        try:
            yield
        except (psycopg.Error, PgtendError) as error:
            if isinstance(error, PgtendError) and error.reason is JobReason.ROW_COUNT_MISMATCH:
                raise
            why = error.message if isinstance(error, PgtendError) else first_line(error)
            text = f"everything is in {self._config.database}, but phase {self._report.current} failed: {why}"
            raise PgtendError(
                RestoreReason.NOT_COMPARED, text, object=self._config.database, transient=False
            ) from error

    def _look(self, primary: Primary) -> tuple[bool, bool]:
        """Whether the database exists, and whether it holds something. Raises PgtendError(DatabaseNotEmpty)."""
        config, access = self._config, self._access
        with access.session(primary, access.maintenance_database) as connection:
            found = connection.execute(held.EXISTS, {"name": config.database}).fetchone()
        if found is None:
            return False, False
        with access.session(primary, config.database) as connection:
            rows = connection.execute(held.HELD).fetchall()
            if rows and config.if_not_empty == "Refuse":
                text = (
                    f"{config.database} holds {held.told([row[0] for row in rows], rows[0][1])}: nothing was restored"
                )
                raise PgtendError(RestoreReason.DATABASE_NOT_EMPTY, text, object=config.database, transient=False)
            # where none of the schemas is there yet, what is restored can be told from what was there
            mixed = not config.schemas or connection.execute(_THERE, {"schemas": list(config.schemas)}).fetchone()
        return True, bool(rows) and bool(mixed)

    def _create(self, primary: Primary, blocks: Iterator[bytes]) -> Iterator[bytes]:
        config, access = self._config, self._access
        source, read = read_source(self._programs, blocks)
        with access.session(primary, access.maintenance_database, writes=True) as connection:
            create(connection, name=config.database, owner=config.owner, source=source)
        failpoint("backups.restore.created")
        return chain(read, blocks)

    def _give_back(self, primary: Primary, whole: Whole | None) -> str:
        """Settings, grants and comment of the database, after its rows: a setting may forbid to write. Gives what is to
        be told of those that the server refused."""
        if whole is None or not whole.statements:
            return ""
        with self._access.session(primary, self._access.maintenance_database, writes=True) as connection:
            _, refused = give_back(connection, database=self._config.database, whole=whole)
        return f" without {format_names(refused, most=3)}, which the server refused" if refused else ""

    def _stream(
        self, primary: Primary, data: StoredData, reader: ObjectReader, blocks: Iterator[bytes], part: bytes | None
    ) -> None:
        """`part` is the list of what is wanted of it, None for everything."""
        with self._access.passfile() as passfile, ExitStack() as files:
            chosen_list = files.enter_context(self._access.file("toc", part)) if part is not None else None
            self._pipe(primary, data, reader, blocks, passfile, chosen_list)

    def _pipe(
        self,
        primary: Primary,
        data: StoredData,
        reader: ObjectReader,
        blocks: Iterator[bytes],
        passfile: Path | None,
        chosen_list: Path | None,
    ) -> None:
        config, access = self._config, self._access
        where = access.program_conninfo(primary, database=config.database, passfile=passfile, options=SESSION)
        arguments = ["--format=custom", "--exit-on-error", "--single-transaction", "--no-password", f"--dbname={where}"]
        if config.owner is not None:
            arguments += ["--no-owner", f"--role={config.owner}"]
        if chosen_list is not None:
            arguments.append(f"--use-list={chosen_list}")
        with self._programs.run("pg_restore", arguments, secrets=access.secrets, stdin=True, stdout=False) as child:
            raw, last, taken = 0, b"", True
            failure: PgtendError | None = None
            try:
                for block in blocks:
                    raw += len(block)
                    taken = give(child, last)
                    if not taken:
                        break
                    last = block
                    failpoint("backups.restore.streaming")
            except StoreError:
                raise
            except PgtendError as error:
                failure = error
            if failure is not None:
                child.kill()
            if taken:
                reader.drain()
                compare_stored(data, reader)  # damage in the store is named as such, whatever it led to
                if failure is not None:
                    raise PgtendError(
                        failure.reason, f"{data.key}: {failure.message}", object=data.key, transient=False
                    )
                compare_raw(data, raw)
                failpoint("backups.restore.before_end")
                give(child, last)
            with suppress(OSError):
                child.stdin.close()
            _raise_if_failed(child, config)

    def _compare(self, primary: Primary, contents: DatabaseContents, wanted: Sequence[TableRows]) -> tuple[bool, str]:
        """Whether every table of these has as many rows as the snapshot had, counted where they are now; else why that
        is not known. Raises PgtendError(RowCountMismatch)."""
        if contents.rows is None:
            return False, "they were not counted when the backup was taken"
        with self._access.session(primary, self._config.database) as connection:
            for table in wanted:
                query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(table.schema_name, table.name))
                name = f"{self._config.database}.{table.schema_name}.{table.name}"
                try:
                    row = connection.execute(query).fetchone()
                except psycopg.errors.InsufficientPrivilege as error:
                    return False, first_line(error)
                except psycopg.errors.UndefinedTable:
                    row = (0,)
                if row is None or row[0] != table.rows:
                    raise PgtendError(
                        JobReason.ROW_COUNT_MISMATCH,
                        f"{name} has {row[0] if row else 0} rows, the backup was taken of {table.rows}",
                        object=name,
                        transient=False,
                    )
        return True, ""


def _compare_versions(manifest: Manifest, primary: Primary, program: str) -> None:
    """An archive restores into the major that it was taken of, or a later one, by a program that knows its format."""
    source, client, own = (major_of(text) for text in (manifest.server_version, manifest.client_version, program))
    if source is None or client is None or own is None:
        raise PgtendError(
            JobReason.MANIFEST_UNREADABLE,
            f"{manifest.backup_name} names versions that are none: {manifest.server_version!r} of the server,"
            f" {manifest.client_version!r} of pg_dump",
            object=manifest.backup_name,
            transient=False,
        )
    if source <= primary.major and client <= own:
        return
    raise PgtendError(
        JobReason.VERSION_MISMATCH,
        f"{manifest.backup_name} was taken of PostgreSQL {manifest.server_version} by pg_dump"
        f" {manifest.client_version}, {primary.host}:{primary.port} runs {primary.version}, the image has"
        f" pg_restore {program}: restore into the same major or a later one",
        transient=False,
    )


def reason_of(lines: Sequence[str]) -> JobReason | RestoreReason:
    """What pg_restore failed for, by what it said."""
    said = "\n".join(lines)
    return next((reason for text, reason in _REASONS if re.search(text, said)), RestoreReason.RESTORE_FAILED)


def _raise_if_failed(child: Child, config: RestoreConfig) -> None:
    """Status 0 is not enough: an error on standard error is a failure too."""
    status, lines = child.wait(), child.errors
    failed = [line for line in lines if re.match(r"pg_restore: (error|fatal)", line)]
    if status == 0 and not failed:
        return
    if any('invalid connection option "require_auth"' in line for line in lines):
        raise PgtendError(
            JobReason.CLIENT_TOO_OLD, "the libpq of pg_restore does not know require_auth", transient=False
        )
    how = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
    said = " | ".join(lines[-4:]) or "said nothing"
    raise PgtendError(
        reason_of(lines), f"pg_restore into {config.database} {how}: {said}", object=config.database, transient=False
    )
