"""One program's output, sealed, in the bucket: the only place where a child, the pipe and an upload meet.

The upload is finished (all parts with the store) but not committed here, and not before the child has ended well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pgtend.backups.jobs.databases import Database
from pgtend.backups.jobs.programs import Child, Programs, raise_if_failed, waited_for_lock
from pgtend.backups.jobs.snapshot import Held, TablesChangedError
from pgtend.backups.jobs.yielding import Yielder
from pgtend.backups.manifest import DatabaseContents, Snapshot, StoredData, TableRows
from pgtend.core.failpoints import failpoint
from pgtend.core.redaction import Sensitive
from pgtend.objectstore.multipart import Upload, Written
from pgtend.objectstore.pipe import seal

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An upload that awaits its commit, with the number of raw bytes and the program's warnings."""

    upload: Upload
    written: Written
    raw_size: int
    warnings: list[str]


class Companion(Protocol):
    """Something that is done while a program runs."""

    def work(self) -> None: ...

    def stop(self) -> None:
        """Make `work` end soon, from another thread."""


class Background(Generic[T]):
    """A call in a thread whose result or error is fetched by `result`; waiting can be interrupted by a signal."""

    def __init__(self, call: Callable[[], T], *, name: str) -> None:
        self._call = call
        self._result: list[T] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:
            self._failure = error

    def result(self) -> T:
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._result[0]

    def wait(self, seconds: float) -> None:
        """Until it has ended, for so long at most, whatever came of it."""
        self._thread.join(seconds)


def stream(
    *,
    programs: Programs,
    name: str,
    arguments: Sequence[str],
    upload: Upload,
    recipients: Sequence[Any],
    level: int,
    secrets: Sequence[Sensitive],
    doing: str,
    beside: Companion | None = None,
    guard: Yielder | None = None,
) -> Streamed:
    """Run `name` and seal what it writes into `upload`. `beside` works at the same time and must end well too; its
    failure is raised after the program's own, which is more often the cause. `guard` may end both.

    Raises PgtendError, or TablesChangedError where the program did not get its locks; then the program is gone, the
    companion stopped and the upload aborted.
    """
    work: Background[int] | None = None
    companion: Background[None] | None = None
    watching: Background[None] | None = None
    try:
        with programs.run(name, arguments, secrets=secrets) as child:
            failpoint("backups.dump.stream_started")
            work = Background(
                lambda: seal(source=child.stdout, sink=upload, recipients=recipients, level=level), name="seal"
            )
            if beside is not None:
                companion = Background(beside.work, name="beside")
            if guard is not None:
                watching = Background(lambda: guard.watch(lambda: _end(child, upload, beside)), name="guard")
            raw_size = work.result()
            failpoint("backups.dump.stream_ended")
            if child.wait() != 0 and waited_for_lock(child.errors):
                raise TablesChangedError("somebody waits to change a table")
            warnings = raise_if_failed(child, doing=doing)
            if companion is not None:
                companion.result()
            # what is left has an end soon, and the locks are given back with it
            if guard is not None and watching is not None:
                guard.stop()
                watching.wait(10)
                if guard.verdict is not None:
                    raise guard.verdict
        written = upload.finish()
    except BaseException:
        # The child is gone, so the feeder meets the end of its input; the sealer meets the cancelled upload.
        upload.cancel()
        if beside is not None and companion is not None:
            beside.stop()
            companion.wait(30)
        if work is not None:
            work.wait(90)
        upload.abort()
        if guard is not None and guard.verdict is not None:
            raise guard.verdict from None
        raise
    finally:
        if guard is not None and watching is not None:
            guard.stop()
            watching.wait(10)
    return Streamed(upload=upload, written=written, raw_size=raw_size, warnings=warnings)


def _end(child: Child, upload: Upload, beside: Companion | None) -> None:
    child.kill()
    upload.cancel()
    if beside is not None:
        beside.stop()


def contents_of(database: Database, held: Held, rows: Mapping[int, int], *, selected: str) -> DatabaseContents:
    """What the manifest says of a database; `rows` by oid, without those that were not counted; `selected` empty where
    everything was taken."""
    return DatabaseContents(
        name=database.name,
        snapshot=Snapshot(taken_at=held.taken_at, lsn=held.lsn),
        tables=tuple(
            TableRows(schema_name=t.schema, name=t.name, rows=rows.get(t.oid)) for t in held.tables if t.has_rows
        ),
        large_objects=held.large_objects,
        selected=selected or None,
    )


def stored_data(streamed: Streamed, *, database: str | None) -> StoredData:
    """What the manifest says of an object; without a database it holds the globals."""
    written = streamed.written
    return StoredData(
        key=written.key,
        kind="Globals" if database is None else "Dump",
        database=database,
        size=written.size,
        raw_size=streamed.raw_size,
        sha256=written.sha256,
        parts=written.parts,
    )
