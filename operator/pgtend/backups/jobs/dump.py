"""`job dump`: one backup of one server, or nothing.

Everything that can be known beforehand is checked before the first byte: the store takes and honors writes, the server
is the one that was meant, the program fits it, the role may read all. Then database after database is streamed; the
uploads stay open until the last has ended well, so that a failure leaves no object at all. The manifest comes last
and is written only if absent: it is the commit.
"""

from __future__ import annotations

import re
import secrets as chance
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psycopg

from pgtend import __version__
from pgtend.backups.catalog import Location, run_identifier
from pgtend.backups.jobs.checks import check_database
from pgtend.backups.jobs.config import DatabaseFigures, DumpConfig, JobReason, Size
from pgtend.backups.jobs.databases import Database, choose_databases, reads_passwords
from pgtend.backups.jobs.destination import open_store, try_out
from pgtend.backups.jobs.programs import Programs
from pgtend.backups.jobs.report import Report, conclude
from pgtend.backups.jobs.selection import Selection
from pgtend.backups.jobs.session import Access, Connection, Primary
from pgtend.backups.jobs.snapshot import Exporter, RowCounter, TablesChangedError, first_line, take_until_stable
from pgtend.backups.jobs.stream import Companion, Streamed, contents_of, stored_data, stream
from pgtend.backups.jobs.yielding import Yielder
from pgtend.backups.manifest import DatabaseContents, Manifest, PolicyRecord, RecipientRecord, StoredData
from pgtend.core.clock import Clock, SystemClock
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.objectstore.errors import StoreError
from pgtend.objectstore.multipart import Pace, Upload
from pgtend.objectstore.parts import plan_for
from pgtend.objectstore.pipe import parse_recipients

# Servers of 14 take a client of 15; a newer client would write settings that older servers reject on restore.
NEWER_CLIENT = {14: 15}
WHOLE_DUMPS = 5


def run(config: DumpConfig, *, clock: Clock | None = None) -> int:
    """Take the backup that `config` describes. Exit status 0 when it is committed, else 1; a termination message in
    both cases. Raises nothing but what kills a process."""
    report = Report(kind="Dump", path=config.termination_log)
    report.values |= {"policy": config.policy, "recipients": tuple(r.name for r in config.recipients)}

    def work() -> str:
        try:
            return _Dump(config, report, clock or SystemClock()).execute()
        except psycopg.Error as error:
            text = f"the server failed in phase {report.current}: {first_line(error)}"
            raise PgtendError(JobReason.DUMP_FAILED, text) from error

    return conclude(report, work)


def client_fits(*, client: str, server_major: int) -> bool:
    """Whether pg_dump of this version may dump a server of this major, such that it restores there."""
    found = re.match(r"[0-9]+", client)
    return found is not None and int(found[0]) in (server_major, NEWER_CLIENT.get(server_major))


class _Dump:
    """One run. Attributes are what its phases hand on."""

    def __init__(self, config: DumpConfig, report: Report, clock: Clock) -> None:
        self._config = config
        self._report = report
        self._clock = clock
        self._started: datetime = clock.now()
        self._restarts = 0
        self._warnings: list[str] = []
        self._open: list[Streamed] = []
        self._committed: list[str] = []

    def execute(self) -> str:
        config, report = self._config, self._report
        identifier = run_identifier(self._started, chance.randbits(16))
        self._backup_name = config.backup_name or f"{config.policy.name}-{identifier[:15]}"
        report.values |= {"backup_name": self._backup_name, "started_at": self._started}
        with report.phase("connect"):
            self._recipients = parse_recipients([r.public_key for r in config.recipients])
            self._store = open_store(config.destination, report, started=self._started)
            try_out(self._store)
            rate = config.destination.store.upload_rate
            self._pace = Pace(rate) if rate else None
            self._access = Access(config)
            report.secrets.extend(self._access.secrets)
            self._programs = Programs(folder=config.programs_folder)
            self._client = self._programs.version("pg_dump")
            primary = self._access.find_primary()
            report.values |= {
                "system_identifier": primary.system_identifier,
                "timeline": primary.timeline,
                "server_version": primary.version,
            }
            if not client_fits(client=self._client, server_major=primary.major):
                raise PgtendError(
                    JobReason.VERSION_MISMATCH,
                    f"{primary.host}:{primary.port} runs PostgreSQL {primary.version}, the image has pg_dump "
                    f"{self._client}: use the tools image of {primary.major}",
                    transient=False,
                )
        self._location = Location(
            prefix=config.destination.store.prefix,
            system_identifier=primary.system_identifier,
            identifier=identifier,
        )
        with report.phase("check"):
            databases, with_passwords = self._check(primary)
        failpoint("backups.dump.checked")
        with ExitStack() as stack:
            passfile = stack.enter_context(self._access.passfile())
            stack.enter_context(self._nothing_left_behind())
            contents, objects = [], []
            for database in databases:
                with report.phase("dump"):
                    content, data = self._dump_database(primary, database, passfile)
                contents.append(content)
                objects.append(data)
            if config.globals != "None":
                with report.phase("globals"):
                    objects.append(self._dump_globals(primary, passfile, with_passwords))
            with report.phase("commit"):
                manifest = self._commit(primary, contents, objects, with_passwords)
        return (
            f"{len(contents)} databases, {sum(len(c.tables) for c in contents)} tables, "
            f"{manifest.stored_size} bytes in {self._location.folder}"
        )

    def _check(self, primary: Primary) -> tuple[list[Database], bool]:
        config, access = self._config, self._access
        with access.session(primary, access.maintenance_database) as connection:
            databases = choose_databases(connection, wanted=config.databases, user=access.user)
            able = reads_passwords(connection)
        if config.globals == "WithPasswords" and not able:
            raise PgtendError(
                JobReason.GLOBALS_DENIED, f"{access.user} may not read pg_authid on {primary.host}", transient=False
            )
        for database in databases:
            with access.session(primary, database.name) as connection:
                check_database(
                    connection, database=database.name, user=access.user, selection=self._selection(database)
                )
        return databases, able and config.globals != "WithoutPasswords"

    def _selection(self, database: Database) -> Selection:
        return Selection(next((part for part in self._config.parts if part.name == database.name), None))

    def _dump_database(
        self, primary: Primary, database: Database, passfile: Path | None
    ) -> tuple[DatabaseContents, StoredData]:
        """Two changes make a dump useless that has begun, and it is done again: a sequence that is reset under it, and
        somebody who waits for one of our locks before pg_dump has its own. pg_dump would queue behind them, and they
        behind us, for ever; so it waits for a moment only, we let go, and they have their turn."""
        why = ""
        for _ in range(WHOLE_DUMPS):
            with (
                self._access.session(primary, database.name) as connection,
                self._guard(primary, database, connection) as guard,
            ):
                exporter = Exporter(connection, self._selection(database))
                held, again = take_until_stable(exporter, lock_timeout=self._config.lock_timeout.seconds)
                self._restarts += again
                counter = RowCounter(exporter, held)
                try:
                    streamed = self._stream_database(primary, database, passfile, counter, guard)
                    self._open.append(streamed)
                    exporter.confirm()
                except TablesChangedError as changed:
                    self._restarts += 1
                    why = str(changed)
                    if self._open and self._open[-1].upload.key == self._location.dump(database.name):
                        self._open.pop().upload.abort()
                    continue
            contents = contents_of(database, held, counter.rows, selected=self._selection(database).told())
            return contents, stored_data(streamed, database=database.name)
        raise PgtendError(JobReason.TABLES_CHANGING, f"{database.name}: {why}, in each of {WHOLE_DUMPS} dumps")

    @contextmanager
    def _guard(self, primary: Primary, database: Database, holder: Connection) -> Iterator[Yielder | None]:
        after = self._config.yield_after
        if after is None:
            yield None
            return
        with self._access.session(primary, database.name) as connection:
            yield Yielder(connection, holder=holder.info.backend_pid, after=after.seconds)

    def _stream_database(
        self,
        primary: Primary,
        database: Database,
        passfile: Path | None,
        counter: RowCounter,
        guard: Yielder | None,
    ) -> Streamed:
        config = self._config
        return self._stream(
            name="pg_dump",
            arguments=[
                "--format=custom",
                "--compress=0",
                "--no-password",
                f"--snapshot={counter.held.snapshot_id}",
                *self._selection(database).arguments(),
                # All tables are locked by us: these are granted at once unless somebody queues in between.
                f"--lock-wait-timeout={2000 + len(counter.held.tables)}",
                "--dbname=" + self._access.program_conninfo(primary, database=database.name, passfile=passfile),
            ],
            key=self._location.dump(database.name),
            expected=database.size,
            doing=f"dump of {database.name}",
            beside=counter if config.row_counts == "Exact" else None,
            guard=guard,
        )

    def _dump_globals(self, primary: Primary, passfile: Path | None, with_passwords: bool) -> StoredData:
        maintenance = self._access.maintenance_database
        streamed = self._stream(
            name="pg_dumpall",
            arguments=[
                "--globals-only",
                "--no-password",
                f"--database={maintenance}",
                *([] if with_passwords else ["--no-role-passwords"]),
                "--dbname=" + self._access.program_conninfo(primary, database=maintenance, passfile=passfile),
            ],
            key=self._location.globals,
            expected=1 << 20,
            doing="dump of roles and tablespaces",
            beside=None,
        )
        self._open.append(streamed)
        return stored_data(streamed, database=None)

    def _stream(
        self,
        *,
        name: str,
        arguments: list[str],
        key: str,
        expected: int,
        doing: str,
        beside: Companion | None,
        guard: Yielder | None = None,
    ) -> Streamed:
        config, store = self._config, self._store
        limits = config.destination.store.limits
        upload = Upload(
            store=store,
            key=key,
            plan=plan_for(parts=limits.parts, object_size=limits.object_size, expected=expected),
            metadata={
                "pgtend-installation": config.installation_id,
                "pgtend-policy": f"{config.policy.namespace}/{config.policy.name}",
            },
            pace=self._pace,
        )
        streamed = stream(
            programs=self._programs,
            name=name,
            arguments=arguments,
            upload=upload,
            recipients=self._recipients,
            level=config.compression_level,
            secrets=self._access.secrets,
            doing=doing,
            beside=beside,
            guard=guard,
        )
        self._warnings += streamed.warnings
        return streamed

    def _commit(
        self,
        primary: Primary,
        contents: list[DatabaseContents],
        objects: list[StoredData],
        with_passwords: bool,
    ) -> Manifest:
        config = self._config
        failpoint("backups.dump.before_objects")
        while self._open:
            self._open[0].upload.commit()
            self._committed.append(self._open.pop(0).upload.key)
        failpoint("backups.dump.after_objects")
        manifest = Manifest(
            installation_id=config.installation_id,
            policy=PolicyRecord(namespace=config.policy.namespace, name=config.policy.name),
            backup_name=self._backup_name,
            reason=config.reason,
            retain_until=config.retain_until,
            system_identifier=primary.system_identifier,
            timeline=primary.timeline,
            server_version=primary.version,
            client_version=self._client,
            writer_version=__version__,
            started_at=self._started,
            finished_at=self._clock.now(),
            locked_until=self._store.locked_until,
            snapshot=min((c.snapshot for c in contents), key=lambda s: s.taken_at),
            databases=tuple(contents),
            globals="None" if config.globals == "None" else "WithPasswords" if with_passwords else "WithoutPasswords",
            objects=tuple(objects),
            warnings=tuple(self._warnings[:50]),
            recipients=tuple(RecipientRecord(name=r.name, public_key=r.public_key) for r in config.recipients),
        )
        self._store.put(self._location.manifest, manifest.to_bytes(), if_absent=True)
        self._committed.clear()
        failpoint("backups.dump.after_manifest")
        self._report.values |= {
            "manifest": self._location.manifest,
            "finished_at": manifest.finished_at,
            "snapshot": manifest.snapshot,
            "size": Size(raw=manifest.raw_size, stored=manifest.stored_size),
            "databases": tuple(
                DatabaseFigures(name=c.name, tables=len(c.tables), rows=c.rows) for c in manifest.databases
            ),
            "databases_total": len(contents),
            "globals": manifest.globals,
            "restarts": self._restarts,
            "warnings": tuple(self._warnings[:5]),
        }
        return manifest

    @contextmanager
    def _nothing_left_behind(self) -> Iterator[None]:
        """Without a manifest nothing of this run stays: open uploads are aborted, and objects that were committed in
        the moment before are deleted where the credential may (else the operator's sweep finds them)."""
        try:
            yield
        except BaseException:
            self._forget()
            for key in self._committed:
                with suppress(StoreError):
                    self._store.delete(key)
            raise

    def _forget(self) -> None:
        while self._open:
            with suppress(StoreError):
                self._open.pop().upload.abort()
