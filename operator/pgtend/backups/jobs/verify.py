"""`job verify`: a backup is read back whole by somebody who did not write it, with another credential and a real key.

Every object is fetched to its last byte, compared with the manifest, decrypted, decompressed and made to pass through
pg_restore; the tables and rows that come out are compared with what the snapshot had. The evidence is put beside the
manifest, naming the manifest's own checksum.
"""

from __future__ import annotations

from contextlib import suppress

from pgtend import __version__
from pgtend.backups.jobs.archive import ArchiveRows, count_toc_data
from pgtend.backups.jobs.config import DatabaseFigures, JobReason, Size, VerifyConfig
from pgtend.backups.jobs.creating import give
from pgtend.backups.jobs.destination import open_store
from pgtend.backups.jobs.opening import (
    compare_raw,
    matching_key,
    pour,
    read_identities,
    read_manifest,
)
from pgtend.backups.jobs.programs import Child, Programs
from pgtend.backups.jobs.report import Report, conclude, format_names
from pgtend.backups.jobs.stream import Background
from pgtend.backups.manifest import DatabaseContents, Evidence, StoredData
from pgtend.core.clock import Clock, SystemClock
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.objectstore.errors import AlreadyExists, StoreError, StoreReason
from pgtend.objectstore.pipe import PipeReason

LEVEL = "Read"
_BLOCK = 1 << 20


def evidence_key(manifest: str, level: str = LEVEL) -> str:
    return f"{manifest.rpartition('/')[0]}/verified-{level.lower()}.json"


def run(config: VerifyConfig, *, clock: Clock | None = None) -> int:
    """Read the backup that `config` names. Exit status 0 when it is whole, else 1; a termination message in both
    cases."""
    report = Report(kind="Verify", path=config.termination_log)
    report.values |= {"policy": config.policy, "manifest": config.manifest, "level": LEVEL}
    return conclude(report, lambda: _Verification(config, report, clock or SystemClock()).execute())


class _Verification:
    """One run."""

    def __init__(self, config: VerifyConfig, report: Report, clock: Clock) -> None:
        self._config = config
        self._report = report
        self._clock = clock

    def execute(self) -> str:
        config, report = self._config, self._report
        report.values["started_at"] = self._clock.now()
        with report.phase("connect"):
            self._identities = read_identities(config.identity_file, report)
            self._store = open_store(config.destination, report)
            self._programs = Programs(folder=config.programs_folder)
            self._programs.version("pg_restore")
            manifest, digest = read_manifest(self._store, config.manifest)
            key = matching_key(manifest, self._identities)
        rows: dict[str, int] = {}
        counted = True
        for data in manifest.objects:
            with report.phase("read"):
                if data.kind == "Dump":
                    contents = next((d for d in manifest.databases if d.name == data.database), None)
                    if contents is None:
                        raise PgtendError(JobReason.TOC_MISMATCH, f"{data.key} belongs to no database", object=data.key)
                    rows[contents.name] = self._check_dump(data, contents)
                    counted = counted and contents.rows is not None
                else:
                    self._check_globals(data)
            failpoint("backups.verify.object_read")
        absent = [d.name for d in manifest.databases if d.name not in rows]
        if absent:
            raise PgtendError(JobReason.TOC_MISMATCH, f"no object holds {format_names(absent)}", object=absent[0])
        tables = sum(len(d.tables) for d in manifest.databases)
        finished = self._clock.now()
        evidence = Evidence(
            level=LEVEL,
            verified_at=finished,
            manifest_sha256=digest,
            verifier_version=__version__,
            recipient=key,
            tables=tables,
            rows=sum(rows.values()),
            rows_compared=counted,
            size=manifest.stored_size,
        )
        with report.phase("evidence"):
            written = self._write_evidence(evidence)
        report.values |= {
            "finished_at": finished,
            "backup_name": manifest.backup_name,
            "system_identifier": manifest.system_identifier,
            "size": Size(raw=manifest.raw_size, stored=manifest.stored_size),
            "databases": tuple(
                DatabaseFigures(name=d.name, tables=len(d.tables), rows=rows[d.name]) for d in manifest.databases
            ),
            "databases_total": len(manifest.databases),
            "rows_compared": counted,
            "evidence": written,
        }
        compared = "and compared" if counted else "but not compared, since they were not counted when it was taken"
        return f"{manifest.stored_size} bytes read and decrypted with {key}, {tables} tables, rows counted {compared}"

    def _check_dump(self, data: StoredData, contents: DatabaseContents) -> int:
        """Returns the number of rows in the archive."""
        with (
            self._programs.run("pg_restore", ["--data-only", "--file=-"], stdin=True) as whole,
            self._programs.run("pg_restore", ["--list"], stdin=True) as listing,
        ):
            counter = ArchiveRows()
            counting = Background(lambda: _count(whole, counter), name="count")
            listed = Background(listing.stdout.read, name="toc")
            taking = [whole, listing]

            def feed(block: bytes) -> None:
                # --list stops reading when it has seen enough; that of the other one is judged by its exit status
                taking[:] = [child for child in taking if give(child, block)]

            raw = pour(self._store, data, self._identities, feed)
            for child in (whole, listing):
                with suppress(OSError):
                    child.stdin.close()
            status = whole.wait()
            counting.wait(60)
            if status != 0 or any("error:" in line for line in whole.errors):
                said = " | ".join(whole.errors[-3:]) or f"status {status}"
                truncated = "end of file" in said
                reason = PipeReason.TRUNCATED_ARCHIVE if truncated else JobReason.ARCHIVE_UNREADABLE
                raise PgtendError(reason, f"{data.key}: pg_restore: {said}", object=data.key, transient=False)
            counting.result()
            toc = count_toc_data(listed.result())
        compare_raw(data, raw)
        _compare(data, contents, counter, toc)
        return sum(counter.rows.values())

    def _check_globals(self, data: StoredData) -> None:
        tail = _Tail()
        pour(self._store, data, self._identities, tail.write)
        # pg_dumpall writes this as its last line, but for the psql restriction that newer versions put behind it.
        if b"PostgreSQL database cluster dump complete" not in tail.kept:
            raise PgtendError(PipeReason.TRUNCATED_ARCHIVE, f"{data.key} has no end", object=data.key, transient=False)

    def _write_evidence(self, evidence: Evidence) -> str:
        files = self._config.evidence_credentials
        store = self._store
        if files is not None:
            store = open_store(self._config.destination, self._report, credentials=files)
        key = evidence_key(self._config.manifest)
        try:
            store.put(key, evidence.to_bytes(), if_absent=True)
        except AlreadyExists:
            return "Present"
        except StoreError as error:
            if error.reason == StoreReason.BUCKET_DENIED:
                return "Denied"
            raise
        return "Written"


def _compare(data: StoredData, contents: DatabaseContents, counter: ArchiveRows, toc: int) -> None:
    wanted = {(t.schema_name, t.name): t.rows for t in contents.tables}
    absent = sorted(set(wanted) - set(counter.rows))
    extra = sorted(set(counter.rows) - set(wanted))
    if absent or extra or toc != len(wanted):
        what = f"lacks {format_names(['.'.join(t) for t in absent])}" if absent else ""
        more = f"has {format_names(['.'.join(t) for t in extra])} in addition" if extra else ""
        said = "; ".join(t for t in (what, more) if t) or f"lists {toc} tables with data, expected {len(wanted)}"
        raise PgtendError(
            JobReason.TOC_MISMATCH, f"{data.key}: the archive {said}", object=contents.name, transient=False
        )
    for table, rows in wanted.items():
        if rows is not None and counter.rows[table] != rows:
            raise PgtendError(
                JobReason.ROW_COUNT_MISMATCH,
                f"{contents.name}: {'.'.join(table)} had {rows} rows, the archive holds {counter.rows[table]}",
                object=f"{contents.name}.{'.'.join(table)}",
                transient=False,
            )


def _count(child: Child, counter: ArchiveRows) -> None:
    try:
        while block := child.stdout.read(_BLOCK):
            counter.feed(block)
        counter.finish()
    except ValueError as error:
        raise PgtendError(JobReason.ARCHIVE_UNREADABLE, f"pg_restore's output: {error}", transient=False) from error


class _Tail:
    """Keeps the last bytes of what is written to it."""

    def __init__(self) -> None:
        self.kept = b""

    def write(self, block: bytes) -> None:
        self.kept = (self.kept + block)[-4096:]
